//! Files with the same bytes each time.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use half::f16;
use serde::Serialize;

use super::SynthError;
use super::draw::Canvas;

/// Turns a system's error into one that names the path.
pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> SynthError {
    let path = path.to_owned();
    |source| SynthError::Io { path, source }
}

/// Writes a file and waits until the disk has it.
pub(super) fn save(path: &Path, bytes: &[u8]) -> Result<(), SynthError> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(at(path))
}

/// Writes a value as a JSON file.
pub(super) fn save_json<T: Serialize>(path: &Path, value: &T) -> Result<(), SynthError> {
    let write = || {
        let mut file = BufWriter::new(File::create(path)?);
        serde_json::to_writer(&mut file, value)?;
        file.write_all(b"\n")?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    };
    write().map_err(at(path))
}

/// Creates a folder and those above it.
pub(super) fn folder(path: PathBuf) -> Result<PathBuf, SynthError> {
    fs::create_dir_all(&path).map_err(at(&path))?;
    Ok(path)
}

/// Waits until the disk has the entries of a folder and of all folders below it.
pub(super) fn sync_folders(path: &Path) -> Result<(), SynthError> {
    for entry in fs::read_dir(path).map_err(at(path))? {
        let entry = entry.map_err(at(path))?;
        if entry.file_type().map_err(at(path))?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    sync(path)
}

/// Waits until the disk has the entries of a folder.
pub(super) fn sync(path: &Path) -> Result<(), SynthError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(at(path))
}

/// A tar whose headers say nothing of when, where and by whom it was made.
pub(super) struct Shard {
    path: PathBuf,
    tar: tar::Builder<BufWriter<File>>,
}

impl Shard {
    pub(super) fn create(path: PathBuf) -> Result<Self, SynthError> {
        let file = File::create(&path).map_err(at(&path))?;
        Ok(Shard { path, tar: tar::Builder::new(BufWriter::with_capacity(1 << 18, file)) })
    }

    pub(super) fn add(&mut self, name: &str, bytes: &[u8]) -> Result<(), SynthError> {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(bytes.len() as u64);
        self.tar.append_data(&mut header, name, bytes).map_err(at(&self.path))
    }

    pub(super) fn finish(self) -> Result<(), SynthError> {
        let Shard { path, tar } = self;
        let write = || tar.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all();
        write().map_err(at(&path))
    }
}

/// A NumPy file of the array `[rows, columns]`.
pub(super) fn npy(values: &[f16], columns: usize) -> Vec<u8> {
    let rows = values.len() / columns.max(1);
    let header = format!("{{'descr': '<f2', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    // With the ten bytes before it and a line feed, the header ends at a multiple of 64.
    let length = (header.len() + 11).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(format!("{header:<width$}\n", width = length - 1).bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

/// The canvas as a JPEG file of quality 90.
pub(super) fn jpeg(canvas: &Canvas) -> Result<Vec<u8>, SynthError> {
    let side = canvas.side;
    let format = turbojpeg::PixelFormat::RGB;
    let image = turbojpeg::Image { pixels: canvas.pixels.as_slice(), width: side, pitch: 3 * side, height: side, format };
    turbojpeg::compress(image, 90, turbojpeg::Subsamp::Sub2x2)
        .map(|bytes| bytes.to_vec())
        .map_err(|error| SynthError::Compress { side, reason: error.to_string() })
}
