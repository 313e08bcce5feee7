//! Text towers as data.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::{check, four, published_eps};
use crate::bert::BertConfig;
use crate::error::{Error, Result};
use crate::layers::Activation;

/// The text tower. Written out, it is BERT's or RoBERTa's where it has the key `model_type`, and CLIP's otherwise.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum TextConfig {
    /// CLIP's causal Transformer.
    Clip(ClipTextConfig),
    /// BERT or RoBERTa, and a linear projection of its own.
    Bert(BertConfig),
}

impl<'de> Deserialize<'de> for TextConfig {
    /// (serde's untagged enums would say only that nothing matched.)
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let keys = Map::<String, Value>::deserialize(deserializer)?;
        let is_bert = keys.contains_key("model_type");
        let whole = Value::Object(keys);
        let tower = match is_bert {
            true => serde_json::from_value(whole).map(TextConfig::Bert),
            false => serde_json::from_value(whole).map(TextConfig::Clip),
        };
        tower.map_err(D::Error::custom)
    }
}

/// CLIP's causal text Transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipTextConfig {
    /// Longest text in tokens, start and end among them.
    pub context_length: i64,
    /// Rows of the token embedding.
    pub vocab_size: i64,
    /// Width of a token.
    pub width: i64,
    /// Attention heads.
    pub heads: i64,
    /// Blocks.
    pub layers: i64,
    /// Hidden width of a block's MLP, in token widths.
    #[serde(default = "four")]
    pub mlp_ratio: f64,
    /// The activation of the MLPs; OpenAI's weights need `quick_gelu`.
    #[serde(default)]
    pub activation: Activation,
    /// ε of every layer norm.
    #[serde(default = "published_eps")]
    pub layer_norm_eps: f64,
    /// Which output stands for the text.
    #[serde(default)]
    pub pool: TextPool,
    /// The end token. Default: the token with the largest id of a text, as in CLIP's vocabulary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eot_token_id: Option<i64>,
}

/// Which output stands for the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextPool {
    /// The end token's (CLIP).
    #[default]
    Eot,
    /// The maximum over all tokens up to the end token's (PyramidCLIP's code).
    Max,
}

impl ClipTextConfig {
    /// CLIP's: 77 tokens, 12 blocks, heads of 64.
    pub fn clip(width: i64) -> Self {
        ClipTextConfig {
            context_length: 77,
            vocab_size: 49408,
            width,
            heads: width / 64,
            layers: 12,
            mlp_ratio: 4.0,
            activation: Activation::Gelu,
            layer_norm_eps: published_eps(),
            pool: TextPool::Eot,
            eot_token_id: None,
        }
    }

    /// Hidden width of the MLPs.
    pub(crate) fn hidden(&self) -> i64 {
        super::hidden(self.width, self.mlp_ratio)
    }
}

impl TextConfig {
    /// The longest text in tokens, start and end among them.
    pub fn context_length(&self) -> i64 {
        match self {
            TextConfig::Clip(c) => c.context_length,
            TextConfig::Bert(c) => c.context_length(),
        }
    }

    /// Number of tokens that the tower knows.
    pub fn vocab_size(&self) -> i64 {
        match self {
            TextConfig::Clip(c) => c.vocab_size,
            TextConfig::Bert(c) => c.vocab_size,
        }
    }

    pub(super) fn set_context_length(&mut self, tokens: i64) {
        match self {
            TextConfig::Clip(c) => c.context_length = tokens,
            TextConfig::Bert(c) => c.context_length = Some(tokens),
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let c = match self {
            TextConfig::Clip(c) => c,
            TextConfig::Bert(c) => return c.validate(),
        };
        check::size("text.heads", c.heads)?;
        check::multiple("text.width", c.width, c.heads)?;
        check::layers("text.layers", c.layers)?;
        check::size("text.vocab_size", c.vocab_size)?;
        check::mlp_ratio("text.mlp_ratio", c.mlp_ratio, c.width)?;
        check::layer_norm_eps("text.layer_norm_eps", c.layer_norm_eps)?;
        check::size("text.context_length", c.context_length)?;
        if c.context_length < 2 {
            return Err(Error::Config { key: "text.context_length", why: "a start and an end token need at least 2".into() });
        }
        match c.eot_token_id {
            Some(id) if !(0..c.vocab_size).contains(&id) => {
                Err(Error::Config { key: "text.eot_token_id", why: format!("{id} is not below vocab_size = {}", c.vocab_size) })
            }
            _ => Ok(()),
        }
    }
}
