//! State dicts without a configuration: open_clip's names, OpenAI's first releases among them, and torchvision's.

use std::collections::BTreeMap;

use tch::Tensor;

use crate::config::{ClipConfig, ClipTextConfig, ResNetConfig, TextConfig, TorchvisionConfig, VisionConfig, VitConfig};
use crate::error::{Error, Result};
use crate::layers::Activation;

/// Scalars that OpenAI's files have beside the weights.
const SIZES: [&str; 3] = ["input_resolution", "context_length", "vocab_size"];

/// A state dict as our tensors: without a prefix `module.` and without the three sizes that OpenAI's files carry.
pub fn from_open_clip(file: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let bare = |name: String| name.strip_prefix("module.").map(str::to_owned).unwrap_or(name);
    file.into_iter().map(|(name, t)| (bare(name), t)).filter(|(name, _)| !SIZES.contains(&name.as_str())).collect()
}

/// The model that a state dict without a configuration belongs to, by its tensors' shapes: heads of 64, and QuickGELU if the file
/// is one of OpenAI's. Whether another one needs QuickGELU cannot be seen in it.
///
/// # Errors
/// It is not CLIP's.
pub fn infer_config(file: &BTreeMap<String, Tensor>) -> Result<ClipConfig> {
    let prefix = if file.keys().any(|name| name.starts_with("module.")) { "module." } else { "" };
    let size = |name: &str| -> Result<Vec<i64>> {
        let found = file.get(&format!("{prefix}{name}")).map(Tensor::size);
        found.ok_or_else(|| Error::Weights(format!("this is no CLIP under open_clip's names: `{name}` is missing")))
    };
    let count = |start: &str| {
        let start = format!("{prefix}{start}");
        let numbers = file.keys().filter_map(|name| name.strip_prefix(&start)?.split('.').next()?.parse::<i64>().ok());
        numbers.max().map_or(0, |last| last + 1)
    };
    let dim = |name: &str, i: usize| -> Result<i64> {
        let size = size(name)?;
        size.get(i).copied().ok_or_else(|| Error::Weights(format!("`{name}` has shape {size:?}")))
    };
    let ratio = |tower: &str, width: i64| -> Result<f64> {
        Ok(dim(&format!("{tower}.resblocks.0.mlp.c_fc.weight"), 0)? as f64 / width.max(1) as f64)
    };
    let side = |name: &str| -> Result<i64> { Ok(((dim(name, 0)? - 1).max(0) as f64).sqrt().round() as i64) };
    let vision = if size("visual.proj").is_ok() {
        let (width, patch) = (dim("visual.conv1.weight", 0)?, dim("visual.conv1.weight", 3)?);
        let image = side("visual.positional_embedding")? * patch;
        let vit = VitConfig::clip(image, patch, width, count("visual.transformer.resblocks."), width / 64);
        VisionConfig::Vit(VitConfig { mlp_ratio: ratio("visual.transformer", width)?, ..vit })
    } else {
        let width = dim("visual.layer1.0.conv1.weight", 0)?;
        let layers = [1, 2, 3, 4].map(|i| count(&format!("visual.layer{i}.")));
        let image_size = side("visual.attnpool.positional_embedding")? * 32;
        VisionConfig::Resnet(ResNetConfig { image_size, layers, width, heads: width / 2 })
    };
    let width = dim("ln_final.weight", 0)?;
    let text = ClipTextConfig {
        context_length: dim("positional_embedding", 0)?,
        vocab_size: dim("token_embedding.weight", 0)?,
        layers: count("transformer.resblocks."),
        mlp_ratio: ratio("transformer", width)?,
        ..ClipTextConfig::clip(width)
    };
    let config = ClipConfig::new(dim("text_projection", 1)?, vision, TextConfig::Clip(text));
    let of_open_ai = SIZES.iter().all(|name| file.contains_key(*name));
    let config = if of_open_ai { config.with_activation(Activation::QuickGelu) } else { config };
    config.validate()?;
    Ok(config)
}

/// torchvision's ResNet as the image tower's tensors, without its classifier.
pub fn from_torchvision(file: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let own = file.into_iter().filter(|(name, _)| !name.starts_with("fc."));
    own.map(|(name, t)| (format!("visual.trunk.{name}"), t)).collect()
}

/// The tower that a file of torchvision's ResNets of bottleneck blocks is for, by its tensors' shapes: 224 pixels.
///
/// # Errors
/// It is no such file.
pub fn infer_torchvision(file: &BTreeMap<String, Tensor>) -> Result<VisionConfig> {
    let width =
        file.get("conv1.weight").map(Tensor::size).filter(|size| size.len() == 4 && file.contains_key("layer1.0.conv3.weight"));
    let Some(width) = width else {
        let why = "its names are neither open_clip's nor torchvision's, and there is no config.json that says what it is";
        return Err(Error::Weights(why.into()));
    };
    let blocks = |i: i64| (0..).take_while(|j| file.contains_key(&format!("layer{i}.{j}.conv1.weight"))).count() as i64;
    let config = VisionConfig::Resnet50(TorchvisionConfig { image_size: 224, layers: [1, 2, 3, 4].map(blocks), width: width[0] });
    config.validate()?;
    Ok(config)
}
