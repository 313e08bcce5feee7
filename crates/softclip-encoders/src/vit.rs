//! The Vision Transformer: CLIP's, and the original.

use tch::Tensor;
use tch::nn::{Init, Path};

use crate::config::VitConfig;
use crate::layers::{LayerNorm, Linear, Patches};
use crate::parameter::parameter;
use crate::transformer::{Attention, Mask, Shape, Start, Transformer};

#[derive(Debug)]
pub(crate) struct VisionTransformer {
    conv1: Patches,
    class_embedding: Tensor,
    positional_embedding: Tensor,
    ln_pre: Option<LayerNorm>,
    transformer: Transformer,
    ln_post: LayerNorm,
    pooler: Option<Linear>,
    proj: Tensor,
    pub width: i64,
}

impl VisionTransformer {
    pub fn new(p: &Path, c: &VitConfig, embed_dim: i64) -> Self {
        let (w, eps) = (c.width, c.layer_norm_eps);
        let scaled = Init::Randn { mean: 0.0, stdev: (w as f64).powf(-0.5) };
        let shape = Shape { width: w, hidden: c.hidden(), layers: c.layers, heads: c.heads, activation: c.activation, eps };
        VisionTransformer {
            conv1: Patches::new(&(p / "conv1"), w, c.patch_size, c.patch_bias),
            class_embedding: parameter(p, "class_embedding", &[w], scaled),
            positional_embedding: parameter(p, "positional_embedding", &[c.grid() * c.grid() + 1, w], scaled),
            ln_pre: c.ln_pre.then(|| LayerNorm::with_eps(&(p / "ln_pre"), w, eps)),
            transformer: Transformer::new(&(p / "transformer"), &shape, Start::Default),
            ln_post: LayerNorm::with_eps(&(p / "ln_post"), w, eps),
            pooler: c.pooler.then(|| Linear::normal(&(p / "pooler" / "dense"), w, w, 0.02, true)),
            proj: parameter(p, "proj", &[w, embed_dim], scaled),
            width: w,
        }
    }

    /// [N, 3, H, W] → [N, D].
    pub fn forward(&self, images: &Tensor, attention: Attention, trace: crate::Trace) -> Tensor {
        let patches = self.conv1.forward(images); // [N, grid², W]
        let x = self.with_class_token(&patches);
        let x = self.pre(x + &self.positional_embedding);
        trace("visual.ln_pre", &x);
        let x = self.transformer.forward(x, Mask::None, attention, "visual.transformer", trace);
        trace("visual.transformer", &x);
        self.project(&x)
    }

    /// Regions as tokens without position, [N, R, W] with a mask [N, R] → [N, D]: class token, first norm, the last `blocks`
    /// blocks, last norm and projection are those of the image tower.
    pub fn forward_regions(&self, tokens: &Tensor, mask: &Tensor, blocks: i64, attention: Attention) -> Tensor {
        let x = self.pre(self.with_class_token(tokens)); // [N, 1 + R, W]
        let keys = Tensor::cat(&[mask.narrow(1, 0, 1).ones_like(), mask.shallow_clone()], 1);
        self.project(&self.transformer.forward_last(x, blocks, Mask::Keys(&keys), attention))
    }

    fn with_class_token(&self, tokens: &Tensor) -> Tensor {
        let class = self.class_embedding.to_kind(tokens.kind()).expand([tokens.size()[0], 1, -1], false);
        Tensor::cat(&[class, tokens.shallow_clone()], 1)
    }

    fn pre(&self, x: Tensor) -> Tensor {
        match &self.ln_pre {
            Some(ln) => ln.forward(&x),
            None => x,
        }
    }

    fn project(&self, x: &Tensor) -> Tensor {
        let x = self.ln_post.forward(&x.select(1, 0)); // [N, W]
        let x = self.pooler.as_ref().map_or_else(|| x.shallow_clone(), |pooler| pooler.forward(&x).tanh());
        x.matmul(&self.proj)
    }
}
