//! BERT and RoBERTa as data.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::check;
use crate::error::{Error, Result};
use crate::layers::Activation;

/// A BERT or RoBERTa, under the keys of Hugging Face's `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BertConfig {
    /// Which of the two.
    pub model_type: BertKind,
    /// Rows of the token embedding.
    pub vocab_size: i64,
    /// Width W of a token.
    pub hidden_size: i64,
    /// Blocks.
    pub num_hidden_layers: i64,
    /// Attention heads.
    pub num_attention_heads: i64,
    /// Hidden width of a block's MLP.
    pub intermediate_size: i64,
    /// Rows of the position embedding; RoBERTa never uses the first `pad_token_id` + 1.
    pub max_position_embeddings: i64,
    /// Rows of the token type (segment) embedding.
    pub type_vocab_size: i64,
    /// ε of every layer norm.
    #[serde(default = "published_eps")]
    pub layer_norm_eps: f64,
    /// The activation of the MLPs.
    #[serde(default)]
    pub hidden_act: Activation,
    /// The token that fills rows up: 0 in BERT, 1 in RoBERTa.
    pub pad_token_id: i64,
    /// What stands for a text; ours, not a key of Hugging Face's.
    #[serde(default)]
    pub pool: BertPool,
    /// The longest text in tokens, those at its start and end among them; ours too. Default: as many as there are positions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_length: Option<i64>,
}

fn published_eps() -> f64 {
    1e-12
}

/// BERT (Devlin et al. 2018) or RoBERTa (Liu et al. 2019). As encoders they differ in how positions are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BertKind {
    /// Positions are 0, 1, 2, …, padding among them.
    Bert,
    /// Real tokens are counted from `pad_token_id` + 1 on; padding stays at `pad_token_id`.
    Roberta,
}

/// What stands for a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BertPool {
    /// tanh of a linear layer over the first token: Text-based SoftCLIP's choice.
    #[default]
    Pooler,
    /// The first token (`[CLS]` or `<s>`) as it leaves the last block.
    Class,
    /// The mean over the real tokens.
    Mean,
}

impl BertConfig {
    /// The published `bert-base-uncased`.
    pub fn bert_base() -> Self {
        BertConfig {
            model_type: BertKind::Bert,
            vocab_size: 30_522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: published_eps(),
            hidden_act: Activation::Gelu,
            pad_token_id: 0,
            pool: BertPool::Pooler,
            context_length: None,
        }
    }

    /// The published `roberta-base`.
    pub fn roberta_base() -> Self {
        BertConfig {
            model_type: BertKind::Roberta,
            vocab_size: 50_265,
            max_position_embeddings: 514,
            type_vocab_size: 1,
            layer_norm_eps: 1e-5,
            pad_token_id: 1,
            ..Self::bert_base()
        }
    }

    /// Reads Hugging Face's `config.json`.
    ///
    /// # Errors
    /// The file cannot be read, lacks a key, or describes another model.
    pub fn from_hugging_face_file(path: &Path) -> Result<Self> {
        let fail = |why: String| Error::File { path: path.to_owned(), why };
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        Self::from_hugging_face_json(&text).map_err(|e| fail(e.to_string()))
    }

    /// Reads Hugging Face's `config.json` from text. Keys that do not shape the encoder are passed over, dropout's among them.
    ///
    /// # Errors
    /// As [`BertConfig::from_hugging_face_file`].
    pub fn from_hugging_face_json(text: &str) -> Result<Self> {
        let fail = |why: String| Error::Config { key: "bert", why };
        let mut keys: Map<String, Value> = serde_json::from_str(text).map_err(|e| fail(e.to_string()))?;
        for (key, supported) in [("position_embedding_type", json!("absolute")), ("is_decoder", json!(false))] {
            if let Some(value) = keys.get(key).filter(|v| **v != supported) {
                return Err(fail(format!("`{key}` is {value}: only {supported} is supported")));
            }
        }
        if keys.get("pad_token_id").is_none_or(Value::is_null) {
            let pad = i64::from(keys.get("model_type") == Some(&json!("roberta")));
            keys.insert("pad_token_id".into(), json!(pad));
        }
        let ours = serde_json::to_value(Self::bert_base()).map_err(|e| fail(e.to_string()))?;
        keys.retain(|key, _| ours.get(key).is_some());
        let config: Self = serde_json::from_value(Value::Object(keys)).map_err(|e| fail(e.to_string()))?;
        config.validate()?;
        Ok(config)
    }

    /// The longest text in tokens, those at its start and end among them.
    pub fn context_length(&self) -> i64 {
        self.context_length.unwrap_or(self.positions())
    }

    /// How many positions tokens can have.
    fn positions(&self) -> i64 {
        match self.model_type {
            BertKind::Bert => self.max_position_embeddings,
            BertKind::Roberta => self.max_position_embeddings.saturating_sub(self.pad_token_id).saturating_sub(1),
        }
    }

    /// Checks that sizes fit each other.
    ///
    /// # Errors
    /// The key that does not fit.
    pub fn validate(&self) -> Result<()> {
        check::size("vocab_size", self.vocab_size)?;
        check::size("num_attention_heads", self.num_attention_heads)?;
        check::multiple("hidden_size", self.hidden_size, self.num_attention_heads)?;
        check::layers("num_hidden_layers", self.num_hidden_layers)?;
        check::size("intermediate_size", self.intermediate_size)?;
        check::size("type_vocab_size", self.type_vocab_size)?;
        check::size("max_position_embeddings", self.max_position_embeddings)?;
        if !(0..self.vocab_size).contains(&self.pad_token_id) {
            let why = format!("{} is not below vocab_size = {}", self.pad_token_id, self.vocab_size);
            return Err(Error::Config { key: "pad_token_id", why });
        }
        if self.positions() < 1 {
            let why = format!("{} leaves no position for a token", self.max_position_embeddings);
            return Err(Error::Config { key: "max_position_embeddings", why });
        }
        if !(1..=self.positions()).contains(&self.context_length()) {
            let why = format!("{} tokens, the model has positions for 1 to {}", self.context_length(), self.positions());
            return Err(Error::Config { key: "context_length", why });
        }
        check::layer_norm_eps("layer_norm_eps", self.layer_norm_eps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// bert-base-uncased's, as published.
    const PUBLISHED: &str = r#"{"architectures": ["BertForMaskedLM"], "attention_probs_dropout_prob": 0.1,
        "gradient_checkpointing": false, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 768,
        "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-12, "max_position_embeddings": 512,
        "model_type": "bert", "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 0,
        "position_embedding_type": "absolute", "type_vocab_size": 2, "use_cache": true, "vocab_size": 30522}"#;

    #[test]
    fn hugging_faces_json_gives_the_preset() {
        assert_eq!(BertConfig::from_hugging_face_json(PUBLISHED).unwrap(), BertConfig::bert_base());
        let bare = PUBLISHED.replace("\"layer_norm_eps\": 1e-12, ", "").replace("\"pad_token_id\": 0,", "");
        assert_eq!(BertConfig::from_hugging_face_json(&bare).unwrap(), BertConfig::bert_base());
        let roberta = bare.replace("\"bert\"", "\"roberta\"");
        assert_eq!(BertConfig::from_hugging_face_json(&roberta).unwrap().pad_token_id, 1);
        BertConfig::roberta_base().validate().unwrap();
    }

    #[test]
    fn other_models_are_refused_by_the_key_that_tells_them() {
        for (from, to, says) in [
            ("\"absolute\"", "\"relative_key\"", "position_embedding_type"),
            ("\"use_cache\"", "\"is_decoder\"", "is_decoder"),
            ("\"model_type\": \"bert\"", "\"model_type\": \"electra\"", "electra"),
            ("\"hidden_act\": \"gelu\"", "\"hidden_act\": \"silu\"", "silu"),
            ("\"hidden_size\"", "\"width\"", "hidden_size"),
            ("\"num_attention_heads\": 12", "\"num_attention_heads\": 7", "hidden_size"),
            ("\"pad_token_id\": 0", "\"pad_token_id\": 30522", "pad_token_id"),
            ("\"max_position_embeddings\": 512", "\"max_position_embeddings\": 0", "max_position_embeddings"),
            ("1e-12", "0", "layer_norm_eps"),
            ("{\"arch", "[\"arch", "bert"),
        ] {
            let error = BertConfig::from_hugging_face_json(&PUBLISHED.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
