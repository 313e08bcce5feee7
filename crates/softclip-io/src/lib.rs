//! Files as people have them: text with byte order marks, file systems without locks, processes that were killed.
//!
//! This crate does not depend on libtorch, so that every other crate can use it.
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("names.txt");
//! std::fs::write(&path, "\u{feff}cat\ndog\n")?;
//! assert_eq!(softclip_io::read_text(&path)?, "cat\ndog\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod checksum;
mod text;

pub use checksum::sha256_file;
pub use text::{MAX_TEXT_BYTES, TextError, decode_text, open_text, read_text, strip_bom};
