//! Why pairs cannot be scored, a collection not embedded, or nothing found in one.

use std::path::{Path, PathBuf};

/// Why a whole job fails. What is wrong with a single row or sample is told with that row instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What is asked for makes no sense, or gives nothing.
    #[error("{0}")]
    Input(String),
    /// A folder or file that is not what it should be.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Scores cannot be written.
    #[error("{place}: {why}")]
    Output {
        /// The file, or standard output.
        place: String,
        /// Why.
        why: String,
    },
    /// Whoever read standard output has ended, as `head` does.
    #[error("standard output: its reader has ended")]
    ReaderClosed,
    /// Threads or decoders do not start, or have a defect.
    #[error("the threads that read images fail: {0}")]
    Threads(String),
    /// The data set.
    #[error(transparent)]
    Source(#[from] softclip_data::source::SourceError),
    /// Reading the data.
    #[error(transparent)]
    Load(#[from] softclip_data::loader::LoadError),
    /// Encoding.
    #[error(transparent)]
    Encoder(#[from] softclip_encoders::Error),
    /// Tensors and their files.
    #[error(transparent)]
    Tensor(#[from] softclip_tensor::Error),
    /// libtorch.
    #[error(transparent)]
    Tch(#[from] tch::TchError),
    /// libtorch: lack of memory among others.
    #[error(transparent)]
    Torch(#[from] softclip_torch::Error),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn file(path: &Path, why: impl ToString) -> Self {
        Self::File { path: path.to_owned(), why: why.to_string() }
    }
}
