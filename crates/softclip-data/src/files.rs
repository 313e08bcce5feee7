//! Folders and shards of a data set that is made, with the same bytes each time, on the disk before they get their name.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

/// A system's error and the path that it is about.
pub(crate) struct FileError {
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

/// Turns a system's error into one that names the path.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    |source| FileError { path, source }
}

/// Writes a file and waits until the disk has it.
pub(crate) fn save(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(at(path))
}

/// Writes a value as a JSON file.
pub(crate) fn save_json<T: Serialize>(path: &Path, value: &T) -> Result<(), FileError> {
    let write = || {
        let mut file = BufWriter::new(File::create(path)?);
        serde_json::to_writer(&mut file, value)?;
        file.write_all(b"\n")?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    };
    write().map_err(at(path))
}

/// Creates a folder and those above it.
pub(crate) fn folder(path: PathBuf) -> Result<PathBuf, FileError> {
    fs::create_dir_all(&path).map_err(at(&path))?;
    Ok(path)
}

/// Waits until the disk has the entries of a folder and of all folders below it.
pub(crate) fn sync_folders(path: &Path) -> Result<(), FileError> {
    for entry in fs::read_dir(path).map_err(at(path))? {
        let entry = entry.map_err(at(path))?;
        if entry.file_type().map_err(at(path))?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    sync(path)
}

/// Waits until the disk has the entries of a folder.
pub(crate) fn sync(path: &Path) -> Result<(), FileError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(at(path))
}

/// A tar whose headers say nothing of when, where and by whom it was made.
pub(crate) struct Shard {
    path: PathBuf,
    tar: tar::Builder<BufWriter<File>>,
}

impl Shard {
    pub(crate) fn create(path: PathBuf) -> Result<Self, FileError> {
        let file = File::create(&path).map_err(at(&path))?;
        Ok(Shard { path, tar: tar::Builder::new(BufWriter::with_capacity(1 << 18, file)) })
    }

    pub(crate) fn add(&mut self, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(bytes.len() as u64);
        self.tar.append_data(&mut header, name, bytes).map_err(at(&self.path))
    }

    pub(crate) fn finish(self) -> Result<(), FileError> {
        let Shard { path, tar } = self;
        let write = || tar.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all();
        write().map_err(at(&path))
    }
}
