//! Why there are no embeddings, or nothing can be found in them.

use std::path::{Path, PathBuf};

/// Why embedding or searching fails.
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

    pub(crate) fn file(path: &Path, why: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), why: why.into() }
    }
}
