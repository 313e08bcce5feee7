//! What the layer promises of a device, on the one that `SOFTCLIP_TEST_DEVICE` names (cuda, say), by default the CPU.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use softclip_torch::{
    AdamW, AdamWOptions, Autocast, GradScaler, ParamGroup, Precision, clip_grad_norm, memory, parse_device, reset_peak_memory,
    synchronize,
};
use tch::{Device, Kind, Tensor};

fn device() -> Device {
    let device = parse_device(&std::env::var("SOFTCLIP_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned())).unwrap();
    println!("on {device:?}");
    device
}

fn waves(shape: &[i64], device: Device) -> Tensor {
    let n = shape.iter().product::<i64>();
    (Tensor::arange(n, (Kind::Double, Device::Cpu)) * 0.7).sin().view(shape).to_kind(Kind::Float).to_device(device)
}

fn largest(t: &Tensor) -> f64 {
    t.abs().max().double_value(&[])
}

#[test]
fn the_fused_optimizer_takes_the_steps_of_its_formula() {
    let device = device();
    let options = AdamWOptions { beta1: 0.9, beta2: 0.98, eps: 1e-6 };
    let (lr, decay) = (1e-2, 0.2);
    let weight = waves(&[33, 7], device).set_requires_grad(true);
    let group = ParamGroup { params: vec![("w".into(), weight.shallow_clone())], weight_decay: decay, lr_scale: 1.0 };
    let mut adamw = AdamW::new(vec![group], options).unwrap();
    let mut expected = weight.detach().to_kind(Kind::Double);
    let (mut m, mut v) = (expected.zeros_like(), expected.zeros_like());
    for t in 1..=5 {
        adamw.zero_grad();
        (&weight * &weight * &weight).sum(Kind::Float).backward();
        adamw.step(lr, None).unwrap();
        let grad = &expected * &expected * 3.0;
        m = &m * options.beta1 + &grad * (1.0 - options.beta1);
        v = &v * options.beta2 + &grad * &grad * (1.0 - options.beta2);
        let (m, v) = (&m / (1.0 - options.beta1.powi(t)), &v / (1.0 - options.beta2.powi(t)));
        expected = &expected * (1.0 - lr * decay) - m / (v.sqrt() + options.eps) * lr;
    }
    let off = largest(&(weight.detach().to_kind(Kind::Double) - &expected));
    assert!(off < 1e-5, "{off}");
    let norm = weight.grad().norm().double_value(&[]);
    let found = clip_grad_norm(&[weight.shallow_clone()], norm / 2.0).unwrap();
    assert!((found - norm).abs() < 1e-4 * norm, "{found} {norm}");
    assert!((weight.grad().norm().double_value(&[]) - norm / 2.0).abs() < 1e-4 * norm);
}

#[test]
fn reduced_precision_multiplies_in_it_and_learns_in_f32() {
    let device = device();
    for (precision, kind) in [(Precision::Bf16, Kind::BFloat16), (Precision::Fp16, Kind::Half)] {
        let weight = waves(&[16, 16], device).set_requires_grad(true);
        let product = {
            let _autocast = Autocast::enter(device, precision).unwrap();
            waves(&[8, 16], device).matmul(&weight)
        };
        assert_eq!(product.kind(), kind);
        product.to_kind(Kind::Float).sum(Kind::Float).backward();
        assert_eq!(weight.grad().kind(), Kind::Float);
    }
}

#[test]
fn f32_is_exact_to_its_last_bits() {
    let device = device();
    // TF32 would be off by about 1e-3 of the largest.
    let (a, b) = (waves(&[256, 512], device), waves(&[512, 256], device));
    let exact = a.to_kind(Kind::Double).matmul(&b.to_kind(Kind::Double));
    let off = largest(&(a.matmul(&b).to_kind(Kind::Double) - &exact)) / largest(&exact);
    assert!(off < 2e-5, "matmul: {off}");
    let (images, kernel) = (waves(&[2, 16, 24, 24], device), waves(&[8, 16, 3, 3], device));
    let convolve = |x: &Tensor, w: &Tensor| x.conv2d::<Tensor>(w, None, [1, 1], [1, 1], [1, 1], 1);
    let exact = convolve(&images.to_kind(Kind::Double), &kernel.to_kind(Kind::Double));
    let off = largest(&(convolve(&images, &kernel).to_kind(Kind::Double) - &exact)) / largest(&exact);
    assert!(off < 2e-5, "convolution: {off}");
}

#[test]
fn attention_takes_a_fused_kernel() {
    let device = device();
    // 0 is the plain one, which keeps the whole matrix of weights.
    for (length, causal) in [(50, false), (77, true), (257, false)] {
        let x = waves(&[2, 12, length, 64], device).to_kind(Kind::BFloat16);
        let choice = Tensor::f_internal_fused_sdp_choice::<Tensor>(&x, &x, &x, None, 0.0, causal, None, false).unwrap();
        println!("{length} tokens, causal {causal}: kernel {choice}");
        assert!(choice > 0, "{length} tokens: {choice}");
    }
}

#[test]
fn an_overflow_is_seen_and_the_scale_halved() {
    let device = device();
    let mut scaler = GradScaler::new(device).unwrap();
    let before = scaler.scale().double_value(&[]);
    let weight = waves(&[4], device).set_requires_grad(true);
    (&weight * f64::INFINITY).sum(Kind::Float).backward();
    scaler.unscale(&[weight.shallow_clone()]).unwrap();
    assert!(scaler.overflowed());
    scaler.update().unwrap();
    assert_eq!(scaler.scale().double_value(&[]), before / 2.0);
}

#[test]
fn memory_is_counted() {
    let device = device();
    let _first = waves(&[1], device); // a GPU's allocator starts with its first use
    reset_peak_memory(device).unwrap();
    let before = memory(device);
    let large = Tensor::ones([1 << 22], (Kind::Float, device));
    synchronize(device).unwrap();
    let after = memory(device);
    drop(large);
    match device {
        Device::Cuda(_) => assert!(after.device.unwrap() >= before.device.unwrap() + (1 << 24), "{before:?} {after:?}"),
        _ => assert_eq!((after.device, after.host_peak >= 1 << 24), (None, true)),
    }
}
