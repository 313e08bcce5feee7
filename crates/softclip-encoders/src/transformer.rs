//! The residual attention blocks that both towers are made of.

use softclip_torch::linear;
use tch::nn::{Init, Path};
use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::layers::{Activation, LayerNorm, Linear};
use crate::parameter::parameter;
use crate::recompute::{Compute, Share, handle, recomputed_masked};

/// How attention is computed. The result is the same to rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attention {
    /// libtorch's fused kernel on GPUs and in f32; written out in reduced precision on the CPU, where the fused backward pass is
    /// several times slower.
    #[default]
    Auto,
    /// libtorch's fused kernel.
    Sdpa,
    /// softmax(q kᵀ) v, written out.
    Explicit,
}

/// What a query may attend to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mask<'a> {
    /// Everything.
    None,
    /// Itself and what is before it.
    Causal,
    /// bool [N, L]: the keys that are real.
    Keys(&'a Tensor),
}

impl Attention {
    /// softmax(q kᵀ/√d) v over [N, H, L, d]; queries may be fewer than keys except under a causal mask.
    pub(crate) fn forward(self, q: &Tensor, k: &Tensor, v: &Tensor, mask: Mask) -> Tensor {
        let full = matches!(q.kind(), Kind::Float | Kind::Double);
        let fused = match self {
            Attention::Auto => full || q.device() != Device::Cpu,
            Attention::Sdpa => true,
            Attention::Explicit => false,
        };
        let keys = match mask {
            Mask::Keys(m) => Some(m.unsqueeze(1).unsqueeze(1)), // [N, 1, 1, L]
            _ => None,
        };
        let causal = matches!(mask, Mask::Causal);
        if fused {
            return Tensor::scaled_dot_product_attention(q, k, v, keys, 0.0, causal, None, false);
        }
        let scale = (q.size()[3] as f64).powf(-0.5);
        let mut scores = (q * scale).matmul(&k.transpose(-2, -1)); // [N, H, Lq, L]
        if causal {
            let l = k.size()[2];
            let future = Tensor::ones([l, l], (Kind::Bool, q.device())).triu(1);
            scores = scores.masked_fill(&future, f64::NEG_INFINITY);
        }
        if let Some(keys) = keys {
            scores = scores.masked_fill(&keys.logical_not(), f64::NEG_INFINITY);
        }
        scores.softmax(-1, None::<Kind>).matmul(v)
    }
}

/// [N, L, W] → [N, H, L, W/H].
pub(crate) fn split_heads(x: &Tensor, heads: i64) -> Tensor {
    let size = x.size();
    x.view([size[0], size[1], heads, size[2] / heads]).transpose(1, 2)
}

/// [N, H, L, W/H] → [N, L, W].
pub(crate) fn join_heads(x: &Tensor) -> Tensor {
    let size = x.size();
    x.transpose(1, 2).reshape([size[0], size[2], size[1] * size[3]])
}

/// Self-attention under the names of `nn.MultiheadAttention`.
#[derive(Debug)]
struct SelfAttention {
    in_proj_weight: Tensor,
    in_proj_bias: Tensor,
    out_proj: Linear,
    heads: i64,
}

impl SelfAttention {
    fn forward(&self, x: &Tensor, mask: Mask, attention: Attention) -> Tensor {
        let (n, l, w) = match x.size()[..] {
            [n, l, w] => (n, l, w),
            _ => (0, 0, 0),
        };
        let qkv = linear(x, &self.in_proj_weight, Some(&self.in_proj_bias)); // [N, L, 3W]
        let qkv = qkv.view([n, l, 3, self.heads, w / self.heads]).permute([2, 0, 3, 1, 4]); // [3, N, H, L, d]
        let y = attention.forward(&qkv.get(0), &qkv.get(1), &qkv.get(2), mask);
        self.out_proj.forward(&join_heads(&y))
    }
}

/// x + attention(norm(x)), then x + MLP(norm(x)).
#[derive(Debug)]
struct Block {
    ln_1: LayerNorm,
    attn: SelfAttention,
    ln_2: LayerNorm,
    c_fc: Linear,
    c_proj: Linear,
    activation: Activation,
}

/// How a tower's blocks start.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    /// PyTorch's defaults: open_clip's image tower.
    Default,
    /// Normal with deviations by width and depth: CLIP's text tower.
    Scaled,
}

impl Block {
    fn new(p: &Path, shape: &Shape, start: Start) -> Self {
        let (w, hidden) = (shape.width, shape.hidden);
        let attn = p / "attn";
        let (width, depth) = (w as f64, shape.layers as f64);
        let proj_std = width.powf(-0.5) * (2.0 * depth).powf(-0.5);
        let in_proj = match start {
            // Xavier's uniform over [3W, W].
            Start::Default => {
                let bound = (6.0 / (4.0 * width)).sqrt();
                Init::Uniform { lo: -bound, up: bound }
            }
            Start::Scaled => Init::Randn { mean: 0.0, stdev: width.powf(-0.5) },
        };
        let mlp = p / "mlp";
        let (out_proj, c_fc, c_proj) = match start {
            Start::Default => {
                let bound = width.powf(-0.5);
                (
                    Linear::uniform_zero_bias(&(&attn / "out_proj"), w, w, bound),
                    Linear::new(&(&mlp / "c_fc"), w, hidden, true),
                    Linear::new(&(&mlp / "c_proj"), hidden, w, true),
                )
            }
            Start::Scaled => (
                Linear::normal(&(&attn / "out_proj"), w, w, proj_std, true),
                Linear::normal(&(&mlp / "c_fc"), w, hidden, (2.0 * width).powf(-0.5), false),
                Linear::normal(&(&mlp / "c_proj"), hidden, w, proj_std, false),
            ),
        };
        Block {
            ln_1: LayerNorm::with_eps(&(p / "ln_1"), w, shape.eps),
            attn: SelfAttention {
                in_proj_weight: parameter(&attn, "in_proj_weight", &[3 * w, w], in_proj),
                in_proj_bias: parameter(&attn, "in_proj_bias", &[3 * w], Init::Const(0.0)),
                out_proj,
                heads: shape.heads,
            },
            ln_2: LayerNorm::with_eps(&(p / "ln_2"), w, shape.eps),
            c_fc,
            c_proj,
            activation: shape.activation,
        }
    }

    fn forward(&self, x: &Tensor, mask: Mask, compute: Compute) -> Result<Tensor> {
        let attention = compute.attention;
        if !compute.recompute {
            return Ok(self.apply(x, mask, attention));
        }
        recomputed_masked(self, x, mask, move |block, x, mask| block.apply(x, mask, attention))
    }

    fn apply(&self, x: &Tensor, mask: Mask, attention: Attention) -> Tensor {
        self.behind_norm(x, &self.ln_1.forward(x), mask, attention)
    }

    /// The block without its first norm, which gave `normed`.
    fn behind_norm(&self, x: &Tensor, normed: &Tensor, mask: Mask, attention: Attention) -> Tensor {
        let x = x + self.attn.forward(normed, mask, attention);
        let h = self.activation.forward(self.c_fc.forward(&self.ln_2.forward(&x)));
        &x + self.c_proj.forward(&h)
    }
}

impl Share for SelfAttention {
    fn share(&self, learned: &mut Vec<Tensor>) -> Self {
        SelfAttention {
            in_proj_weight: handle(&self.in_proj_weight, learned),
            in_proj_bias: handle(&self.in_proj_bias, learned),
            out_proj: self.out_proj.share(learned),
            heads: self.heads,
        }
    }
}

impl Share for Block {
    fn share(&self, learned: &mut Vec<Tensor>) -> Self {
        Block {
            ln_1: self.ln_1.share(learned),
            attn: self.attn.share(learned),
            ln_2: self.ln_2.share(learned),
            c_fc: self.c_fc.share(learned),
            c_proj: self.c_proj.share(learned),
            activation: self.activation,
        }
    }
}

/// Sizes of a stack of blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub width: i64,
    pub hidden: i64,
    pub layers: i64,
    pub heads: i64,
    pub activation: Activation,
    pub eps: f64,
}

/// A stack of blocks, under `resblocks`.
#[derive(Debug)]
pub(crate) struct Transformer {
    blocks: Vec<Block>,
}

impl Transformer {
    pub fn new(p: &Path, shape: &Shape, start: Start) -> Self {
        let p = p / "resblocks";
        Transformer { blocks: (0..shape.layers).map(|i| Block::new(&(&p / i), shape, start)).collect() }
    }

    /// All blocks over `x` [N, L, W]; `trace` sees each one's output under `NAME.resblocks.I`, and where nothing is recomputed
    /// its first norm's under `NAME.resblocks.I.ln_1`.
    pub fn forward(&self, x: Tensor, mask: Mask, compute: Compute, name: &str, trace: crate::Trace) -> Result<Tensor> {
        let mut x = x;
        for (i, block) in self.blocks.iter().enumerate() {
            x = if compute.recompute {
                block.forward(&x, mask, compute)?
            } else {
                let normed = block.ln_1.forward(&x);
                trace(&format!("{name}.resblocks.{i}.ln_1"), &normed);
                block.behind_norm(&x, &normed, mask, compute.attention)
            };
            trace(&format!("{name}.resblocks.{i}"), &x);
        }
        Ok(x)
    }

    /// The last `count` blocks.
    pub fn forward_last(&self, x: Tensor, count: i64, mask: Mask, compute: Compute) -> Result<Tensor> {
        let skip = self.blocks.len().saturating_sub(count as usize);
        self.blocks.iter().skip(skip).try_fold(x, |x, block| block.forward(&x, mask, compute))
    }
}
