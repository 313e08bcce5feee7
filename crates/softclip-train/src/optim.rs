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

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn towers_have_their_own_rates_and_the_temperature_none() {
        let tensor = |dims: &[i64]| Tensor::zeros(dims, (Kind::Float, Device::Cpu));
        let names: [(&str, &[i64]); 5] = [
            ("visual.conv1.weight", &[2, 3, 1, 1]),
            ("visual.ln_post.bias", &[2]),
            ("text.transformer.encoder.layer.0.output.dense.weight", &[2, 2]),
            ("logit_scale", &[]),
            ("regions.proj.weight", &[2, 2]),
        ];
        let params = || names.iter().map(|(name, dims)| ((*name).to_owned(), tensor(dims))).collect::<Vec<_>>();
        let found = |name: &str| {
            let groups = groups(params(), 0.2, 0.5, 0.1);
            let group = groups.iter().find(|g| g.params.iter().any(|(n, _)| n == name)).unwrap();
            (group.weight_decay, group.lr_scale)
        };
        let expected = [(0.2, 0.5), (0.0, 0.5), (0.2, 0.1), (0.0, 1.0), (0.2, 1.0)];
        names.iter().zip(expected).for_each(|((name, _), expected)| assert_eq!(found(name), expected, "{name}"));
        assert_eq!(groups(params(), 0.2, 1.0, 1.0).len(), 2);
    }
}
