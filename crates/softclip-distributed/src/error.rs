//! Errors of ranks.

use softclip_torch::PEER_LOST;

/// What is wrong with the environment, the ranks or a launch.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A variable of the environment is needed.
    #[error("{variable} is not set, {because}")]
    Missing {
        /// The variable.
        variable: &'static str,
        /// Why it is needed, and what to do.
        because: String,
    },
    /// A variable holds something else than it should.
    #[error("{variable}={value}: expected {expected}")]
    Malformed {
        /// The variable.
        variable: &'static str,
        /// What it holds.
        value: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// Variables contradict each other.
    #[error("{0}")]
    Contradiction(String),
    /// A process cannot be started or watched.
    #[error("{what}: {source}")]
    Process {
        /// What was tried.
        what: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Another rank has failed.
    #[error("rank {rank} of {size} stops: another rank has failed, and says why ({PEER_LOST})")]
    Elsewhere {
        /// This rank.
        rank: usize,
        /// The number of ranks.
        size: usize,
    },
    /// An argument makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// libtorch, a store or a group failed.
    #[error(transparent)]
    Torch(#[from] softclip_torch::Error),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        Error::Torch(error.into())
    }
}
