//! What goes wrong with a whole job; what is wrong with one image is counted instead.

use std::path::{Path, PathBuf};

/// Why a job cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
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
        /// What is wrong, where, and what to do.
        why: String,
    },
    /// Options that do not fit each other or the source.
    #[error("{0}")]
    Options(String),
    /// The detector.
    #[error(transparent)]
    Detector(#[from] softclip_detector::Error),
    /// The network that makes region features.
    #[error(transparent)]
    Encoders(#[from] softclip_encoders::Error),
    /// Images cannot be decoded at all.
    #[error("the image decoder does not start: {0}")]
    Decoder(#[from] softclip_data::image::ImageError),
    /// Too many samples cannot be used.
    #[error(
        "{bad} of {seen} samples cannot be used, more than the share of {limit} that is allowed: {causes}; the first is {first}"
    )]
    TooManyBad {
        /// Samples that cannot be used.
        bad: usize,
        /// Samples looked at.
        seen: usize,
        /// The limit.
        limit: f64,
        /// Counts by cause.
        causes: String,
        /// An example.
        first: String,
    },
    /// A thread could not be started, or ended with a defect.
    #[error("a thread of the job: {0}")]
    Thread(String),
    /// Tensors and files.
    #[error(transparent)]
    Tensor(#[from] softclip_tensor::Error),
    /// libtorch.
    #[error(transparent)]
    Torch(#[from] softclip_torch::Error),
}

impl Error {
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { path: path.as_ref().to_owned(), source }
    }

    /// Why a text file cannot be used.
    pub(crate) fn text(path: impl AsRef<Path>, error: softclip_io::TextError) -> Self {
        match error {
            softclip_io::TextError::Io(source) => Self::Io { path: path.as_ref().to_owned(), source },
            other => Self::format(path, other.to_string()),
        }
    }

    pub(crate) fn format(path: impl AsRef<Path>, why: impl Into<String>) -> Self {
        Self::Format { path: path.as_ref().to_owned(), why: why.into() }
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
