//! What changes memory or work of training, and what it must not change.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use softclip_encoders::{
    BertConfig, BertPool, Clip, ClipConfig, ClipTextConfig, Mode, RegionConfig, ResNetConfig, TextConfig, TorchvisionConfig,
    VisionConfig, VitConfig, named_tensors, seeded,
};
use softclip_tensor::Regions;
use softclip_torch::{Autocast, Generator, Precision};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor, no_grad};

const SIDE: i64 = 64;

/// Where models run: `SOFTCLIP_TEST_DEVICE` (cuda, say), or the CPU.
fn device() -> Device {
    softclip_torch::parse_device(&std::env::var("SOFTCLIP_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned())).unwrap()
}

fn text() -> TextConfig {
    TextConfig::Clip(ClipTextConfig { context_length: 16, vocab_size: 99, heads: 4, layers: 2, ..ClipTextConfig::clip(32) })
}

fn vit() -> VitConfig {
    VitConfig::clip(SIDE, 16, 32, 3, 4)
}

fn towers() -> [ClipConfig; 3] {
    let regions = |blocks| Some(RegionConfig { dim: 6, blocks, ..RegionConfig::default() });
    let resnet = ResNetConfig { image_size: SIDE, layers: [2, 1, 1, 1], width: 4, heads: 4 };
    let resnet50 = TorchvisionConfig { image_size: SIDE, layers: [1, 2, 1, 1], width: 4 };
    let bert = BertConfig {
        vocab_size: 99,
        hidden_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 48,
        max_position_embeddings: 16,
        pool: BertPool::Mean,
        ..BertConfig::bert_base()
    };
    [
        ClipConfig { regions: regions(2), ..ClipConfig::new(24, VisionConfig::Vit(vit()), text()) },
        ClipConfig { regions: regions(1), ..ClipConfig::new(24, VisionConfig::Resnet(resnet), text()) },
        ClipConfig::new(24, VisionConfig::Resnet50(resnet50), TextConfig::Bert(bert)),
    ]
}

fn build(config: &ClipConfig) -> (VarStore, Clip) {
    let vs = VarStore::new(device());
    let model = seeded(7, || Clip::new(&vs.root(), config)).unwrap();
    let random = Generator::new(8);
    // A fresh ResNet's blocks are their shortcuts, and a fresh norm hides what it is computed from.
    for (name, tensor) in named_tensors(&vs).into_iter().filter(|(name, t)| t.requires_grad() && name != "logit_scale") {
        if name.contains("bn") || name.contains("ln_") {
            let noise = random.normal(tensor.size()).unwrap().to_device(device()) * 0.3;
            no_grad(|| drop(tensor.shallow_clone().f_add_(&noise).unwrap()));
        }
    }
    (vs, model)
}

fn images(n: i64) -> Tensor {
    let size = [n, 3, SIDE, SIDE];
    (Tensor::arange(size.iter().product::<i64>(), (Kind::Float, device())) * 0.37).sin().view(size)
}

fn captions() -> Tensor {
    Tensor::from_slice(&[97i64, 5, 6, 98, 0, 0, 97, 1, 2, 3, 4, 98, 97, 9, 8, 7, 98, 0, 97, 3, 98, 0, 0, 0])
        .view([4, 6])
        .to_device(device())
}

/// What every tower and branch makes of its input.
fn encode(model: &Clip, config: &ClipConfig, mode: Mode) -> Vec<Tensor> {
    let mut outputs = vec![model.encode_image(&images(4), mode).unwrap(), model.encode_text(&captions()).unwrap()];
    if config.regions.is_some() {
        let features = images(4).narrow(3, 0, 6).narrow(2, 0, 3).narrow(1, 0, 1).squeeze_dim(1);
        let mask = [true, true, false, true, false, false, true, true, true, true, true, false];
        let mask = Tensor::from_slice(&mask).view([4, 3]).to_device(device());
        outputs.push(model.encode_regions(&Regions::new(features, mask).unwrap()).unwrap());
    }
    outputs
}

/// Outputs, gradients and buffers of a step in `mode`; an output's weight in it is a wave.
fn step(config: &ClipConfig, recompute: bool, mode: Mode, precision: Precision) -> BTreeMap<String, Tensor> {
    let (vs, model) = build(config);
    let model = model.with_recompute(recompute);
    let outputs = {
        let _autocast = Autocast::enter(device(), precision).unwrap();
        encode(&model, config, mode)
    };
    let weight = |x: &Tensor| (x.ones_like().to_kind(Kind::Float).cumsum(1, Kind::Float)).sin();
    let loss = outputs.iter().map(|x| (x.to_kind(Kind::Float) * weight(x)).sum(Kind::Float)).reduce(|a, b| a + b).unwrap();
    loss.backward();
    let outputs = outputs.into_iter().enumerate().map(|(i, x)| (format!("output {i}"), x.detach().to_kind(Kind::Float)));
    let state = named_tensors(&vs).into_iter().filter_map(|(name, t)| match t.requires_grad() {
        true => t.grad().defined().then(|| (format!("gradient of {name}"), t.grad().copy())),
        false => Some((name, t.copy())),
    });
    outputs.chain(state).collect()
}

#[test]
fn recomputed_blocks_change_no_output_no_gradient_and_no_statistics() {
    // GPUs add up gradients in an order of the moment.
    let tolerance = if device() == Device::Cpu { 2e-6 } else { 1e-4 };
    for config in towers() {
        for mode in [Mode::Train, Mode::TrainKeepStatistics, Mode::TrainFrozenNorm, Mode::Eval] {
            let plain = step(&config, false, mode, Precision::Fp32);
            let again = step(&config, true, mode, Precision::Fp32);
            assert_eq!(plain.keys().collect::<Vec<_>>(), again.keys().collect::<Vec<_>>());
            for (name, value) in &plain {
                let off = (value - &again[name]).abs().max().double_value(&[]);
                let size = value.abs().max().double_value(&[]);
                assert!(off <= tolerance * size.max(1.0), "{mode:?} {name}: {off} of {size}");
            }
        }
    }
}

/// One bias of each block and ResNet's stem. No gradient depends on its value: only the block that is computed
/// again needs it.
fn biases(vs: &VarStore) -> Vec<(String, Tensor)> {
    let one = ["mlp.c_proj.bias", "intermediate.dense.bias", "bn3.bias", "trunk.bn1.bias"];
    named_tensors(vs).into_iter().filter(|(name, _)| one.iter().any(|end| name.ends_with(end))).collect()
}

/// Blocks that are computed again: those for which backward misses the bias that was changed since.
fn recomputed(config: &ClipConfig, recompute: bool) -> Vec<String> {
    let (vs, model) = build(config);
    let model = model.with_recompute(recompute);
    let refused = |bias: &Tensor| {
        let outputs = encode(&model, config, Mode::Train);
        no_grad(|| drop(bias.shallow_clone().f_add_scalar_(0.0).unwrap()));
        let loss = outputs.iter().map(|x| x.sum(Kind::Float)).reduce(|a, b| a + b).unwrap();
        loss.f_backward().is_err_and(|e| e.to_string().contains("modified by an inplace operation"))
    };
    biases(&vs).into_iter().filter(|(_, bias)| refused(bias)).map(|(name, _)| name).collect()
}

#[test]
fn every_block_is_recomputed_on_request() {
    for (config, blocks) in towers().iter().zip([3 + 2, 1 + 5 + 2, 1 + 5 + 2]) {
        let all: Vec<String> = biases(&build(config).0).into_iter().map(|(name, _)| name).collect();
        assert_eq!(all.len(), blocks, "{all:?}");
        assert_eq!((recomputed(config, true), recomputed(config, false)), (all, vec![]));
    }
}

#[test]
fn recomputed_blocks_change_little_in_bf16() {
    for config in towers() {
        let plain = step(&config, false, Mode::Train, Precision::Bf16);
        let again = step(&config, true, Mode::Train, Precision::Bf16);
        let exact = step(&config, false, Mode::Train, Precision::Fp32);
        for (name, value) in &plain {
            let off = |other: &Tensor| (value - other).norm().double_value(&[]);
            // No more than what bf16 itself is off by.
            let rounding = off(&exact[name]);
            assert!(off(&again[name]) <= rounding + 1e-6, "{name}: {} beside {rounding}", off(&again[name]));
        }
    }
}

#[test]
fn recomputed_blocks_keep_running_statistics_once() {
    let config = &towers()[1];
    let mean = |mode| step(config, true, mode, Precision::Fp32)["visual.layer1.0.bn1.running_mean"].copy();
    let (once, kept) = (mean(Mode::Train), mean(Mode::TrainKeepStatistics));
    assert_eq!(kept.abs().max().double_value(&[]), 0.0);
    assert!(once.abs().max().double_value(&[]) > 0.0);
    // Without a graph there is no second pass that could.
    let (vs, model) = build(config);
    let model = model.with_recompute(true);
    no_grad(|| drop(model.encode_image(&images(4), Mode::Train).unwrap()));
    let named: BTreeMap<String, Tensor> = named_tensors(&vs).into_iter().collect();
    assert!(named["visual.layer1.0.bn1.running_mean"].allclose(&once, 1e-5, 1e-6, false));
}
