//! A tar whose members are read in any order, from any thread.

mod blocks;
mod format;
mod header;
mod unzip;
mod walk;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::{NamedTempFile, TempPath};

use self::blocks::{BLOCK, Blocks, is_zero};
use super::{SourceError, SourceFault, SourceFaultKind};

/// Where a member's bytes lie. The default has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    /// Offset in blocks of 512 bytes.
    block: u32,
    size: u32,
}

impl Span {
    /// `size` bytes at `start`; `None` beyond 2 TiB, or of 4 GiB and more.
    fn new(start: u64, size: u64) -> Option<Self> {
        Some(Self { block: u32::try_from(start / BLOCK).ok()?, size: u32::try_from(size).ok()? })
    }

    /// Bytes.
    pub(super) fn len(self) -> u64 {
        u64::from(self.size)
    }
}

/// What indexing a tar finds, in the order of the file.
pub(super) enum Event<'a> {
    /// A whole regular file: its name, without `./`, and its place.
    File(&'a str, Span),
    /// A member that is not read.
    Special(&'a str, Special),
    /// Something wrong.
    Fault(SourceFault),
}

/// Why a member with the name of a file is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Special {
    HardLink,
    SymbolicLink,
    Sparse,
    TooLarge,
}

impl Special {
    /// What the member is, and what to do.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::HardLink => "a hard link, which is not followed: pack the files with `tar --hard-dereference`",
            Self::SymbolicLink => "a symbolic link, which is not followed: pack the files with `tar --dereference`",
            Self::Sparse => "a file with holes, which is not read: pack the files without `--sparse`",
            Self::TooLarge => "larger than 4 GiB, or beyond the first 2 TiB of the tar: such members are not read",
        }
    }
}

pub(super) struct Tarball {
    pub(super) path: PathBuf,
    plain: Plain,
}

/// Where the bytes of the tar itself are. Some are kept open; the others are opened for each read, since the number of open files is
/// limited.
enum Plain {
    Open {
        file: File,
        _kept: KeptOpen,
    },
    /// At the tarball's path.
    AtPath,
    /// Unpacked into a temporary file, which goes with this value.
    Unpacked(TempPath),
}

/// Tars that this process keeps open.
static OPEN: AtomicU64 = AtomicU64::new(0);

/// Files that are left for everything else: libraries, connections, and tars that are opened for a read.
const RESERVED: u64 = 64;

/// One of the tars that may be kept open; its place is free again when this value is dropped.
struct KeptOpen;

impl KeptOpen {
    fn take() -> Option<Self> {
        static LIMIT: OnceLock<u64> = OnceLock::new();
        Self::take_below(*LIMIT.get_or_init(|| softclip_io::open_file_limit().unwrap_or(u64::MAX).saturating_sub(RESERVED) / 2))
    }

    fn take_below(limit: u64) -> Option<Self> {
        let taken = OPEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| (open < limit).then(|| open + 1));
        // Only a place that was taken may be dropped.
        taken.ok().map(|_| Self)
    }
}

impl Drop for KeptOpen {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Tarball {
    /// Opens `path` and calls `each` with the name and place of every whole file in it, in order. Returns what is not read: damage, links,
    /// files with holes. A gzipped tar is unpacked into a temporary file first.
    pub(super) fn index(
        path: &Path,
        keep_open: bool,
        mut each: impl FnMut(&str, Span),
    ) -> Result<(Self, Vec<SourceFault>), SourceError> {
        let mut faults = Vec::new();
        let tarball = Self::walk(path, keep_open, |event| match event {
            Event::File(name, span) => each(name, span),
            Event::Special(name, special) => {
                let place = format!("{}/{name}", path.display());
                let detail = format!("passed over: {}", special.describe());
                faults.push(SourceFault::new(SourceFaultKind::Orphan, place, detail));
            }
            Event::Fault(fault) => faults.push(fault),
        })?;
        Ok((tarball, faults))
    }

    /// As [`Tarball::index`], with everything in the order of the file.
    pub(super) fn walk(path: &Path, keep_open: bool, mut each: impl FnMut(Event)) -> Result<Self, SourceError> {
        let io = |source| SourceError::io(path, source, "check the path and its permissions");
        let kept = keep_open.then(KeptOpen::take).flatten();
        let open = File::open(path).map_err(io)?;
        let (file, unpacked, torn) = match is_gzip(&open).map_err(io)? {
            true => {
                let (file, unpacked) = temporary(kept.is_some()).map_err(|e| SourceError::io(path, e, UNPACKING))?;
                let torn = unzip::unzip(path, &open, &file)?;
                (file, unpacked, torn)
            }
            false => (open, None, None),
        };
        let mut blocks = Blocks::new(&file).map_err(io)?;
        refuse_other_formats(path, &mut blocks).map_err(io)??;
        let is_tar = walk::walk(path, blocks, |event| match event {
            // That the stream ends early is reported once, with its cause.
            Event::Fault(fault) if torn.is_some() && fault.kind != SourceFaultKind::DamagedShard => {}
            event => each(event),
        });
        if !is_tar.map_err(io)? {
            let unknown = "no block of it is the header of a member; check what the file is, and copy or download it again";
            return Err(not_a_tar(path, torn.as_ref().map_or(unknown, |torn| &torn.detail)));
        }
        if let Some(torn) = torn {
            each(Event::Fault(torn));
        }
        let plain = match (kept, unpacked) {
            (Some(_kept), _) => Plain::Open { file, _kept },
            (None, Some(unpacked)) => Plain::Unpacked(unpacked),
            (None, None) => Plain::AtPath,
        };
        Ok(Self { path: path.to_owned(), plain })
    }

    pub(super) fn read(&self, span: Span) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; span.size as usize];
        let offset = u64::from(span.block) * BLOCK;
        match &self.plain {
            Plain::Open { file, .. } => file.read_exact_at(&mut bytes, offset)?,
            Plain::AtPath => File::open(&self.path)?.read_exact_at(&mut bytes, offset)?,
            Plain::Unpacked(path) => File::open(path)?.read_exact_at(&mut bytes, offset)?,
        }
        Ok(bytes)
    }
}

fn not_a_tar(path: &Path, why: &str) -> SourceError {
    SourceError::Table { path: path.to_owned(), reason: format!("not a tar: {why}") }
}

/// A file of another format is named before it is searched for headers.
fn refuse_other_formats(path: &Path, blocks: &mut Blocks) -> io::Result<Result<(), SourceError>> {
    let head = blocks.bytes(0, BLOCK as usize)?;
    let may_be_tar = is_zero(&head) || blocks.get(0)?.is_some_and(|block| header::is_header(block, true));
    Ok(match format::describe(&head, path).filter(|_| !may_be_tar) {
        Some(why) => Err(not_a_tar(path, &why)),
        None => Ok(()),
    })
}

fn is_gzip(file: &File) -> io::Result<bool> {
    let mut magic = [0; 2];
    let n = file.read_at(&mut magic, 0)?;
    Ok(n == 2 && magic == [0x1f, 0x8b])
}

const UNPACKING: &str = "a gzipped tar is unpacked into the temporary folder: set TMPDIR to one that can be written";

/// A temporary file: without a name, so that nothing stays of it whatever happens, where it will be kept open.
fn temporary(keep_open: bool) -> io::Result<(File, Option<TempPath>)> {
    if keep_open {
        return Ok((tempfile::tempfile()?, None));
    }
    let (file, path) = NamedTempFile::new()?.into_parts();
    Ok((file, Some(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_refused_is_not_given_back() {
        // Given back without being taken, the count would wrap, and every later one would be refused.
        assert!((0..3).all(|_| KeptOpen::take_below(0).is_none()));
        assert!(KeptOpen::take_below(u64::MAX / 2).is_some());
    }

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
            let (tarball, faults) = Tarball::index(&path, keep_open, |_, span| spans.push(span)).unwrap();
            assert_eq!((tarball.read(spans[0]).unwrap(), faults), (b"hello".to_vec(), Vec::new()));
            assert_eq!(matches!(tarball.plain, Plain::Open { .. }), keep_open);
            let Plain::Unpacked(unpacked) = &tarball.plain else { continue };
            let unpacked = unpacked.to_path_buf();
            assert!(unpacked.is_file());
            drop(tarball);
            assert!(!unpacked.exists(), "the unpacked file goes with its tarball");
        }
    }
}
