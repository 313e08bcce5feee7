//! Errors of names, hubs and files.

use std::path::PathBuf;

/// What was wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name names nothing.
    #[error("`{name}`: {why}")]
    Name {
        /// The name.
        name: String,
        /// How it was read and what would be right.
        why: String,
    },
    /// A name is neither on disk nor a hub's model.
    #[error("there is no file or folder `{name}` here; as a model's id on the hub: {source}")]
    NotHere {
        /// The name.
        name: String,
        /// What became of it on the hub.
        source: Box<Error>,
    },
    /// A hub answered, but does not give the model.
    #[error("`{name}` on {endpoint}: {why}")]
    Hub {
        /// The model and, where it is not `main`, the revision.
        name: String,
        /// The hub.
        endpoint: String,
        /// Its reason, and what to do.
        why: String,
    },
    /// A hub cannot be reached or fails, and the cache is no help.
    #[error("{endpoint} fails: {why}")]
    Unreachable {
        /// The hub.
        endpoint: String,
        /// The reason.
        why: String,
    },
    /// Weights that are no safetensors but a pickle.
    #[error(
        "{what} is a Python pickle{held}, which can run code when loaded, so weights are read from safetensors only. Convert it \
         with\n\n    {command}\n"
    )]
    Pickle {
        /// The file.
        what: String,
        /// Where in it the weights are; empty where that is not known.
        held: String,
        /// The command that converts it.
        command: String,
    },
    /// Weights that only change those of another model.
    #[error("`{name}`: {why}")]
    Adapter {
        /// The adapter.
        name: String,
        /// What it is, and the command that merges it.
        why: String,
    },
    /// A file is not what it should be.
    #[error("{}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
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
    /// The model is none that is known here, or its weights are not those of its configuration.
    #[error("`{name}`: {source}")]
    Model {
        /// The model's name.
        name: String,
        /// What is wrong.
        source: softclip_encoders::Error,
    },
    /// The tokenizer beside the model cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] softclip_data::tokenizer::TokenizerError),
    /// Tensors cannot be read.
    #[error(transparent)]
    Tensor(#[from] softclip_tensor::Error),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Names the path that an operation of the system failed on.
pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |source| Error::Io { path: path.to_owned(), source }
}

/// An error of a file's contents.
pub(crate) fn file(path: &std::path::Path, why: impl Into<String>) -> Error {
    Error::File { path: path.to_owned(), why: why.into() }
}
