//! Models as data: presets, open_clip's JSON, and checks.

pub(crate) mod check;
mod open_clip;
mod text;
mod vision;

use serde::{Deserialize, Serialize};
use softclip_io::did_you_mean;

use crate::bert::BertConfig;
use crate::error::{Error, Result};
use crate::layers::Activation;

pub use text::{ClipTextConfig, TextConfig, TextPool};
pub use vision::{ResNetConfig, TorchvisionConfig, VisionConfig, VitConfig};

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
    /// What pixels become before the image tower.
    #[serde(default)]
    pub normalization: Normalization,
    /// Whether the centre of an image that lies between two pixels is rounded down, as in Hugging Face's processors, and not to the
    /// even one, as in open_clip's.
    #[serde(default)]
    pub floor_crop: bool,
    /// The region branch; absent where no regions are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions: Option<RegionConfig>,
}

/// What a file of weights holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Architecture {
    /// Both towers.
    Clip(ClipConfig),
    /// An image tower, without a projection to a joint space.
    Image(VisionConfig),
    /// A text tower, without a projection to a joint space.
    Text(TextConfig),
}

/// (x/255 − mean)/std of each channel: red, green, blue.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// Subtracted.
    pub mean: [f64; 3],
    /// Divided by.
    pub std: [f64; 3],
}

impl Normalization {
    /// CLIP's.
    pub const CLIP: Self = Self { mean: [0.48145466, 0.4578275, 0.40821073], std: [0.26862954, 0.26130258, 0.27577711] };
    /// ImageNet's, as torchvision's weights want.
    pub const IMAGENET: Self = Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
    /// Pixels from −1 to 1, as the original Vision Transformer's weights want.
    pub const HALF: Self = Self { mean: [0.5; 3], std: [0.5; 3] };
}

impl Default for Normalization {
    fn default() -> Self {
        Self::CLIP
    }
}

fn four() -> f64 {
    4.0
}

fn published_eps() -> f64 {
    1e-5
}

/// Hidden width of an MLP; the cast saturates.
fn hidden(width: i64, ratio: f64) -> i64 {
    (width as f64 * ratio).round() as i64
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
    /// A model of two towers without a region branch, for pixels as `vision`'s published weights want them.
    pub fn new(embed_dim: i64, vision: VisionConfig, text: TextConfig) -> Self {
        let normalization = match &vision {
            VisionConfig::Resnet50(_) => Normalization::IMAGENET,
            VisionConfig::Vit(c) if !c.ln_pre => Normalization::HALF,
            _ => Normalization::CLIP,
        };
        ClipConfig { embed_dim, vision, text, normalization, floor_crop: false, regions: None }
    }

    /// CLIP's RN50.
    pub fn rn50() -> Self {
        let vision = ResNetConfig { image_size: 224, layers: [3, 4, 6, 3], width: 64, heads: 32 };
        Self::new(1024, VisionConfig::Resnet(vision), TextConfig::Clip(ClipTextConfig::clip(512)))
    }

    /// CLIP's ViT-B/32.
    pub fn vit_b_32() -> Self {
        Self::vit(32, 768, 12, 512)
    }

    /// CLIP's ViT-B/16.
    pub fn vit_b_16() -> Self {
        Self::vit(16, 768, 12, 512)
    }

    /// CLIP's ViT-L/14.
    pub fn vit_l_14() -> Self {
        Self::vit(14, 1024, 24, 768)
    }

    /// Heads of 64; a text tower as wide as the joint space.
    fn vit(patch_size: i64, width: i64, layers: i64, embed_dim: i64) -> Self {
        let vision = VitConfig::clip(224, patch_size, width, layers, width / 64);
        Self::new(embed_dim, VisionConfig::Vit(vision), TextConfig::Clip(ClipTextConfig::clip(embed_dim)))
    }

    /// torchvision's ResNet-50 beside CLIP's text tower for ViT-B/32.
    pub fn resnet50() -> Self {
        let vision = TorchvisionConfig { image_size: 224, layers: [3, 4, 6, 3], width: 64 };
        Self::new(512, VisionConfig::Resnet50(vision), TextConfig::Clip(ClipTextConfig::clip(512)))
    }

    /// A preset by its image tower's name: `rn50`, `vit_b_32`, `vit_b_16`, `vit_l_14`, each also with `-quickgelu`, and `resnet50`.
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
            "resnet50" => Self::resnet50(),
            _ => {
                let meant = did_you_mean(base, ["rn50", "vit_b_32", "vit_b_16", "vit_l_14", "resnet50"]);
                let why = format!(
                    "`{name}` is not a preset: use rn50, vit_b_32, vit_b_16, vit_l_14 or resnet50, or write the tower out{meant}"
                );
                return Err(Error::Config { key: "image", why });
            }
        };
        Ok(if quick_gelu { config.with_activation(Activation::QuickGelu) } else { config })
    }

    /// A text tower by name: `clip` (the one that goes with `embed_dim`), `bert` or `roberta` (the published base models).
    ///
    /// # Errors
    /// The name is not among them.
    pub fn text_preset(name: &str, embed_dim: i64) -> Result<TextConfig> {
        match name {
            "clip" => Ok(TextConfig::Clip(ClipTextConfig::clip(if embed_dim == 768 { 768 } else { 512 }))),
            "bert" => Ok(TextConfig::Bert(BertConfig::bert_base())),
            "roberta" => Ok(TextConfig::Bert(BertConfig::roberta_base())),
            _ => {
                let meant = did_you_mean(name, ["clip", "bert", "roberta"]);
                let why = format!("`{name}` is not a text tower: use clip, bert or roberta, or write the tower out{meant}");
                Err(Error::Config { key: "text", why })
            }
        }
    }

    /// Side of the images in pixels.
    pub fn image_size(&self) -> i64 {
        self.vision.image_size()
    }

    /// The longest text in tokens, start and end among them.
    pub fn context_length(&self) -> i64 {
        self.text.context_length()
    }

    /// The same model for images of another size.
    #[must_use]
    pub fn with_image_size(mut self, size: i64) -> Self {
        self.vision.set_image_size(size);
        self
    }

    /// The same model with another share of patches that are left out in training.
    ///
    /// # Errors
    /// The image tower has no patches; a share of 0 is right for every one.
    pub fn with_patch_dropout(mut self, share: f64) -> Result<Self> {
        match &mut self.vision {
            VisionConfig::Vit(c) => c.patch_dropout = share,
            _ if share == 0.0 => {}
            _ => {
                let why = "only a Vision Transformer has patches to leave out".to_owned();
                return Err(Error::Config { key: "patch_dropout", why });
            }
        }
        Ok(self)
    }

    /// The share of patches that are left out in training, by libtorch's generator.
    pub fn patch_dropout(&self) -> f64 {
        match &self.vision {
            VisionConfig::Vit(c) => c.patch_dropout,
            VisionConfig::Resnet(_) | VisionConfig::Resnet50(_) => 0.0,
        }
    }

    /// The same model for texts of another greatest length.
    #[must_use]
    pub fn with_context_length(mut self, tokens: i64) -> Self {
        self.text.set_context_length(tokens);
        self
    }

    /// The same model with another activation in the MLPs of CLIP's Transformers. (A ResNet has none, BERT keeps its own.)
    #[must_use]
    pub fn with_activation(mut self, activation: Activation) -> Self {
        if let VisionConfig::Vit(c) = &mut self.vision {
            c.activation = activation;
        }
        if let TextConfig::Clip(c) = &mut self.text {
            c.activation = activation;
        }
        self
    }

    /// Checks that every size is in its range and that sizes fit each other. Within the ranges no product of sizes overflows; whether
    /// the model fits into memory is checked when it is built.
    ///
    /// # Errors
    /// The key that does not fit.
    pub fn validate(&self) -> Result<()> {
        check::size("embed_dim", self.embed_dim)?;
        self.vision.validate()?;
        self.text.validate()?;
        // In f32, in which pixels are normalized.
        let n = &self.normalization;
        let (mut mean, mut std) = (n.mean.iter().map(|&m| m as f32), n.std.iter().map(|&s| s as f32));
        if !mean.all(f32::is_finite) || !std.all(|s| s.is_normal() && s > 0.0) {
            return Err(Error::Config { key: "normalization", why: "means must be numbers and deviations positive".into() });
        }
        let Some(r) = &self.regions else { return Ok(()) };
        check::size("regions.dim", r.dim)?;
        match &self.vision {
            _ if r.aggregate != Aggregate::Mhsa => Ok(()),
            VisionConfig::Vit(c) if !(1..=c.layers).contains(&r.blocks) => {
                let why = format!("{} of the image tower's {} blocks cannot be shared", r.blocks, c.layers);
                Err(Error::Config { key: "regions.blocks", why })
            }
            VisionConfig::Resnet50(_) => {
                let why = "torchvision's ResNet has no attention to share with regions: use mean, max or min";
                Err(Error::Config { key: "regions.aggregate", why: why.into() })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid_and_others_are_refused_with_the_list() {
        for name in ["rn50", "vit_b_32", "ViT-B-16", "vit_l_14", "rn50-quickgelu", "resnet50"] {
            ClipConfig::preset(name).unwrap().validate().unwrap();
        }
        let quick = ClipConfig::vit_b_32().with_activation(Activation::QuickGelu);
        assert_eq!(ClipConfig::preset("vit_b_32-quickgelu").unwrap(), quick);
        assert_ne!(quick, ClipConfig::vit_b_32());
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
        bad.text = TextConfig::Clip(ClipTextConfig { heads: 7, ..ClipTextConfig::clip(512) });
        assert!(bad.validate().unwrap_err().to_string().contains("text.width"));
        let mut bad = ClipConfig::vit_b_32();
        bad.regions = Some(RegionConfig { blocks: 13, ..RegionConfig::default() });
        assert!(bad.validate().unwrap_err().to_string().contains("regions.blocks"));
    }
}
