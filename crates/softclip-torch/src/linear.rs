//! The linear layer, faster where it can be.

use std::ptr;

use tch::Tensor;

use crate::error::check;
use crate::raw::owned;

/// x Wᵀ + b: `[…, I]` by `[O, I]` and `[O]` → `[…, O]`, as [`Tensor::linear`].
///
/// In f32 on the CPU, where no gradient is asked for, oneDNN computes it instead of MKL, which uses the widest vectors of Intel's
/// processors only: on AMD's with AVX-512 this is more than twice as fast. The result is the same to rounding.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let b = bias.map_or(ptr::null(), |b| b.as_ptr());
    // SAFETY: the handles are borrowed for the call, which only reads them; a result that is not null is a new handle.
    let fast = check(|e| unsafe { softclip_sys::softclip_linear(x.as_ptr(), weight.as_ptr(), b, e) });
    match fast {
        // SAFETY: see above; nobody else has seen this handle.
        Ok(made) if !made.is_null() => unsafe { owned(made) },
        // Where it failed, the plain operator fails in the way that callers know.
        _ => x.linear(weight, bias),
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, no_grad};

    use super::*;

    #[test]
    fn it_is_the_plain_layer_with_and_without_gradients() {
        crate::init().unwrap();
        for kind in [Kind::Float, Kind::Double] {
            let make = |size: &[i64]| Tensor::randn(size, (kind, Device::Cpu));
            let (w, b) = (make(&[48, 32]).set_requires_grad(true), make(&[48]).set_requires_grad(true));
            for x in [make(&[7, 32]), make(&[2, 3, 32]), make(&[32]), make(&[0, 32]), make(&[32, 7]).tr()] {
                for bias in [Some(&b), None] {
                    let plain = x.linear(&w, bias);
                    let fast = no_grad(|| linear(&x, &w, bias));
                    assert_eq!(fast.size(), plain.size());
                    assert!(fast.allclose(&plain.detach(), 1e-5, 1e-5, false));
                    assert!(linear(&x, &w, bias).requires_grad() && !fast.requires_grad());
                }
            }
        }
    }

    #[test]
    fn a_wrong_shape_fails_as_the_plain_layer_does() {
        let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, Device::Cpu));
        let error = crate::guard(|| no_grad(|| linear(&zeros(&[2, 3]), &zeros(&[4, 5]), None))).unwrap_err();
        assert!(error.to_string().contains("2x3"), "{error}");
    }
}
