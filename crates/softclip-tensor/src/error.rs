//! Errors of values at the border and of tensor files.

use std::path::PathBuf;

/// What was wrong with a value or a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tensor has another shape than its type allows.
    #[error("{what}: expected shape {expected}, found {found:?}")]
    Shape {
        /// The value.
        what: &'static str,
        /// The shape it should have.
        expected: &'static str,
        /// The shape it has.
        found: Vec<i64>,
    },
    /// A value is outside of its range.
    #[error("{what}: {why}")]
    Value {
        /// The value.
        what: &'static str,
        /// What is wrong and what would be right.
        why: String,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {why}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// libtorch failed.
    #[error(transparent)]
    Tch(#[from] tch::TchError),
    /// The layer over libtorch failed.
    #[error(transparent)]
    Torch(#[from] softclip_torch::Error),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
