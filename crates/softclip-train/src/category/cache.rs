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

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::crc::crc32c;
use crate::{Error, Result};

/// What a text is known by.
pub type Key = [u8; 16];

const MAGIC: &[u8; 8] = b"softcat1";
const HEADER: usize = 64;
const RECORD: usize = 24;
/// Pairs of files of a folder: as many processes as ever wrote at once.
const FILES: usize = 10_000;

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
    /// None once writing has failed.
    writer: Option<Writer>,
}

impl Cache {
    /// Opens the folder of the encoder known by `id` below `root`, or makes it.
    ///
    /// # Errors
    /// It cannot be read or written, or has a file of another sort.
    pub fn open(root: &Path, id: &[u8; 32], dim: usize) -> Result<Self> {
        let name: String = id[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = root.join(name);
        fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let mut cache = Self { folder, dim, index: HashMap::new(), vectors: Vec::new(), writer: None };
        let header = header(id, dim);
        let mut number = 0;
        while number < FILES {
            let path = cache.folder.join(format!("{number:04}.keys"));
            if path.exists() {
                cache.add(&path, &header)?;
            } else if cache.writer.is_none() {
                match OpenOptions::new().write(true).create_new(true).open(&path) {
                    // Another process may make it just now, or be the first to lock what was made here.
                    Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(Error::io(&path)(e)),
                    _ => continue,
                }
            } else {
                return Ok(cache);
            }
            number += 1;
        }
        Err(cache.wrong("it has too many files: remove the folder"))
    }

    fn wrong(&self, why: &str) -> Error {
        Error::Cache { path: self.folder.clone(), why: why.to_owned() }
    }

    /// Takes in a pair of files, to write to if nobody does and there is none yet.
    fn add(&mut self, path: &Path, header: &[u8; HEADER]) -> Result<()> {
        let vectors_path = path.with_extension("vectors");
        let open = |path: &Path| OpenOptions::new().read(true).append(true).create(true).open(path).map_err(Error::io(path));
        let mut keys = open(path)?;
        let mine = self.writer.is_none()
            && match keys.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(e)) => return Err(Error::io(path)(e)),
            };
        let vectors = open(&vectors_path)?;
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
        writer.vectors.sync_data().and_then(|()| writer.keys.sync_data()).map_err(Error::io(&self.folder))
    }
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
mod tests {
    use super::*;

    const ID: [u8; 32] = [7; 32];

    fn group(names: &[&str]) -> Vec<(Key, Vec<f32>)> {
        names.iter().map(|name| (key(name), vec![name.len() as f32, 0.5, -1.0])).collect()
    }

    fn open(root: &Path) -> Cache {
        Cache::open(root, &ID, 3).unwrap()
    }

    fn has(cache: &mut Cache, names: &[&str]) -> Vec<bool> {
        names.iter().map(|name| cache.get(&key(name)).is_some_and(|row| row == [name.len() as f32, 0.5, -1.0])).collect()
    }

    fn files(root: &Path, extension: &str) -> Vec<PathBuf> {
        let folder = fs::read_dir(root).unwrap().next().unwrap().unwrap().path();
        let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|e| e == extension));
        files.sort();
        files
    }

    #[test]
    fn what_was_put_is_found_again_at_every_opening() {
        let root = tempfile::tempdir().unwrap();
        let mut first = open(root.path());
        first.put(&group(&["a", "bb"])).unwrap();
        first.put(&group(&["", "cccc"])).unwrap();
        assert_eq!((first.len(), has(&mut first, &["a", "bb", "", "cccc", "d"])), (4, vec![true, true, true, true, false]));
        drop(first);
        let mut again = open(root.path());
        assert_eq!(has(&mut again, &["a", "bb", "", "cccc", "d"]), [true, true, true, true, false]);
        again.put(&group(&["d"])).unwrap();
        again.sync().unwrap();
        drop(again);
        assert_eq!(open(root.path()).len(), 5);
        assert_eq!(files(root.path(), "keys").len(), 1);
    }

    #[test]
    fn a_torn_tail_is_cut_back_to_the_last_whole_group() {
        let root = tempfile::tempdir().unwrap();
        {
            let mut cache = open(root.path());
            cache.put(&group(&["a", "bb"])).unwrap();
            cache.put(&group(&["ccc", "dddd", "eeeee"])).unwrap();
        }
        let (keys, vectors) = (files(root.path(), "keys").remove(0), files(root.path(), "vectors").remove(0));
        let (all_keys, all_vectors) = (fs::read(&keys).unwrap(), fs::read(&vectors).unwrap());
        assert_eq!((all_keys.len(), all_vectors.len()), (64 + 5 * 24, 5 * 12));
        // Wherever the keys end, in the header too; vectors that have no key; keys whose vectors are gone.
        for (k, v) in (0..all_keys.len()).map(|k| (k, 60)).chain((0..60).map(|v| (all_keys.len(), v))) {
            fs::write(&keys, &all_keys[..k]).unwrap();
            fs::write(&vectors, &all_vectors[..v]).unwrap();
            let whole = if k >= 64 + 2 * 24 && v >= 24 { 2 } else { 0 };
            let mut cache = open(root.path());
            assert_eq!((cache.len(), cache.writer.as_ref().unwrap().rows), (whole, whole as u32), "{k} {v}");
            assert_eq!(fs::metadata(&vectors).unwrap().len(), 12 * whole as u64, "{k} {v}");
            // What comes next does not meet what was torn.
            cache.put(&group(&["ffffff"])).unwrap();
            drop(cache);
            assert_eq!(has(&mut open(root.path()), &["a", "bb", "ffffff"]), [whole == 2, whole == 2, true]);
        }
    }

    #[test]
    fn processes_share_what_was_written_and_never_a_file() {
        let root = tempfile::tempdir().unwrap();
        let mut one = open(root.path());
        one.put(&group(&["a"])).unwrap();
        let mut two = open(root.path());
        assert_eq!(has(&mut two, &["a"]), [true], "another's whole groups are read");
        two.put(&group(&["bb"])).unwrap();
        one.put(&group(&["ccc", "bb"])).unwrap();
        assert_eq!(has(&mut one, &["a", "bb", "ccc"]), [true; 3]);
        drop((one, two));
        assert_eq!(files(root.path(), "keys").len(), 2);
        assert_eq!(has(&mut open(root.path()), &["a", "bb", "ccc"]), [true; 3]);
    }

    #[test]
    fn many_that_open_at_once_each_write_their_own() {
        let root = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for i in 0..8usize {
                let root = root.path();
                scope.spawn(move || {
                    let mut cache = open(root);
                    for j in 0..20usize {
                        let name = "x".repeat(1 + i * 20 + j);
                        cache.put(&group(&[&name])).unwrap();
                    }
                });
            }
        });
        let names: Vec<String> = (1..=160).map(|n| "x".repeat(n)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(has(&mut open(root.path()), &names), vec![true; 160]);
    }

    #[test]
    fn a_disk_that_takes_no_more_costs_the_new_texts_alone() {
        let root = tempfile::tempdir().unwrap();
        let mut cache = open(root.path());
        cache.put(&group(&["a"])).unwrap();
        let writer = cache.writer.as_mut().unwrap();
        writer.keys = File::open(files(root.path(), "keys").remove(0)).unwrap(); // not to be written to
        assert!(cache.put(&group(&["bb", "ccc"])).is_err());
        cache.put(&group(&["dddd"])).unwrap(); // told of once
        assert_eq!(has(&mut cache, &["a", "bb", "ccc", "dddd"]), [true, false, false, false]);
        drop(cache);
        let mut again = open(root.path());
        again.put(&group(&["bb"])).unwrap();
        drop(again);
        assert_eq!(has(&mut open(root.path()), &["a", "bb", "ccc"]), [true, true, false]);
    }

    #[test]
    fn another_encoder_has_another_folder_and_damage_is_no_hit() {
        let root = tempfile::tempdir().unwrap();
        open(root.path()).put(&group(&["a", "bb"])).unwrap();
        assert_eq!(Cache::open(root.path(), &[8; 32], 3).unwrap().len(), 0);
        fs::remove_dir_all(Cache::open(root.path(), &[8; 32], 3).unwrap().folder()).unwrap();
        let vectors = files(root.path(), "vectors").remove(0);
        let mut bytes = fs::read(&vectors).unwrap();
        bytes[13] ^= 1;
        fs::write(&vectors, bytes).unwrap();
        assert_eq!(has(&mut open(root.path()), &["a", "bb"]), [true, false]);
        let keys = files(root.path(), "keys").remove(0);
        let mut bytes = fs::read(&keys).unwrap();
        bytes[9] ^= 1;
        fs::write(&keys, bytes).unwrap();
        let error = Cache::open(root.path(), &ID, 3).err().unwrap().to_string();
        assert!(error.contains("0000.keys") && error.contains("remove it"), "{error}");
    }
}
