//! Which parameters decay.

use softclip_torch::ParamGroup;
use tch::Tensor;

use crate::init::{is_image, is_text};

/// Whether weight decay applies: not to gains, biases and temperatures (open_clip's rule: fewer than two dimensions, or `bn`, `ln`,
/// `bias` or `logit_scale` in the name).
pub fn decays(name: &str, tensor: &Tensor) -> bool {
    tensor.dim() >= 2 && !["bn", "ln", "bias", "logit_scale"].iter().any(|part| name.contains(part))
}

/// Groups of one weight decay (0 or `weight_decay`) and one multiplier of the learning rate each.
pub fn groups(params: Vec<(String, Tensor)>, weight_decay: f64, image_lr: f64, text_lr: f64) -> Vec<ParamGroup> {
    let mut groups: Vec<ParamGroup> = Vec::new();
    for (name, tensor) in params {
        let weight_decay = if decays(&name, &tensor) { weight_decay } else { 0.0 };
        let lr_scale = if is_image(&name) {
            image_lr
        } else if is_text(&name) {
            text_lr
        } else {
            1.0
        };
        match groups.iter_mut().find(|g| g.weight_decay == weight_decay && g.lr_scale == lr_scale) {
            Some(group) => group.params.push((name, tensor)),
            None => groups.push(ParamGroup { params: vec![(name, tensor)], weight_decay, lr_scale }),
        }
    }
    groups
}
