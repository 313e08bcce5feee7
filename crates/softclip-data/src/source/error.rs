//! Why a data set cannot be opened.

use std::path::{Path, PathBuf};

use softclip_io::{TextError, printable};

/// Characters that a message shows of a reason: it may quote names and text of files.
const REASON: usize = 2000;

/// Why a data set cannot be opened: what, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The text that names the data set cannot be understood.
    #[error("data set '{spec}': {reason}")]
    Spec {
        /// The text.
        spec: String,
        /// What is wrong with it and what is accepted.
        reason: String,
    },
    /// A file pattern matches nothing.
    #[error(
        "no file matches '{}': check the path, and the number of digits in braces ({{00000..00004}} is five)",
        printable(pattern, REASON)
    )]
    NoMatch {
        /// The pattern after expanding braces.
        pattern: String,
    },
    /// A file cannot be read.
    #[error("{}: {source}; {hint}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
        /// What to do.
        hint: String,
    },
    /// JSON that cannot be read, or lacks what is needed.
    #[error("{}: line {line}, column {column}: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong (a missing key is named).
        reason: String,
    },
    /// A table that cannot be read, or lacks a column.
    #[error("{}: {}", path.display(), printable(.reason, REASON))]
    Table {
        /// The file.
        path: PathBuf,
        /// What is wrong; the columns that exist.
        reason: String,
    },
    /// Shards and their sidecars do not fit together.
    #[error("shard {} and sidecar {} do not belong together: {}", shard.display(), sidecar.display(), printable(.reason, REASON))]
    Sidecar {
        /// The shard with the images.
        shard: PathBuf,
        /// The sidecar shard.
        sidecar: PathBuf,
        /// What differs, with the key.
        reason: String,
    },
    /// Nothing in the data set can be used.
    #[error("data set '{spec}' has no usable sample: {}", printable(.reason, REASON))]
    Empty {
        /// The text that names the data set.
        spec: String,
        /// What was found instead.
        reason: String,
    },
}

impl SourceError {
    pub(super) fn io(path: &Path, source: std::io::Error, hint: &str) -> Self {
        Self::Io { path: path.to_owned(), source, hint: hint.to_owned() }
    }

    /// A text file that cannot be used; `hint` is for what the system refuses.
    pub(super) fn text(path: &Path, error: TextError, hint: &str) -> Self {
        match error {
            TextError::Io(source) => Self::io(path, source, hint),
            error => Self::Table { path: path.to_owned(), reason: error.to_string() },
        }
    }

    pub(super) fn json(path: &Path, error: &serde_json::Error) -> Self {
        let reason = error.to_string();
        // serde_json ends its message with the place, which stands before it here.
        let reason = reason.split(" at line ").next().unwrap_or(&reason).to_owned();
        Self::Json { path: path.to_owned(), line: error.line(), column: error.column(), reason }
    }
}

impl From<crate::table::TableError> for SourceError {
    fn from(error: crate::table::TableError) -> Self {
        Self::Table { path: error.path, reason: error.reason }
    }
}
