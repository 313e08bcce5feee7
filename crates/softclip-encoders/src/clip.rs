//! The dual encoder.

use softclip_tensor::Regions;
use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

use crate::config::{Aggregate, ClipConfig, RegionConfig, VisionConfig};
use crate::error::{Error, Result};
use crate::layers::{LayerNorm, Linear, Mode, masked_mean};
use crate::resnet::ModifiedResNet;
use crate::text::TextTransformer;
use crate::transformer::Attention;
use crate::vit::VisionTransformer;

/// Sees intermediate values by the name of the module that gave them.
pub type Trace<'a> = &'a mut dyn FnMut(&str, &Tensor);

#[derive(Debug)]
enum Vision {
    Resnet(ModifiedResNet),
    Vit(VisionTransformer),
}

/// The layers that the region branch has of its own.
#[derive(Debug)]
struct RegionBranch {
    config: RegionConfig,
    proj: Option<Linear>,
    ln: Option<LayerNorm>,
}

/// An image and a text encoder into one joint space, with open_clip's parameter names.
///
/// Features come as they leave the projection, not normalised.
#[derive(Debug)]
pub struct Clip {
    config: ClipConfig,
    vision: Vision,
    text: TextTransformer,
    regions: Option<RegionBranch>,
    logit_scale: Tensor,
    attention: Attention,
}

impl Clip {
    /// Creates the parameters below `path` (usually a `VarStore`'s root) and draws them as open_clip does, from libtorch's
    /// generator: call `tch::manual_seed` first.
    ///
    /// # Errors
    /// The configuration makes no sense.
    pub fn new(path: &Path, config: &ClipConfig) -> Result<Self> {
        config.validate()?;
        let visual = path / "visual";
        let vision = match &config.vision {
            VisionConfig::Resnet(c) => Vision::Resnet(ModifiedResNet::new(&visual, c, config.embed_dim)),
            VisionConfig::Vit(c) => Vision::Vit(VisionTransformer::new(&visual, c, config.embed_dim, config.quick_gelu)),
        };
        let regions = config.regions.as_ref().map(|c| RegionBranch::new(&(path / "regions"), c, &vision));
        Ok(Clip {
            text: TextTransformer::new(path, &config.text, config.embed_dim, config.quick_gelu),
            vision,
            regions,
            logit_scale: path.var("logit_scale", &[], Init::Const((1.0f64 / 0.07).ln())),
            attention: Attention::Auto,
            config: config.clone(),
        })
    }

    /// Computes attention in another way than [`Attention::Auto`].
    #[must_use]
    pub fn with_attention(mut self, attention: Attention) -> Self {
        self.attention = attention;
        self
    }

    /// The configuration it was made from.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// ln(1/τ): the parameter `logit_scale`, a scalar.
    pub fn logit_scale(&self) -> &Tensor {
        &self.logit_scale
    }

    /// Normalised images [N, 3, S, S] ([`softclip_tensor::normalize_images`]) → features [N, D].
    ///
    /// # Errors
    /// The images are not of the configured size.
    pub fn encode_image(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        self.encode_image_with(images, mode, &mut |_, _| {})
    }

    /// As [`Clip::encode_image`]; `trace` sees `visual.avgpool` and `visual.layer1` to `4`, or `visual.ln_pre`,
    /// `visual.transformer.resblocks.I` and `visual.transformer`.
    ///
    /// # Errors
    /// As [`Clip::encode_image`].
    pub fn encode_image_with(&self, images: &Tensor, mode: Mode, trace: Trace) -> Result<Tensor> {
        let s = self.config.image_size();
        let size = images.size();
        if size.len() != 4 || size[1..] != [3, s, s] || !images.is_floating_point() {
            return Err(Error::Input {
                what: "images",
                expected: format!("floats [N, 3, {s}, {s}]"),
                found: size,
                kind: images.kind(),
            });
        }
        Ok(match &self.vision {
            Vision::Resnet(m) => m.forward(images, mode, self.attention, trace),
            Vision::Vit(m) => m.forward(images, self.attention, trace),
        })
    }

    /// Tokens i64 [N, L] → features [N, D]. L may be any length up to the context's that holds the longest text.
    ///
    /// # Errors
    /// `tokens` is not i64 [N, L] with 1 ≤ L ≤ context length.
    pub fn encode_text(&self, tokens: &Tensor) -> Result<Tensor> {
        self.encode_text_with(tokens, &mut |_, _| {})
    }

    /// As [`Clip::encode_text`]; `trace` sees `transformer.resblocks.I` and `ln_final`.
    ///
    /// # Errors
    /// As [`Clip::encode_text`].
    pub fn encode_text_with(&self, tokens: &Tensor, trace: Trace) -> Result<Tensor> {
        let context = self.config.text.context_length;
        let size = tokens.size();
        if size.len() != 2 || !(1..=context).contains(&size[1]) || tokens.kind() != Kind::Int64 {
            let expected = format!("i64 [N, L] with L from 1 to {context}");
            return Err(Error::Input { what: "tokens", expected, found: size, kind: tokens.kind() });
        }
        Ok(self.text.forward(tokens, self.attention, trace))
    }

    /// Region features [N, R, F] → one vector an image: [N, D] through the rear part of the image tower, or [N, F] for the
    /// mean, maximum or minimum of the raw features. An image without any region gets a finite vector that means nothing: give
    /// it β = 0 in the loss.
    ///
    /// # Errors
    /// The model has no region branch, or F is not what it was made for.
    pub fn encode_regions(&self, regions: &Regions) -> Result<Tensor> {
        let branch = self.regions.as_ref().ok_or_else(|| Error::Config {
            key: "regions",
            why: "this model has no region branch: add `regions: {dim: F}` to the model".into(),
        })?;
        let (size, f) = (regions.features.size(), branch.config.dim);
        if size[2] != f {
            let found = size;
            let kind = regions.features.kind();
            return Err(Error::Input { what: "region features", expected: format!("floats [N, R, {f}]"), found, kind });
        }
        let features = regions.features.to_kind(self.logit_scale.kind());
        Ok(match branch.config.aggregate {
            Aggregate::Mhsa => branch.through(&features, &regions.mask, &self.vision, self.attention),
            Aggregate::Mean => masked_mean(&features, &regions.mask).squeeze_dim(1),
            Aggregate::Max => extreme(&features, &regions.mask),
            Aggregate::Min => -extreme(&-features, &regions.mask),
        })
    }
}

impl RegionBranch {
    fn new(p: &Path, c: &RegionConfig, vision: &Vision) -> Self {
        let own = c.aggregate == Aggregate::Mhsa;
        let width = match vision {
            Vision::Resnet(m) => m.width,
            Vision::Vit(m) => m.width,
        };
        let ln = own && matches!(vision, Vision::Resnet(_));
        RegionBranch {
            proj: own.then(|| Linear::new(&(p / "proj"), c.dim, width, false)),
            ln: ln.then(|| LayerNorm::new(&(p / "ln"), width)),
            config: c.clone(),
        }
    }

    /// [N, R, F] and its mask [N, R] → [N, D].
    fn through(&self, features: &Tensor, mask: &Tensor, vision: &Vision, attention: Attention) -> Tensor {
        let tokens = self.proj.as_ref().map_or_else(|| features.shallow_clone(), |p| p.forward(features)); // [N, R, W]
        match vision {
            Vision::Vit(m) => m.forward_regions(&tokens, mask, self.config.blocks, attention),
            Vision::Resnet(m) => {
                let query = masked_mean(&tokens, mask);
                let x = Tensor::cat(&[query, tokens], 1); // [N, 1 + R, W]
                let x = self.ln.as_ref().map_or_else(|| x.shallow_clone(), |ln| ln.forward(&x));
                let keys = Tensor::cat(&[mask.narrow(1, 0, 1).ones_like(), mask.shallow_clone()], 1);
                m.forward_regions(&x, &keys, attention)
            }
        }
    }
}

/// The largest of the real regions' features, [N, W]; zeros where there is none.
fn extreme(x: &Tensor, mask: &Tensor) -> Tensor {
    let absent = mask.logical_not().unsqueeze(-1);
    let largest = x.masked_fill(&absent, f64::NEG_INFINITY).amax([1i64].as_slice(), false);
    largest.masked_fill(&mask.any_dim(1, true).logical_not(), 0.0)
}
