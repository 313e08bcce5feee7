//! Why no patches were cut, and which pairs were left out.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::files::FileError;

/// Why there is no data set. What stood under its name is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// An option is out of range.
    #[error("{option}: {reason}")]
    Option {
        /// Name of the field of [`PatchOptions`](super::PatchOptions).
        option: &'static str,
        /// What is wrong and what is accepted.
        reason: String,
    },
    /// The map from values to classes is not one.
    #[error("{place}: {reason}")]
    Map {
        /// The file, with the line where the parser knows it.
        place: String,
        /// The key, what is wrong with it, and what to do.
        reason: String,
    },
    /// The folders or the table name no pairs.
    #[error("{}: {reason}", path.display())]
    Pairs {
        /// The folder or table.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The folder for the result holds something that is not to be replaced.
    #[error("{} {reason}", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// What is in the way and what to do.
        reason: String,
    },
    /// More pairs than allowed cannot be used.
    #[error("{bad} of {of} pairs cannot be used ({causes}), more than the share of {limit} allowed; the first: {first}")]
    TooManyBad {
        /// Pairs that cannot be used, of those looked at before it was clear that they are too many.
        bad: usize,
        /// All pairs.
        of: usize,
        /// [`PatchOptions::max_bad_share`](super::PatchOptions::max_bad_share).
        limit: f64,
        /// Their number by cause.
        causes: String,
        /// The first in the order of names.
        first: Skipped,
    },
    /// No image gives a patch that has a class.
    #[error("no patch: {}", nothing(*.left_out, *.bad, .causes))]
    Nothing {
        /// Patches that were left out.
        left_out: usize,
        /// Pairs that cannot be used.
        bad: usize,
        /// Their number by cause.
        causes: String,
    },
    /// A patch cannot be compressed.
    #[error("patch {name} cannot be compressed: {reason}")]
    Compress {
        /// The patch.
        name: String,
        /// What the codec said.
        reason: String,
    },
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

impl From<FileError> for PatchError {
    fn from(FileError { path, source }: FileError) -> Self {
        Self::Io { path, source }
    }
}

/// Why a pair is left out. The names (`missing_mask`, …) are what reports count by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SkipCause {
    /// The image has no mask.
    MissingMask,
    /// The mask has no image.
    MissingImage,
    /// Patches of two images would have the same names.
    DuplicateName,
    /// The image cannot be decoded.
    BadImage,
    /// The mask cannot be decoded, or is of a kind whose values are not what was drawn.
    BadMask,
    /// Image and mask differ in size.
    SizeMismatch,
    /// The mask has a value that the map does not list.
    UnlistedValue,
    /// The image is smaller than one patch.
    TooSmall,
    /// The files of its patches would have names of more than 255 bytes.
    LongName,
}

impl SkipCause {
    /// The cause as reports name it, in snake_case.
    pub fn name(self) -> &'static str {
        match self {
            Self::MissingMask => "missing_mask",
            Self::MissingImage => "missing_image",
            Self::DuplicateName => "duplicate_name",
            Self::BadImage => "bad_image",
            Self::BadMask => "bad_mask",
            Self::SizeMismatch => "size_mismatch",
            Self::UnlistedValue => "unlisted_value",
            Self::TooSmall => "too_small",
            Self::LongName => "long_name",
        }
    }
}

impl fmt::Display for SkipCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A pair that is left out: which, why, and the details.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Name of the pair.
    pub name: String,
    /// Cause, the name that reports count by.
    pub cause: SkipCause,
    /// The file, and what was found in it.
    pub detail: String,
}

impl Skipped {
    pub(super) fn new(name: impl Into<String>, cause: SkipCause, detail: impl fmt::Display) -> Self {
        Self { name: name.into(), cause, detail: detail.to_string() }
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.name, self.cause, self.detail)
    }
}

/// Why there is no patch.
fn nothing(left_out: usize, bad: usize, causes: &str) -> String {
    let patches = format!("{left_out} were cut and all left out, for less than min_labelled of each is labelled");
    let pairs = format!("{bad} pairs cannot be used ({causes})");
    match (left_out, bad) {
        (_, 0) => patches,
        (0, _) => pairs,
        _ => format!("{patches}; {pairs}"),
    }
}

/// `bad_mask 1, missing_mask 3`.
pub(super) fn causes(skipped: &[Skipped]) -> String {
    let mut counts = BTreeMap::<&str, usize>::new();
    skipped.iter().for_each(|skipped| *counts.entry(skipped.cause.name()).or_default() += 1);
    counts.iter().map(|(cause, n)| format!("{cause} {n}")).collect::<Vec<_>>().join(", ")
}
