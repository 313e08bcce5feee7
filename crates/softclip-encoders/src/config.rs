//! Models as data: presets, open_clip's JSON, and checks.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A dual encoder: image tower, text tower, joint width, and SoftCLIP's region branch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipConfig {
    /// Width D of the joint space.
    pub embed_dim: i64,
    /// The image tower.
    pub vision: VisionConfig,
    /// The text tower.
    pub text: TextConfig,
    /// x·σ(1.702x) in place of GELU: OpenAI's weights need it.
    #[serde(default)]
    pub quick_gelu: bool,
    /// The region branch; absent where no regions are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions: Option<RegionConfig>,
}

/// The image tower.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum VisionConfig {
    /// CLIP's modified ResNet.
    Resnet(ResNetConfig),
    /// A Vision Transformer.
    Vit(VitConfig),
}

/// CLIP's modified ResNet: three convolutions as stem, anti-aliased strides, attention pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResNetConfig {
    /// Side of the image in pixels, a multiple of 32.
    pub image_size: i64,
    /// Bottleneck blocks of the four stages.
    pub layers: [i64; 4],
    /// Channels after the stem; the last stage has 32 times as many.
    pub width: i64,
    /// Heads of the attention pool.
    pub heads: i64,
}

/// A Vision Transformer with a class token, normalised before its blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VitConfig {
    /// Side of the image in pixels, a multiple of `patch_size`.
    pub image_size: i64,
    /// Side of a patch in pixels.
    pub patch_size: i64,
    /// Width of a token.
    pub width: i64,
    /// Blocks.
    pub layers: i64,
    /// Attention heads.
    pub heads: i64,
    /// Hidden width of a block's MLP, in token widths.
    #[serde(default = "four")]
    pub mlp_ratio: f64,
}

fn four() -> f64 {
    4.0
}

/// CLIP's causal text Transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// Longest text in tokens, start and end among them.
    pub context_length: i64,
    /// Rows of the token embedding.
    pub vocab_size: i64,
    /// Width of a token.
    pub width: i64,
    /// Attention heads.
    pub heads: i64,
    /// Blocks.
    pub layers: i64,
    /// Which output stands for the text.
    #[serde(default)]
    pub pool: TextPool,
}

/// Which output stands for the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextPool {
    /// The end token's, the one with the largest id (CLIP).
    #[default]
    Eot,
    /// The maximum over all tokens up to the end token's (PyramidCLIP's code).
    Max,
}

/// SoftCLIP's region branch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegionConfig {
    /// Numbers a region: 2,048 of appearance and 4 of position in the paper.
    pub dim: i64,
    /// How an image's regions become one vector (Table 10).
    pub aggregate: Aggregate,
    /// How many of the Vision Transformer's last blocks are shared (3 of 12 in PyramidCLIP); a ResNet shares its attention pool.
    pub blocks: i64,
}

impl Default for RegionConfig {
    fn default() -> Self {
        RegionConfig { dim: 2052, aggregate: Aggregate::Mhsa, blocks: 3 }
    }
}

/// How an image's regions become one vector (Table 10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Aggregate {
    /// Through the rear part of the image tower, [N, D].
    #[default]
    Mhsa,
    /// The mean of the raw features, [N, F]: a constant without parameters. So are the next two.
    Mean,
    /// Their maximum.
    Max,
    /// Their minimum.
    Min,
}

impl ClipConfig {
    /// CLIP's RN50.
    pub fn rn50() -> Self {
        let vision = VisionConfig::Resnet(ResNetConfig { image_size: 224, layers: [3, 4, 6, 3], width: 64, heads: 32 });
        ClipConfig { embed_dim: 1024, vision, text: TextConfig::clip(512), quick_gelu: false, regions: None }
    }

    /// CLIP's ViT-B/32.
    pub fn vit_b_32() -> Self {
        Self::vit_b(32)
    }

    /// CLIP's ViT-B/16.
    pub fn vit_b_16() -> Self {
        Self::vit_b(16)
    }

    fn vit_b(patch_size: i64) -> Self {
        let vision = VitConfig { image_size: 224, patch_size, width: 768, layers: 12, heads: 12, mlp_ratio: 4.0 };
        let text = TextConfig::clip(512);
        ClipConfig { embed_dim: 512, vision: VisionConfig::Vit(vision), text, quick_gelu: false, regions: None }
    }

    /// CLIP's ViT-L/14.
    pub fn vit_l_14() -> Self {
        let vision = VitConfig { image_size: 224, patch_size: 14, width: 1024, layers: 24, heads: 16, mlp_ratio: 4.0 };
        let text = TextConfig::clip(768);
        ClipConfig { embed_dim: 768, vision: VisionConfig::Vit(vision), text, quick_gelu: false, regions: None }
    }

    /// A preset by name: `rn50`, `vit_b_32`, `vit_b_16`, `vit_l_14`, each also with `-quickgelu`.
    ///
    /// # Errors
    /// The name is not among them.
    pub fn preset(name: &str) -> Result<Self> {
        let (base, quick_gelu) = name.strip_suffix("-quickgelu").map_or((name, false), |b| (b, true));
        let config = match base.to_ascii_lowercase().replace('-', "_").as_str() {
            "rn50" => Self::rn50(),
            "vit_b_32" => Self::vit_b_32(),
            "vit_b_16" => Self::vit_b_16(),
            "vit_l_14" => Self::vit_l_14(),
            _ => {
                let why = format!("`{name}` is not a preset: use rn50, vit_b_32, vit_b_16 or vit_l_14, or write the model out");
                return Err(Error::Config { key: "image", why });
            }
        };
        Ok(ClipConfig { quick_gelu, ..config })
    }

    /// Reads open_clip's model JSON (`embed_dim`, `vision_cfg`, `text_cfg`, `quick_gelu`).
    ///
    /// # Errors
    /// The file cannot be read, lacks a key, or describes a tower that is not among CLIP's.
    pub fn from_open_clip_file(path: &Path) -> Result<Self> {
        let fail = |why: String| Error::File { path: path.to_owned(), why };
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        Self::from_open_clip_json(&text).map_err(|e| fail(e.to_string()))
    }

    /// Reads open_clip's model JSON from text.
    ///
    /// # Errors
    /// As [`ClipConfig::from_open_clip_file`].
    pub fn from_open_clip_json(text: &str) -> Result<Self> {
        let whole: OpenClip = serde_json::from_str(text).map_err(|e| Error::Config { key: "open_clip", why: e.to_string() })?;
        let v = whole.vision_cfg;
        let vision = match v.layers {
            OpenClipLayers::Stages(layers) => VisionConfig::Resnet(ResNetConfig {
                image_size: v.image_size,
                layers,
                width: v.width,
                heads: v.width * 32 / v.head_width,
            }),
            OpenClipLayers::Blocks(layers) => VisionConfig::Vit(VitConfig {
                image_size: v.image_size,
                patch_size: v
                    .patch_size
                    .ok_or_else(|| Error::Config { key: "open_clip", why: "vision_cfg lacks patch_size".into() })?,
                width: v.width,
                layers,
                heads: v.width / v.head_width,
                mlp_ratio: v.mlp_ratio,
            }),
        };
        let config =
            ClipConfig { embed_dim: whole.embed_dim, vision, text: whole.text_cfg, quick_gelu: whole.quick_gelu, regions: None };
        config.validate()?;
        Ok(config)
    }

    /// Side of the images in pixels.
    pub fn image_size(&self) -> i64 {
        match &self.vision {
            VisionConfig::Resnet(c) => c.image_size,
            VisionConfig::Vit(c) => c.image_size,
        }
    }

    /// The same model for images of another size.
    #[must_use]
    pub fn with_image_size(mut self, size: i64) -> Self {
        match &mut self.vision {
            VisionConfig::Resnet(c) => c.image_size = size,
            VisionConfig::Vit(c) => c.image_size = size,
        }
        self
    }

    /// Checks that sizes fit each other.
    ///
    /// # Errors
    /// The key that does not fit.
    pub fn validate(&self) -> Result<()> {
        positive("embed_dim", self.embed_dim)?;
        match &self.vision {
            VisionConfig::Resnet(c) => {
                multiple("vision.image_size", c.image_size, 32)?;
                multiple("vision.width", c.width, 2)?;
                multiple("vision.width × 32", c.width * 32, c.heads)?;
                c.layers.iter().try_for_each(|&l| positive("vision.layers", l))?;
            }
            VisionConfig::Vit(c) => {
                multiple("vision.image_size", c.image_size, c.patch_size)?;
                multiple("vision.width", c.width, c.heads)?;
                positive("vision.layers", c.layers)?;
                if !(c.mlp_ratio.is_finite() && c.mlp_ratio > 0.0) {
                    return Err(Error::Config { key: "vision.mlp_ratio", why: format!("{} is not positive", c.mlp_ratio) });
                }
            }
        }
        multiple("text.width", self.text.width, self.text.heads)?;
        positive("text.layers", self.text.layers)?;
        positive("text.vocab_size", self.text.vocab_size)?;
        if self.text.context_length < 2 {
            return Err(Error::Config { key: "text.context_length", why: "a start and an end token need at least 2".into() });
        }
        let Some(r) = &self.regions else { return Ok(()) };
        positive("regions.dim", r.dim)?;
        match &self.vision {
            VisionConfig::Vit(c) if r.aggregate == Aggregate::Mhsa && !(1..=c.layers).contains(&r.blocks) => {
                let why = format!("{} of the image tower's {} blocks cannot be shared", r.blocks, c.layers);
                Err(Error::Config { key: "regions.blocks", why })
            }
            _ => Ok(()),
        }
    }
}

impl TextConfig {
    /// CLIP's: 77 tokens, 12 blocks, heads of 64.
    fn clip(width: i64) -> Self {
        let (context_length, vocab_size) = (77, 49408);
        TextConfig { context_length, vocab_size, width, heads: width / 64, layers: 12, pool: TextPool::Eot }
    }
}

pub(crate) fn positive(key: &'static str, value: i64) -> Result<()> {
    if value > 0 {
        return Ok(());
    }
    Err(Error::Config { key, why: format!("{value} is not positive") })
}

pub(crate) fn multiple(key: &'static str, value: i64, of: i64) -> Result<()> {
    positive(key, value)?;
    positive(key, of)?;
    if value % of == 0 {
        return Ok(());
    }
    Err(Error::Config { key, why: format!("{value} is not a multiple of {of}") })
}

#[derive(Deserialize)]
struct OpenClip {
    embed_dim: i64,
    vision_cfg: OpenClipVision,
    text_cfg: TextConfig,
    #[serde(default)]
    quick_gelu: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OpenClipVision {
    image_size: i64,
    layers: OpenClipLayers,
    width: i64,
    patch_size: Option<i64>,
    #[serde(default = "sixty_four")]
    head_width: i64,
    #[serde(default = "four")]
    mlp_ratio: f64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OpenClipLayers {
    Stages([i64; 4]),
    Blocks(i64),
}

fn sixty_four() -> i64 {
    64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid_and_others_are_refused_with_the_list() {
        for name in ["rn50", "vit_b_32", "ViT-B-16", "vit_l_14", "rn50-quickgelu"] {
            ClipConfig::preset(name).unwrap().validate().unwrap();
        }
        assert!(ClipConfig::preset("rn50-quickgelu").unwrap().quick_gelu);
        assert!(ClipConfig::preset("vgg").unwrap_err().to_string().contains("vit_b_32"));
    }

    #[test]
    fn open_clips_json_gives_the_preset() {
        let json = r#"{"embed_dim": 512, "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
            "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}}"#;
        assert_eq!(ClipConfig::from_open_clip_json(json).unwrap(), ClipConfig::vit_b_32());
        let json = json.replace("\"layers\": 12, \"width\": 768, \"patch_size\": 32", "\"layers\": [3, 4, 6, 3], \"width\": 64");
        let config = ClipConfig::from_open_clip_json(&json).unwrap();
        assert_eq!(config.vision, ClipConfig::rn50().vision);
    }

    #[test]
    fn sizes_that_do_not_fit_are_named() {
        let bad = ClipConfig::vit_b_32().with_image_size(225);
        assert!(bad.validate().unwrap_err().to_string().contains("image_size"));
        let mut bad = ClipConfig::vit_b_32();
        bad.text.heads = 7;
        assert!(bad.validate().unwrap_err().to_string().contains("text.width"));
        let mut bad = ClipConfig::vit_b_32();
        bad.regions = Some(RegionConfig { blocks: 13, ..RegionConfig::default() });
        assert!(bad.validate().unwrap_err().to_string().contains("regions.blocks"));
    }
}
