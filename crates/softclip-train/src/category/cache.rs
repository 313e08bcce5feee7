//! Embeddings of texts on disk, found by the text's content.
//!
//! A folder is one encoder's. In it each writer has a pair of files of its own, locked while it writes, so that processes share what
//! others have written before and never meet in one file:
//!
//! | file | holds |
//! | --- | --- |
//! | `0000.keys` | a header of 64 bytes (form, D, the encoder's SHA-256, checksum), then 24 bytes a text: the first 16 of its SHA-256, how many records of the same group follow, the vector's CRC-32C |
//! | `0000.vectors` | D f32 a text, little-endian |
//!
//! Both only grow; vectors are written before their keys, and the texts of a step are one group. What a kill leaves is cut back to the
//! last whole group when the file gets its next writer: a step that is made again meets the very state that it met before.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use softclip_io::LockState;

use crate::crc::crc32c;
use crate::{Error, Result};

/// What a text is known by.
pub type Key = [u8; 16];

const MAGIC: &[u8; 8] = b"softcat1";
const HEADER: usize = 64;
const RECORD: usize = 24;
/// Pairs of files of a folder: as many processes as ever wrote at once.
const FILES: u32 = 10_000;

/// The key of a text.
pub fn key(text: &str) -> Key {
    let mut key = Key::default();
    key.copy_from_slice(&Sha256::digest(text.as_bytes())[..16]);
    key
}

/// Where a vector is.
#[derive(Clone, Copy)]
struct Place {
    file: u32,
    row: u32,
    sum: u32,
}

/// The files that this process writes to.
struct Writer {
    /// Locked.
    keys: File,
    vectors: File,
    rows: u32,
    file: u32,
}

/// One encoder's embeddings. The index is in memory, about 40 bytes a text; vectors stay on disk.
pub struct Cache {
    folder: PathBuf,
    dim: usize,
    index: HashMap<Key, Place>,
    /// To read from, by [`Place::file`].
    vectors: Vec<File>,
    /// None where the folder is read only, and once writing has failed.
    writer: Option<Writer>,
}

impl Cache {
    /// Opens the folder of the encoder known by `id` below `root`, or makes it. One that cannot be written to is read, with a warning on
    /// standard error.
    ///
    /// # Errors
    /// It can neither be read nor made, or has a file of another sort.
    pub fn open(root: &Path, id: &[u8; 32], dim: usize) -> Result<Self> {
        let name: String = id[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = root.join(name);
        fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let mut cache = Self { folder, dim, index: HashMap::new(), vectors: Vec::new(), writer: None };
        let header = header(id, dim);
        let mut seen = cache.numbers()?;
        for number in &seen {
            cache.add(&cache.file(*number), &header, false)?;
        }
        while cache.writer.is_none() {
            let Some(free) = (0..FILES).find(|number| !seen.contains(number)) else {
                return Err(cache.wrong("it has too many files: remove the folder"));
            };
            let path = cache.file(free);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                // Another process may make it just now, or be the first to lock what was made here.
                Err(e) if is_read_only(&e) => {
                    tracing::warn!("category.cache {}: {e}; it is read, and new texts are not kept", cache.folder.display());
                    return Ok(cache);
                }
                Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(Error::io(&path)(e)),
                made => cache.add(&path, &header, made.is_ok())?,
            }
            seen.insert(free);
        }
        Ok(cache)
    }

    /// The numbers of all files that are there.
    fn numbers(&self) -> Result<BTreeSet<u32>> {
        let mut numbers = BTreeSet::new();
        for entry in fs::read_dir(&self.folder).map_err(Error::io(&self.folder))? {
            let path = entry.map_err(Error::io(&self.folder))?.path();
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            numbers.extend(number.filter(|number| self.file(*number) == path));
        }
        Ok(numbers)
    }

    fn file(&self, number: u32) -> PathBuf {
        self.folder.join(format!("{number:04}.keys"))
    }

    fn wrong(&self, why: &str) -> Error {
        Error::Cache { path: self.folder.clone(), why: why.to_owned() }
    }

    /// Adds a pair of files, to write to if nobody does and there is none yet. Without locks, only a pair that is `new` is certainly
    /// nobody else's.
    fn add(&mut self, path: &Path, header: &[u8; HEADER], new: bool) -> Result<()> {
        let vectors_path = path.with_extension("vectors");
        let open = |path: &Path| match OpenOptions::new().read(true).append(true).create(true).open(path) {
            Err(e) if is_read_only(&e) => Ok((File::open(path)?, false)),
            opened => Ok((opened?, true)),
        };
        let (mut keys, keys_grow) = open(path).map_err(Error::io(path))?;
        let (vectors, vectors_grow) = match open(&vectors_path) {
            // Neither there nor to be made: its writer had only begun.
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(Error::io(&vectors_path))?,
        };
        let mine = self.writer.is_none()
            && keys_grow
            && vectors_grow
            && match softclip_io::try_lock(&keys, path).map_err(Error::io(path))? {
                LockState::Acquired => true,
                LockState::Held => false,
                LockState::Unsupported => new,
            };
        let mut bytes = Vec::new();
        keys.read_to_end(&mut bytes).map_err(Error::io(path))?;
        if bytes.len() < HEADER {
            if !mine {
                return Ok(()); // its writer has only begun
            }
            keys.set_len(0).and_then(|()| keys.write_all(header)).map_err(Error::io(path))?;
            bytes = header.to_vec();
        }
        if bytes[..HEADER] != header[..] {
            let why = "is of another form or encoder, or damaged: remove it with its .vectors".to_owned();
            return Err(Error::Cache { path: path.to_owned(), why });
        }
        let stored = vectors.metadata().map_err(Error::io(&vectors_path))?.len() / (4 * self.dim as u64);
        let rows = self.take_keys(&bytes[HEADER..], stored as usize);
        let file = self.vectors.len() as u32;
        self.vectors.push(vectors.try_clone().map_err(Error::io(&vectors_path))?);
        if mine {
            keys.set_len((HEADER + RECORD * rows as usize) as u64).map_err(Error::io(path))?;
            vectors.set_len(4 * self.dim as u64 * u64::from(rows)).map_err(Error::io(&vectors_path))?;
            self.writer = Some(Writer { keys, vectors, rows, file });
        }
        Ok(())
    }

    /// Indexes the records of whole groups whose vectors are `stored`; their number.
    fn take_keys(&mut self, bytes: &[u8], stored: usize) -> u32 {
        let number = |record: &[u8], at: usize| u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
        let records = &bytes[..RECORD * (bytes.len() / RECORD).min(stored).min(u32::MAX as usize)];
        let whole = records.chunks_exact(RECORD).rposition(|record| number(record, 16) == 0).map_or(0, |last| last + 1);
        self.index.reserve(whole);
        let file = self.vectors.len() as u32;
        for (row, record) in (0..).zip(records.chunks_exact(RECORD).take(whole)) {
            let mut key = Key::default();
            key.copy_from_slice(&record[..16]);
            self.index.insert(key, Place { file, row, sum: number(record, 20) });
        }
        whole as u32
    }

    /// Texts that are there.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A vector, D numbers; none where it is not there or damaged.
    pub fn get(&mut self, key: &Key) -> Option<Vec<f32>> {
        let place = *self.index.get(key)?;
        let mut bytes = vec![0; 4 * self.dim];
        let mut file = self.vectors.get(place.file as usize)?;
        let read =
            file.seek(SeekFrom::Start(u64::from(place.row) * bytes.len() as u64)).and_then(|_| file.read_exact(&mut bytes));
        if read.is_err() || crc32c(&bytes) != place.sum {
            self.index.remove(key);
            return None;
        }
        Some(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// Adds vectors of D numbers as one group. Where writing fails the cache stays as it is, and takes no more.
    ///
    /// # Errors
    /// The disk is full, for one; said once.
    pub fn put(&mut self, group: &[(Key, Vec<f32>)]) -> Result<()> {
        let Some(writer) = self.writer.as_mut().filter(|_| !group.is_empty()) else { return Ok(()) };
        let (mut keys, mut vectors) = (Vec::new(), Vec::new());
        let mut places = Vec::new();
        for (i, (key, row)) in group.iter().enumerate() {
            let start = vectors.len();
            row.iter().for_each(|x| vectors.extend_from_slice(&x.to_le_bytes()));
            let sum = crc32c(&vectors[start..]);
            keys.extend_from_slice(key);
            keys.extend_from_slice(&((group.len() - 1 - i) as u32).to_le_bytes());
            keys.extend_from_slice(&sum.to_le_bytes());
            places.push((*key, Place { file: writer.file, row: writer.rows + i as u32, sum }));
        }
        let written = writer.vectors.write_all(&vectors).and_then(|()| writer.keys.write_all(&keys));
        if let Err(e) = written {
            // A torn group stays at the end, for the next writer to cut off.
            self.writer = None;
            return Err(Error::io(&self.folder)(e));
        }
        writer.rows += group.len() as u32;
        self.index.extend(places);
        Ok(())
    }

    /// Makes what was added outlast a loss of power.
    ///
    /// # Errors
    /// The disk reports one.
    pub fn sync(&self) -> Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        let sync = |file| softclip_io::sync_file(file, &self.folder).map_err(Error::io(&self.folder));
        sync(&writer.vectors).and_then(|()| sync(&writer.keys))
    }
}

/// Whether a file or its folder may be read alone.
fn is_read_only(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

fn header(id: &[u8; 32], dim: usize) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&(dim as u32).to_le_bytes());
    header[16..48].copy_from_slice(id);
    let sum = crc32c(&header[..HEADER - 4]);
    header[HEADER - 4..].copy_from_slice(&sum.to_le_bytes());
    header
}

#[cfg(test)]
mod tests;
