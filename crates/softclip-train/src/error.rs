//! What can end a run.

use std::path::PathBuf;

/// Why training or the opening of a run fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// The data set.
    #[error(transparent)]
    Source(#[from] softclip_data::source::SourceError),
    /// Reading batches.
    #[error(transparent)]
    Load(#[from] softclip_data::loader::LoadError),
    /// The network.
    #[error(transparent)]
    Encoder(#[from] softclip_encoders::Error),
    /// The loss's inputs.
    #[error(transparent)]
    Loss(softclip_loss::Error),
    /// Tensors and their files.
    #[error(transparent)]
    Tensor(#[from] softclip_tensor::Error),
    /// libtorch.
    #[error(transparent)]
    Torch(#[from] softclip_torch::Error),
    /// The other ranks, or how they are found.
    #[error(transparent)]
    Ranks(#[from] softclip_distributed::Error),
    /// libtorch.
    #[error(transparent)]
    Tch(#[from] tch::TchError),
    /// An evaluation.
    #[error("evaluation of {data}: {source}")]
    Eval {
        /// The source.
        data: String,
        /// Why.
        source: Box<softclip_eval::EvalError>,
    },
    /// A value that ends learning.
    #[error("{why}")]
    NonFinite {
        /// What is not finite, and what may help.
        why: String,
        /// The pair of the batch, where it is one.
        row: Option<usize>,
    },
    /// Pretrained models.
    #[error(transparent)]
    Pretrained(#[from] softclip_pretrained::Error),
    /// A tokenizer's files.
    #[error(transparent)]
    Tokenizer(#[from] softclip_data::tokenizer::TokenizerError),
    /// Pretrained weights that are not the network's.
    #[error("model.init: {name}: {why}")]
    Init {
        /// The pretrained model.
        name: String,
        /// What does not fit.
        why: String,
    },
    /// The network does not fit into memory.
    #[error(
        "model: {parameters} parameters need at least {} of memory to train (weights {}, and as much for gradients and twice as much for \
         AdamW's moments where they are learned), but only {} are available: make model.image or model.text smaller, free memory, or \
         raise the limit (`ulimit -v`, the container's limit)",
        size(*needed), size(*weights), size(*available)
    )]
    Memory {
        /// Number of learned parameters.
        parameters: u64,
        /// Bytes of the weights.
        weights: u64,
        /// Bytes that training needs at least.
        needed: u64,
        /// Bytes that are available.
        available: u64,
    },
    /// A file or folder.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A checkpoint that does not verify.
    #[error("checkpoint {}: {why}", path.display())]
    Checkpoint {
        /// Its folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The cache of category embeddings.
    #[error("category.cache {}: {why}", path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A run folder that is in use, or does not fit what is asked for.
    #[error("run {}: {why}", path.display())]
    Run {
        /// The folder.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn eval(data: &str, source: softclip_eval::EvalError) -> Self {
        Self::Eval { data: data.to_owned(), source: Box::new(source) }
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// Bytes for a reader, in MiB or GiB.
fn size(bytes: u64) -> String {
    let mib = bytes as f64 / (1u64 << 20) as f64;
    if mib < 1024.0 { format!("{mib:.0} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

impl From<softclip_loss::Error> for Error {
    fn from(error: softclip_loss::Error) -> Self {
        use softclip_loss::Error as E;
        match error {
            E::NonFiniteInput { row, .. } => Self::NonFinite { why: error.to_string(), row: usize::try_from(row).ok() },
            E::NonFiniteLoss { .. } => Self::NonFinite { why: error.to_string(), row: None },
            other => Self::Loss(other),
        }
    }
}
