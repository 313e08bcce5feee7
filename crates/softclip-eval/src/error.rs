//! Why there is no result.

use std::path::PathBuf;

/// Why an evaluation fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// Embeddings, owners or labels that do not fit together, or data of the wrong sort for the task.
    #[error("{0}")]
    Input(String),
    /// Prompts that cannot be used.
    #[error("prompts {name}: {why}")]
    Prompts {
        /// Name or file.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Reading the data.
    #[error(transparent)]
    Load(#[from] softclip_data::loader::LoadError),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] softclip_data::tokenizer::TokenizerError),
    /// Encoding.
    #[error(transparent)]
    Encoder(#[from] softclip_encoders::Error),
    /// Embeddings or files.
    #[error(transparent)]
    Tensor(#[from] softclip_tensor::Error),
    /// libtorch.
    #[error(transparent)]
    Tch(#[from] tch::TchError),
    /// libtorch: lack of memory among others.
    #[error(transparent)]
    Torch(#[from] softclip_torch::Error),
    /// The caller wanted no more.
    #[error("stopped")]
    Stopped,
    /// A file that is no result.
    #[error("{}: {why}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A result that cannot be written.
    #[error("{}: {why}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}
