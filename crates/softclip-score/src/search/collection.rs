//! Embeddings in a folder.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use half::f16;
use safetensors::tensor::{Dtype as Stored, Metadata};
use softclip_tensor::nearest::{Block, Hit, Nearest};
use softclip_tensor::npy::{read_header, tuple};
use tch::{Kind, Tensor};

use crate::embed::{Entry, Format, KEYS, Meta, ModelId};
use crate::error::{Error, Result};

/// Bytes of rows in memory, about.
const BLOCK: usize = 16 << 20;
/// The longest header that is read.
const LONGEST_HEADER: u64 = 1 << 20;
/// Keys alone, for embeddings of other origin.
const PLAIN_KEYS: &str = "keys.txt";

/// A folder with `embeddings.npy` (C order, little-endian f32 or f16) or `embeddings.safetensors` (the tensor `embeddings`), and
/// `keys.jsonl` or `keys.txt` with a line a row; opened, not read.
#[derive(Debug)]
pub struct Collection {
    folder: PathBuf,
    /// The embeddings.
    path: PathBuf,
    file: File,
    place: Place,
    meta: Option<Meta>,
}

/// Where and how the rows lie in the file.
#[derive(Debug)]
struct Place {
    offset: u64,
    kind: Kind,
    rows: usize,
    dim: usize,
}

impl Collection {
    /// Opens a folder.
    ///
    /// # Errors
    /// There are no embeddings in it, or they are not of this form, or cut.
    pub fn open(folder: &Path) -> Result<Self> {
        let meta = Meta::open(folder)?;
        let there = |format: &Format| folder.join(format.file()).is_file();
        let format = meta.as_ref().map(|meta| meta.format).filter(there);
        let Some(format) = format.or([Format::Npy, Format::Safetensors].into_iter().find(there)) else {
            let why = "neither embeddings.npy nor embeddings.safetensors is in it: make them with `softclip embed`, to its end";
            return Err(Error::file(folder, why));
        };
        let path = folder.join(format.file());
        let mut file = File::open(&path).map_err(Error::io(&path))?;
        let length = file.metadata().map_err(Error::io(&path))?.len();
        let place = match format {
            Format::Npy => npy(&mut file),
            Format::Safetensors => safetensors(&mut file),
        };
        let place = place.map_err(|why| Error::file(&path, why))?;
        let size = [place.rows, place.dim, place.kind.elt_size_in_bytes()].iter().try_fold(1u64, |n, &x| n.checked_mul(x as u64));
        if size.and_then(|size| size.checked_add(place.offset)) != Some(length) {
            let shape = tuple(&[place.rows, place.dim]);
            return Err(Error::file(&path, format!("its {length} bytes do not hold an array {shape}: it was cut, or changed")));
        }
        if let Some(meta) = &meta
            && (meta.rows, meta.plan.dim) != (place.rows, place.dim)
        {
            let (described, found) = (tuple(&[meta.rows, meta.plan.dim]), tuple(&[place.rows, place.dim]));
            return Err(Error::file(&path, format!("an array {found}, while meta.json describes {described}")));
        }
        Ok(Self { folder: folder.to_owned(), path, file, place, meta })
    }

    /// N.
    pub fn rows(&self) -> usize {
        self.place.rows
    }

    /// D.
    pub fn dim(&self) -> usize {
        self.place.dim
    }

    /// How they were made; `None` for embeddings of other origin.
    pub fn meta(&self) -> Option<&Meta> {
        self.meta.as_ref()
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the model's space is that of the rows.
    ///
    /// # Errors
    /// The weights are other ones than those that the rows were made with. Embeddings of other origin pass.
    pub fn suits(&self, model: &ModelId) -> Result<()> {
        match &self.meta {
            Some(Meta { plan, .. }) if plan.model.weights != model.weights => {
                let why = format!(
                    "made with {}, whose weights are not those of {} (SHA-256 {} and {}): cosines between two models mean nothing. \
                     Name that model, or embed anew",
                    plan.model.name, model.name, plan.model.weights, model.weights
                );
                Err(Error::file(&self.folder, why))
            }
            _ => Ok(()),
        }
    }

    /// For each query the `k` rows of greatest cosine, best first, equal ones in the order of the rows; all rows where there are
    /// fewer. `queries` is f32 `[Q, D]` and need not be normalised.
    ///
    /// # Errors
    /// Another width, a row that is not finite, or a file that cannot be read.
    pub fn nearest(&self, queries: &Tensor, k: usize) -> Result<Vec<Vec<Hit>>> {
        let size = queries.size();
        if size.len() != 2 || size[1] != self.dim() as i64 {
            let why = format!("its rows have {} numbers, the queries are {size:?}: another model made them", self.dim());
            return Err(Error::file(&self.path, why));
        }
        let mut nearest = Nearest::new(queries, k.min(self.rows()))?;
        let width = self.dim() * self.place.kind.elt_size_in_bytes();
        let step = (BLOCK / width.max(1)).max(1);
        let mut bytes = Vec::new();
        for first in (0..self.rows()).step_by(step) {
            bytes.resize(step.min(self.rows() - first) * width, 0);
            let offset = self.place.offset + (first * width) as u64;
            self.file.read_exact_at(&mut bytes, offset).map_err(Error::io(&self.path))?;
            let block = Block::new(first, self.dim(), self.numbers(&bytes));
            nearest.take(&block.map_err(|why| Error::file(&self.path, format!("it cannot be searched: {why}")))?)?;
        }
        Ok(nearest.into_hits())
    }

    fn numbers(&self, bytes: &[u8]) -> Vec<f32> {
        match self.place.kind {
            Kind::Half => bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            _ => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        }
    }

    /// What the rows named by `wanted` are of.
    ///
    /// # Errors
    /// The keys cannot be read, or are not one a row.
    pub fn entries(&self, wanted: impl IntoIterator<Item = usize>) -> Result<BTreeMap<usize, Entry>> {
        let (path, plain) = match self.folder.join(KEYS) {
            path if path.is_file() => (path, false),
            _ => (self.folder.join(PLAIN_KEYS), true),
        };
        let file = File::open(&path).map_err(|e| {
            let why = format!("{e}; the rows' keys are missing, one a line in {KEYS} or {PLAIN_KEYS}");
            Error::file(&path, why)
        })?;
        let mut found: BTreeMap<usize, Option<Entry>> = wanted.into_iter().map(|row| (row, None)).collect();
        let mut lines = 0;
        let mut line = Vec::new();
        let mut reader = BufReader::new(file);
        while {
            line.clear();
            reader.read_until(b'\n', &mut line).map_err(Error::io(&path))? > 0
        } {
            if let Some(entry) = found.get_mut(&lines) {
                let text = line.trim_ascii_end();
                *entry = Some(match plain {
                    true => Entry::of_key(String::from_utf8_lossy(text).into_owned()),
                    false => serde_json::from_slice(text)
                        .map_err(|e| Error::file(&path, format!("line {}: not an entry: {e}", lines + 1)))?,
                });
            }
            lines += 1;
        }
        if lines != self.rows() {
            let name = self.path.file_name().unwrap_or_default().display();
            return Err(Error::file(&path, format!("it has {lines} lines, but {name} has {} rows", self.rows())));
        }
        Ok(found.into_iter().filter_map(|(row, entry)| Some((row, entry?))).collect())
    }
}

fn npy(file: &mut File) -> std::result::Result<Place, String> {
    let header = read_header(file)?;
    place(header.length as u64, header.kind, &header.shape)
}

fn safetensors(file: &mut File) -> std::result::Result<Place, String> {
    let not = |why: String| format!("not a safetensors file: {why}");
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|e| not(e.to_string()))?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER {
        return Err(not(format!("a header of {length} bytes")));
    }
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes).map_err(|e| not(e.to_string()))?;
    let header: Metadata = serde_json::from_slice(&bytes).map_err(|e| not(e.to_string()))?;
    let found = header.info("embeddings").filter(|info| header.tensors().len() == 1 && info.data_offsets.0 == 0);
    let info = found.ok_or("it must have one tensor, `embeddings`")?;
    let kind = match info.dtype {
        Stored::F32 => Kind::Float,
        Stored::F16 => Kind::Half,
        other => return Err(format!("type {other:?} instead of F32 or F16")),
    };
    place(8 + length, kind, &info.shape)
}

fn place(offset: u64, kind: Kind, shape: &[usize]) -> std::result::Result<Place, String> {
    match *shape {
        [rows, dim] if dim > 0 => Ok(Place { offset, kind, rows, dim }),
        _ => Err(format!("shape {} instead of (rows, numbers a row)", tuple(shape))),
    }
}
