//! A tar whose members are read in any order, from any thread.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};

use super::{SourceError, SourceFault, SourceFaultKind};

/// Where a member's bytes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Offset in blocks of 512 bytes.
    block: u32,
    size: u32,
}

impl Span {
    /// Bytes.
    pub(super) fn len(self) -> u64 {
        u64::from(self.size)
    }
}

pub(super) struct Tarball {
    pub(super) path: PathBuf,
    plain: Plain,
}

/// Where the bytes of the tar itself are. The first few hundred are kept open; beyond, they are opened for each read, since the
/// number of open files is limited.
enum Plain {
    Open(File),
    /// At the tarball's path.
    AtPath,
    /// Unpacked into a temporary file, which goes with this value.
    Unpacked(TempPath),
}

impl Tarball {
    /// Opens `path` and calls `each` with the name and place of every whole file in it, in order. What lies behind a break is left
    /// out and reported. A gzipped tar is unpacked into a temporary file first.
    pub(super) fn index(
        path: &Path,
        keep_open: bool,
        mut each: impl FnMut(&str, Span),
    ) -> Result<(Self, Option<SourceFault>), SourceError> {
        let io = |source| SourceError::io(path, source, "check the path and its permissions");
        let open = File::open(path).map_err(io)?;
        let zipped = is_gzip(&open).map_err(io)?;
        let (file, unpacked, torn) = match zipped {
            true => {
                let (file, unpacked) = room(keep_open).map_err(|source| SourceError::io(path, source, ROOM))?;
                let torn = unzip(path, BufReader::new(open), &file)?;
                (file, unpacked, torn)
            }
            false => (open, None, None),
        };
        let length = file.metadata().map_err(io)?.len();
        let fault = walk(path, &file, length, &mut each)?;
        let fault = torn.or(fault);
        let plain = match unpacked {
            _ if keep_open => Plain::Open(file),
            Some(unpacked) => Plain::Unpacked(unpacked),
            None => Plain::AtPath,
        };
        Ok((Self { path: path.to_owned(), plain }, fault))
    }

    pub(super) fn read(&self, span: Span) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; span.size as usize];
        let offset = u64::from(span.block) * 512;
        match &self.plain {
            Plain::Open(file) => file.read_exact_at(&mut bytes, offset)?,
            Plain::AtPath => File::open(&self.path)?.read_exact_at(&mut bytes, offset)?,
            Plain::Unpacked(path) => File::open(path)?.read_exact_at(&mut bytes, offset)?,
        }
        Ok(bytes)
    }
}

fn is_gzip(file: &File) -> io::Result<bool> {
    let mut magic = [0; 2];
    let n = file.read_at(&mut magic, 0)?;
    Ok(n == 2 && magic == [0x1f, 0x8b])
}

const ROOM: &str = "unpacking takes room in the temporary folder: set TMPDIR to one with more";

/// A temporary file: without a name, so that nothing stays of it whatever happens, where it will be kept open.
fn room(keep_open: bool) -> io::Result<(File, Option<TempPath>)> {
    if keep_open {
        return Ok((tempfile::tempfile()?, None));
    }
    let (file, path) = NamedTempFile::new()?.into_parts();
    Ok((file, Some(path)))
}

/// Writes the unpacked bytes to `plain`, as far as they go.
fn unzip(path: &Path, packed: impl io::BufRead, mut plain: &File) -> Result<Option<SourceFault>, SourceError> {
    let mut unzipped = flate2::bufread::MultiGzDecoder::new(packed);
    let mut buffer = vec![0; 1 << 18];
    let fault = loop {
        match unzipped.read(&mut buffer) {
            Ok(0) => break None,
            Ok(n) => {
                plain.write_all(&buffer[..n]).map_err(|source| SourceError::io(path, source, ROOM))?;
            }
            Err(e) => {
                break Some(SourceFault::new(SourceFaultKind::TruncatedShard, path.display().to_string(), format!("gzip: {e}")));
            }
        }
    };
    plain.seek(SeekFrom::Start(0)).map_err(|source| SourceError::io(path, source, ROOM))?;
    Ok(fault)
}

fn walk(path: &Path, file: &File, length: u64, each: &mut impl FnMut(&str, Span)) -> Result<Option<SourceFault>, SourceError> {
    let torn = |at: u64, why: String| {
        Some(SourceFault::new(SourceFaultKind::TruncatedShard, format!("{}, byte {at}", path.display()), why))
    };
    let io = |source| SourceError::io(path, source, "the file cannot be read as a tar");
    let mut archive = tar::Archive::new(BufReader::with_capacity(1024, file));
    let mut end = 0;
    for entry in archive.entries_with_seek().map_err(io)? {
        let entry = match entry {
            Ok(entry) => entry,
            Err(e) if end == 0 => {
                return Err(SourceError::Table { path: path.to_owned(), reason: format!("not a tar: {e}") });
            }
            Err(e) => return Ok(torn(end, e.to_string())),
        };
        let (start, size) = (entry.raw_file_position(), entry.size());
        end = start + size.div_ceil(512) * 512;
        if start + size > length {
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            return Ok(torn(length, format!("'{name}' should end at byte {}, but the file ends before", start + size)));
        }
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let (Ok(block), Ok(size)) = (u32::try_from(start / 512), u32::try_from(size)) else {
            return Ok(torn(start, format!("'{name}' is beyond 2 TiB or larger than 4 GiB")));
        };
        each(name.strip_prefix("./").unwrap_or(&name), Span { block, size });
    }
    if end > length {
        return Ok(torn(length, "the last member is cut".to_owned()));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gzipped_tar_beyond_those_kept_open_holds_no_file_open() {
        let folder = tempfile::tempdir().unwrap();
        let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        builder.append_data(&mut header, "a.txt", b"hello".as_slice()).unwrap();
        let path = folder.path().join("a.tar.gz");
        std::fs::write(&path, builder.into_inner().unwrap().finish().unwrap()).unwrap();
        for keep_open in [true, false] {
            let mut spans = Vec::new();
            let (tarball, fault) = Tarball::index(&path, keep_open, |_, span| spans.push(span)).unwrap();
            assert_eq!((tarball.read(spans[0]).unwrap(), fault), (b"hello".to_vec(), None));
            assert_eq!(matches!(tarball.plain, Plain::Open(_)), keep_open);
            let Plain::Unpacked(unpacked) = &tarball.plain else { continue };
            let unpacked = unpacked.to_path_buf();
            assert!(unpacked.is_file());
            drop(tarball);
            assert!(!unpacked.exists(), "the unpacked file goes with its tarball");
        }
    }
}
