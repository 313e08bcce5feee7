//! Why pairs cannot be scored. What is wrong with a single row stands in its own `error` column instead.

use std::path::{Path, PathBuf};

/// Why pairs cannot be scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScoreError {
    /// A file that cannot be read, or is not what it should be.
    #[error("{}: {why}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// The scores cannot be written.
    #[error("{place}: {why}")]
    Output {
        /// The file, or standard output.
        place: String,
        /// Why.
        why: String,
    },
    /// Threads or decoders do not start, or have a defect.
    #[error("the threads that read images fail: {0}")]
    Threads(String),
    /// Encoding.
    #[error(transparent)]
    Encoder(#[from] softclip_encoders::Error),
    /// Embeddings.
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
pub(crate) type Result<T> = std::result::Result<T, ScoreError>;

impl ScoreError {
    pub(crate) fn input(path: &Path, why: impl ToString) -> Self {
        ScoreError::Input { path: path.to_owned(), why: why.to_string() }
    }
}
