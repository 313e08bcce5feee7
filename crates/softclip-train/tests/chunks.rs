//! A batch in chunks is the batch.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod towers;

use std::collections::BTreeMap;

use softclip_encoders::{Aggregate, ClipConfig, RegionConfig};
use softclip_loss::LossConfig;
use softclip_tensor::{Embeddings, Precision};
use softclip_train::{Inputs, Model, StepOptions, Trainer};
use tch::{Device, Kind, Tensor, no_grad};
use towers::{N, category, config, device, inputs};

/// Every reading of Text-based SoftCLIP.
const TEXT_BASED: [&str; 5] = [
    "name: text_based",
    "{name: text_based, tau: 0.1, symmetrize: true}",
    "{name: text_based, blend: targets, tau: 0.1, symmetrize: true}",
    "{name: text_based, blend: targets_normalized}",
    "{name: text_based, alpha: 0, tau: 0.1, symmetrize: true}",
];

fn options(chunk_size: Option<i64>) -> StepOptions {
    StepOptions { chunk_size, grad_clip: 1.0, weight_decay: 0.0, ..StepOptions::default() }
}

fn trainer(config: &ClipConfig, loss: &str, options: StepOptions, double: bool) -> Trainer {
    let loss: LossConfig = serde_yaml::from_str(loss).unwrap();
    let mut model = Model::new(config, loss.needs(), 0.07, 5, device()).unwrap();
    if double {
        model.to_double();
    }
    Trainer::new(model, loss, options).unwrap()
}

fn after_a_step(config: &ClipConfig, loss: &str, chunk_size: Option<i64>) -> (f64, BTreeMap<String, Tensor>) {
    let options = StepOptions { grad_clip: f64::INFINITY, weight_decay: 0.2, ..options(chunk_size) };
    let mut trainer = trainer(config, loss, options, true);
    let report = trainer.step(&inputs(true), 1e-3).unwrap();
    let grads = trainer.model().parameters().into_iter().filter(|(_, t)| t.grad().defined());
    (report.loss, grads.map(|(name, t)| (name, t.grad().copy())).collect())
}

fn assert_chunks_are_the_batch(config: &ClipConfig, loss: &str) {
    let (value, whole) = after_a_step(config, loss, None);
    for chunk in [1, 3, 5] {
        let (chunked_value, chunked) = after_a_step(config, loss, Some(chunk));
        assert!((value - chunked_value).abs() < 1e-10, "{loss}: {value} {chunked_value}");
        assert_eq!(whole.keys().collect::<Vec<_>>(), chunked.keys().collect::<Vec<_>>());
        for (name, grad) in &whole {
            let off = (grad - &chunked[name]).abs().max().double_value(&[]);
            assert!(off < 1e-9, "{loss}, chunks of {chunk}, {name}: {off}");
        }
    }
}

#[test]
fn gradients_in_chunks_are_those_of_the_whole_batch() {
    for loss in ["name: clip", "name: siglip", "name: softclip", "{name: softclip, target_grad: detach, target_temperature: own}"]
    {
        assert_chunks_are_the_batch(&config(), loss);
    }
    TEXT_BASED.iter().for_each(|loss| assert_chunks_are_the_batch(&config(), loss));
    // Raw features of a pair without regions are a row of zeros.
    for aggregate in [Aggregate::Mean, Aggregate::Max, Aggregate::Min] {
        let regions = RegionConfig { dim: 8, aggregate, blocks: 1 };
        assert_chunks_are_the_batch(&ClipConfig { regions: Some(regions), ..config() }, "name: softclip");
    }
}

#[test]
fn a_step_lowers_the_loss_of_its_batch() {
    for loss in ["name: clip", "name: label_smoothing", "name: siglip", "name: softclip"].iter().chain(&TEXT_BASED) {
        let mut trainer = trainer(&config(), loss, options(Some(4)), false);
        let losses: Vec<f64> = (0..12).map(|_| trainer.step(&inputs(false), 2e-3).unwrap().loss).collect();
        assert!(losses[11] < losses[0], "{losses:?}");
    }
}

#[test]
fn bf16_and_fp16_train_too() {
    for precision in [Precision::Bf16, Precision::Fp16] {
        for loss in ["name: softclip", TEXT_BASED[0], TEXT_BASED[2]] {
            let mut trainer = trainer(&config(), loss, StepOptions { precision, ..options(None) }, false);
            let reports: Vec<_> = (0..20).map(|_| trainer.step(&inputs(false), 2e-3).unwrap()).collect();
            let done = reports.iter().filter(|report| !report.overflowed).count();
            assert!(done >= 5, "{precision:?}, {loss}: {done} of 20 steps did not overflow");
            assert!(reports[19].loss < reports[0].loss, "{precision:?}, {loss}: {} to {}", reports[0].loss, reports[19].loss);
        }
    }
}

#[test]
fn a_pair_without_tags_keeps_its_own_label() {
    let loss = "{name: softclip, forms: [AA, AA], lambda: 0, divergence: kl}";
    let softness = |present: &[bool; N as usize]| {
        let mut inputs = inputs(false);
        inputs.tags.as_mut().unwrap().present = Tensor::from_slice(present).to_device(device());
        inputs.regions = None;
        trainer(&config(), loss, options(None), false).step(&inputs, 1e-3).unwrap().diagnostics.target_softness
    };
    assert!(softness(&[true; N as usize]) > 0.0);
    assert_eq!(softness(&[false; N as usize]), 0.0);
}

#[test]
fn a_loss_that_is_not_finite_stops_and_changes_nothing() {
    for chunk_size in [None, Some(2)] {
        let mut trainer = trainer(&config(), "name: clip", options(chunk_size), false);
        let poisoned = trainer.model().tensors().into_iter().map(|(name, tensor)| {
            let value = if name == "text_projection" { tensor.full_like(f64::NAN) } else { tensor.detach().copy() };
            (name, value)
        });
        let poisoned: BTreeMap<String, Tensor> = poisoned.collect();
        no_grad(|| trainer.model_mut().load_tensors(&poisoned)).unwrap();
        let before = trainer.model().tensors()[3].1.copy();
        let error = trainer.step(&inputs(false), 1e-3).unwrap_err();
        assert!(matches!(error, softclip_train::Error::NonFinite { .. }), "{error}");
        assert_eq!(before, trainer.model().tensors()[3].1);
    }
}

#[test]
fn a_learned_temperature_of_the_targets_keeps_to_the_limit() {
    let loss = "{name: softclip, target_temperature: own}";
    let mut trainer = trainer(&config(), loss, StepOptions { max_logit_scale: 14.0, ..options(None) }, false);
    trainer.step(&inputs(false), 1e-3).unwrap();
    let scale = trainer.model().target_scale().unwrap().double_value(&[]).exp();
    assert!(scale <= 14.0 * (1.0 + 1e-6), "{scale}");
}

#[test]
fn what_libtorch_refuses_is_an_error() {
    if device() != Device::Cpu {
        println!("skipped: a GPU that was given an index out of range does nothing any more");
        return;
    }
    let mut trainer = trainer(&config(), "name: clip", options(None), false);
    let mut wrong = inputs(false);
    wrong.tokens.tokens = wrong.tokens.tokens.g_add_scalar(1000); // beyond the embedding's rows
    let message = trainer.step(&wrong, 1e-3).unwrap_err().to_string();
    assert!(message.contains("libtorch") && message.contains("index out of range"), "{message}");
    // It can go on with another batch.
    assert!(trainer.step(&inputs(false), 1e-3).is_ok());
}

/// The matrix as the reference takes it.
fn matrix(x: &Embeddings) -> ndarray::Array2<f64> {
    let x = x.tensor().to_kind(Kind::Double);
    let (n, d) = x.size2().unwrap();
    ndarray::Array2::from_shape_vec((n as usize, d as usize), Vec::<f64>::try_from(x.contiguous().view([-1])).unwrap()).unwrap()
}

#[test]
fn the_text_based_step_is_that_of_the_reference() {
    for loss in TEXT_BASED {
        for chunk_size in [None, Some(3)] {
            let options = StepOptions { grad_clip: f64::INFINITY, ..options(chunk_size) };
            let mut trainer = trainer(&config(), loss, options, true);
            let (batch, clip) = (inputs(true), trainer.model().clip());
            let unit = |x: Tensor| Embeddings::normalize(&x.detach()).unwrap();
            let double = |x: &Embeddings| matrix(&unit(x.tensor().to_kind(Kind::Double)));
            let category = category();
            let expected = softclip_loss::reference::loss(
                &serde_yaml::from_str(loss).unwrap(),
                &softclip_loss::reference::Inputs {
                    image: matrix(&unit(clip.encode_image(&batch.images, softclip_encoders::Mode::Eval).unwrap())),
                    text: matrix(&unit(clip.encode_text(&batch.tokens.tokens).unwrap())),
                    category: Some(double(&category.sentences)),
                    category_text: Some(double(&category.captions)),
                    ..Default::default()
                },
                &softclip_loss::Scales::new(clip.logit_scale().double_value(&[])),
            )
            .unwrap();
            let found = trainer.step(&batch, 1e-3).unwrap();
            assert!((found.loss - expected.value).abs() < 1e-10, "{loss}: {} {}", found.loss, expected.value);
            let constant = loss.contains("tau");
            let slope = trainer.model().clip().logit_scale().grad();
            assert_eq!(slope.defined(), !constant, "{loss}: a constant learns nothing");
            let slope = if constant { 0.0 } else { slope.double_value(&[]) };
            assert!((slope - expected.log_scale).abs() < 1e-9, "{loss}: {slope} {}", expected.log_scale);
            assert_eq!(constant, (found.logit_scale - 10.0).abs() < 1e-12, "{loss}: the constant is what is reported");
        }
    }
}

#[test]
fn text_based_without_its_embeddings_is_an_error_that_says_so() {
    let bare = Inputs { category: None, ..inputs(false) };
    let message = trainer(&config(), TEXT_BASED[0], options(None), false).step(&bare, 1e-3).unwrap_err().to_string();
    assert!(message.contains("category embeddings") && message.contains("frozen text encoder"), "{message}");
    assert!(trainer(&config(), TEXT_BASED[4], options(None), false).step(&bare, 1e-3).is_ok(), "alpha: 0 needs none");
}
