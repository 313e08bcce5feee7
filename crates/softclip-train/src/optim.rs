//! Which parameters decay.

use softclip_torch::ParamGroup;
use tch::Tensor;

/// Whether weight decay applies: not to gains, biases and temperatures (open_clip's rule: fewer than two dimensions, or `bn`, `ln`,
/// `bias` or `logit_scale` in the name).
pub fn decays(name: &str, tensor: &Tensor) -> bool {
    tensor.dim() >= 2 && !["bn", "ln", "bias", "logit_scale"].iter().any(|part| name.contains(part))
}

/// Two groups: without and with `weight_decay`.
pub fn groups(params: Vec<(String, Tensor)>, weight_decay: f64) -> Vec<ParamGroup> {
    let (with, without) = params.into_iter().partition(|(name, tensor)| decays(name, tensor));
    vec![
        ParamGroup { params: without, weight_decay: 0.0, lr_scale: 1.0 },
        ParamGroup { params: with, weight_decay, lr_scale: 1.0 },
    ]
}
