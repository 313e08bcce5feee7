//! What the blockwise form returns.

use tch::Tensor;

/// A loss, its parts, its gradients and what a trainer should watch.
#[derive(Debug)]
pub struct Loss {
    /// The loss, in nats: a mean over pairs (SigLIP: a sum over pairs divided by N).
    pub value: f64,
    /// Named parts before their weights. Softclip: `soft`, `relation`, `clip`, each also as `_v2l` (image→text) and `_l2v`; Siglip:
    /// `positives`, `negatives`; the others: `v2l`, `l2v`.
    pub parts: Vec<(&'static str, f64)>,
    /// Derivatives of `value`.
    pub grads: Gradients,
    /// Signs of health.
    pub diagnostics: Diagnostics,
}

impl Loss {
    /// A part by its name.
    pub fn part(&self, name: &str) -> Option<f64> {
        self.parts.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
    }
}

/// d(loss)/d(embedding as given), kind and device of the inputs; the normalisation is not part of the loss.
#[derive(Debug)]
pub struct Gradients {
    /// [N, D].
    pub image: Tensor,
    /// [N, D].
    pub text: Tensor,
    /// [N, Dr]; none where regions are not used or targets are detached.
    pub regions: Option<Tensor>,
    /// [N, Da]; none where tags are not used or targets are detached.
    pub tags: Option<Tensor>,
    /// d/d ln(1/τ); 0 where the configuration fixes τ.
    pub log_scale: f64,
    /// d/d ln(1/τ) of the targets, for `target_temperature: own`.
    pub target_log_scale: Option<f64>,
    /// d/d bias, for SigLIP.
    pub bias: Option<f64>,
}

/// Cheap signs of collapse and of targets that carry nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostics {
    /// Mean of 1 − q_ii over rows and directions, in [0, 1]: the targets' mass off the own pair. 0 = hard labels. (Unnormalised label
    /// rows of Text-based SoftCLIP count by the share of their absolute values.)
    pub target_softness: f64,
    /// Mean entropy of the targets q_i in nats, at most ln N; for hard, smoothed and soft labels.
    pub target_entropy: Option<f64>,
    /// Mean cosine of two different rows of each set that was used, by name; near 1 the set has collapsed.
    pub mean_cosine: Vec<(&'static str, f64)>,
}
