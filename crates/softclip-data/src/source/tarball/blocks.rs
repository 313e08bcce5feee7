//! Blocks of a tar, read at any position.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes of a block, the unit of a tar.
pub(super) const BLOCK: u64 = 512;

/// Bytes that are read at once: few between members, which lie apart, and more where block follows block.
const WINDOW: std::ops::RangeInclusive<usize> = 1024..=1 << 18;

/// Reads blocks of a file.
pub(super) struct Blocks<'a> {
    file: &'a File,
    /// Bytes of the file.
    pub(super) length: u64,
    window: Vec<u8>,
    start: u64,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(file: &'a File) -> io::Result<Self> {
        Ok(Self { file, length: file.metadata()?.len(), window: Vec::new(), start: 0 })
    }

    /// Returns the whole block at `at`; `None` if the file ends before the block does.
    pub(super) fn get(&mut self, at: u64) -> io::Result<Option<&[u8; BLOCK as usize]>> {
        let end = self.start + self.window.len() as u64;
        if at < self.start || at + BLOCK > end {
            let len = if at == end { self.window.len() * 2 } else { 0 };
            self.window = self.bytes(at, len.clamp(*WINDOW.start(), *WINDOW.end()))?;
            self.start = at;
        }
        Ok(self.window[(at - self.start) as usize..].first_chunk())
    }

    /// Returns up to `len` bytes at `at`; fewer where the file ends.
    pub(super) fn bytes(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let len = (len as u64).min(self.length.saturating_sub(at)) as usize;
        let mut bytes = vec![0; len];
        let mut read = 0;
        while read < len {
            match self.file.read_at(&mut bytes[read..], at + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Returns the position of the first block from `at` that is not all zeros, or where no whole block is left.
    pub(super) fn after_zeros(&mut self, mut at: u64) -> io::Result<u64> {
        while self.get(at)?.is_some_and(|block| is_zero(block)) {
            at += BLOCK;
        }
        Ok(at)
    }

    /// Whether the file ends with an end mark: two blocks of zeros.
    pub(super) fn ends_with_mark(&self) -> io::Result<bool> {
        let tail = self.bytes(self.length.saturating_sub(2 * BLOCK), 2 * BLOCK as usize)?;
        Ok(tail.len() as u64 == 2 * BLOCK && is_zero(&tail))
    }
}

pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
