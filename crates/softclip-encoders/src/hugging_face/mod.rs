//! Hugging Face's models: their configurations and names, from and to ours.
//!
//! | `model_type` | class | becomes |
//! | --- | --- | --- |
//! | `clip` | `CLIPModel` | a whole model |
//! | `vit` | `ViTModel` | an image tower |
//! | `bert`, `roberta` | `BertModel`, `RobertaModel` | a text tower |
//!
//! Classes with a task's head (`ViTForImageClassification`, `BertForMaskedLM`) are read without it.

mod config;
mod names;

use std::collections::BTreeMap;

use serde_json::Value;
use tch::Tensor;

use crate::bert::bert_name;
use crate::config::{Architecture, ClipConfig, TextConfig, VisionConfig};
use crate::error::{Error, Result};
use crate::state_dict::scalar;
use names::links;

pub use config::{clip_config, to_clip_config};

/// Reads `config.json`.
///
/// # Errors
/// It is not JSON, lacks a key, or describes a model that is not among these.
pub fn read_config(text: &str) -> Result<Architecture> {
    let value: Value = serde_json::from_str(text).map_err(|e| fail(format!("config.json: {e}")))?;
    match value.get("model_type").and_then(Value::as_str) {
        Some("clip") => clip_config(&value).map(Architecture::Clip),
        Some("vit") => config::vit_config(&value).map(|c| Architecture::Image(VisionConfig::Vit(c))),
        Some("bert" | "roberta") => {
            crate::BertConfig::from_hugging_face_json(text).map(|c| Architecture::Text(TextConfig::Bert(c)))
        }
        Some(other) => Err(fail(format!("config.json: model_type `{other}`: only clip, vit, bert and roberta are supported"))),
        None => Err(fail("config.json has no model_type".into())),
    }
}

pub(crate) fn fail(why: String) -> Error {
    Error::Config { key: "hugging_face", why }
}

/// Tensors under Hugging Face's names become ours. Those of a single tower get the prefix that it has within a [`Clip`](crate::Clip);
/// a task's head is left out; a name that is none of the model's stays as it is, for [`load_weights`](crate::load_weights) to tell.
///
/// # Errors
/// A tensor has not the shape that a conversion needs.
pub fn from_hugging_face(model: &Architecture, file: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let file = file.into_iter().filter(|(name, _)| !name.ends_with("position_ids"));
    match model {
        Architecture::Text(_) => {
            let parts = ["embeddings.", "encoder.", "pooler."];
            let own = file.map(|(name, t)| (bert_name(&name), t)).filter(|(name, _)| parts.iter().any(|p| name.starts_with(p)));
            Ok(own.map(|(name, t)| (format!("text.transformer.{name}"), t)).collect())
        }
        Architecture::Image(vision) => {
            let own = file.map(|(name, t)| (name.strip_prefix("vit.").map(str::to_owned).unwrap_or(name), t));
            let pooler = matches!(vision, VisionConfig::Vit(c) if c.pooler);
            let own = own.filter(|(name, _)| !name.starts_with("classifier.") && (pooler || !name.starts_with("pooler.")));
            names::convert(&names::vit_links(vision), own.collect())
        }
        Architecture::Clip(config) => {
            let scalars = file.map(|(name, t)| {
                let t = scalar(&name, t);
                (name, t)
            });
            names::convert(&links(config)?, scalars.collect())
        }
    }
}

/// A [`Clip`](crate::Clip)'s tensors under the names of Hugging Face's `CLIPModel`; the exact inverse of [`from_hugging_face`].
///
/// # Errors
/// A tower is not CLIP's Vision Transformer or text Transformer, or a tensor is missing.
pub fn to_hugging_face(config: &ClipConfig, ours: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let mut theirs = BTreeMap::new();
    for link in links(config)? {
        let tensor = ours.get(&link.ours).ok_or_else(|| Error::Weights(format!("the model has no `{}`", link.ours)))?;
        theirs.extend(link.theirs.take_apart(tensor)?);
    }
    Ok(theirs)
}
