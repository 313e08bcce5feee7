//! All members of a tar, and what is damaged between them.
//!
//! Reading continues past end marks, holes and damaged headers wherever a header with the right checksum follows at a block's
//! beginning. Each stretch that is not read is reported with its place and length.

use std::io;
use std::path::Path;

use tar::{EntryType, Header};

use super::blocks::{BLOCK, Blocks, is_zero};
use super::header::{Extensions, MAX_EXTENSION, has_data, is_extension, is_header, name_is_doubtful, size};
use super::{Event, Span, Special};
use crate::source::{SourceFault, SourceFaultKind};

/// GNU tar and Python fill an archive up to a multiple of these bytes.
const RECORD: u64 = 20 * BLOCK;
/// An archive without members is one record of zeros, of at most this many bytes.
const MAX_RECORD: u64 = 1 << 20;

/// Bytes that are no member.
struct Gap {
    start: u64,
    /// End of the last block that is not zero; `start` while all are.
    end: u64,
}

struct Walk<'a, F> {
    path: &'a Path,
    blocks: Blocks<'a>,
    each: F,
    extensions: Extensions,
    gap: Option<Gap>,
    /// Where the archive begins, of several joined ones.
    archive: u64,
    headers: u64,
    /// Whether the file ends within a member, which is reported.
    cut: bool,
}

/// Calls `each` with all members in their order, and with what is not read. Returns false if there is no header at all, although the file is not all zeros.
pub(super) fn walk(path: &Path, blocks: Blocks, each: impl FnMut(Event)) -> io::Result<bool> {
    let extensions = Extensions::default();
    let mut walk = Walk { path, blocks, each, extensions, gap: None, archive: 0, headers: 0, cut: false };
    let mut at = 0;
    while let Some(next) = walk.step(at)? {
        at = next;
    }
    walk.finish(at)
}

impl<F: FnMut(Event)> Walk<'_, F> {
    /// Reads what is at `at` and returns where to continue; `None` at the end of the file.
    fn step(&mut self, at: u64) -> io::Result<Option<u64>> {
        let Some(block) = self.blocks.get(at)? else { return Ok(None) };
        if is_zero(block) {
            self.open_gap(at);
            return self.blocks.after_zeros(at).map(Some);
        }
        // The oldest tars do not name their format. Where a header may be anything, the name is needed too.
        let header = is_header(block, self.gap.is_none()).then(|| Header::from_byte_slice(block).clone());
        let next = match header.as_ref().and_then(|header| Some((header, size(header)?))) {
            Some((header, size)) if is_extension(header.entry_type()) => self.extension(at, header.entry_type(), size)?,
            Some((header, size)) => self.member(at, header, size)?,
            None => None,
        };
        match next {
            _ if self.cut => Ok(None),
            Some(next) => Ok(Some(next)),
            None => {
                self.open_gap(at).end = at + BLOCK;
                Ok(Some(at + BLOCK))
            }
        }
    }

    /// A member whose extensions are lost is lost with them: the gap begins at these.
    fn open_gap(&mut self, at: u64) -> &mut Gap {
        let extensions = std::mem::take(&mut self.extensions);
        let start = extensions.start.unwrap_or(at);
        let gap = self.gap.get_or_insert(Gap { start, end: start });
        if extensions.start.is_some() {
            gap.end = at;
        }
        gap
    }

    /// Returns the end of an extension, or `None` if it is damaged.
    fn extension(&mut self, at: u64, kind: EntryType, size: u64) -> io::Result<Option<u64>> {
        if size > MAX_EXTENSION {
            return Ok(None);
        }
        let data = self.blocks.bytes(at + BLOCK, size as usize)?;
        if (data.len() as u64) < size && !self.blocks.ends_with_mark()? {
            self.headers += 1;
            self.close_gap(at);
            self.truncated(self.extensions.start.unwrap_or(at), "the description of the next member is cut");
            return Ok(None);
        }
        if (data.len() as u64) < size || self.extensions.take(at, kind, &data).is_none() {
            return Ok(None);
        }
        self.headers += 1;
        self.close_gap(at);
        Ok(Some(at + BLOCK + size.next_multiple_of(BLOCK)))
    }

    /// Returns the end of a member, or `None` if its header is damaged.
    fn member(&mut self, at: u64, header: &Header, size: u64) -> io::Result<Option<u64>> {
        let size = if has_data(header.entry_type()) { self.extensions.size.unwrap_or(size) } else { 0 };
        let start = self.start_of_data(at, header)?;
        let end = start.checked_add(size).and_then(|end| end.checked_next_multiple_of(BLOCK));
        let Some(end) = end.filter(|end| *end < u64::MAX / 2) else { return Ok(None) };
        let cut = start + size > self.blocks.length;
        // A file with an end mark is whole: then it is the size that is wrong.
        if cut && self.blocks.ends_with_mark()? {
            return Ok(None);
        }
        self.headers += 1;
        let doubtful = self.extensions.name.is_none() && name_is_doubtful(header);
        if doubtful
            && let Some(gap) = self.gap.as_mut().filter(|gap| at - gap.start == 2 * BLOCK || !is_end_mark(gap, at, self.archive))
        {
            gap.end = end.min(self.blocks.length);
            return Ok(Some(end));
        }
        self.close_gap(at);
        let extensions = std::mem::take(&mut self.extensions);
        let name = extensions.name.unwrap_or_else(|| header.path_bytes().into_owned());
        let name = String::from_utf8_lossy(&name);
        let name = name.strip_prefix("./").unwrap_or(&name);
        if cut {
            let why = format!("'{name}' should end at byte {}, but the file ends before", start + size);
            self.truncated(extensions.start.unwrap_or(at), &why);
            return Ok(None);
        }
        let special = match header.entry_type() {
            EntryType::Link => Some(Special::HardLink),
            EntryType::Symlink => Some(Special::SymbolicLink),
            EntryType::GNUSparse => Some(Special::Sparse),
            EntryType::Regular | EntryType::Continuous if extensions.sparse => Some(Special::Sparse),
            EntryType::Regular | EntryType::Continuous => None,
            _ => return Ok(Some(end)),
        };
        let span = Span::new(start, size);
        match (special, span) {
            (Some(special), _) => (self.each)(Event::Special(name, special)),
            (None, Some(span)) => (self.each)(Event::File(name, span)),
            (None, None) => (self.each)(Event::Special(name, Special::TooLarge)),
        }
        Ok(Some(end))
    }

    /// Files with holes may list these in further blocks, which their size does not include.
    fn start_of_data(&mut self, at: u64, header: &Header) -> io::Result<u64> {
        let mut start = at + BLOCK;
        let mut more = header.entry_type().is_gnu_sparse() && header.as_bytes()[482] != 0;
        while more && let Some(block) = self.blocks.get(start)? {
            more = block[504] != 0;
            start += BLOCK;
        }
        Ok(start)
    }

    /// Reports what lies between the last member and the header at `at`.
    fn close_gap(&mut self, at: u64) {
        let Some(gap) = self.gap.take() else { return };
        let (bytes, zeros) = (at - gap.start, gap.start == gap.end);
        if is_end_mark(&gap, at, self.archive) {
            let why = format!(
                "members follow {bytes} bytes of zeros, as between joined tars: if nothing was joined, what these bytes held is lost"
            );
            self.fault(SourceFaultKind::EndMark, gap.start, why);
        } else if zeros {
            let why = format!(
                "{bytes} bytes are zeros, and members follow: members between them are lost, unless these are joined tars"
            );
            self.fault(SourceFaultKind::DamagedShard, gap.start, why);
        } else {
            let why = format!("{bytes} bytes are damaged and not read; reading continues at byte {at}");
            self.fault(SourceFaultKind::DamagedShard, gap.start, why);
        }
        self.archive = at;
    }

    /// Reports a file that ends in the middle of something which begins at `at`.
    fn truncated(&mut self, at: u64, why: &str) {
        let why = match self.blocks.length.saturating_sub(at) {
            0 => format!("{why}; copy or download the file again"),
            bytes => format!("{why}: {bytes} bytes are not read; copy or download the file again"),
        };
        self.fault(SourceFaultKind::TruncatedShard, at, why);
        self.cut = true;
    }

    fn fault(&mut self, kind: SourceFaultKind, at: u64, why: String) {
        (self.each)(Event::Fault(SourceFault::new(kind, format!("{}, byte {at}", self.path.display()), why)));
    }

    /// Reports how the file ends, at `at` or within the block there.
    fn finish(mut self, at: u64) -> io::Result<bool> {
        let length = self.blocks.length;
        if self.cut {
            return Ok(true);
        }
        let rest = self.blocks.bytes(at, BLOCK as usize)?;
        if !is_zero(&rest) {
            self.open_gap(at).end = length;
        }
        match self.gap.take() {
            Some(gap) if self.headers == 0 && gap.end > gap.start => return Ok(false),
            Some(gap) if gap.end > gap.start && gap.start == at => self.truncated(at, "the file ends in a header"),
            Some(gap) if gap.end > gap.start => {
                let why = format!("{} bytes are damaged and not read, and no member follows", gap.end - gap.start);
                self.fault(SourceFaultKind::DamagedShard, gap.start, why);
            }
            Some(_) if self.headers == 0 && length > MAX_RECORD => self.truncated(0, "all bytes are zeros"),
            Some(gap) if self.headers > 0 && !is_padding(length - gap.start, length) => {
                let why = "the file ends in more zeros than any tar is padded with: the download or the copy may be incomplete";
                self.truncated(gap.start, why);
            }
            Some(_) => {}
            None if length == 0 => self.truncated(0, "the file is empty (0 bytes)"),
            None if self.extensions.start.is_some() => {
                self.truncated(self.extensions.start.unwrap_or(at), "the last member is described and is not there");
            }
            None if at > length => self.truncated(length, "the file ends in the padding of its last member"),
            None => self.truncated(length, "no end mark follows the last member, so that the file may be cut between two"),
        }
        Ok(true)
    }
}

/// Whether zeros before a header are the end of an archive that begins at `archive`: two blocks, filled up to a record or not.
fn is_end_mark(gap: &Gap, at: u64, archive: u64) -> bool {
    let bytes = at - gap.start;
    let filled = (at - archive).is_multiple_of(RECORD) && bytes < RECORD + 2 * BLOCK;
    gap.end == gap.start && (bytes == 2 * BLOCK || (bytes > 2 * BLOCK && filled))
}

/// Whether `zeros` bytes at the end of a file of `length` bytes are an end mark and the padding of some blocking factor.
fn is_padding(zeros: u64, length: u64) -> bool {
    let mark = 2 * BLOCK;
    let mut records = (1..=MAX_RECORD / BLOCK).map(|factor| factor * BLOCK);
    zeros <= RECORD + mark || records.any(|record| zeros <= record + mark && length.is_multiple_of(record))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_that_of_some_blocking_factor() {
        let whole = 1_000_003 * BLOCK; // a prime number of blocks
        assert!(is_padding(2 * BLOCK, whole) && is_padding(22 * BLOCK, whole + 7));
        assert!(!is_padding(40 * BLOCK, whole), "no factor above 1 divides it");
        assert!(is_padding(130 * BLOCK, 128 * BLOCK * 7) && is_padding(1 << 20, 7 << 20));
        assert!(!is_padding(3 << 20, 12 << 20), "larger than any record");
    }
}
