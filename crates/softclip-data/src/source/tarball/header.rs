//! Headers of a tar, and the extensions that describe the header after them.

use tar::{EntryType, Header};

use super::blocks::BLOCK;

/// Field of a header with the size of its member.
const SIZE: std::ops::Range<usize> = 124..136;
/// Field of a header with its checksum.
const CHECKSUM: std::ops::Range<usize> = 148..156;
/// Where a header names its format.
const MAGIC: usize = 257;
/// First byte of the field that continues a name in POSIX headers, and the last byte of the name itself.
const PREFIX: usize = 345;
const NAME_END: usize = 99;

/// Extensions describe names and numbers: longer ones are damaged.
pub(super) const MAX_EXTENSION: u64 = 1 << 20;

/// Whether a block is a header by its checksum, and by the name of its format unless `any_format`: the oldest tars have none.
pub(super) fn is_header(block: &[u8; BLOCK as usize], any_format: bool) -> bool {
    if !any_format && !block[MAGIC..].starts_with(b"ustar") {
        return false;
    }
    let bytes = || block.iter().enumerate().map(|(i, byte)| if CHECKSUM.contains(&i) { b' ' } else { *byte });
    let sum: u32 = bytes().map(u32::from).sum();
    // Some old programs added signed bytes.
    let signed: i32 = bytes().map(|byte| i32::from(byte as i8)).sum();
    let written = Header::from_byte_slice(block).cksum();
    written.is_ok_and(|written| written == sum || i64::from(written) == i64::from(signed))
}

/// Returns the size that a header states; `None` if it is no number, negative, or more than a file can have.
pub(super) fn size(header: &Header) -> Option<u64> {
    let field = &header.as_bytes()[SIZE];
    match field {
        // Base 256: the first byte marks it, eight bytes hold what sizes can be.
        [0x80, 0, 0, 0, ..] => header.entry_size().ok(),
        [first, ..] if first & 0x80 != 0 => None,
        field if field.iter().all(|byte| matches!(byte, 0 | b' ')) => Some(0),
        _ => header.entry_size().ok(),
    }
}

/// Whether bytes follow the header of a member: links, devices and folders have none, even if they state a size.
pub(super) fn has_data(kind: EntryType) -> bool {
    !matches!(kind.as_byte(), b'1'..=b'6')
}

/// Whether a header without extension may have lost one that held its name: a name that fills its field may be cut, and POSIX
/// headers have `?` for letters beyond ASCII.
pub(super) fn name_is_doubtful(header: &Header) -> bool {
    let bytes = header.as_bytes();
    let continues = header.as_ustar().is_some() && bytes[PREFIX] != 0;
    (bytes[NAME_END] != 0 && !continues) || header.path_bytes().contains(&b'?')
}

/// What extensions say of the member that comes next.
#[derive(Default)]
pub(super) struct Extensions {
    /// Position of the first one.
    pub(super) start: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    /// Whether the member's bytes are pieces of a file with holes.
    pub(super) sparse: bool,
}

/// Whether a header is an extension, and not a member.
pub(super) fn is_extension(kind: EntryType) -> bool {
    matches!(kind.as_byte(), b'L' | b'K' | b'x' | b'g' | b'X')
}

impl Extensions {
    /// Takes an extension's data; `None` if they are damaged.
    pub(super) fn take(&mut self, at: u64, kind: EntryType, data: &[u8]) -> Option<()> {
        match kind.as_byte() {
            b'L' => self.name = Some(text(data)?),
            b'K' => {
                text(data)?;
            }
            b'x' | b'X' => {
                for (key, value) in records(data)? {
                    match key {
                        b"path" | b"GNU.sparse.name" => self.name = Some(text(value)?),
                        b"size" => self.size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
                        _ => {}
                    }
                    self.sparse |= key.starts_with(b"GNU.sparse.");
                }
            }
            // Global ones say nothing of a single member.
            _ => return Some(()),
        }
        self.start.get_or_insert(at);
        Some(())
    }
}

/// A name up to its first NUL; `None` if it is empty.
fn text(data: &[u8]) -> Option<Vec<u8>> {
    let name = data.split(|byte| *byte == 0).next()?;
    (!name.is_empty()).then(|| name.to_vec())
}

/// Records `LENGTH KEY=VALUE\n` of POSIX extensions. Values may hold any bytes, line ends too, so that the length decides.
fn records(mut data: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut found = Vec::new();
    while !super::blocks::is_zero(data) {
        let digits = data.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&data[..digits]).ok()?.parse().ok()?;
        let (record, rest) = data.split_at_checked(length)?;
        let record = record.get(digits + 1..)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        found.push((&record[..equals], &record[equals + 1..]));
        data = rest;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_any_notation_are_read() {
        let of = |field: &[u8]| {
            let mut header = Header::new_gnu();
            header.as_mut_bytes()[SIZE].copy_from_slice(field);
            size(&header)
        };
        assert_eq!(of(b"00000000012\0"), Some(10));
        assert_eq!(of(b"         12 "), Some(10));
        assert_eq!(of(&[0; 12]), Some(0));
        assert_eq!(of(b"\x80\0\0\0\0\0\0\0\0\0\x02\x01"), Some(513));
        assert_eq!(of(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None, "negative");
        assert_eq!(of(b"\x80\x01\0\0\0\0\0\0\0\0\0\0"), None, "beyond 64 bits");
        assert_eq!(of(b"0000000001x\0"), None);
        assert_eq!(of(b"-0000000001\0"), None);
    }

    #[test]
    fn records_are_read_by_their_length() {
        let data = b"11 path=ab\n17 xattr=a\n\nb\n\xffx\n10 size=5\n\0\0";
        let found = records(data).unwrap();
        assert_eq!(found, [(&b"path"[..], &b"ab"[..]), (b"xattr", b"a\n\nb\n\xffx"), (b"size", b"5")]);
        assert_eq!(records(b""), Some(Vec::new()));
        for wrong in [&b"99 path=ab\n"[..], b"11 pathxab\n", b"1 a=b\n", b"path=ab\n", b"11 path=abc", b"0 \n"] {
            assert_eq!(records(wrong), None, "{wrong:?}");
        }
    }
}
