//! Parts into the files that are kept, without holding more than a part.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use softclip_tensor::file::replace;
use softclip_tensor::npy;
use tch::Kind;

use super::meta::Plan;
use super::parts::Parts;
use crate::error::{Error, Result};

/// What embeddings are kept as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// NumPy's `embeddings.npy`.
    Npy,
    /// `embeddings.safetensors` with one tensor, `embeddings`.
    Safetensors,
}

/// The file with the rows' names, beside either.
pub(crate) const KEYS: &str = "keys.jsonl";
pub(super) const SKIPPED: &str = "skipped.txt";

impl Format {
    /// The file's name.
    pub fn file(self) -> &'static str {
        match self {
            Self::Npy => "embeddings.npy",
            Self::Safetensors => "embeddings.safetensors",
        }
    }

    fn header(self, kind: Kind, rows: usize, dim: usize) -> Vec<u8> {
        match self {
            Self::Npy => npy::header(kind, &[rows, dim]),
            Self::Safetensors => {
                let dtype = if kind == Kind::Half { "F16" } else { "F32" };
                let bytes = rows * dim * kind.elt_size_in_bytes();
                let text = format!(r#"{{"embeddings":{{"dtype":"{dtype}","shape":[{rows},{dim}],"data_offsets":[0,{bytes}]}}}}"#);
                let padded = format!("{text:width$}", width = text.len().next_multiple_of(8));
                [&(padded.len() as u64).to_le_bytes()[..], padded.as_bytes()].concat()
            }
        }
    }
}

/// The three files, in one pass over the parts. `skipped` comes before what the parts left out.
pub(super) fn join(folder: &Path, parts: &Parts, plan: &Plan, format: Format, skipped: &[u8]) -> Result<()> {
    let (rows, keys, left_out) = (folder.join(format.file()), folder.join(KEYS), folder.join(SKIPPED));
    let header = format.header(plan.dtype.kind(), parts.rows(), plan.dim);
    // Each is renamed when all that lies inside of its braces is done.
    let mut failed = None;
    let done = replace(&rows, |rows| {
        replace(&keys, |keys| {
            replace(&left_out, |left_out| {
                copy(parts, [rows, keys, left_out], &header, skipped).map_err(|e| {
                    let told = softclip_tensor::Error::Format { path: rows.to_owned(), why: e.to_string() };
                    failed = Some(e);
                    told
                })
            })
        })
    });
    match failed {
        Some(e) => Err(e),
        None => Ok(done?),
    }
}

fn copy(parts: &Parts, places: [&Path; 3], header: &[u8], skipped: &[u8]) -> Result<()> {
    let [mut rows, mut keys, mut left_out] = [Out::new(places[0])?, Out::new(places[1])?, Out::new(places[2])?];
    rows.put(header)?;
    left_out.put(skipped)?;
    for number in 0..parts.finished.len() {
        // Hours may have passed since it was written.
        let part = parts.read(number).map_err(|e| Error::Input(format!("{e}: the same command makes it again")))?;
        if part.extent != parts.finished[number] {
            let why = "it was changed meanwhile: is another process at work in this folder?";
            return Err(Error::file(&parts.path(number), why));
        }
        for tensor in &part.rows {
            let mut bytes = vec![0u8; tensor.numel() * tensor.kind().elt_size_in_bytes()];
            tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
            rows.put(&bytes)?;
        }
        keys.put(&part.keys)?;
        left_out.put(&part.skipped)?;
    }
    rows.end()?;
    keys.end()?;
    left_out.end()
}

struct Out<'a> {
    path: &'a Path,
    file: BufWriter<File>,
}

impl<'a> Out<'a> {
    fn new(path: &'a Path) -> Result<Self> {
        Ok(Self { path, file: BufWriter::new(File::create(path).map_err(Error::io(path))?) })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io(self.path))
    }

    fn end(mut self) -> Result<()> {
        self.file.flush().map_err(Error::io(self.path))
    }
}
