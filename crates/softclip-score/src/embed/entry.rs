//! What a row of embeddings is of.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A line of `keys.jsonl`: what the row of the same number is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Key of the sample; of a caption the key, `#` and its number from 0; of a line its number from 1.
    pub key: String,
    /// Number of the sample in its source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// The image, or the tar that it lies in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl Entry {
    pub(crate) fn of_text(key: String, text: String) -> Self {
        Self { key, index: None, path: None, text: Some(text) }
    }

    pub(crate) fn of_key(key: String) -> Self {
        Self { key, index: None, path: None, text: None }
    }
}
