//! Five steps of training, and the schedule, against open_clip's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use softclip_encoders::{ClipConfig, Mode};
use softclip_loss::{LossConfig, Needs};
use softclip_tensor::TokenRows;
use softclip_tensor::file::{read_safetensors, read_safetensors_metadata};
use softclip_train::config::Schedule;
use softclip_train::schedule::LearningRate;
use softclip_train::{Inputs, Model, StepOptions, Trainer, optim};
use tch::{Device, Kind, Tensor, no_grad};

fn golden(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens")).join(name)
}

/// Where the steps run: `SOFTCLIP_TEST_DEVICE` (cuda, say), or the CPU.
fn device() -> Device {
    softclip_torch::parse_device(&std::env::var("SOFTCLIP_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned())).unwrap()
}

/// Prints the row and checks it.
fn parity(row: &str, error: f64, tolerance: f64) {
    println!("PARITY | train | {row} | max_rel_err {error:.2e} | tol {tolerance:.0e}");
    assert!(error <= tolerance, "{row}: {error:e} > {tolerance:e}");
}

#[test]
fn the_learning_rate_is_open_clips() {
    let expected = read_safetensors(golden("lr_schedule.safetensors")).unwrap();
    for (schedule, name) in [(Schedule::Cosine, "lr.cosine"), (Schedule::Const, "lr.const")] {
        let rate = LearningRate { base: 5e-4, warmup: 10, total: 100, schedule };
        let expected = Vec::<f64>::try_from(&expected[name]).unwrap();
        let error = expected.iter().enumerate().map(|(step, lr)| (rate.at(step as u64) - lr).abs()).fold(0.0, f64::max);
        parity(name, error, 1e-12);
    }
}

struct Case {
    weights: BTreeMap<String, Tensor>,
    config: ClipConfig,
    images: Tensor,
    tokens: Tensor,
    decayed: Vec<String>,
}

fn case(model: &str) -> Case {
    let io = golden(&format!("openclip_{model}_small.io.safetensors"));
    let tensors = read_safetensors(&io).unwrap();
    let metadata = read_safetensors_metadata(&io).unwrap();
    let json = metadata.values().find(|text| text.contains("vision_cfg")).expect("the model's configuration");
    let steps = read_safetensors_metadata(golden("train_steps.safetensors")).unwrap();
    let named: serde_json::Value = serde_json::from_str(&steps[model]).unwrap();
    Case {
        weights: read_safetensors(golden(&format!("openclip_{model}_small.weights.safetensors"))).unwrap(),
        config: ClipConfig::from_open_clip_json(json).unwrap(),
        images: tensors["image"].shallow_clone(),
        tokens: tensors["text"].to_kind(Kind::Int64),
        decayed: serde_json::from_value(named["decayed"].clone()).unwrap(),
    }
}

fn inputs(case: &Case, kind: Kind) -> Inputs {
    let lengths = vec![case.tokens.size()[1]; case.tokens.size()[0] as usize];
    let tokens = TokenRows { tokens: case.tokens.to_device(device()), lengths };
    Inputs { images: case.images.to_kind(kind).to_device(device()), tokens, tags: None, regions: None, category: None }
}

fn steps(model: &str, kind: Kind, tolerance: f64) {
    let case = case(model);
    let expected = read_safetensors(golden("train_steps.safetensors")).unwrap();
    let mut network = Model::new(&case.config, Needs::default(), 0.07, 0, device()).unwrap();
    if kind == Kind::Double {
        network.to_double();
    }
    network.load_tensors(&case.weights).unwrap();
    let mut decayed: Vec<String> =
        network.parameters().into_iter().filter(|(name, tensor)| optim::decays(name, tensor)).map(|(name, _)| name).collect();
    let mut theirs = case.decayed.clone();
    decayed.sort();
    theirs.sort();
    assert_eq!(decayed, theirs, "{model}: what decays");

    let options = StepOptions { grad_clip: 1.0, ..StepOptions::default() };
    let loss: LossConfig = serde_yaml::from_str("name: clip").unwrap();
    let mut trainer = Trainer::new(network, loss, options).unwrap();
    let rate = LearningRate { base: 2e-3, warmup: 2, total: 8, schedule: Schedule::Cosine };
    let inputs = inputs(&case, kind);
    let rows = Vec::<f64>::try_from(expected[&format!("{model}.loss_lr_gradnorm_logitscale")].flatten(0, -1)).unwrap();
    let mut worst = [0.0f64; 4];
    for (step, row) in rows.chunks_exact(4).enumerate() {
        let lr = rate.at(step as u64);
        let report = trainer.step(&inputs, lr).unwrap();
        let scale = trainer.model().clip().logit_scale().double_value(&[]);
        let found = [report.loss, lr, report.grad_norm, if row[3] > 5.0 { scale.exp() } else { scale }];
        for (worst, (found, expected)) in worst.iter_mut().zip(found.iter().zip(row)) {
            assert!(found.is_finite() && expected.is_finite());
            *worst = worst.max((found - expected).abs() / expected.abs().max(1e-12));
        }
    }
    let name = if kind == Kind::Double { "f64" } else { "f32" };
    for (what, error) in ["loss", "learning rate", "gradient norm", "logit scale"].iter().zip(worst) {
        parity(&format!("{model}, 5 steps, {name}: {what}"), error, tolerance);
    }
    let norms = trainer.model().tensors().into_iter().filter_map(|(name, tensor)| {
        let expected = expected.get(&format!("{model}.l2.{name}"))?.double_value(&[]);
        let found = tensor.to_device(Device::Cpu).to_kind(Kind::Double).square().sum(Kind::Double).sqrt().double_value(&[]);
        Some((found - expected).abs() / expected.max(1e-6))
    });
    let norms: Vec<f64> = norms.collect();
    let floats = case.weights.keys().filter(|name| !name.ends_with("num_batches_tracked")).count();
    assert_eq!(norms.len(), floats, "of all tensors some are not compared");
    parity(&format!("{model}, 5 steps, {name}: norms of all weights"), norms.into_iter().fold(0.0, f64::max), tolerance);
    let clip = trainer.model().clip();
    let features = [
        ("image_features", no_grad(|| clip.encode_image(&inputs.images, Mode::Eval)).unwrap()),
        ("text_features", no_grad(|| clip.encode_text(&inputs.tokens.tokens)).unwrap()),
    ];
    for (what, found) in features {
        let expected = &expected[&format!("{model}.{what}")];
        let found = found.to_device(Device::Cpu).to_kind(Kind::Double);
        let unit = |x: &Tensor| x / x.square().sum_dim_intlist([-1i64].as_slice(), true, Kind::Double).sqrt();
        let off = |found: &Tensor| ((found - expected).abs().max() / expected.abs().max()).double_value(&[]);
        parity(&format!("{model}, 5 steps, {name}: {what}"), off(&found).min(off(&unit(&found))), tolerance);
    }
}

#[test]
fn five_steps_of_rn50_are_open_clips() {
    steps("rn50", Kind::Double, 1e-9);
    steps("rn50", Kind::Float, 1e-3);
}

#[test]
fn five_steps_of_vit_b_32_are_open_clips() {
    steps("vit_b_32", Kind::Double, 1e-9);
    steps("vit_b_32", Kind::Float, 1e-3);
}
