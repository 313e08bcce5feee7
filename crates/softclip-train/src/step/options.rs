//! What a step computes with.

use softclip_encoders::{ClipConfig, VisionConfig};
use softclip_tensor::Precision;
use softclip_torch::AdamWOptions;

use crate::config::{RunConfig, TowerTraining};

/// What a step computes with.
#[derive(Clone, Debug)]
pub struct StepOptions {
    /// Pairs that are encoded with their graph at once; `None` for all.
    pub chunk_size: Option<i64>,
    /// Whether the encoders' blocks keep their inputs alone for backward and are computed again.
    pub recompute: bool,
    /// Number type of forward and backward passes.
    pub precision: Precision,
    /// Limit of the gradients' norm; infinite for none.
    pub grad_clip: f64,
    /// Limit of 1/τ.
    pub max_logit_scale: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Adam's constants.
    pub adam: AdamWOptions,
    /// How the image tower is trained.
    pub image_tower: TowerTraining,
    /// How the text tower is trained.
    pub text_tower: TowerTraining,
    /// Whether batch norm is frozen.
    pub frozen_norm: bool,
}

impl Default for StepOptions {
    /// f32 in one piece, CLIP's weight decay and constants for Vision Transformers, both towers trained alike.
    fn default() -> Self {
        Self {
            chunk_size: None,
            recompute: false,
            precision: Precision::Fp32,
            grad_clip: f64::INFINITY,
            max_logit_scale: 100.0,
            weight_decay: 0.2,
            adam: AdamWOptions::default(),
            image_tower: TowerTraining::default(),
            text_tower: TowerTraining::default(),
            frozen_norm: false,
        }
    }
}

impl StepOptions {
    /// Those of a configuration and of the network that it describes.
    pub fn of(config: &RunConfig, clip: &ClipConfig) -> Self {
        let t = &config.train;
        let (beta2, eps) = match clip.vision {
            VisionConfig::Vit(_) => (0.98, 1e-6),
            VisionConfig::Resnet(_) | VisionConfig::Resnet50(_) => (0.999, 1e-8),
        };
        Self {
            chunk_size: t.chunk_size.filter(|&chunk| chunk < t.batch_size).map(|chunk| chunk as i64),
            recompute: t.recompute,
            precision: t.precision,
            grad_clip: t.grad_clip.unwrap_or(f64::INFINITY),
            max_logit_scale: t.max_logit_scale,
            weight_decay: t.weight_decay,
            adam: AdamWOptions { beta1: t.beta1, beta2: t.beta2.unwrap_or(beta2), eps: t.eps.unwrap_or(eps) },
            image_tower: t.image_tower.clone(),
            text_tower: t.text_tower.clone(),
            frozen_norm: t.frozen_norm,
        }
    }
}
