//! Which loss, and its constants: one section `loss:` of an experiment.

mod soft;
mod text_based;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
pub use soft::{Divergence, Form, Guide, SoftClipConfig, TargetGrad, TargetTemperature};
pub use text_based::{Blend, TextBasedConfig};

/// A loss by its paper's name, with its constants. In a file: `loss: { name: softclip, beta: 0.3 }`; unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum LossConfig {
    /// CLIP's loss: the mean of eqs (3) and (4).
    Clip(ClipConfig),
    /// CLIP's loss with the smoothed targets of eq. (5).
    LabelSmoothing(LabelSmoothingConfig),
    /// SoftCLIP, eqs (6) to (16).
    Softclip(SoftClipConfig),
    /// Text-based SoftCLIP: NT-Xent over blended similarities.
    TextBased(TextBasedConfig),
    /// SigLIP's pairwise sigmoid loss, with its own scale and bias.
    Siglip(SiglipConfig),
}

/// CLIP's loss has no constants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipConfig {}

/// SigLIP's loss has no constants: scale and bias are learned ([`crate::Scales`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiglipConfig {}

/// Label smoothing, eq. (5): a target of 1 − α on the own pair, α/(N − 1) on every other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabelSmoothingConfig {
    /// α in [0, 1]. Default 0.2: ours, to be checked (the paper's own value is not known to us).
    pub alpha: f64,
}

impl Default for LabelSmoothingConfig {
    fn default() -> Self {
        LabelSmoothingConfig { alpha: 0.2 }
    }
}

/// What a loss wants besides image and text embeddings and the logit scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Region embeddings r.
    pub regions: bool,
    /// Tag sentence embeddings a.
    pub tags: bool,
    /// The frozen encoder's embeddings of category sentences c and captions d.
    pub category: bool,
    /// SigLIP's learned bias.
    pub bias: bool,
    /// A learned temperature of the targets.
    pub target_scale: bool,
}

impl LossConfig {
    /// The name as written in a file.
    pub fn name(&self) -> &'static str {
        match self {
            LossConfig::Clip(_) => "clip",
            LossConfig::LabelSmoothing(_) => "label_smoothing",
            LossConfig::Softclip(_) => "softclip",
            LossConfig::TextBased(_) => "text_based",
            LossConfig::Siglip(_) => "siglip",
        }
    }

    /// What the trainer must provide. Only what the weights make use of is asked for.
    pub fn needs(&self) -> Needs {
        match self {
            LossConfig::Softclip(c) => c.needs(),
            LossConfig::TextBased(c) => Needs { category: c.alpha > 0.0, ..Needs::default() },
            LossConfig::Siglip(_) => Needs { bias: true, ..Needs::default() },
            LossConfig::Clip(_) | LossConfig::LabelSmoothing(_) => Needs::default(),
        }
    }

    /// The temperature, where the configuration fixes it; otherwise it is learned.
    pub fn constant_tau(&self) -> Option<f64> {
        match self {
            LossConfig::TextBased(c) => c.tau,
            _ => None,
        }
    }

    /// Checks ranges and contradictions.
    ///
    /// # Errors
    /// [`Error::Config`] with the key, what is wrong and what to write instead.
    pub fn validate(&self) -> Result<()> {
        match self {
            LossConfig::Clip(_) | LossConfig::Siglip(_) => Ok(()),
            LossConfig::LabelSmoothing(c) => in_range("alpha", c.alpha, 0.0, 1.0),
            LossConfig::Softclip(c) => c.validate(),
            LossConfig::TextBased(c) => c.validate(),
        }
    }

    /// Advice about settings that are allowed but known to disappoint, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        match self {
            LossConfig::Softclip(c) => c.warnings(),
            LossConfig::TextBased(c) => c.warnings(),
            _ => Vec::new(),
        }
    }
}

fn in_range(key: &'static str, value: f64, low: f64, high: f64) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::Config { key, why: format!("{value} is outside of [{low}, {high}]") })
}

fn positive(key: &'static str, value: f64) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(Error::Config { key, why: format!("{value} is not a positive number; CLIP starts at τ = 0.07") })
}

fn weight(key: &'static str, value: f64) -> Result<()> {
    // Beyond it the other terms are lost in f32.
    if (0.0..=1e6).contains(&value) {
        return Ok(());
    }
    Err(Error::Config { key, why: format!("{value:?} is not a weight from 0 to 1000000") })
}
