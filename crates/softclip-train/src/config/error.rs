//! Errors of configurations and where they were made.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why a configuration cannot be used: where, what, and what to write.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that another one names by `base:` cannot be read.
    #[error("{place}: base: {}: {why}; write a path relative to the file that names it", path.display())]
    Base {
        /// The line that names it.
        place: Place,
        /// The file that was looked for.
        path: PathBuf,
        /// Why it cannot be read.
        why: String,
    },
    /// Not YAML.
    #[error("{}: {why}", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Place and reason.
        why: String,
    },
    /// A key that does not exist, or a value of the wrong type.
    #[error("{place}: {key}: {why}")]
    Key {
        /// File and line, or the option of the command line.
        place: Place,
        /// `train.batch_size`.
        key: String,
        /// The fault.
        why: String,
    },
    /// A value that makes no sense.
    #[error("{key}: {why}")]
    Value {
        /// `train.batch_size`.
        key: String,
        /// The fault, and what to write.
        why: String,
    },
    /// `--set` without `=`, or through something that is no section.
    #[error("--set {text}: {why}")]
    Set {
        /// As typed.
        text: String,
        /// The fault.
        why: String,
    },
}

impl ConfigError {
    /// The error of a file that is not usable as text. `named_by` is where another file names it as its base.
    pub(crate) fn of_text(path: &Path, error: softclip_io::TextError, named_by: Option<Place>) -> Self {
        let path = path.to_owned();
        match (named_by, error) {
            (Some(place), error) => Self::Base { place, path, why: error.to_string() },
            (None, softclip_io::TextError::Io(source)) => Self::Io { path, source },
            (None, other) => Self::Yaml { path, why: other.to_string() },
        }
    }

    /// The same with a `--set` that is none of `typed` shown as one of the plan's.
    #[must_use]
    pub fn of_plan(self, typed: &[String]) -> Self {
        match self {
            Self::Key { place: Place::Set(text), key, why } if !typed.contains(&text) => {
                Self::Key { place: Place::Plan(text), key, why }
            }
            other => other,
        }
    }

    /// Whether the command line is wrong (`--set`), not a file.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Set { .. } | Self::Key { place: Place::Set(_), .. })
    }
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A line of a file, from 1.
    File(PathBuf, usize),
    /// `--set`, as typed.
    Set(String),
    /// A key of an ablation plan with its value, as `--set` takes it.
    Plan(String),
    /// In no file: a key that is missing.
    Nowhere(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(path, line) => write!(f, "{}:{line}", path.display()),
            Place::Set(text) => write!(f, "--set {text}"),
            Place::Plan(text) => write!(f, "the plan's `set`, {text}"),
            Place::Nowhere(path) => write!(f, "{}", path.display()),
        }
    }
}
