//! Safetensors files, and files that are complete or absent.
//!
//! Weights are read from safetensors only: reading never executes anything, and sizes are bounded by the file's own length.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, SafeTensorError, View};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |source| Error::Io { path: path.to_owned(), source }
}

fn format(path: &Path, why: impl Into<String>) -> Error {
    Error::Format { path: path.to_owned(), why: why.into() }
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::BOOL => Kind::Bool,
        Dtype::U8 => Kind::Uint8,
        Dtype::I8 => Kind::Int8,
        Dtype::I16 => Kind::Int16,
        Dtype::I32 => Kind::Int,
        Dtype::I64 => Kind::Int64,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        _ => return None,
    })
}

fn dtype_of(kind: Kind) -> Option<Dtype> {
    Some(match kind {
        Kind::Bool => Dtype::BOOL,
        Kind::Uint8 => Dtype::U8,
        Kind::Int8 => Dtype::I8,
        Kind::Int16 => Dtype::I16,
        Kind::Int => Dtype::I32,
        Kind::Int64 => Dtype::I64,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Float => Dtype::F32,
        Kind::Double => Dtype::F64,
        _ => return None,
    })
}

/// Whether a file is a pickle or an archive of pickles: its content decides, and its name where the content is neither. Leaves `file` at
/// its beginning.
fn is_pickle(path: &Path, file: &mut File, length: u64) -> std::io::Result<bool> {
    let mut start = Vec::new();
    file.by_ref().take(9).read_to_end(&mut start)?;
    file.rewind()?;
    if let [size @ .., b'{'] = &start[..]
        && let Ok(size) = <[u8; 8]>::try_from(size)
        && u64::from_le_bytes(size) <= length.saturating_sub(8)
    {
        return Ok(false);
    }
    let named = matches!(path.extension().and_then(|e| e.to_str()), Some("pt" | "pth" | "bin" | "ot" | "pkl" | "ckpt"));
    Ok(named || matches!(start[..], [0x80, 2..=5, ..]) || start.starts_with(b"PK\x03\x04"))
}

/// The header of a safetensors file, and where its tensors begin.
fn open(path: &Path) -> Result<(Metadata, u64)> {
    let mut file = File::open(path).map_err(io(path))?;
    let length = file.metadata().map_err(io(path))?.len();
    if is_pickle(path, &mut file, length).map_err(io(path))? {
        return Err(format(
            path,
            "weights are read from safetensors only, because other formats can run code when loaded. Convert it with \
             python: safetensors.torch.save_file(torch.load(IN, weights_only=True), OUT)",
        ));
    }
    let cut = |why: String| format(path, format!("not a whole safetensors file ({why})"));
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(|_| cut(format!("{length} bytes")))?;
    let size = u64::from_le_bytes(size);
    if size > length.saturating_sub(8) {
        return Err(cut(format!("a header of {size} bytes in a file of {length}")));
    }
    let mut header = vec![0; size as usize];
    file.read_exact(&mut header).map_err(io(path))?;
    let header: Metadata = serde_json::from_slice(&header).map_err(|e| cut(format!("its header: {e}")))?;
    let expected = (header.data_len() as u64).saturating_add(8 + size);
    if expected != length {
        return Err(cut(format!("{length} bytes instead of {expected}")));
    }
    Ok((header, 8 + size))
}

/// All tensors of a safetensors file, on the CPU, as they are stored.
///
/// The file is mapped into memory, not read: what is never looked at costs nothing, and what is changed is changed for this process
/// alone. As long as a tensor lives, nobody may cut the file or write into it; replacing or deleting it is harmless.
///
/// # Errors
/// The file cannot be read, is not safetensors, or was cut (the message says so).
pub fn read_safetensors(path: impl AsRef<Path>) -> Result<BTreeMap<String, Tensor>> {
    let path = path.as_ref();
    let (header, start) = open(path)?;
    let name = path.to_str().ok_or_else(|| format(path, "its name is not UTF-8: rename it"))?;
    let length = start as i64 + header.data_len() as i64;
    let mapped = Tensor::f_from_file(name, false, length, (Kind::Uint8, Device::Cpu))?;
    let mut out = BTreeMap::new();
    for (name, info) in header.tensors() {
        let kind =
            kind_of(info.dtype).ok_or_else(|| format(path, format!("`{name}` has kind {:?}, which is not known", info.dtype)))?;
        let shape: Vec<i64> = info.shape.iter().map(|&d| d as i64).collect();
        let (from, to) = (start as i64 + info.data_offsets.0 as i64, start as i64 + info.data_offsets.1 as i64);
        let tensor = match to - from {
            0 => Tensor::f_empty(&shape, (kind, Device::Cpu))?,
            bytes => {
                let bytes = mapped.f_narrow(0, from, bytes)?;
                // A tensor must begin at a multiple of its elements' size, which old files do not see to.
                let aligned = from % kind.elt_size_in_bytes() as i64 == 0;
                let bytes = if aligned { bytes } else { Tensor::f_cat(&[bytes], 0)? };
                bytes.f_view_dtype(kind)?.f_view(&shape[..])?
            }
        };
        out.insert(name, tensor);
    }
    Ok(out)
}

/// The metadata of a safetensors file: text by name.
///
/// # Errors
/// As [`read_safetensors`].
pub fn read_safetensors_metadata(path: impl AsRef<Path>) -> Result<BTreeMap<String, String>> {
    let (header, _) = open(path.as_ref())?;
    Ok(header.metadata().clone().unwrap_or_default().into_iter().collect())
}

struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for &Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        std::borrow::Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

fn stored(path: &Path, name: &str, t: &Tensor) -> Result<Stored> {
    let dtype =
        dtype_of(t.kind()).ok_or_else(|| format(path, format!("`{name}` has kind {:?}, which safetensors lacks", t.kind())))?;
    // Row-major on the CPU, whatever layout the tensor has in memory.
    let t = t.detach().f_to_device(Device::Cpu)?.f_contiguous()?;
    let mut bytes = vec![0u8; t.numel() * t.kind().elt_size_in_bytes()];
    t.f_copy_data_u8(&mut bytes, t.numel())?;
    Ok(Stored { dtype, shape: t.size().iter().map(|&d| d as usize).collect(), bytes })
}

/// Writes tensors (any device, any layout) and metadata. The file is complete or absent.
///
/// With at most one entry of metadata the same input gives the same bytes.
///
/// # Errors
/// The disk is full or not writable; `path` is as it was then.
pub fn write_safetensors(
    path: impl AsRef<Path>,
    tensors: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let path = path.as_ref();
    let stored: Vec<(&String, Stored)> =
        tensors.iter().map(|(name, t)| Ok((name, stored(path, name, t)?))).collect::<Result<_>>()?;
    let header = (!metadata.is_empty()).then(|| HashMap::from_iter(metadata.clone()));
    replace(path, |beside| {
        safetensors::serialize_to_file(stored.iter().map(|(n, s)| (n, s)), header, beside).map_err(|e| match e {
            SafeTensorError::IoError(source) => Error::Io { path: path.to_owned(), source },
            other => format(path, format!("cannot be written as safetensors ({other})")),
        })
    })
}

/// Writes `bytes` so that a reader sees the old file or the whole new one.
///
/// # Errors
/// The disk is full or not writable; `path` is as it was then.
pub fn write_atomic(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    softclip_io::write_atomic(path, bytes).map_err(io(path))
}

/// Lets `write` make a file at the place it is given, next to `path`, syncs it and renames it to `path`: for files that are too
/// large for [`write_atomic`]. See [`softclip_io::PartialFile`].
///
/// # Errors
/// Those of `write`; the disk is full or not writable. `path` is as it was then.
pub fn replace(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let partial = softclip_io::PartialFile::create(path).map_err(io(path))?;
    write(partial.path())?;
    partial.commit().map_err(io(path))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    fn file(name: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        (dir, path)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (_dir, path) = file("x.safetensors");
        let a = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]);
        let tensors = vec![
            ("a".to_owned(), a.shallow_clone()),
            ("a.t".to_owned(), a.tr()),
            ("n".to_owned(), Tensor::from(7i64)),
            ("h".to_owned(), a.to_kind(Kind::BFloat16)),
            ("empty".to_owned(), Tensor::zeros([0, 3], (Kind::Float, Device::Cpu))),
            ("long".to_owned(), Tensor::arange(99_999, (Kind::Float, Device::Cpu))),
        ];
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        write_safetensors(&path, &tensors, &metadata).unwrap();
        let back = read_safetensors(&path).unwrap();
        assert_eq!(back.len(), tensors.len());
        for (name, t) in &tensors {
            assert_eq!(&back[name], t, "{name}");
            assert_eq!(back[name].kind(), t.kind(), "{name}");
        }
        assert_eq!(read_safetensors_metadata(&path).unwrap(), metadata);
    }

    #[test]
    fn what_is_read_is_this_processs_own_and_outlives_the_file() {
        let (_dir, path) = file("own.safetensors");
        write_safetensors(&path, &[("a".into(), Tensor::ones([8], (Kind::Float, Device::Cpu)))], &BTreeMap::new()).unwrap();
        let mut first = read_safetensors(&path).unwrap().remove("a").unwrap();
        let _ = first.fill_(7.0);
        let second = read_safetensors(&path).unwrap().remove("a").unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!((first.double_value(&[3]), second.double_value(&[3])), (7.0, 1.0));
    }

    #[test]
    fn a_tensor_at_an_odd_place_is_read() {
        let (_dir, path) = file("odd.safetensors");
        let mut header =
            br#"{"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"f":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}}"#
                .to_vec();
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        bytes.push(9);
        bytes.extend([1.5f32, -2.0].iter().flat_map(|x| x.to_le_bytes()));
        fs::write(&path, bytes).unwrap();
        let read = read_safetensors(&path).unwrap();
        assert_eq!(Vec::<f32>::try_from(&read["f"]).unwrap(), [1.5, -2.0]);
        assert_eq!(read["b"].int64_value(&[0]), 9);
    }

    #[test]
    fn a_cut_file_is_an_error_that_names_it() {
        let (_dir, path) = file("cut.safetensors");
        write_safetensors(&path, &[("a".into(), Tensor::zeros([100], (Kind::Float, Device::Cpu)))], &BTreeMap::new()).unwrap();
        let bytes = fs::read(&path).unwrap();
        for keep in [0, 4, 20, bytes.len() / 2, bytes.len() - 1] {
            fs::write(&path, &bytes[..keep]).unwrap();
            let message = read_safetensors(&path).unwrap_err().to_string();
            assert!(message.contains("cut.safetensors"), "{keep}: {message}");
        }
    }

    #[test]
    fn a_pickle_is_refused_with_the_way_out() {
        let (_dir, path) = file("model.pt");
        fs::write(&path, b"anything").unwrap();
        assert!(read_safetensors(&path).unwrap_err().to_string().contains("safetensors.torch.save_file"));
    }
}
