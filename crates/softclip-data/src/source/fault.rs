//! What is wrong with a data set, as found while indexing it.

use std::fmt;

use serde::{Deserialize, Serialize};
use softclip_io::printable;

/// Characters that a message shows of a name or a detail.
const LINE: usize = 400;

/// Kind of a [`SourceFault`]. The names (`truncated_shard`, …) are what reports count by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceFaultKind {
    /// A tar (or the gzip stream around it) ends in the middle, or without an end mark; what is whole before that is served.
    TruncatedShard,
    /// Bytes of a tar are not members although members follow, or although the end of the archive does not begin there; what is
    /// whole before and after them is served.
    DamagedShard,
    /// Members of a tar follow its end mark (tars joined by `cat`); all members are served.
    EndMark,
    /// A key, or a member of a sample, comes twice; the first is served.
    DuplicateKey,
    /// A sample has no image; it is left out.
    MissingImage,
    /// An image has no caption; it is left out.
    MissingCaption,
    /// A row of a table is not UTF-8; it is left out.
    InvalidUtf8,
    /// A row of a table has more or fewer cells than its header, or no label where it should; it is left out.
    BadRow,
    /// An annotation, member or file that belongs to no sample.
    Orphan,
}

impl SourceFaultKind {
    /// The kind as reports name it, in snake_case.
    pub fn name(self) -> &'static str {
        match self {
            Self::TruncatedShard => "truncated_shard",
            Self::DamagedShard => "damaged_shard",
            Self::EndMark => "end_mark",
            Self::DuplicateKey => "duplicate_key",
            Self::MissingImage => "missing_image",
            Self::MissingCaption => "missing_caption",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::BadRow => "bad_row",
            Self::Orphan => "orphan",
        }
    }

    /// Whether it costs a sample: what `max_bad_share` limits. A truncated or damaged shard costs at least one.
    pub fn loses_sample(self) -> bool {
        match self {
            Self::TruncatedShard
            | Self::DamagedShard
            | Self::MissingImage
            | Self::MissingCaption
            | Self::InvalidUtf8
            | Self::BadRow => true,
            Self::DuplicateKey | Self::Orphan | Self::EndMark => false,
        }
    }
}

impl fmt::Display for SourceFaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Something wrong with the data set that does not keep the rest of it from being used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFault {
    /// What is wrong.
    pub kind: SourceFaultKind,
    /// Where: sample key, or shard and byte offset.
    pub place: String,
    /// What exactly was found.
    pub detail: String,
}

impl SourceFault {
    pub(crate) fn new(kind: SourceFaultKind, place: impl Into<String>, detail: impl fmt::Display) -> Self {
        Self { kind, place: place.into(), detail: detail.to_string() }
    }
}

impl fmt::Display for SourceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names of members come from the archive, and so does what they do to a terminal.
        write!(f, "{}: {}: {}", printable(&self.place, LINE), self.kind, printable(&self.detail, LINE))
    }
}
