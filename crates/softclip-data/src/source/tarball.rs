//! A tar whose members are read in any order, from any thread.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{SourceError, SourceFault, SourceFaultKind};

/// Where a member's bytes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Offset in blocks of 512 bytes.
    block: u32,
    size: u32,
}

pub(super) struct Tarball {
    pub(super) path: PathBuf,
    /// Kept open for the first few hundred; beyond, a file a read, for the limit on open files.
    file: Option<File>,
}

impl Tarball {
    /// Opens `path` and calls `each` with the name and place of every whole file in it, in order. What lies behind a break is left
    /// out and reported. A gzipped tar is unpacked into an unnamed temporary file first.
    pub(super) fn index(
        path: &Path,
        keep_open: bool,
        mut each: impl FnMut(&str, Span),
    ) -> Result<(Self, Option<SourceFault>), SourceError> {
        let io = |source| SourceError::io(path, source, "check the path and its permissions");
        let file = File::open(path).map_err(io)?;
        let zipped = is_gzip(&file).map_err(io)?;
        let (file, torn) = if zipped { unzip(path, file)? } else { (file, None) };
        let length = file.metadata().map_err(io)?.len();
        let fault = walk(path, &file, length, &mut each)?;
        let fault = torn.or(fault);
        Ok((Self { path: path.to_owned(), file: (zipped || keep_open).then_some(file) }, fault))
    }

    pub(super) fn read(&self, span: Span) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; span.size as usize];
        let offset = u64::from(span.block) * 512;
        match &self.file {
            Some(file) => file.read_exact_at(&mut bytes, offset)?,
            None => File::open(&self.path)?.read_exact_at(&mut bytes, offset)?,
        }
        Ok(bytes)
    }
}

fn is_gzip(file: &File) -> io::Result<bool> {
    let mut magic = [0; 2];
    let n = file.read_at(&mut magic, 0)?;
    Ok(n == 2 && magic == [0x1f, 0x8b])
}

/// The unpacked bytes, as far as they go.
fn unzip(path: &Path, file: File) -> Result<(File, Option<SourceFault>), SourceError> {
    let hint = "unpacking takes room in the temporary folder: set TMPDIR to one with more";
    let mut plain = tempfile::tempfile().map_err(|source| SourceError::io(path, source, hint))?;
    let mut unzipped = flate2::read::MultiGzDecoder::new(BufReader::new(file));
    let mut buffer = vec![0; 1 << 18];
    let fault = loop {
        match unzipped.read(&mut buffer) {
            Ok(0) => break None,
            Ok(n) => {
                io::Write::write_all(&mut plain, &buffer[..n]).map_err(|source| SourceError::io(path, source, hint))?;
            }
            Err(e) => {
                break Some(SourceFault::new(SourceFaultKind::TruncatedShard, path.display().to_string(), format!("gzip: {e}")));
            }
        }
    };
    plain.seek(SeekFrom::Start(0)).map_err(|source| SourceError::io(path, source, hint))?;
    Ok((plain, fault))
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
