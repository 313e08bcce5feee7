//! Reads text files. Every text input goes through this module.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

const UTF8_BOM: &[u8] = b"\xef\xbb\xbf";

/// Largest text file that [`read_text`] reads whole, in bytes (2 GiB).
pub const MAX_TEXT_BYTES: u64 = 2 << 30;

/// Bytes that are examined to detect UTF-16 text without a byte order mark.
const SNIFFED_BYTES: usize = 64;

/// Why a file is not usable as text. The message does not contain the path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The system cannot read the file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The text is encoded as UTF-16 or UTF-32.
    #[error("the file is {encoding}: save it as UTF-8")]
    Encoding {
        /// Name of the encoding.
        encoding: &'static str,
    },
    /// A byte sequence is not UTF-8.
    #[error("line {line}: not UTF-8 (byte {byte:#04x}): save the file as UTF-8")]
    InvalidUtf8 {
        /// Line of the byte, from 1.
        line: usize,
        /// The first byte that does not belong there.
        byte: u8,
    },
    /// The text contains a NUL byte.
    #[error("line {line}: a NUL byte: the file is damaged or is not text")]
    Nul {
        /// Line of the byte, from 1.
        line: usize,
    },
    /// The file is larger than [`MAX_TEXT_BYTES`].
    #[error("the file has {bytes} bytes; text files of up to {MAX_TEXT_BYTES} bytes are read")]
    TooLarge {
        /// Size of the file in bytes.
        bytes: u64,
    },
}

/// Returns `bytes` without a leading UTF-8 byte order mark.
pub fn strip_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(UTF8_BOM).unwrap_or(bytes)
}

/// Returns the name of the encoding if `head`, the first bytes of a file, is UTF-16 or UTF-32.
///
/// Without a byte order mark, text of mostly ASCII characters is recognized by its zero bytes.
fn wide_encoding(head: &[u8]) -> Option<&'static str> {
    match head {
        [0xff, 0xfe, 0, 0, ..] => return Some("UTF-32"),
        [0, 0, 0xfe, 0xff, ..] => return Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Some("UTF-16"),
        _ => {}
    }
    let head = &head[..head.len().min(SNIFFED_BYTES) & !1];
    let zeros = |parity: usize| head.iter().skip(parity).step_by(2).filter(|byte| **byte == 0).count();
    let (even, odd, pairs) = (zeros(0), zeros(1), head.len() / 2);
    // Half of the characters suffice: the others may be accented letters or of another script.
    let wide = pairs >= 2 && ((even == 0 && odd * 2 > pairs) || (odd == 0 && even * 2 > pairs));
    wide.then_some("UTF-16")
}

fn line_of(bytes: &[u8], at: usize) -> usize {
    bytes[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Decodes the bytes of a text file. A byte order mark is removed, and lines that end in `\r` alone end in `\n` then.
///
/// # Errors
/// The bytes are UTF-16 or UTF-32, are not UTF-8, or contain a NUL byte. The message names the line.
pub fn decode_text(bytes: Vec<u8>) -> Result<String, TextError> {
    if let Some(encoding) = wide_encoding(&bytes) {
        return Err(TextError::Encoding { encoding });
    }
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err(TextError::Nul { line: line_of(&bytes, at) });
    }
    let mut text = String::from_utf8(bytes).map_err(|e| {
        let (at, bytes) = (e.utf8_error().valid_up_to(), e.as_bytes());
        TextError::InvalidUtf8 { line: line_of(bytes, at), byte: bytes[at] }
    })?;
    if text.starts_with('\u{feff}') {
        text.drain(..UTF8_BOM.len());
    }
    // The line ends of old Mac files: otherwise all lines would be one.
    if text.contains('\r') && !text.contains('\n') {
        text = text.replace('\r', "\n");
    }
    Ok(text)
}

/// Reads a text file. A byte order mark is removed.
///
/// # Errors
/// As [`decode_text`]; the file cannot be read or is larger than [`MAX_TEXT_BYTES`].
pub fn read_text(path: impl AsRef<Path>) -> Result<String, TextError> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_TEXT_BYTES + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 {
        read if read > MAX_TEXT_BYTES => Err(TextError::TooLarge { bytes: read }),
        _ => decode_text(bytes),
    }
}

/// Opens a text file for reading in pieces, positioned after a byte order mark.
///
/// Only the beginning is examined: the caller must report NUL bytes and invalid UTF-8 of what it reads.
///
/// # Errors
/// The file cannot be opened, or it begins as UTF-16 or UTF-32 text.
pub fn open_text(path: impl AsRef<Path>) -> Result<BufReader<File>, TextError> {
    text_reader(File::open(path)?)
}

/// As [`open_text`], from an input that is open already and at its beginning.
///
/// # Errors
/// The input cannot be read, or it begins as UTF-16 or UTF-32 text.
pub fn text_reader<R: Read>(input: R) -> Result<BufReader<R>, TextError> {
    let mut reader = BufReader::with_capacity(1 << 16, input);
    let head = reader.fill_buf()?;
    if let Some(encoding) = wide_encoding(head) {
        return Err(TextError::Encoding { encoding });
    }
    let skipped = head.len() - strip_bom(head).len();
    reader.consume(skipped);
    Ok(reader)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: &[u8]) -> String {
        decode_text(bytes.to_vec()).unwrap_err().to_string()
    }

    #[test]
    fn byte_order_mark_is_removed_once() {
        assert_eq!(decode_text(b"\xef\xbb\xbfa\xef\xbb\xbf".to_vec()).unwrap(), "a\u{feff}");
        assert_eq!(decode_text("é, 中\n".into()).unwrap(), "é, 中\n");
        assert_eq!(decode_text(Vec::new()).unwrap(), "");
    }

    #[test]
    fn carriage_returns_alone_end_lines() {
        assert_eq!(decode_text(b"one\rtwo\r".to_vec()).unwrap(), "one\ntwo\n");
        assert_eq!(decode_text(b"one\r\ntwo\rx\n".to_vec()).unwrap(), "one\r\ntwo\rx\n");
    }

    #[test]
    fn wide_encodings_are_named() {
        for bytes in [&b"\xff\xfei\0"[..], b"\xfe\xff\0i", b"i\0m\0a\0g\0e\0", b"\0i\0m\0a\0g\0e", b"c\0a\0f\0\xe9\0\n\0"] {
            assert!(message(bytes).contains("UTF-16"), "{bytes:?}");
        }
        assert!(message(b"\xff\xfe\0\0i\0\0\0").contains("UTF-32"));
    }

    #[test]
    fn invalid_bytes_are_reported_with_their_line() {
        assert_eq!(message(b"one\ntwo\nth\0ree"), "line 3: a NUL byte: the file is damaged or is not text");
        assert!(message(b"one\n\xe9t\xe9").starts_with("line 2: not UTF-8 (byte 0xe9)"));
    }

    #[test]
    fn readers_start_behind_the_mark() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t");
        for (bytes, expected) in [(&b"\xef\xbb\xbfa,b"[..], "a,b"), (b"a", "a"), (b"", ""), (b"\xef\xbb\xbf", "")] {
            std::fs::write(&path, bytes).unwrap();
            let mut text = String::new();
            open_text(&path).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, expected);
            assert_eq!(read_text(&path).unwrap(), expected);
        }
        std::fs::write(&path, b"a\0b\0").unwrap();
        assert!(open_text(&path).unwrap_err().to_string().contains("UTF-16"));
        assert!(matches!(read_text(dir.path().join("none")), Err(TextError::Io(_))));
    }
}
