//! The Vision Transformer: CLIP's, and the original.

use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

use crate::config::VitConfig;
use crate::error::Result;
use crate::layers::{LayerNorm, Linear, Mode, Patches};
use crate::parameter::parameter;
use crate::recompute::Compute;
use crate::transformer::{Mask, Shape, Start, Transformer};

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
    patch_dropout: f64,
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
            patch_dropout: c.patch_dropout,
        }
    }

    /// [N, 3, H, W] → [N, D].
    pub fn forward(&self, images: &Tensor, mode: Mode, compute: Compute, trace: crate::Trace) -> Result<Tensor> {
        let patches = self.conv1.forward(images); // [N, grid², W]
        let x = self.with_class_token(&patches);
        let x = x + &self.positional_embedding;
        let x = if mode.is_train() && self.patch_dropout > 0.0 { self.some_patches(&x) } else { x };
        let x = self.pre(x);
        trace("visual.ln_pre", &x);
        let x = self.transformer.forward(x, Mask::None, compute, "visual.transformer", trace)?;
        trace("visual.transformer", &x);
        Ok(self.project(&x))
    }

    /// The class token and a random choice of the patches, another for each image but as many: [N, 1 + L, W] → [N, 1 + K, W].
    fn some_patches(&self, x: &Tensor) -> Tensor {
        let (size, w) = (x.size(), self.width);
        let (n, patches) = (size[0], size[1] - 1);
        let kept = kept_patches(patches, self.patch_dropout);
        let (_, chosen) = Tensor::rand([n, patches], (Kind::Float, x.device())).topk(kept, 1, true, false); // [N, K]
        let class = chosen.new_zeros([n, 1], (Kind::Int64, x.device()));
        let tokens = Tensor::cat(&[class, chosen + 1], 1).unsqueeze(-1).expand([n, kept + 1, w], false);
        x.gather(1, &tokens, false)
    }

    /// Regions as tokens without position, [N, R, W] with a mask [N, R] → [N, D]: class token, first norm, the last `blocks`
    /// blocks, last norm and projection are those of the image tower.
    pub fn forward_regions(&self, tokens: &Tensor, mask: &Tensor, blocks: i64, compute: Compute) -> Result<Tensor> {
        let x = self.pre(self.with_class_token(tokens)); // [N, 1 + R, W]
        let keys = Tensor::cat(&[mask.narrow(1, 0, 1).ones_like(), mask.shallow_clone()], 1);
        Ok(self.project(&self.transformer.forward_last(x, blocks, Mask::Keys(&keys), compute)?))
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

/// How many of `patches` stay where each goes with probability `dropout`: rounded down, at least one.
fn kept_patches(patches: i64, dropout: f64) -> i64 {
    // 50 · (1 − 0.9) is a little less than 5.
    ((patches as f64 * (1.0 - dropout) + 1e-9) as i64).max(1)
}

#[cfg(test)]
mod tests {
    use super::kept_patches;

    #[test]
    fn patches_that_stay_are_counted() {
        for (patches, dropout, kept) in [(196, 0.5, 98), (49, 0.5, 24), (50, 0.9, 5), (4, 0.99, 1), (196, 0.75, 49)] {
            assert_eq!(kept_patches(patches, dropout), kept);
        }
    }
}
