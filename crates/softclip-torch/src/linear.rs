//! The linear layer, faster where it can be.

use std::ptr;

use tch::Tensor;

use crate::error::check;
use crate::raw::owned;

/// x Wᵀ + b: `[…, I]` by `[O, I]` and `[O]` → `[…, O]`, as [`Tensor::linear`].
///
/// In f32 on the CPU oneDNN computes it and its gradients instead of MKL, which uses the widest vectors of Intel's processors only: on
/// AMD's with AVX-512 this is more than twice as fast. The result is the same to rounding.
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
    use crate::Generator;

    #[test]
    fn it_is_the_plain_layer_with_and_without_gradients() {
        crate::init().unwrap();
        for kind in [Kind::Float, Kind::Double] {
            let random = Generator::new(2);
            let make = |size: &[i64]| random.normal_of(size, kind).unwrap();
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
    fn its_gradients_are_the_plain_layers() {
        crate::init().unwrap();
        let gradients =
            |size: &[i64], with_bias: bool, learns: [bool; 3], layer: &dyn Fn(&Tensor, &Tensor, Option<&Tensor>) -> Tensor| {
                let random = Generator::new(4);
                let make = |size: &[i64]| random.normal(size).unwrap();
                let leaves = [make(size), make(&[48, 32]), make(&[48])];
                let leaves: Vec<Tensor> = leaves.into_iter().zip(learns).map(|(t, learns)| t.set_requires_grad(learns)).collect();
                // Through what is not contiguous, forward and backward.
                let y = layer(&leaves[0], &leaves[1], with_bias.then_some(&leaves[2]));
                let last = y.dim() as i64 - 1;
                (y.transpose(0, last) * make(&y.transpose(0, last).size())).sum(Kind::Float).backward();
                leaves.iter().map(Tensor::grad).collect::<Vec<_>>()
            };
        for size in [&[7, 32][..], &[2, 3, 32], &[32]] {
            for (bias, learns) in
                [(true, [true; 3]), (false, [true, true, false]), (true, [false, true, true]), (true, [true, false, false])]
            {
                let (plain, fast) =
                    (gradients(size, bias, learns, &|x, w, b| x.linear(w, b)), gradients(size, bias, learns, &linear));
                for ((plain, fast), learns) in plain.iter().zip(&fast).zip(learns) {
                    assert_eq!((plain.defined(), fast.defined()), (learns, learns));
                    assert!(!learns || (fast.size() == plain.size() && fast.allclose(plain, 1e-4, 1e-4, false)));
                }
            }
        }
    }

    #[test]
    fn the_gradient_of_its_gradient_is_the_plain_layers() {
        crate::init().unwrap();
        let second = |layer: &dyn Fn(&Tensor, &Tensor, Option<&Tensor>) -> Tensor| {
            let random = Generator::new(5);
            let leaf = |size: &[i64]| random.normal(size).unwrap().set_requires_grad(true);
            let (x, w) = (leaf(&[5, 8]), leaf(&[6, 8]));
            let y = layer(&x, &w, None).square().sum(Kind::Float);
            let first = Tensor::run_backward(&[y], &[&x], true, true);
            first[0].square().sum(Kind::Float).backward();
            w.grad()
        };
        assert!(second(&linear).allclose(&second(&|x, w, b| x.linear(w, b)), 1e-4, 1e-4, false));
    }

    #[test]
    fn a_wrong_shape_fails_as_the_plain_layer_does() {
        let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, Device::Cpu));
        let error = crate::guard(|| no_grad(|| linear(&zeros(&[2, 3]), &zeros(&[4, 5]), None))).unwrap_err();
        assert!(error.to_string().contains("2x3"), "{error}");
    }
}
