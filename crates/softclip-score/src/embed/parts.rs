//! Finished stretches of the input, each a file that is complete or absent and whose checksum is kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use softclip_data::source::SampleError;
use softclip_tensor::file::{read_safetensors, write_atomic, write_safetensors};
use tch::{Device, Kind, Tensor};

use super::{Dtype, Entry};
use crate::error::{Error, Result};

/// What a part covers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Extent {
    /// The first sample.
    pub(super) from: usize,
    /// The sample behind the last.
    pub(super) to: usize,
    pub(super) rows: usize,
    /// Samples that gave no row, by cause.
    pub(super) causes: BTreeMap<String, usize>,
}

/// Rows with their keys, and what was left out between them.
#[derive(Default)]
pub(super) struct Part {
    pub(super) extent: Extent,
    /// `[n, D]` each.
    pub(super) rows: Vec<Tensor>,
    /// Lines of `keys.jsonl`.
    pub(super) keys: Vec<u8>,
    /// Lines of `skipped.txt`.
    pub(super) skipped: Vec<u8>,
}

impl Part {
    pub(super) fn starting(from: usize) -> Self {
        Self { extent: Extent { from, to: from, ..Extent::default() }, ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.extent.from == self.extent.to
    }

    pub(super) fn add(&mut self, entries: &[Entry], rows: Option<Tensor>, bad: &[SampleError], to: usize) -> Result<()> {
        for entry in entries {
            serde_json::to_writer(&mut self.keys, entry).map_err(|e| Error::Input(format!("{}: {e}", entry.key)))?;
            self.keys.push(b'\n');
        }
        for error in bad {
            self.skipped.extend(skipped_line(&error.key, error.kind.name(), &error.detail));
            *self.extent.causes.entry(error.kind.to_string()).or_default() += 1;
        }
        self.extent.rows += entries.len();
        self.extent.to = to;
        self.rows.extend(rows);
        Ok(())
    }

    fn write(&self, path: &Path, dim: usize, dtype: Dtype) -> Result<()> {
        let rows = match &self.rows[..] {
            [] => Tensor::f_zeros([0, dim as i64], (Kind::Float, Device::Cpu))?,
            rows => Tensor::f_cat(rows, 0)?,
        };
        let extent = serde_json::to_vec(&self.extent).map_err(|e| Error::file(path, e.to_string()))?;
        let bytes = |bytes: &[u8]| Tensor::f_from_slice(bytes);
        let tensors = [
            (ROWS.to_owned(), rows.f_to_kind(dtype.kind())?),
            (KEYS.to_owned(), bytes(&self.keys)?),
            (SKIPPED.to_owned(), bytes(&self.skipped)?),
            (EXTENT.to_owned(), bytes(&extent)?),
        ];
        Ok(write_safetensors(path, &tensors, &BTreeMap::new())?)
    }

    fn read(path: &Path) -> Result<Self> {
        let mut tensors = read_safetensors(path)?;
        let damaged = || Error::file(path, "not a part of embeddings: remove it, and it is made again");
        let mut take = |name: &str| tensors.remove(name).ok_or_else(damaged);
        let rows = vec![take(ROWS)?];
        let mut bytes = |name: &str| Ok::<Vec<u8>, Error>(Vec::try_from(take(name)?)?);
        let (keys, skipped, extent) = (bytes(KEYS)?, bytes(SKIPPED)?, bytes(EXTENT)?);
        Ok(Self { extent: serde_json::from_slice(&extent).map_err(|_| damaged())?, rows, keys, skipped })
    }
}

const ROWS: &str = "embeddings";
const KEYS: &str = "keys";
const SKIPPED: &str = "skipped";
const EXTENT: &str = "extent";

/// A line of `skipped.txt`: key, cause and detail between tabs.
pub(super) fn skipped_line(key: &str, cause: &str, detail: &str) -> Vec<u8> {
    let plain = |text: &str| text.replace(|c: char| c.is_control(), " ");
    format!("{}\t{cause}\t{}\n", plain(key), plain(detail)).into_bytes()
}

/// Checksums of the parts, by file name.
pub(super) const SUMS: &str = "parts.json";

/// The finished parts of a folder, in order and without gaps.
pub(super) struct Parts {
    folder: PathBuf,
    dim: usize,
    dtype: Dtype,
    pub(super) finished: Vec<Extent>,
    /// SHA-256 of each part's file, by its name.
    sums: BTreeMap<String, String>,
}

impl Parts {
    /// Opens the parts that an earlier start finished. A damaged one and those behind it count as unfinished, with a warning.
    pub(super) fn open(folder: &Path, dim: usize, dtype: Dtype) -> Result<Self> {
        let sums = match fs::read(folder.join(SUMS)) {
            // Sums that are themselves damaged verify no part.
            Ok(text) => serde_json::from_slice(&text).unwrap_or_default(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(Error::io(&folder.join(SUMS))(e)),
        };
        let mut parts = Self { folder: folder.to_owned(), dim, dtype, finished: Vec::new(), sums };
        while parts.path(parts.finished.len()).is_file() {
            let number = parts.finished.len();
            let Part { extent, .. } = match parts.read(number) {
                Ok(part) => part,
                Err(e) => {
                    tracing::warn!("{e}; it and the parts behind it are made again");
                    break;
                }
            };
            // Left behind by a start with other stretches, whose beginning was removed since.
            if extent.from != parts.end() {
                break;
            }
            parts.finished.push(extent);
        }
        Ok(parts)
    }

    /// Reads a part whose file is what was written.
    ///
    /// # Errors
    /// The file is missing, cut or changed.
    pub(super) fn read(&self, number: usize) -> Result<Part> {
        let path = self.path(number);
        let found = softclip_io::sha256_file(&path).map_err(Error::io(&path))?;
        match self.sums.get(&name(number)) {
            Some(expected) if *expected == found => Part::read(&path),
            Some(_) => Err(Error::file(&path, format!("damaged: it is not what its SHA-256 in {SUMS} says"))),
            None => Err(Error::file(&path, format!("{SUMS} has no SHA-256 of it"))),
        }
    }

    pub(super) fn path(&self, number: usize) -> PathBuf {
        self.folder.join(name(number))
    }

    /// The first sample that is in none.
    pub(super) fn end(&self) -> usize {
        self.finished.last().map_or(0, |extent| extent.to)
    }

    pub(super) fn rows(&self) -> usize {
        self.finished.iter().map(|extent| extent.rows).sum()
    }

    pub(super) fn causes(&self) -> BTreeMap<String, usize> {
        let mut all = BTreeMap::new();
        for (cause, n) in self.finished.iter().flat_map(|extent| &extent.causes) {
            *all.entry(cause.clone()).or_default() += n;
        }
        all
    }

    pub(super) fn push(&mut self, part: Part) -> Result<()> {
        let number = self.finished.len();
        let path = self.path(number);
        part.write(&path, self.dim, self.dtype)?;
        self.sums.insert(name(number), softclip_io::sha256_file(&path).map_err(Error::io(&path))?);
        // After the part: one whose sum is missing is made again.
        let sums = self.folder.join(SUMS);
        let text = serde_json::to_vec_pretty(&self.sums).map_err(|e| Error::file(&sums, e.to_string()))?;
        write_atomic(&sums, &text)?;
        self.finished.push(part.extent);
        Ok(())
    }
}

fn name(number: usize) -> String {
    format!("part-{number:05}.safetensors")
}

/// Removes parts, and what a killed process left half-written.
pub(super) fn sweep(folder: &Path, unneeded: impl Fn(&str) -> bool) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(&unneeded) {
            fs::remove_file(&path).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}

pub(super) fn is_part(name: &str) -> bool {
    name == SUMS || name.strip_prefix("part-").is_some_and(|rest| rest.contains(".safetensors"))
}

pub(super) fn is_partial(name: &str) -> bool {
    ["embeddings.", "keys.", "skipped.", "meta.", "plan.", "part-", "parts."].iter().any(|start| name.starts_with(start))
        && name.contains(".partial-")
}
