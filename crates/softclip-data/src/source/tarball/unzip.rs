//! Unpacks gzipped tars into a temporary file, within the room there is.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use flate2::bufread::GzDecoder;
use softclip_io::{DiskSpace, disk_space};

use crate::source::{SourceError, SourceFault, SourceFaultKind};

/// A tar of images is hardly smaller when packed. What unpacks to more than this many times its size is a bomb.
const MAX_RATIO: u64 = 100;
/// Any file may unpack to this many bytes, since tars are filled up with zeros.
const ALWAYS: u64 = 16 << 20;
/// Bytes between two looks at the free space.
const STEP: u64 = 4 << 20;
/// Of the temporary folder's file system, a twentieth is kept free for others, at most this many bytes.
const MAX_RESERVE: u64 = 1 << 30;

/// Room for the unpacked bytes of one file.
struct Room<'a> {
    path: &'a Path,
    plain: &'a File,
    limit: u64,
    written: u64,
    checked: u64,
}

impl Room<'_> {
    /// Counts `n` bytes more.
    fn take(&mut self, n: u64) -> Result<(), SourceError> {
        self.written += n;
        if self.written > self.limit {
            return Err(self.refusal(format!(
                "it unpacks to more than {MAX_RATIO} times its size ({} so far), which no tar of images does; if that is intended,",
                mib(self.written)
            )));
        }
        if self.written < self.checked + STEP {
            return Ok(());
        }
        self.checked = self.written;
        self.look(STEP)
    }

    /// Checks that there is room for `bytes` more.
    fn look(&self, bytes: u64) -> Result<(), SourceError> {
        let Ok(Some(space)) = disk_space(self.plain) else { return Ok(()) };
        let reserve = reserve(space);
        if space.free >= reserve.saturating_add(bytes) {
            return Ok(());
        }
        Err(self.refusal(format!(
            "the temporary folder {} has no room to unpack it: {} are unpacked, {} are free, of which {} are kept free; set TMPDIR \
             to a folder with more room, or",
            std::env::temp_dir().display(),
            mib(self.written),
            mib(space.free),
            mib(reserve)
        )))
    }

    fn refusal(&self, reason: String) -> SourceError {
        let reason = format!("{reason} unpack it first: gunzip -k {}", self.path.display());
        SourceError::Table { path: self.path.to_owned(), reason }
    }
}

fn reserve(space: DiskSpace) -> u64 {
    (space.total / 20).min(MAX_RESERVE)
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Writes the unpacked bytes of all gzip streams in `packed` to `plain`, as far as they go. Returns what is damaged.
pub(super) fn unzip(path: &Path, packed: &File, mut plain: &File) -> Result<Option<SourceFault>, SourceError> {
    let io = |source| SourceError::io(path, source, "check that the file can be read");
    let length = packed.metadata().map_err(io)?.len();
    let limit = length.saturating_mul(MAX_RATIO).saturating_add(ALWAYS);
    let mut room = Room { path, plain, limit, written: 0, checked: 0 };
    room.look(length)?;
    let mut packed = BufReader::with_capacity(1 << 17, packed);
    let mut buffer = vec![0; 1 << 18];
    let fault = |at: u64, why: String| {
        let why = format!("gzip: {why}: {} of {length} bytes are not read", length.saturating_sub(at));
        SourceFault::new(SourceFaultKind::TruncatedShard, format!("{}, byte {at}", path.display()), why)
    };
    let fault = loop {
        let mut stream = GzDecoder::new(&mut packed);
        let ended = loop {
            match stream.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(n) => {
                    room.take(n as u64)?;
                    plain
                        .write_all(&buffer[..n])
                        .map_err(|e| room.refusal(format!("it cannot be unpacked ({e}); free room, or")))?;
                }
                Err(e) if is_damage(&e) => break Err(e),
                Err(e) => return Err(io(e)),
            }
        };
        let next = skip_zeros(&mut packed).map_err(io)?;
        let at = packed.stream_position().map_err(io)?;
        match (ended, next.as_deref()) {
            (Err(e), _) => break Some(fault(at, e.to_string())),
            (Ok(()), None) => break None,
            (Ok(()), Some([0x1f, 0x8b])) => {}
            (Ok(()), Some(_)) => break Some(fault(at, "what follows the stream is not gzip".to_owned())),
        }
    };
    plain.seek(SeekFrom::Start(0)).map_err(io)?;
    Ok(fault)
}

fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// Skips to the next byte that is not zero, since tapes and copies fill files up. Returns the two bytes there; `None` at the end.
fn skip_zeros(packed: &mut BufReader<&File>) -> io::Result<Option<Vec<u8>>> {
    loop {
        let buffer = packed.fill_buf()?;
        match buffer.iter().position(|byte| *byte != 0) {
            None if buffer.is_empty() => return Ok(None),
            None => {
                let zeros = buffer.len();
                packed.consume(zeros);
            }
            Some(zeros) => {
                packed.consume(zeros);
                let at = packed.stream_position()?;
                let mut two = Vec::new();
                packed.by_ref().take(2).read_to_end(&mut two)?;
                packed.seek(SeekFrom::Start(at))?;
                return Ok(Some(two));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    fn unpack(packed: &[u8]) -> (Result<Option<SourceFault>, SourceError>, Vec<u8>) {
        let (mut file, plain) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        file.write_all(packed).unwrap();
        file.rewind().unwrap();
        let fault = unzip(Path::new("a.tar.gz"), &file, &plain);
        let mut bytes = Vec::new();
        (&plain).rewind().unwrap();
        (&plain).read_to_end(&mut bytes).unwrap();
        (fault, bytes)
    }

    #[test]
    fn all_streams_are_unpacked_and_what_follows_is_reported() {
        let two = [gzip(b"one"), gzip(b"two")].concat();
        let (fault, bytes) = unpack(&two);
        assert_eq!((fault.unwrap(), bytes.as_slice()), (None, &b"onetwo"[..]));
        let (fault, bytes) = unpack(&[&two[..], &[0; 5000]].concat());
        assert_eq!((fault.unwrap(), bytes.as_slice()), (None, &b"onetwo"[..]), "zeros are padding");
        let padded = [gzip(b"one"), vec![0; 700], gzip(b"two")].concat();
        assert_eq!(unpack(&padded).1, b"onetwo");

        let (fault, bytes) = unpack(&[&two[..], b"signature"].concat());
        let fault = fault.unwrap().unwrap().to_string();
        assert_eq!(bytes, b"onetwo");
        assert!(fault.starts_with(&format!("a.tar.gz, byte {}: truncated_shard", two.len())), "{fault}");
        assert!(fault.ends_with(&format!("9 of {} bytes are not read", two.len() + 9)), "{fault}");

        let mut damaged = two.clone();
        let crc = gzip(b"one").len() - 8;
        damaged[crc] ^= 1;
        let (fault, bytes) = unpack(&damaged);
        assert_eq!(bytes, b"one");
        assert!(fault.unwrap().unwrap().detail.contains("checksum"));
    }

    #[test]
    fn bombs_are_refused() {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        writer.write_all(&vec![0; 30 << 20]).unwrap();
        let bomb = writer.finish().unwrap();
        let (refused, bytes) = unpack(&bomb);
        assert!(bytes.len() as u64 <= ALWAYS + MAX_RATIO * bomb.len() as u64);
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("100 times its size") && message.contains("gunzip -k a.tar.gz"), "{message}");
    }

    #[test]
    fn some_space_is_kept_free() {
        let of = |total| reserve(DiskSpace { free: 0, total });
        assert_eq!((of(100 << 20), of(1 << 40)), (5 << 20, 1 << 30));
    }
}
