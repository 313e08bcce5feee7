//! The category section.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use softclip_loss::LossConfig;
use softclip_loss::config::Blend;

use super::{ConfigError, Pool};

/// The frozen encoder whose embeddings of category sentences and captions `text_based` blends in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CategoryConfig {
    /// A pretrained model with a text tower, by folder, file or hub id.
    pub encoder: Option<String>,
    /// What stands for a text. Default: the tower's, the pooler's output for BERT and RoBERTa.
    pub pool: Option<Pool>,
    /// The most tokens of a text. Default: the tower's.
    pub context_length: Option<usize>,
    /// Texts that are encoded at once.
    pub batch_size: usize,
    /// Where embeddings are kept: a folder that runs may share. Default: `category` in the run's folder.
    pub cache: Option<PathBuf>,
    /// What a pair without tags is compared by.
    pub untagged: Untagged,
}

/// What a pair without tags is compared by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Untagged {
    /// The embedding of `data.neutral_tags`, as in the source's code, whose sentence is the empty one.
    #[default]
    Neutral,
    /// Nothing: all similarities of its sentence and its caption are 0, so that its labels have its own pair alone, and no other label
    /// has it.
    Hard,
}

impl Default for CategoryConfig {
    fn default() -> Self {
        Self { encoder: None, pool: None, context_length: None, batch_size: 64, cache: None, untagged: Untagged::default() }
    }
}

impl CategoryConfig {
    /// What `loss` asks for.
    pub(super) fn validate(&self, loss: &LossConfig) -> Result<(), ConfigError> {
        if !loss.needs().category {
            return Ok(());
        }
        if self.encoder.is_none() {
            let why = "text_based compares category sentences with captions by a frozen text encoder: name one, for example \
                       google-bert/bert-base-uncased (loss.alpha: 0 needs none)";
            return wrong("encoder", why);
        }
        if self.untagged == Untagged::Hard && matches!(loss, LossConfig::TextBased(c) if c.alpha == 1.0) {
            return wrong(
                "untagged",
                "hard leaves a pair without tags no label at all under loss.alpha: 1; use neutral, or at most 0.99",
            );
        }
        if self.untagged == Untagged::Hard && matches!(loss, LossConfig::TextBased(c) if c.blend == Blend::Logits) {
            let why = "hard makes labels hard, but loss.blend: logits has none other, and a similarity of 0 would set such pairs' \
                       logits apart: use neutral, or blend: targets_normalized";
            return wrong("untagged", why);
        }
        Ok(())
    }
}

fn wrong(key: &str, why: &str) -> Result<(), ConfigError> {
    Err(ConfigError::Value { key: format!("category.{key}"), why: why.to_owned() })
}
