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
    #[error("the detector's output: expected {expected}; found {found}{}", suffix(remedy))]
    Output {
        /// The layouts that are read.
        expected: String,
        /// What the network returned.
        found: String,
        /// What to do; may be empty.
        remedy: String,
    },
    /// The settings contradict what the TorchScript file says about itself.
    #[error("`{key}` is {settings} in the settings, but the TorchScript file says {file}: {remedy}")]
    Contradiction {
        /// The setting.
        key: &'static str,
        /// Its value.
        settings: String,
        /// The value in the file.
        file: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The network failed on its input.
    #[error("{}: the network failed on inputs of {input}: {cause}{}", path.display(), suffix(remedy))]
    Forward {
        /// The TorchScript file.
        path: PathBuf,
        /// Number of images, height and width.
        input: String,
        /// The error that the failed operation raised.
        cause: String,
        /// What to do; empty if that is not known.
        remedy: String,
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

impl Error {
    /// Why a text file cannot be used.
    pub(crate) fn text(path: &std::path::Path, error: softclip_io::TextError) -> Self {
        match error {
            softclip_io::TextError::Io(source) => Self::Io { path: path.to_owned(), source },
            other => Self::Format { path: path.to_owned(), why: other.to_string() },
        }
    }
}

/// A remedy as the end of a message.
fn suffix(remedy: &str) -> String {
    if remedy.is_empty() { String::new() } else { format!("; {remedy}") }
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        Self::Torch(error.into())
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
