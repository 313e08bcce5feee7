//! State dicts without a configuration: open_clip's names, OpenAI's first releases among them, and torchvision's.

use std::collections::BTreeMap;

use tch::Tensor;

use crate::config::{ClipConfig, ClipTextConfig, ResNetConfig, TextConfig, TorchvisionConfig, VisionConfig, VitConfig};
use crate::error::{Error, Result};
use crate::layers::Activation;

/// Scalars that OpenAI's files have beside the weights.
const SIZES: [&str; 3] = ["input_resolution", "context_length", "vocab_size"];

/// What compilers and wrappers put before all names of a network, or within them.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];
/// What classes that hold a network put before its names.
const HOLDERS: [&str; 2] = ["model.", "clip."];
/// What names of the networks that are known here begin with.
const BEGINNINGS: [&str; 8] =
    ["visual.", "vision_model.", "text_model.", "vit.", "bert.", "roberta.", "embeddings.", "layer1.0.conv1."];

/// Strips what is put before a network's names: `module.` (data parallel), `_orig_mod.` (`torch.compile`, also within a name), `model.`
/// and `clip.` where no tensor has a network's name without them, and `text.` where open_clip's `CustomTextCLIP` holds CLIP's own text
/// tower.
///
/// # Errors
/// Two tensors have the same name then.
pub fn strip_wrappers(file: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let bare = insert_all(file.into_iter().map(|(name, t)| (without_wrappers(&name), name, t)))?;
    let holder = if bare.keys().any(|name| begins(name)) { None } else { bare.keys().find_map(|name| holder_of(name)) };
    let bare = match holder.map(str::to_owned) {
        Some(holder) => insert_all(strip(bare, &holder))?,
        None => bare,
    };
    let is_custom = bare.keys().any(|name| name.starts_with("text.transformer.resblocks."));
    let bare = if is_custom { insert_all(strip(bare, "text."))? } else { bare };
    Ok(bare.into_iter().map(|(name, (_, tensor))| (name, tensor)).collect())
}

fn strip(bare: Renamed, prefix: &str) -> impl Iterator<Item = (String, String, Tensor)> {
    bare.into_iter().map(move |(name, (old, t))| (name.strip_prefix(prefix).map(str::to_owned).unwrap_or(name), old, t))
}

type Renamed = BTreeMap<String, (String, Tensor)>;

/// By new names, each with its old one.
fn insert_all(tensors: impl Iterator<Item = (String, String, Tensor)>) -> Result<Renamed> {
    let mut all = Renamed::new();
    for (name, old, tensor) in tensors {
        if let Some((other, _)) = all.insert(name.clone(), (old.clone(), tensor)) {
            return Err(Error::Weights(format!("`{name}` is there twice, as `{other}` and as `{old}`: keep one of them")));
        }
    }
    Ok(all)
}

fn without_wrappers(name: &str) -> String {
    let mut name = name.replace("_orig_mod.", "");
    while let Some(rest) = name.strip_prefix("module.") {
        name = rest.to_owned();
    }
    name
}

fn begins(name: &str) -> bool {
    BEGINNINGS.iter().any(|start| name.starts_with(start))
}

/// The holders and wrappers before a network's name: `model.clip.` of `model.clip.visual.proj`.
fn holder_of(name: &str) -> Option<&str> {
    let mut rest = name;
    while !begins(rest) {
        rest = HOLDERS.iter().chain(&WRAPPERS).find_map(|holder| rest.strip_prefix(holder))?;
    }
    Some(&name[..name.len() - rest.len()])
}

/// A state dict of open_clip's as our tensors: without a prefix `module.`, without the three sizes that OpenAI's files carry, and with a
/// scalar `logit_scale` and `logit_bias`.
pub fn from_open_clip(file: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let bare = |name: String| name.strip_prefix("module.").map(str::to_owned).unwrap_or(name);
    let own = file.into_iter().map(|(name, t)| (bare(name), t)).filter(|(name, _)| !SIZES.contains(&name.as_str()));
    own.map(|(name, t)| (name.clone(), scalar(&name, t))).collect()
}

/// `logit_scale` and `logit_bias`, which are scalars or of shape `[1]` by their library's version, as scalars.
pub(crate) fn scalar(name: &str, tensor: Tensor) -> Tensor {
    let is_one = matches!(name, "logit_scale" | "logit_bias") && tensor.size() == [1];
    if is_one { tensor.squeeze() } else { tensor }
}

/// What [`infer_config`] cannot see in the weights and takes for given, for a reader; empty where all is known.
fn assumptions(config: &ClipConfig) -> String {
    let activation = "GELU (weights do not show whether it is QuickGELU)";
    let heads = |heads: i64, width: i64| match heads {
        1 => format!("1 head of {width}"),
        _ => format!("{heads} heads of {}", width / heads.max(1)),
    };
    let image = match &config.vision {
        VisionConfig::Vit(c) => heads(c.heads, c.width),
        VisionConfig::Resnet(c) => heads(c.heads, 32 * c.width),
        VisionConfig::Resnet50(_) => String::new(),
    };
    let text = match &config.text {
        TextConfig::Clip(c) => heads(c.heads, c.width),
        TextConfig::Bert(_) => String::new(),
    };
    format!("{image} in the image tower, {text} in the text tower, {activation}")
}

/// Heads of a published image tower of this width: of 80 in ViT-H, 88 in ViT-g, 104 in ViT-bigG, 112 in ViT-e, else of 64.
fn image_heads(width: i64) -> i64 {
    match width {
        1280 | 1408 | 1664 | 1792 => 16,
        _ => width / 64,
    }
}

/// The model that a state dict without a configuration belongs to, by its tensors' shapes, and what cannot be seen in them and is
/// assumed: heads as published for the width, and GELU. `None` where nothing is assumed: OpenAI's files, which have QuickGELU, are
/// known by the sizes that they carry.
///
/// # Errors
/// It is not CLIP's, or its width is no multiple of the assumed heads' width.
pub fn infer_config(file: &BTreeMap<String, Tensor>) -> Result<(ClipConfig, Option<String>)> {
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
        let image = side("visual.positional_embedding")?.checked_mul(patch);
        let image = image.ok_or_else(|| Error::Weights(format!("patches of {patch} pixels make no image")))?;
        let vit = VitConfig::clip(image, patch, width, count("visual.transformer.resblocks."), image_heads(width));
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
    config.validate().map_err(|e| match e {
        Error::Config { key, why } if key.ends_with("heads") || key.ends_with("width") => {
            let why = format!(
                "the number of heads cannot be seen in weights, and those of CLIP's published models do not fit: {key}: {why}"
            );
            Error::Weights(format!("{why}. Put the model's open_clip_config.json next to the weights"))
        }
        other => other,
    })?;
    let assumed = (!of_open_ai).then(|| assumptions(&config));
    Ok((config, assumed))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> BTreeMap<String, Tensor> {
        names.iter().map(|name| ((*name).to_owned(), Tensor::from(1f32))).collect()
    }

    #[test]
    fn wrappers_are_stripped_and_networks_stay_as_they_are() {
        for (before, after) in [
            ("module.visual.proj module.logit_scale", "logit_scale visual.proj"),
            ("_orig_mod.visual.proj _orig_mod.logit_scale", "logit_scale visual.proj"),
            ("module._orig_mod.visual.proj", "visual.proj"),
            ("visual._orig_mod.proj logit_scale", "logit_scale visual.proj"),
            ("model.clip.module.visual.proj model.clip.module.logit_scale", "logit_scale visual.proj"),
            ("clip.text_model.a clip.vision_model.b clip.logit_scale", "logit_scale text_model.a vision_model.b"),
            // Tensors that are not the network's keep their names, by which they are refused.
            ("model.visual.proj loss.weight", "loss.weight visual.proj"),
            (
                "text.transformer.resblocks.0.x text.ln_final.bias visual.proj",
                "ln_final.bias transformer.resblocks.0.x visual.proj",
            ),
            ("text.transformer.embeddings.x visual.trunk.y", "text.transformer.embeddings.x visual.trunk.y"),
            ("model.embeddings.x model.encoder.y", "embeddings.x encoder.y"),
            ("model.what encoder", "encoder model.what"),
        ] {
            let names: Vec<&str> = before.split(' ').collect();
            let found = strip_wrappers(named(&names)).unwrap();
            assert_eq!(found.into_keys().collect::<Vec<_>>().join(" "), after, "{before}");
        }
        let error = strip_wrappers(named(&["module.visual.proj", "visual.proj"])).unwrap_err().to_string();
        assert!(error.contains("`visual.proj` is there twice") && error.contains("`module.visual.proj`"), "{error}");
    }

    #[test]
    fn published_widths_have_their_published_heads() {
        for (width, heads) in [(768, 12), (1024, 16), (1280, 16), (1408, 16), (1664, 16), (896, 14), (384, 6)] {
            assert_eq!(image_heads(width), heads, "{width}");
        }
        // A text tower of 1280, as ViT-bigG has, keeps heads of 64.
        assert_eq!(ClipTextConfig::clip(1280).heads, 20);
    }
}
