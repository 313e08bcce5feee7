//! CLIP's text Transformer.

use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

use crate::config::{ClipTextConfig, TextPool};
use crate::error::Result;
use crate::layers::{LayerNorm, take_position};
use crate::parameter::parameter;
use crate::recompute::Compute;
use crate::transformer::{Mask, Shape, Start, Transformer};

#[derive(Debug)]
pub(crate) struct TextTransformer {
    token_embedding: Tensor,
    positional_embedding: Tensor,
    transformer: Transformer,
    ln_final: LayerNorm,
    text_projection: Tensor,
    pool: TextPool,
    eot: Option<i64>,
}

impl TextTransformer {
    /// `p` is the model's root: CLIP's names have no prefix for the text tower.
    pub fn new(p: &Path, c: &ClipTextConfig, embed_dim: i64) -> Self {
        let (w, eps) = (c.width, c.layer_norm_eps);
        let normal = |stdev| Init::Randn { mean: 0.0, stdev };
        let shape = Shape { width: w, hidden: c.hidden(), layers: c.layers, heads: c.heads, activation: c.activation, eps };
        TextTransformer {
            positional_embedding: parameter(p, "positional_embedding", &[c.context_length, w], normal(0.01)),
            text_projection: parameter(p, "text_projection", &[w, embed_dim], normal((w as f64).powf(-0.5))),
            transformer: Transformer::new(&(p / "transformer"), &shape, Start::Scaled),
            token_embedding: parameter(&(p / "token_embedding"), "weight", &[c.vocab_size, w], normal(0.02)),
            ln_final: LayerNorm::with_eps(&(p / "ln_final"), w, eps),
            pool: c.pool,
            eot: c.eot_token_id,
        }
    }

    /// Tokens i64 [N, L] → [N, D]. A position sees only what is before it, and the text is read at its end token: positions
    /// after the longest text change nothing, so L may be anything from there on.
    pub fn forward(&self, tokens: &Tensor, compute: Compute, trace: crate::Trace) -> Result<Tensor> {
        let l = tokens.size()[1];
        let x = Tensor::embedding(&self.token_embedding, tokens, -1, false, false); // [N, L, W]
        let x = x + self.positional_embedding.narrow(0, 0, l);
        let x = self.transformer.forward(x, Mask::Causal, compute, "transformer", trace)?;
        let x = self.ln_final.forward(&x);
        trace("ln_final", &x);
        Ok(self.pooled(&x, tokens).matmul(&self.text_projection))
    }

    /// [N, L, W] → [N, W].
    fn pooled(&self, x: &Tensor, tokens: &Tensor) -> Tensor {
        // The first end token; `argmax` gives the first of several equal values.
        let end = match self.eot {
            None => tokens.argmax(-1, false), // [N]
            Some(id) => tokens.eq(id).to_kind(Kind::Int64).argmax(-1, false),
        };
        match self.pool {
            TextPool::Eot => take_position(x, &end),
            TextPool::Max => {
                let positions = Tensor::arange(tokens.size()[1], (Kind::Int64, tokens.device()));
                let after = positions.unsqueeze(0).gt_tensor(&end.unsqueeze(1)).unsqueeze(-1); // [N, L, 1]
                x.masked_fill(&after, f64::NEG_INFINITY).amax([1i64].as_slice(), false)
            }
        }
    }
}
