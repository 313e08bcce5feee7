//! Blocks whose activations are computed again in backward instead of being kept.

use softclip_torch::Pass;
use tch::Tensor;

use crate::error::Result;
use crate::layers::{BatchNorm, Conv};
use crate::transformer::{Attention, Mask};

/// How a network is computed; the result is the same to rounding.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Compute {
    pub attention: Attention,
    /// Whether blocks keep their inputs alone for backward.
    pub recompute: bool,
}

/// A part of a network that backward can own.
pub(crate) trait Share: Send + Sized + 'static {
    /// The same, over handles of the same tensors; those that learn go to `learned` too.
    fn share(&self, learned: &mut Vec<Tensor>) -> Self;
}

/// A handle of the same tensor, and another in `learned` if it learns.
pub(crate) fn handle(tensor: &Tensor, learned: &mut Vec<Tensor>) -> Tensor {
    if tensor.requires_grad() {
        learned.push(tensor.shallow_clone());
    }
    tensor.shallow_clone()
}

impl<T: Share> Share for Option<T> {
    fn share(&self, learned: &mut Vec<Tensor>) -> Self {
        self.as_ref().map(|part| part.share(learned))
    }
}

impl Share for (Conv, BatchNorm) {
    fn share(&self, learned: &mut Vec<Tensor>) -> Self {
        (self.0.share(learned), self.1.share(learned))
    }
}

/// `f` over `block` and `inputs`, which are all that is kept for backward.
pub(crate) fn recomputed<B: Share>(
    block: &B,
    inputs: &[&Tensor],
    f: impl Fn(&B, &[Tensor], Pass) -> Tensor + Send + 'static,
) -> Result<Tensor> {
    let mut learned = Vec::new();
    let own = block.share(&mut learned);
    let learned: Vec<&Tensor> = learned.iter().collect();
    Ok(softclip_torch::recompute(inputs, &learned, move |inputs, pass| f(&own, inputs, pass))?)
}

/// As [`recomputed`] for a block of a Transformer over `x` and what may be attended to.
pub(crate) fn recomputed_masked<B: Share>(
    block: &B,
    x: &Tensor,
    mask: Mask,
    f: impl Fn(&B, &Tensor, Mask) -> Tensor + Send + 'static,
) -> Result<Tensor> {
    match mask {
        Mask::None => recomputed(block, &[x], move |block, inputs, _| f(block, &inputs[0], Mask::None)),
        Mask::Causal => recomputed(block, &[x], move |block, inputs, _| f(block, &inputs[0], Mask::Causal)),
        Mask::Keys(keys) => recomputed(block, &[x, keys], move |block, inputs, _| f(block, &inputs[0], Mask::Keys(&inputs[1]))),
    }
}
