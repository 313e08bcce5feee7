//! CLIP's Vision Transformer.

use tch::Tensor;
use tch::nn::{Init, Path};

use crate::config::VitConfig;
use crate::layers::{Activation, Conv, LayerNorm};
use crate::transformer::{Attention, Mask, Shape, Start, Transformer};

#[derive(Debug)]
pub(crate) struct VisionTransformer {
    conv1: Conv,
    class_embedding: Tensor,
    positional_embedding: Tensor,
    ln_pre: LayerNorm,
    transformer: Transformer,
    ln_post: LayerNorm,
    proj: Tensor,
    pub width: i64,
}

impl VisionTransformer {
    pub fn new(p: &Path, c: &VitConfig, embed_dim: i64, quick_gelu: bool) -> Self {
        let w = c.width;
        let grid = c.image_size / c.patch_size;
        let scaled = Init::Randn { mean: 0.0, stdev: (w as f64).powf(-0.5) };
        let shape = Shape {
            width: w,
            hidden: (w as f64 * c.mlp_ratio) as i64,
            layers: c.layers,
            heads: c.heads,
            activation: Activation::of(quick_gelu),
        };
        VisionTransformer {
            conv1: Conv::new(&(p / "conv1"), 3, w, c.patch_size, c.patch_size, 0),
            class_embedding: p.var("class_embedding", &[w], scaled),
            positional_embedding: p.var("positional_embedding", &[grid * grid + 1, w], scaled),
            ln_pre: LayerNorm::new(&(p / "ln_pre"), w),
            transformer: Transformer::new(&(p / "transformer"), &shape, Start::Default),
            ln_post: LayerNorm::new(&(p / "ln_post"), w),
            proj: p.var("proj", &[w, embed_dim], scaled),
            width: w,
        }
    }

    /// [N, 3, H, W] → [N, D].
    pub fn forward(&self, images: &Tensor, attention: Attention, trace: crate::Trace) -> Tensor {
        let patches = self.conv1.forward(images).flatten(2, 3).transpose(1, 2); // [N, grid², W]
        let x = self.with_class_token(&patches);
        let x = self.ln_pre.forward(&(x + &self.positional_embedding));
        trace("visual.ln_pre", &x);
        let x = self.transformer.forward(x, Mask::None, attention, "visual.transformer", trace);
        trace("visual.transformer", &x);
        self.project(&x)
    }

    /// Regions as tokens without position, [N, R, W] with a mask [N, R] → [N, D]: class token, first norm, the last `blocks`
    /// blocks, last norm and projection are those of the image tower.
    pub fn forward_regions(&self, tokens: &Tensor, mask: &Tensor, blocks: i64, attention: Attention) -> Tensor {
        let x = self.ln_pre.forward(&self.with_class_token(tokens)); // [N, 1 + R, W]
        let keys = Tensor::cat(&[mask.narrow(1, 0, 1).ones_like(), mask.shallow_clone()], 1);
        self.project(&self.transformer.forward_last(x, blocks, Mask::Keys(&keys), attention))
    }

    fn with_class_token(&self, tokens: &Tensor) -> Tensor {
        let class = self.class_embedding.to_kind(tokens.kind()).expand([tokens.size()[0], 1, -1], false);
        Tensor::cat(&[class, tokens.shallow_clone()], 1)
    }

    fn project(&self, x: &Tensor) -> Tensor {
        self.ln_post.forward(&x.select(1, 0)).matmul(&self.proj)
    }
}
