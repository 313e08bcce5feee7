//! Text-based SoftCLIP's constants and readings.

use serde::{Deserialize, Serialize};

use super::{in_range, positive};
use crate::error::{Error, Result};

/// Text-based SoftCLIP. The paper blends similarities (`blend: logits`); its code blends labels: `blend: targets, symmetrize: true, tau: 0.1`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextBasedConfig {
    /// Share of the text-based similarity c_i·d_j, in [0, 1]. 0.3 in the source. 0 is the hard loss, which needs no category embeddings.
    pub alpha: f64,
    /// What is blended.
    pub blend: Blend,
    /// Replace both similarity matrices by (M + Mᵀ)/2 first, as the source's code does. Otherwise text→image uses the transposes.
    pub symmetrize: bool,
    /// A constant temperature (0.1 in the source's code); absent: the learned logit scale.
    pub tau: Option<f64>,
}

/// Where the text-based similarity enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blend {
    /// The logits are ((1 − α)·base + α·textbased)/τ, the label is the own pair.
    Logits,
    /// The logits are base/τ, the label row is (1 − α)·identity + α·textbased as it stands: it does not sum to 1.
    Targets,
    /// The same, negative similarities taken as 0 and each row divided by its sum.
    TargetsNormalized,
}

impl Default for TextBasedConfig {
    fn default() -> Self {
        TextBasedConfig { alpha: 0.3, blend: Blend::Logits, symmetrize: false, tau: None }
    }
}

impl TextBasedConfig {
    pub(super) fn validate(&self) -> Result<()> {
        in_range("alpha", self.alpha, 0.0, 1.0)?;
        if let Some(tau) = self.tau {
            positive("tau", tau)?;
        }
        if self.blend == Blend::TargetsNormalized && self.alpha == 1.0 {
            let why = "1 with blend: targets_normalized may leave a row of the target without any mass; use at most 0.99";
            return Err(Error::Config { key: "alpha", why: why.into() });
        }
        Ok(())
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        if self.blend == Blend::Targets && self.alpha > 0.0 {
            return vec![
                "loss.blend: targets does not normalise its label rows: the larger the batch, the more they sum to, and the gradient with \
                 them; use targets_normalized unless the source's numbers are wanted"
                    .into(),
            ];
        }
        Vec::new()
    }
}
