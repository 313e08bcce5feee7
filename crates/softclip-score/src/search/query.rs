//! What is searched for.

use std::path::PathBuf;

use serde::Serialize;
use tch::Tensor;

use crate::embed::{Encoder, single};
use crate::error::{Error, Result};

/// Texts a pass.
const BATCH: usize = 64;

/// A text, or an image file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Query {
    /// A text.
    Text(String),
    /// An image by its path.
    Image(PathBuf),
}

/// Queries → unit rows f32 `[Q, D]`.
///
/// # Errors
/// There is none, an image cannot be read, or the model fails.
pub fn encode(encoder: &Encoder, queries: &[Query]) -> Result<Tensor> {
    let mut rows: Vec<Tensor> = Vec::new();
    // Texts that follow each other share a pass.
    for run in queries.chunk_by(|a, b| matches!((a, b), (Query::Text(_), Query::Text(_)))) {
        match run {
            [Query::Image(path)] => rows.push(image(encoder, path)?),
            texts => {
                let texts: Vec<&str> = texts.iter().filter_map(Query::text).collect();
                for texts in texts.chunks(BATCH) {
                    rows.push(encoder.texts(texts)?);
                }
            }
        }
    }
    match rows.is_empty() {
        true => Err(Error::Input("nothing to search for: give a text or an image".to_owned())),
        false => Ok(Tensor::f_cat(&rows, 0)?),
    }
}

impl Query {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Image(_) => None,
        }
    }
}

fn image(encoder: &Encoder, path: &std::path::Path) -> Result<Tensor> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let crop = encoder.crop(&bytes).map_err(|e| Error::file(path, e.to_string()))?;
    encoder.images(&single(encoder, &crop)?)
}
