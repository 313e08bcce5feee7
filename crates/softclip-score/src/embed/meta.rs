//! What embeddings were made of and how.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use softclip_tensor::Precision;
use softclip_tensor::file::write_atomic;
use tch::Kind;

use super::input::SourceId;
use super::{Format, What};
use crate::error::{Error, Result};

/// The plan's name in the folder while work is under way.
pub(super) const PLAN: &str = "plan.json";
/// The description's name; it is written last.
pub(crate) const META: &str = "meta.json";

/// A model by name and weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelId {
    /// What `--model` opens it by.
    pub name: String,
    /// What changes with its weights: their SHA-256.
    pub weights: String,
}

/// Number type of stored rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// 32 bits.
    F32,
    /// 16 bits: half the size, cosines to about 3e-4.
    F16,
}

impl Dtype {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::F16 => Kind::Half,
        }
    }
}

/// All that decides on the rows: parts of different plans do not go together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Of the form of these files: 1.
    pub version: u32,
    /// The model.
    pub model: ModelId,
    /// Which encoder.
    pub what: What,
    /// The input.
    pub source: SourceId,
    /// D.
    pub dim: usize,
    /// Number type of the rows.
    pub dtype: Dtype,
    /// Number type of the forward passes.
    pub precision: Precision,
}

/// `meta.json`: what finished embeddings are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// What they were made of.
    #[serde(flatten)]
    pub plan: Plan,
    /// N.
    pub rows: usize,
    /// The file's format.
    pub format: Format,
    /// What could not be used, by cause: samples, and what indexing left out.
    pub skipped: BTreeMap<String, usize>,
    /// The folder that relative paths are relative to.
    pub working_folder: String,
    /// Version of this program.
    pub softclip: String,
}

impl Plan {
    /// Keeps the plan in a folder that has none, or makes sure that it is the folder's.
    pub(super) fn keep(&self, folder: &Path) -> Result<()> {
        match read::<Plan>(&folder.join(PLAN))? {
            Some(found) => self.refuse_other(&found, folder),
            None => write(&folder.join(PLAN), self),
        }
    }

    /// # Errors
    /// `found` is another plan; what differs is said.
    pub(super) fn refuse_other(&self, found: &Plan, folder: &Path) -> Result<()> {
        let (mine, other) = (object(self)?, object(found)?);
        let different = mine.iter().find(|(name, value)| other.get(*name) != Some(value));
        let Some((name, value)) = different else { return Ok(()) };
        let there = other.get(name).map_or("nothing".to_owned(), ToString::to_string);
        let why = format!(
            "it holds embeddings that were begun otherwise: `{name}` is {there} there, and {value} now. Start as before, choose \
             another --out, or remove the folder"
        );
        Err(Error::file(folder, why))
    }
}

impl Meta {
    pub(crate) fn open(folder: &Path) -> Result<Option<Self>> {
        read(&folder.join(META))
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        write(&folder.join(META), self)
    }
}

fn object(plan: &Plan) -> Result<serde_json::Map<String, serde_json::Value>> {
    match serde_json::to_value(plan) {
        Ok(serde_json::Value::Object(map)) => Ok(map),
        other => Err(Error::Input(format!("the plan has no form in JSON: {other:?}"))),
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path)(e)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|e| Error::file(path, format!("not of this program's making: {e}")))
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::file(path, e.to_string()))?;
    Ok(write_atomic(path, format!("{text}\n").as_bytes())?)
}
