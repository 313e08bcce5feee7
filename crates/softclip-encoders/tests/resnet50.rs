//! What ResNet-50 promises beyond agreeing with torchvision's.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use softclip_encoders::{Mode, ResNet50, ResNet50Config, seeded};
use softclip_torch::Generator;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor, no_grad};

fn build(classes: Option<i64>) -> (VarStore, ResNet50) {
    let vs = VarStore::new(Device::Cpu);
    let config = ResNet50Config { layers: [1, 2, 1, 1], width: 4, classes };
    let model = seeded(7, || ResNet50::new(&vs.root(), &config)).unwrap();
    (vs, model)
}

fn images(n: i64, h: i64, w: i64) -> Tensor {
    Generator::new(8).normal([n, 3, h, w]).unwrap()
}

#[test]
fn a_frozen_norm_evaluates_and_all_else_trains() {
    let (vs, model) = build(None);
    let variables = vs.variables();
    // Statistics that are not those of the start.
    let _ = no_grad(|| model.encode(&images(4, 64, 64), Mode::Train).unwrap());
    let buffer = variables["layer2.1.bn2.running_var"].copy();
    let x = images(2, 40, 64);
    let gradient = |mode| {
        let mut weight = variables["layer2.1.conv2.weight"].shallow_clone();
        weight.zero_grad();
        let features = model.encode(&x, mode).unwrap();
        features.square().sum(Kind::Float).backward();
        (features.detach(), weight.grad().copy())
    };
    let (frozen, frozen_gradient) = gradient(Mode::TrainFrozenNorm);
    assert!(frozen_gradient.abs().max().double_value(&[]) > 0.0);
    for (name, t) in &variables {
        assert_eq!(t.grad().defined(), !name.contains("bn") && !name.contains("downsample.1"), "{name}");
    }
    let (evaluated, evaluated_gradient) = gradient(Mode::Eval);
    assert_eq!(frozen, evaluated);
    assert!((&frozen_gradient - &evaluated_gradient).abs().max().double_value(&[]) < 1e-5);
    assert_eq!(variables["layer2.1.bn2.running_var"], buffer);
    assert!(variables["bn1.weight"].grad().defined());
}

#[test]
fn keeping_statistics_gives_trainings_features_and_leaves_the_buffers() {
    let (vs, model) = build(None);
    let x = images(2, 64, 64);
    let buffer = || vs.variables()["layer4.0.downsample.1.running_mean"].copy();
    let before = buffer();
    let kept = no_grad(|| model.encode(&x, Mode::TrainKeepStatistics).unwrap());
    assert_eq!(buffer(), before);
    assert_eq!(kept, no_grad(|| model.encode(&x, Mode::Train).unwrap()));
    assert_ne!(buffer(), before);
}

#[test]
fn inputs_and_sizes_that_do_not_fit_are_errors() {
    let (_vs, model) = build(None);
    for x in [images(2, 8, 8).narrow(1, 0, 1), images(2, 8, 8).get(0), images(2, 8, 8).to_kind(Kind::Uint8), images(2, 8, 0)] {
        assert!(model.encode(&x, Mode::Eval).unwrap_err().to_string().contains("[N, 3, H, W]"));
    }
    assert!(model.encode(&images(1, 32, 32), Mode::Train).unwrap_err().to_string().contains("more than one value"));
    let features = no_grad(|| model.encode(&images(1, 33, 1), Mode::Train).unwrap());
    assert!(features.isfinite().all().int64_value(&[]) == 1);
    assert!(model.classify(&features).unwrap_err().to_string().contains("no classifier"));
    let (_vs, model) = build(Some(10));
    assert!(model.classify(&features.narrow(1, 0, 64)).unwrap_err().to_string().contains("[N, 128]"));
    let vs = VarStore::new(Device::Cpu);
    let bad = ResNet50Config { width: 0, ..ResNet50Config::imagenet() };
    assert!(ResNet50::new(&vs.root(), &bad).unwrap_err().to_string().contains("width"));
}

#[test]
fn torchvisions_file_has_as_many_parameters() {
    let vs = VarStore::new(Device::Cpu);
    let _model = ResNet50::new(&vs.root(), &ResNet50Config::imagenet()).unwrap();
    let count: i64 = vs.trainable_variables().iter().map(|t| t.numel() as i64).sum();
    assert_eq!(count, 25_557_032);
}
