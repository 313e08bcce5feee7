//! What goes wrong with a detector.

use std::path::PathBuf;

/// Why there are no detections.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A TorchScript file that nobody vouches for.
    #[error(
        "{}: a TorchScript file is a program, and loading it runs it. If you trust where it comes from, say so with its SHA-256 \
         ({sha256}), or with --trust",
        path.display()
    )]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// Its hash.
        sha256: String,
    },
    /// A file that is not the one that was vouched for.
    #[error("{}: its SHA-256 is {found}, and not {expected}: another file, or a damaged one", path.display())]
    Hash {
        /// The file.
        path: PathBuf,
        /// Its hash.
        found: String,
        /// The hash it should have.
        expected: String,
    },
    /// A file that is not what it should be.
    #[error("{}: {why}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The network's output is not a detector's.
    #[error("the detector's output: expected {expected}; found {found}")]
    Output {
        /// What would do.
        expected: String,
        /// What came.
        found: String,
    },
    /// An option outside of its range.
    #[error("{key}: {why}")]
    Option {
        /// The option.
        key: &'static str,
        /// What is wrong and what would be right.
        why: String,
    },
    /// Tensors.
    #[error(transparent)]
    Tensor(#[from] softclip_tensor::Error),
    /// libtorch.
    #[error(transparent)]
    Torch(#[from] softclip_torch::Error),
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        Self::Torch(error.into())
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
