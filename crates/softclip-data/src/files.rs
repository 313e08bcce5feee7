//! Folders and shards of a data set that is made, with the same bytes each time, on the disk before they get their name.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
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

/// Writes a file; [`sync_folders`] waits for it.
pub(crate) fn save(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    fs::write(path, bytes).map_err(at(path))
}

/// Writes a value as a JSON file; [`sync_folders`] waits for it.
pub(crate) fn save_json<T: Serialize>(path: &Path, value: &T) -> Result<(), FileError> {
    let write = || {
        let mut file = BufWriter::new(File::create(path)?);
        serde_json::to_writer(&mut file, value)?;
        file.write_all(b"\n")?;
        file.flush()
    };
    write().map_err(at(path))
}

/// Creates a folder and those above it.
pub(crate) fn folder(path: PathBuf) -> Result<PathBuf, FileError> {
    fs::create_dir_all(&path).map_err(at(&path))?;
    Ok(path)
}

/// Waits until the disk has a folder and all files and folders below it. All at once, which costs much less than one after another.
pub(crate) fn sync_folders(path: &Path) -> Result<(), FileError> {
    let entries: Vec<_> = fs::read_dir(path).and_then(Iterator::collect).map_err(at(path))?;
    entries.par_iter().try_for_each(|entry: &fs::DirEntry| match entry.file_type().map_err(at(path))?.is_dir() {
        true => sync_folders(&entry.path()),
        false => sync(&entry.path()),
    })?;
    softclip_io::sync_folder(path).map_err(at(path))
}

fn sync(path: &Path) -> Result<(), FileError> {
    File::open(path).and_then(|file| softclip_io::sync_file(&file, path)).map_err(at(path))
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
        tar.into_inner().and_then(|mut file| file.flush()).map_err(at(&path))
    }
}
