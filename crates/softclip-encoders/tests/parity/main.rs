//! The encoders against their originals: open_clip's, Hugging Face's and torchvision's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod bert;
mod clip;
mod hugging_face;
mod resnet50;

use std::collections::BTreeMap;

use softclip_tensor::file::read_safetensors;
use tch::{Device, Kind, Tensor};

const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens");

/// Where the models run: `SOFTCLIP_TEST_DEVICE` (cuda, say), or the CPU.
fn device() -> Device {
    softclip_torch::parse_device(&std::env::var("SOFTCLIP_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned())).unwrap()
}

/// A golden's tensors, there.
fn golden(name: &str) -> BTreeMap<String, Tensor> {
    let device = device();
    let tensors = read_safetensors(format!("{GOLDENS}/{name}.safetensors")).unwrap();
    tensors.into_iter().map(|(name, tensor)| (name, tensor.to_device(device))).collect()
}

/// The goldens are a CPU's. A GPU adds up in other orders, and has other kernels for exp and tanh.
fn allowed(tolerance: f64) -> f64 {
    if device() == Device::Cpu { tolerance } else { 10.0 * tolerance }
}

/// Prints the row and checks it: the largest difference, relative to the golden's largest value.
fn check(model: &str, row: &str, found: &Tensor, golden: &Tensor, tolerance: f64) {
    let [found, golden] = [found, golden].map(|t| t.to_device(Device::Cpu).to_kind(Kind::Double));
    let (expected, tolerance) = (golden.reshape(found.size()), allowed(tolerance));
    let scale = expected.abs().max().double_value(&[]).max(1e-30);
    let error = (found - &expected).abs().max().double_value(&[]) / scale;
    println!("PARITY | encoders {model} | {row} | max_rel_err {error:.1e} | tol {tolerance:.0e}");
    assert!(error <= tolerance, "{model} {row}: {error:e}");
}
