//! The encoders against their originals: open_clip's, Hugging Face's and torchvision's.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bert;
mod clip;
mod hugging_face;
mod resnet50;

use tch::{Kind, Tensor};

const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens");

/// Prints the row and checks it: the largest difference, relative to the golden's largest value.
fn check(model: &str, row: &str, found: &Tensor, golden: &Tensor, tolerance: f64) {
    let expected = golden.to_kind(Kind::Double).reshape(found.size());
    let scale = expected.abs().max().double_value(&[]).max(1e-30);
    let error = (found.to_kind(Kind::Double) - &expected).abs().max().double_value(&[]) / scale;
    println!("PARITY | encoders {model} | {row} | max_rel_err {error:.1e} | tol {tolerance:.0e}");
    assert!(error <= tolerance, "{model} {row}: {error:e}");
}
