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

mod atomic;
mod checksum;
mod json;
mod limits;
mod lock;
mod printable;
mod stale;
mod suggest;
mod text;
mod yaml;

pub use atomic::{PartialFile, PartialFolder, write_atomic};
pub use checksum::sha256_file;
pub use json::lenient_json;
pub use limits::{DiskSpace, disk_space, open_file_limit, raise_open_file_limit};
pub use lock::{LockState, lock, lock_shared, sync_file, sync_folder, try_lock};
pub use printable::printable;
pub use stale::remove_stale_files;
pub use suggest::{closest, did_you_mean};
pub use text::{MAX_TEXT_BYTES, TextError, decode_text, open_text, read_text, strip_bom, text_reader};
pub use yaml::{MAX_YAML_BYTES, YamlError, parse_yaml};
