//! A network that draws random numbers trains reproducibly: in chunks, and when a run is resumed.
//!
//! It draws from libtorch's default generators, which belong to the process, and the test harness runs tests on several threads. So
//! this file has one test only: no other thread of its process draws meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![expect(clippy::disallowed_methods, reason = "the only test of this process")]

mod support;

use std::collections::BTreeMap;
use std::fs;

use softclip_encoders::{ClipConfig, ClipTextConfig, Mode, TextConfig, VisionConfig, VitConfig};
use softclip_loss::{BlockOptions, LossConfig, LossInputs, Scales, blockwise};
use softclip_tensor::{Embeddings, TokenRows};
use softclip_train::{Inputs, Model, StepOptions, Trainer, checkpoint, train};
use support::{configuration, options, shard};
use tch::{Device, Kind, Tensor};

const N: i64 = 10;
const SEED: i64 = 17;

#[test]
fn patch_dropout_is_reproducible() {
    chunks_meet_the_same_random_numbers_in_both_passes();
    a_resumed_run_leaves_out_the_same_patches();
}

fn model() -> Model {
    let vision = VitConfig { mlp_ratio: 2.0, patch_dropout: 0.5, ..VitConfig::clip(32, 8, 24, 2, 2) };
    let text = ClipTextConfig { context_length: 12, vocab_size: 60, heads: 2, layers: 1, ..ClipTextConfig::clip(16) };
    let config = ClipConfig::new(16, VisionConfig::Vit(vision), TextConfig::Clip(text));
    let mut model = Model::new(&config, clip_loss().needs(), 0.07, 5, Device::Cpu).unwrap();
    model.to_double();
    model
}

fn clip_loss() -> LossConfig {
    LossConfig::Clip(Default::default())
}

fn inputs() -> Inputs {
    let size = [N, 3, 32, 32];
    let images = (Tensor::arange(size.iter().product::<i64>(), (Kind::Double, Device::Cpu)) * 0.37).sin().view(size);
    let tokens = (Tensor::arange(N * 6, (Kind::Int64, Device::Cpu)) * 7).fmod(58.0).view([N, 6]).to_kind(Kind::Int64);
    let _ = tokens.narrow(1, 5, 1).fill_(59);
    Inputs { images, tokens: TokenRows { tokens, lengths: vec![6; N as usize] }, tags: None, regions: None, category: None }
}

fn gradients(model: &Model) -> BTreeMap<String, Tensor> {
    model.parameters().into_iter().map(|(name, t)| (name, t.grad().copy())).collect()
}

fn draw() -> Tensor {
    Tensor::rand([16], (Kind::Float, Device::Cpu))
}

/// Gradients of a step in chunks, and what the generator draws behind it.
fn chunked(chunk: i64, recompute: bool) -> (BTreeMap<String, Tensor>, Tensor) {
    let options = StepOptions { chunk_size: Some(chunk), recompute, ..StepOptions::default() };
    let mut trainer = Trainer::new(model(), clip_loss(), options).unwrap();
    tch::manual_seed(SEED);
    trainer.step(&inputs(), 1e-3).unwrap();
    (gradients(trainer.model()), draw())
}

/// The same with the graph of every chunk kept until backward.
fn kept(size: i64, seed: i64) -> (BTreeMap<String, Tensor>, Tensor) {
    let (model, batch) = (model(), inputs());
    let clip = model.clip();
    tch::manual_seed(seed);
    let chunk = |from: i64| {
        let n = size.min(N - from);
        let image = clip.encode_image(&batch.images.narrow(0, from, n), Mode::Train).unwrap();
        let text = clip.encode_text(&batch.tokens.tokens.narrow(0, from, n)).unwrap();
        [image, text].map(|x| Embeddings::normalize(&x).unwrap())
    };
    let chunks: Vec<_> = (0..N).step_by(size as usize).map(chunk).collect();
    let behind = draw();
    let all = |i: usize| Embeddings::cat(&chunks.iter().map(|c| &c[i]).collect::<Vec<_>>()).unwrap();
    let (image, text) = (all(0), all(1));
    let scales = Scales::new(clip.logit_scale().double_value(&[]));
    let (v, t) = (image.detach(), text.detach());
    let found = blockwise(&clip_loss(), &LossInputs::new(&v, &t), &scales, &BlockOptions::for_device(Device::Cpu)).unwrap();
    let sum = (image.tensor() * &found.grads.image + text.tensor() * &found.grads.text).sum(None::<Kind>);
    (sum + clip.logit_scale() * found.grads.log_scale).backward();
    (gradients(&model), behind)
}

fn off(a: &BTreeMap<String, Tensor>, b: &BTreeMap<String, Tensor>) -> f64 {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    a.iter().map(|(name, grad)| (grad - &b[name]).abs().max().double_value(&[])).fold(0.0, f64::max)
}

fn chunks_meet_the_same_random_numbers_in_both_passes() {
    for chunk in [1, 3, 5] {
        let (whole, behind) = kept(chunk, SEED);
        for recompute in [false, true] {
            let (found, same) = chunked(chunk, recompute);
            assert!(off(&whole, &found) < 1e-9, "chunks of {chunk}, recompute {recompute}: {}", off(&whole, &found));
            assert_eq!(behind, same, "the generator stands elsewhere");
        }
        // The choice of patches matters: chunks that met other ones would be found out.
        assert!(off(&whole, &kept(chunk, SEED + 1).0) > 1e-4);
    }
}

fn a_resumed_run_leaves_out_the_same_patches() {
    let folder = tempfile::tempdir().unwrap();
    let data = format!("data.train={}", shard(folder.path(), 43).display());
    let ends = |name: &str, sets: &[&str]| {
        let run = folder.path().join(name);
        let steps = |steps: u64| {
            let steps = format!("train.steps={steps}");
            let sets = [&[data.as_str(), "train.schedule=const", "train.warmup=0", &steps], sets].concat();
            train(&configuration(folder.path(), &sets), &options(&run)).unwrap();
        };
        if name.starts_with("resumed") {
            steps(4);
            let _elsewhere = draw();
        }
        steps(9);
        fs::read(checkpoint::list(&run).unwrap().pop().unwrap().join(checkpoint::MODEL)).unwrap()
    };
    for more in [vec!["model.patch_dropout=0.5"], vec!["model.patch_dropout=0.5", "train.chunk_size=4", "train.recompute=true"]] {
        let i = more.len();
        let whole = ends(&format!("whole-{i}"), &more);
        assert!(whole == ends(&format!("resumed-{i}"), &more), "{more:?}: the last checkpoints differ");
        assert!(whole != ends(&format!("plain-{i}"), &more[1..]), "{more:?}: nothing was left out");
    }
}
