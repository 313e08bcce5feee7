//! Errors of configurations, inputs and weights.

use std::path::PathBuf;

/// What was wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A configuration makes no sense; the message names the key.
    #[error("model.{key}: {why}")]
    Config {
        /// The key.
        key: &'static str,
        /// What is wrong and what would be right.
        why: String,
    },
    /// A file with a configuration cannot be read.
    #[error("{}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// An input has the wrong shape or kind.
    #[error("{what}: expected {expected}, found {kind:?} {found:?}")]
    Input {
        /// The input.
        what: &'static str,
        /// What it should be.
        expected: String,
        /// The shape it has.
        found: Vec<i64>,
        /// The kind it has.
        kind: tch::Kind,
    },
    /// An input has values that mean nothing to the model.
    #[error("{what}: {why}")]
    Value {
        /// The input.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A model does not fit into memory.
    #[error(
        "the model has {parameters} parameters and needs {} of memory, but only {} are available: use a smaller model, free memory or \
         raise the limit (`ulimit -v`, the container's limit)",
        gib(*needed),
        gib(*available)
    )]
    Memory {
        /// Number of learned parameters.
        parameters: u64,
        /// Bytes that the model needs.
        needed: u64,
        /// Bytes that are available.
        available: u64,
    },
    /// Weights do not fit the model.
    #[error("{0}")]
    Weights(String),
    /// libtorch failed.
    #[error(transparent)]
    Tch(#[from] tch::TchError),
    /// The layer over libtorch failed.
    #[error(transparent)]
    Torch(#[from] softclip_torch::Error),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Bytes for a reader, in MiB or GiB.
fn gib(bytes: u64) -> String {
    let mib = bytes as f64 / (1u64 << 20) as f64;
    if mib < 1024.0 { format!("{mib:.0} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}
