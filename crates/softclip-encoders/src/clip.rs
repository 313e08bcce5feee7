//! The dual encoder.

use std::collections::BTreeMap;

use softclip_tensor::{Regions, normalize_images};
use softclip_torch::{channels_last, guard};
use tch::nn::{Init, Path, VarStore};
use tch::{Device, Kind, Tensor};

use crate::bert::{Bert, BertConfig};
use crate::config::{Aggregate, ClipConfig, RegionConfig, TextConfig, TorchvisionConfig, VisionConfig};
use crate::error::{Error, Result};
use crate::layers::{LayerNorm, Linear, Mode, masked_mean};
use crate::parameter::{build_from, parameter};
use crate::recompute::Compute;
use crate::resnet::ModifiedResNet;
use crate::resnet50::ResNet50;
use crate::size::check_room;
use crate::text::TextTransformer;
use crate::transformer::Attention;
use crate::vit::VisionTransformer;
use crate::weights::LoadReport;

/// Sees intermediate values by the name of the module that gave them.
pub type Trace<'a> = &'a mut dyn FnMut(&str, &Tensor);

/// Images at once on the CPU: their activations fit into its caches, which is faster than more at once.
const CPU_IMAGES: i64 = 8;

#[derive(Debug)]
enum Vision {
    Resnet(ModifiedResNet),
    Vit(VisionTransformer),
    Resnet50(Headed<ResNet50>),
}

#[derive(Debug)]
enum Text {
    Clip(TextTransformer),
    Bert(Headed<Bert>),
}

/// A network that knows nothing of the joint space, and a linear projection to it.
#[derive(Debug)]
struct Headed<T> {
    trunk: T,
    proj: Linear,
}

impl Headed<ResNet50> {
    fn new(p: &Path, c: &TorchvisionConfig, embed_dim: i64) -> Result<Self> {
        let trunk = ResNet50::new(&(p / "trunk"), &c.trunk())?;
        let proj = head(&(p / "head" / "proj"), c.trunk().features(), embed_dim);
        Ok(Headed { trunk, proj })
    }
}

impl Headed<Bert> {
    fn new(p: &Path, c: &BertConfig, embed_dim: i64) -> Result<Self> {
        let trunk = Bert::new(&(p / "transformer"), c)?;
        Ok(Headed { trunk, proj: head(&(p / "proj"), c.hidden_size, embed_dim) })
    }
}

fn head(p: &Path, width: i64, embed_dim: i64) -> Linear {
    Linear::without_bias(p, width, embed_dim, (width as f64).powf(-0.5))
}

/// The layers that the region branch has of its own.
#[derive(Debug)]
struct RegionBranch {
    config: RegionConfig,
    proj: Option<Linear>,
    ln: Option<LayerNorm>,
}

/// An image and a text encoder into one joint space, with open_clip's parameter names: CLIP's towers as in its `CLIP`, BERT below
/// `text.transformer` and `text.proj` and torchvision's ResNet below `visual.trunk` and `visual.head.proj` as in its wrappers.
///
/// Features come as they leave the projection, not normalised.
#[derive(Debug)]
pub struct Clip {
    config: ClipConfig,
    vision: Vision,
    text: Text,
    regions: Option<RegionBranch>,
    logit_scale: Tensor,
    compute: Compute,
}

impl Clip {
    /// Creates the parameters below `path` (usually a `VarStore`'s root) and draws them as open_clip does. They are reproducible
    /// inside [`seeded`](crate::seeded).
    ///
    /// # Errors
    /// The configuration makes no sense, or the model does not fit into memory.
    pub fn new(path: &Path, config: &ClipConfig) -> Result<Self> {
        config.validate()?;
        check_room(config.parameter_count(), config.memory_bytes(), path.device())?;
        // What is available may be gone by now, or lie in pieces that are too small.
        guard(|| Self::build(path, config))?
    }

    fn build(path: &Path, config: &ClipConfig) -> Result<Self> {
        let visual = path / "visual";
        let vision = match &config.vision {
            VisionConfig::Resnet(c) => Vision::Resnet(ModifiedResNet::new(&visual, c, config.embed_dim)),
            VisionConfig::Vit(c) => Vision::Vit(VisionTransformer::new(&visual, c, config.embed_dim)),
            VisionConfig::Resnet50(c) => Vision::Resnet50(Headed::<ResNet50>::new(&visual, c, config.embed_dim)?),
        };
        let regions = config.regions.as_ref().map(|c| RegionBranch::new(&(path / "regions"), c, &vision)).transpose()?;
        Ok(Clip {
            text: match &config.text {
                TextConfig::Clip(c) => Text::Clip(TextTransformer::new(path, c, config.embed_dim)),
                TextConfig::Bert(c) => Text::Bert(Headed::<Bert>::new(&(path / "text"), c, config.embed_dim)?),
            },
            vision,
            regions,
            logit_scale: parameter(path, "logit_scale", &[], Init::Const((1.0f64 / 0.07).ln())),
            compute: Compute::default(),
            config: config.clone(),
        })
    }

    /// A model of `tensors`, whose memory it shares where they are f32 on the CPU; `vs` must be empty. Only what they lack is drawn.
    ///
    /// # Errors
    /// As [`Clip::new`] and [`load_weights`](crate::load_weights).
    pub fn from_tensors(
        vs: &VarStore,
        config: &ClipConfig,
        tensors: BTreeMap<String, Tensor>,
        strict: bool,
    ) -> Result<(Self, LoadReport)> {
        build_from(tensors, strict, || Self::new(&vs.root(), config))
    }

    /// Computes attention in another way than [`Attention::Auto`].
    #[must_use]
    pub fn with_attention(self, attention: Attention) -> Self {
        let compute = Compute { attention, ..self.compute };
        self.with_compute(compute)
    }

    /// Whether the blocks of both towers keep their inputs alone for backward, and compute the rest again: less memory, a second forward
    /// pass. Outputs and gradients are the same to rounding, and a ResNet's running statistics are updated once. Without a
    /// gradient to find, and in a ResNet's evaluation, nothing changes.
    #[must_use]
    pub fn with_recompute(self, recompute: bool) -> Self {
        let compute = Compute { recompute, ..self.compute };
        self.with_compute(compute)
    }

    fn with_compute(mut self, compute: Compute) -> Self {
        self.compute = compute;
        if let Text::Bert(Headed { trunk, .. }) = &mut self.text {
            trunk.set_compute(compute);
        }
        if let Vision::Resnet50(Headed { trunk, .. }) = &mut self.vision {
            trunk.set_recompute(compute.recompute);
        }
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

    /// u8 [N, 3, S, S] → what [`Clip::encode_image`] takes: normalised as the model wants it, in the weights' number type.
    ///
    /// # Errors
    /// The images are not u8 [N, 3, H, W].
    pub fn normalize_images(&self, images: &Tensor) -> Result<Tensor> {
        let n = &self.config.normalization;
        let f32s = |x: [f64; 3]| x.map(|x| x as f32);
        normalize_images(images, self.logit_scale.kind(), f32s(n.mean), f32s(n.std))
            .map_err(|_| input("images", "u8 [N, 3, H, W]".into(), images))
    }

    /// Normalised images [N, 3, S, S] ([`Clip::normalize_images`]) → features [N, D].
    ///
    /// # Errors
    /// The images are not of the configured size.
    pub fn encode_image(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        self.encode_image_with(images, mode, &mut |_, _| {})
    }

    /// Pixels u8 [N, 3, S, S] → features [N, D] of evaluation: normalised and encoded, a few images at a time on the CPU.
    ///
    /// # Errors
    /// As [`Clip::normalize_images`] and [`Clip::encode_image`].
    pub fn encode_pixels(&self, pixels: &Tensor) -> Result<Tensor> {
        let n = pixels.size().first().copied().unwrap_or(0);
        let step = if pixels.device() == Device::Cpu { CPU_IMAGES } else { n.max(1) };
        let part = |from: i64| {
            // Turned as bytes, which are a quarter of the floats.
            let pixels = channels_last(&pixels.narrow(0, from, step.min(n - from)));
            self.encode_image(&self.normalize_images(&pixels)?, Mode::Eval)
        };
        if n <= step {
            return part(0);
        }
        let parts: Vec<Tensor> = (0..n).step_by(step as usize).map(part).collect::<Result<_>>()?;
        Ok(Tensor::f_cat(&parts, 0)?)
    }

    /// As [`Clip::encode_image`]; `trace` sees `visual.avgpool` and `visual.layer1` to `4`, or `visual.ln_pre`,
    /// `visual.transformer.resblocks.I` with `.ln_1` before it (not [with recomputing](Clip::with_recompute)) and `visual.transformer`,
    /// or `visual.trunk.layer1` to `4`.
    ///
    /// # Errors
    /// As [`Clip::encode_image`].
    pub fn encode_image_with(&self, images: &Tensor, mode: Mode, trace: Trace) -> Result<Tensor> {
        let s = self.config.image_size();
        let size = images.size();
        if size.len() != 4 || size[1..] != [3, s, s] || !images.is_floating_point() {
            return Err(input("images", format!("floats [N, 3, {s}, {s}]"), images));
        }
        match &self.vision {
            Vision::Resnet(m) => m.forward(images, mode, self.compute, trace),
            Vision::Vit(m) => m.forward(images, mode, self.compute, trace),
            Vision::Resnet50(m) => {
                let mut below = |name: &str, x: &Tensor| trace(&format!("visual.trunk.{name}"), x);
                Ok(m.proj.forward(&m.trunk.encode_with(images, mode, &mut below)?))
            }
        }
    }

    /// Tokens i64 [N, L] → features [N, D]. L may be any length up to the context's that holds the longest text. Rows are filled
    /// up on the right, for BERT and RoBERTa with their `pad_token_id`.
    ///
    /// # Errors
    /// `tokens` is not i64 [N, L] with 1 ≤ L ≤ context length.
    pub fn encode_text(&self, tokens: &Tensor) -> Result<Tensor> {
        self.encode_text_with(tokens, &mut |_, _| {})
    }

    /// As [`Clip::encode_text`]; `trace` sees `transformer.resblocks.I` and `ln_final` of CLIP's Transformer.
    ///
    /// # Errors
    /// As [`Clip::encode_text`].
    pub fn encode_text_with(&self, tokens: &Tensor, trace: Trace) -> Result<Tensor> {
        let context = self.config.context_length();
        let size = tokens.size();
        if size.len() != 2 || !(1..=context).contains(&size[1]) || tokens.kind() != Kind::Int64 {
            return Err(input("tokens", format!("i64 [N, L] with L from 1 to {context}"), tokens));
        }
        match &self.text {
            Text::Clip(m) => m.forward(tokens, self.compute, trace),
            Text::Bert(m) => {
                let real = tokens.ne(m.trunk.config().pad_token_id);
                Ok(m.proj.forward(&m.trunk.encode(tokens, &real, None)?))
            }
        }
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
        let f = branch.config.dim;
        if regions.features.size()[2] != f {
            return Err(input("region features", format!("floats [N, R, {f}]"), &regions.features));
        }
        let features = regions.features.to_kind(self.logit_scale.kind());
        Ok(match branch.config.aggregate {
            Aggregate::Mhsa => branch.through(&features, &regions.mask, &self.vision, self.compute)?,
            Aggregate::Mean => masked_mean(&features, &regions.mask).squeeze_dim(1),
            Aggregate::Max => extreme(&features, &regions.mask),
            Aggregate::Min => -extreme(&-features, &regions.mask),
        })
    }
}

/// Why a tower without attention has no region branch of its own; [`ClipConfig::validate`] refuses it before.
fn no_attention() -> Error {
    Error::Config { key: "regions.aggregate", why: "this image tower has no attention to share with regions".into() }
}

impl RegionBranch {
    fn new(p: &Path, c: &RegionConfig, vision: &Vision) -> Result<Self> {
        if c.aggregate != Aggregate::Mhsa {
            return Ok(RegionBranch { config: c.clone(), proj: None, ln: None });
        }
        let (width, own_norm) = match vision {
            Vision::Resnet(m) => (m.width, true),
            Vision::Vit(m) => (m.width, false),
            Vision::Resnet50(_) => return Err(no_attention()),
        };
        Ok(RegionBranch {
            proj: Some(Linear::new(&(p / "proj"), c.dim, width, false)),
            ln: own_norm.then(|| LayerNorm::new(&(p / "ln"), width)),
            config: c.clone(),
        })
    }

    /// [N, R, F] and its mask [N, R] → [N, D].
    fn through(&self, features: &Tensor, mask: &Tensor, vision: &Vision, compute: Compute) -> Result<Tensor> {
        let tokens = self.proj.as_ref().map_or_else(|| features.shallow_clone(), |p| p.forward(features)); // [N, R, W]
        match vision {
            Vision::Vit(m) => m.forward_regions(&tokens, mask, self.config.blocks, compute),
            Vision::Resnet(m) => {
                let query = masked_mean(&tokens, mask);
                let x = Tensor::cat(&[query, tokens], 1); // [N, 1 + R, W]
                let x = self.ln.as_ref().map_or_else(|| x.shallow_clone(), |ln| ln.forward(&x));
                let keys = Tensor::cat(&[mask.narrow(1, 0, 1).ones_like(), mask.shallow_clone()], 1);
                Ok(m.forward_regions(&x, &keys, compute.attention))
            }
            Vision::Resnet50(_) => Err(no_attention()),
        }
    }
}

fn input(what: &'static str, expected: String, found: &Tensor) -> Error {
    Error::Input { what, expected, found: found.size(), kind: found.kind() }
}

/// The largest of the real regions' features, [N, W]; zeros where there is none.
fn extreme(x: &Tensor, mask: &Tensor) -> Tensor {
    let absent = mask.logical_not().unsqueeze(-1);
    let largest = x.masked_fill(&absent, f64::NEG_INFINITY).amax([1i64].as_slice(), false);
    largest.masked_fill(&mask.any_dim(1, true).logical_not(), 0.0)
}
