//! Region features as arrays.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use half::f16;
use serde::Deserialize;
use softclip_tensor::npy::{read_header, tuple};
use softclip_tensor::tch::Kind;

use super::images;
use super::keys::Keys;
use crate::{Error, Found, Objects};

/// Finished region features, an array `[R, F + 4]` of f16 or f32 an image: appearance, and left, top, right, bottom as parts of
/// the image's size. The most certain region comes first; R may be 0.
///
/// Either a folder with `KEY.npy` (little-endian, in C order), keys with their folders, or a safetensors file with a tensor a
/// key. The arrays are read one by one when they are asked for.
pub struct Arrays {
    path: PathBuf,
    keys: Keys,
    store: Store,
}

enum Store {
    Folder,
    /// The file and its tensors by the keys' numbers.
    File(File, Vec<Stored>),
}

struct Stored {
    kind: Kind,
    shape: Vec<usize>,
    offset: u64,
    length: usize,
}

/// An entry of a safetensors header.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl Arrays {
    /// Lists a folder, or reads the header of a safetensors file.
    ///
    /// # Errors
    /// It cannot be read, names nothing, or is not safetensors of f16 and f32.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let (names, store) = if path.is_dir() {
            let mut names = Vec::new();
            list(path, "", &mut names)?;
            (names, Store::Folder)
        } else {
            let file = File::open(path).map_err(Error::io(path))?;
            let (names, stored) = header(path, &file)?.into_iter().unzip();
            (names, Store::File(file, stored))
        };
        if names.is_empty() {
            return Err(Error::format(path, "no KEY.npy in the folder, or no tensor in the file"));
        }
        let keys = Keys::new(names).map_err(|twice| Error::format(path, format!("'{}' comes twice", twice.key)))?;
        Ok(Self { path: path.to_owned(), keys, store })
    }

    fn read(&self, number: usize) -> Result<(usize, Vec<f32>), String> {
        let name = self.keys.name(number);
        match &self.store {
            Store::Folder => {
                let path = self.path.join(format!("{name}.npy"));
                read_npy(&path).map_err(|why| format!("{}: {why}", path.display()))
            }
            Store::File(file, tensors) => {
                let Stored { kind, shape, offset, length } = &tensors[number];
                let mut bytes = vec![0; *length];
                let read = file.read_exact_at(&mut bytes, *offset).map_err(|e| e.to_string());
                let rows = read.and_then(|()| rows(*kind, shape, &bytes));
                rows.map_err(|why| format!("{}: tensor '{name}' (byte {offset}): {why}", self.path.display()))
            }
        }
    }
}

/// The keys of a folder and those below it.
fn list(folder: &Path, prefix: &str, names: &mut Vec<Box<str>>) -> Result<(), Error> {
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        let kind = entry.file_type().map_err(Error::io(entry.path()))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            return Err(Error::format(entry.path(), "its name is not UTF-8: rename it"));
        };
        if kind.is_dir() {
            list(&entry.path(), &format!("{prefix}{name}/"), names)?;
        } else if let Some(stem) = name.strip_suffix(".npy") {
            names.push(format!("{prefix}{stem}").into());
        }
    }
    Ok(())
}

fn read_npy(path: &Path) -> Result<(usize, Vec<f32>), String> {
    let bytes = fs::read(path).map_err(|e| e.to_string())?;
    let mut data = &bytes[..];
    let header = read_header(&mut data)?;
    rows(header.kind, &header.shape, data)
}

/// The tensors of a safetensors file by name.
fn header(path: &Path, mut file: &File) -> Result<Vec<(Box<str>, Stored)>, Error> {
    let cut = |why: String| Error::format(path, format!("not a whole safetensors file ({why})"));
    let length = file.metadata().map_err(Error::io(path))?.len();
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(|e| cut(e.to_string()))?;
    let size = u64::from_le_bytes(size);
    let start = size.checked_add(8).filter(|start| *start <= length);
    let start = start.ok_or_else(|| cut(format!("a header of {size} bytes in a file of {length}")))?;
    let mut text = vec![0; size as usize];
    file.read_exact(&mut text).map_err(Error::io(path))?;
    let mut entries: BTreeMap<Box<str>, serde_json::Value> =
        serde_json::from_slice(&text).map_err(|e| cut(format!("its header: {e}")))?;
    entries.remove("__metadata__");
    let stored = |(name, entry): (Box<str>, _)| {
        let Entry { dtype, shape, data_offsets: (from, to) } =
            Entry::deserialize(entry).map_err(|e| cut(format!("tensor '{name}': {e}")))?;
        let kind = match &*dtype {
            "F16" => Kind::Half,
            "F32" => Kind::Float,
            other => return Err(Error::format(path, format!("tensor '{name}' is {other} instead of F16 or F32"))),
        };
        if from > to || to > length - start {
            return Err(cut(format!("tensor '{name}' ends at byte {} of {length}", start.saturating_add(to))));
        }
        Ok((name, Stored { kind, shape, offset: start + from, length: (to - from) as usize }))
    };
    entries.into_iter().map(stored).collect()
}

/// `[R, F + 4]` of bytes: F + 4 and the numbers.
fn rows(kind: Kind, shape: &[usize], bytes: &[u8]) -> Result<(usize, Vec<f32>), String> {
    let &[count, width] = shape else {
        return Err(format!("shape {} instead of (regions, features + 4)", tuple(shape)));
    };
    if width <= 4 {
        return Err(format!("{width} numbers a region: features and four of a box are needed"));
    }
    let size = kind.elt_size_in_bytes();
    if count.checked_mul(width).and_then(|n| n.checked_mul(size)) != Some(bytes.len()) {
        return Err(format!("{} bytes do not make [{count}, {width}] of {size} bytes each", bytes.len()));
    }
    let numbers: Vec<f32> = match kind {
        Kind::Half => bytes.as_chunks().0.iter().map(|word| f16::from_le_bytes(*word).to_f32()).collect(),
        _ => bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect(),
    };
    match numbers.iter().position(|x| !x.is_finite()) {
        Some(at) => Err(format!("element {at} is not finite")),
        None => Ok((width, numbers)),
    }
}

impl Objects for Arrays {
    fn find(&self, key: &str, _size: (u32, u32)) -> Result<Option<Found>, String> {
        let number = self.keys.find(key).map_err(|why| format!("{}: {why}", self.path.display()))?;
        let regions = number.map(|number| self.read(number)).transpose()?;
        Ok(regions.map(|regions| Found { unnamed: true, regions: Some(regions), ..Found::default() }))
    }

    fn entries(&self, key: &str, numbers: &mut Vec<Option<usize>>) -> Result<(), String> {
        numbers.push(self.keys.find(key).map_err(|why| format!("{}: {why}", self.path.display()))?);
        Ok(())
    }

    fn describe(&self) -> String {
        let what = if matches!(self.store, Store::Folder) { "folder" } else { "file" };
        format!("{what} of region features, {}", images(self.keys.len()))
    }

    fn paths(&self) -> Vec<&Path> {
        vec![&self.path]
    }
}
