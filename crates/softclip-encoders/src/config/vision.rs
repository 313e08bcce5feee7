//! Image towers as data.

use serde::{Deserialize, Serialize};

use super::{check, four, published_eps};
use crate::error::{Error, Result};
use crate::layers::Activation;
use crate::resnet50::ResNet50Config;

/// The image tower.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum VisionConfig {
    /// CLIP's modified ResNet.
    Resnet(ResNetConfig),
    /// A Vision Transformer.
    Vit(VitConfig),
    /// torchvision's ResNet, and a linear projection of its own.
    Resnet50(TorchvisionConfig),
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

/// A Vision Transformer with a class token: CLIP's, or the original one (Dosovitskiy et al. 2020) by the last four keys.
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
    /// The activation of the MLPs; OpenAI's weights need `quick_gelu`.
    #[serde(default)]
    pub activation: Activation,
    /// ε of every layer norm.
    #[serde(default = "published_eps")]
    pub layer_norm_eps: f64,
    /// Whether tokens are normalised before the first block, as in CLIP.
    #[serde(default = "yes")]
    pub ln_pre: bool,
    /// Whether the patches' convolution has a bias, as outside of CLIP.
    #[serde(default)]
    pub patch_bias: bool,
    /// Whether tanh of a linear layer comes between the class token and the projection (Hugging Face's `pooler`).
    #[serde(default)]
    pub pooler: bool,
    /// Share of the patches that are left out in training, another random choice for each image (FLIP, Li et al. 2022); 0 for none.
    /// Values in evaluation do not depend on it.
    #[serde(default)]
    pub patch_dropout: f64,
}

fn yes() -> bool {
    true
}

/// torchvision's ResNet as an image tower: the mean over its last map, then a linear projection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TorchvisionConfig {
    /// Side of the image in pixels.
    pub image_size: i64,
    /// Bottleneck blocks of the four stages.
    pub layers: [i64; 4],
    /// Channels after the stem; the last stage has 32 times as many.
    pub width: i64,
}

impl TorchvisionConfig {
    /// The network without a classifier.
    pub(crate) fn trunk(&self) -> ResNet50Config {
        ResNet50Config { layers: self.layers, width: self.width, classes: None }
    }
}

impl VitConfig {
    /// One of CLIP's: MLPs four times as wide, normalised before the first block.
    pub fn clip(image_size: i64, patch_size: i64, width: i64, layers: i64, heads: i64) -> Self {
        VitConfig {
            image_size,
            patch_size,
            width,
            layers,
            heads,
            mlp_ratio: 4.0,
            activation: Activation::Gelu,
            layer_norm_eps: published_eps(),
            ln_pre: true,
            patch_bias: false,
            pooler: false,
            patch_dropout: 0.0,
        }
    }

    /// Hidden width of the MLPs.
    pub(crate) fn hidden(&self) -> i64 {
        super::hidden(self.width, self.mlp_ratio)
    }

    /// Patches along a side.
    pub(crate) fn grid(&self) -> i64 {
        self.image_size / self.patch_size
    }
}

impl VisionConfig {
    /// Side of the images in pixels.
    pub fn image_size(&self) -> i64 {
        match self {
            VisionConfig::Resnet(c) => c.image_size,
            VisionConfig::Vit(c) => c.image_size,
            VisionConfig::Resnet50(c) => c.image_size,
        }
    }

    pub(super) fn set_image_size(&mut self, size: i64) {
        match self {
            VisionConfig::Resnet(c) => c.image_size = size,
            VisionConfig::Vit(c) => c.image_size = size,
            VisionConfig::Resnet50(c) => c.image_size = size,
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        match self {
            VisionConfig::Resnet(c) => {
                check::image_size("vision.image_size", c.image_size)?;
                check::multiple("vision.image_size", c.image_size, 32)?;
                check::multiple("vision.width", c.width, 2)?;
                check::size("vision.heads", c.heads)?;
                if c.width * 32 % c.heads != 0 {
                    let why = format!("32 times {} is not a multiple of {} heads", c.width, c.heads);
                    return Err(Error::Config { key: "vision.width", why });
                }
                c.layers.iter().try_for_each(|&l| check::layers("vision.layers", l))
            }
            VisionConfig::Vit(c) => {
                check::image_size("vision.image_size", c.image_size)?;
                check::size("vision.patch_size", c.patch_size)?;
                check::multiple("vision.image_size", c.image_size, c.patch_size)?;
                check::size("vision.heads", c.heads)?;
                check::multiple("vision.width", c.width, c.heads)?;
                check::layers("vision.layers", c.layers)?;
                check::mlp_ratio("vision.mlp_ratio", c.mlp_ratio, c.width)?;
                check::layer_norm_eps("vision.layer_norm_eps", c.layer_norm_eps)?;
                if !(0.0..1.0).contains(&c.patch_dropout) {
                    return Err(Error::Config { key: "patch_dropout", why: format!("{} is not in [0, 1)", c.patch_dropout) });
                }
                Ok(())
            }
            VisionConfig::Resnet50(c) => {
                check::image_size("vision.image_size", c.image_size)?;
                c.trunk().validate().map_err(|e| Error::Config { key: "vision", why: e.to_string() })
            }
        }
    }
}
