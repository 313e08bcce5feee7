//! What the encoders promise beyond agreeing with their originals.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use softclip_encoders::{
    Aggregate, Attention, Clip, ClipConfig, ClipTextConfig, Mode, RegionConfig, ResNetConfig, TextConfig, TextPool, VisionConfig,
    VitConfig, load_weights, named_tensors, seeded, to_channels_last,
};
use softclip_tensor::Regions;
use softclip_torch::Generator;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor, no_grad};

fn text(pool: TextPool) -> TextConfig {
    let config = ClipTextConfig { context_length: 16, vocab_size: 99, heads: 4, layers: 2, pool, ..ClipTextConfig::clip(32) };
    TextConfig::Clip(config)
}

fn vit(regions: Option<RegionConfig>, pool: TextPool) -> ClipConfig {
    let vision = VisionConfig::Vit(VitConfig::clip(32, 8, 32, 3, 4));
    ClipConfig { regions, ..ClipConfig::new(24, vision, text(pool)) }
}

fn resnet(regions: Option<RegionConfig>) -> ClipConfig {
    let vision = ResNetConfig { image_size: 64, layers: [1, 1, 1, 1], width: 4, heads: 4 };
    ClipConfig { regions, ..ClipConfig::new(24, VisionConfig::Resnet(vision), text(TextPool::Eot)) }
}

fn build(config: &ClipConfig) -> (VarStore, Clip) {
    let vs = VarStore::new(Device::Cpu);
    let model = seeded(7, || Clip::new(&vs.root(), config)).unwrap();
    (vs, model)
}

fn largest(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

/// Three captions of 4, 7 and 5 tokens in rows of `width`.
fn captions(width: i64) -> Tensor {
    let rows: [&[i64]; 3] = [&[97, 5, 6, 98], &[97, 1, 2, 3, 4, 5, 98], &[97, 9, 8, 7, 98]];
    let mut all = Vec::new();
    for row in rows {
        all.extend_from_slice(row);
        all.extend(std::iter::repeat_n(0, width as usize - row.len()));
    }
    Tensor::from_slice(&all).view([3, width])
}

#[test]
fn trimmed_captions_give_the_untrimmed_features_and_gradients() {
    for pool in [TextPool::Eot, TextPool::Max] {
        let (vs, model) = build(&vit(None, pool));
        let run = |width: i64| {
            for (_, t) in vs.variables() {
                let mut g = t.grad();
                if g.defined() {
                    let _ = g.zero_();
                }
            }
            let features = model.encode_text(&captions(width)).unwrap();
            (&features * &features).sum(Kind::Float).backward();
            let grads: BTreeMap<String, Tensor> =
                named_tensors(&vs).into_iter().filter(|(_, t)| t.grad().defined()).map(|(n, t)| (n, t.grad().copy())).collect();
            (features.detach(), grads)
        };
        let ((long, long_grads), (short, short_grads)) = (run(16), run(7));
        assert!(largest(&long, &short) < 1e-5, "{pool:?}");
        assert!(long_grads.len() > 20);
        for (name, g) in &long_grads {
            let error = largest(g, &short_grads[name]) / g.abs().max().double_value(&[]).max(1e-6);
            assert!(error < 1e-5, "{pool:?} {name}: {error}");
        }
    }
}

#[test]
fn fused_and_written_out_attention_agree() {
    let mask = Tensor::from_slice(&[true, true, true, true, false, false]).view([2, 3]);
    let random = Generator::new(1);
    let regions = Regions::new(random.normal([2, 3, 12]).unwrap(), mask).unwrap();
    let images = random.normal([2, 3, 32, 32]).unwrap();
    let (_vs, mut model) = build(&vit(Some(RegionConfig { dim: 12, ..RegionConfig::default() }), TextPool::Eot));
    let mut outputs = Vec::new();
    for attention in [Attention::Sdpa, Attention::Explicit] {
        model = model.with_attention(attention);
        outputs.push(no_grad(|| {
            [
                model.encode_image(&images, Mode::Eval).unwrap(),
                model.encode_text(&captions(8)).unwrap(),
                model.encode_regions(&regions).unwrap(),
            ]
        }));
    }
    for (a, b) in outputs[0].iter().zip(&outputs[1]) {
        assert!(largest(a, b) < 1e-5);
    }
}

fn some_regions(dim: i64) -> Regions {
    let mask = Tensor::from_slice(&[true, true, true, true, true, false, false, false, false]).view([3, 3]);
    Regions::new(Generator::new(3).normal([3, 3, dim]).unwrap(), mask).unwrap()
}

#[test]
fn regions_pass_through_the_shared_rear_part_and_train_it() {
    let config = RegionConfig { dim: 12, blocks: 2, ..RegionConfig::default() };
    for (config, shared, idle) in [
        (vit(Some(config.clone()), TextPool::Eot), "visual.transformer.resblocks.2.attn.in_proj_weight", "visual.conv1.weight"),
        (resnet(Some(config)), "visual.attnpool.k_proj.weight", "visual.layer4.0.conv1.weight"),
    ] {
        let (vs, model) = build(&config);
        let out = model.encode_regions(&some_regions(12)).unwrap();
        assert_eq!(out.size(), [3, 24]);
        (&out * &out).sum(Kind::Float).backward();
        let variables = vs.variables();
        for name in ["regions.proj.weight", shared] {
            assert!(variables[name].grad().abs().max().double_value(&[]) > 0.0, "{name}");
        }
        assert!(!variables[idle].grad().defined(), "{idle}");
    }
}

#[test]
fn absent_regions_change_nothing_and_none_at_all_is_finite() {
    let branch = |aggregate| Some(RegionConfig { dim: 12, aggregate, blocks: 2 });
    for aggregate in [Aggregate::Mhsa, Aggregate::Mean, Aggregate::Max, Aggregate::Min] {
        for config in [vit(branch(aggregate), TextPool::Eot), resnet(branch(aggregate))] {
            let (_vs, model) = build(&config);
            let regions = some_regions(12);
            no_grad(|| {
                let out = model.encode_regions(&regions).unwrap();
                assert!(out.isfinite().all().int64_value(&[]) == 1, "{aggregate:?}");
                let noise = Regions::new(
                    regions.features.where_self(&regions.mask.unsqueeze(-1), &Tensor::from(100f32)),
                    regions.mask.shallow_clone(),
                )
                .unwrap();
                assert!(largest(&out, &model.encode_regions(&noise).unwrap()) < 1e-5, "{aggregate:?}");
                let reversed = Regions::new(regions.features.flip([1]), regions.mask.flip([1])).unwrap();
                assert!(largest(&out, &model.encode_regions(&reversed).unwrap()) < 1e-5, "{aggregate:?}: order matters");
            });
        }
    }
}

#[test]
fn raw_aggregates_are_the_plain_mean_maximum_and_minimum() {
    let features = Tensor::from_slice(&[1f32, -2.0, 3.0, 4.0, 9.0, 9.0]).view([1, 3, 2]);
    let mask = Tensor::from_slice(&[true, true, false]).view([1, 3]);
    let regions = Regions::new(features, mask).unwrap();
    for (aggregate, expected) in [(Aggregate::Mean, [2.0f32, 1.0]), (Aggregate::Max, [3.0, 4.0]), (Aggregate::Min, [1.0, -2.0])] {
        let (_vs, model) = build(&vit(Some(RegionConfig { dim: 2, aggregate, blocks: 1 }), TextPool::Eot));
        let out = model.encode_regions(&regions).unwrap();
        assert_eq!(Vec::<f32>::try_from(out.view([2])).unwrap(), expected, "{aggregate:?}");
    }
}

#[test]
fn keeping_statistics_gives_trainings_features_and_leaves_the_buffers() {
    let (vs, model) = build(&resnet(None));
    let images = Generator::new(4).normal([4, 3, 64, 64]).unwrap();
    let buffer = || vs.variables()["visual.bn1.running_mean"].copy();
    let before = buffer();
    let kept = no_grad(|| model.encode_image(&images, Mode::TrainKeepStatistics).unwrap());
    assert_eq!(buffer(), before);
    let trained = no_grad(|| model.encode_image(&images, Mode::Train).unwrap());
    assert_eq!(kept, trained);
    assert_ne!(buffer(), before);
}

#[test]
fn channels_last_weights_give_the_same_features() {
    let (vs, model) = build(&resnet(None));
    let images = Generator::new(5).normal([2, 3, 64, 64]).unwrap();
    let plain = no_grad(|| model.encode_image(&images, Mode::Eval).unwrap());
    to_channels_last(&vs).unwrap();
    let weight = &vs.variables()["visual.conv1.weight"];
    assert!(weight.requires_grad() && weight.is_leaf());
    assert_eq!(weight.stride()[1], 1);
    let moved = no_grad(|| model.encode_image(&images, Mode::Eval).unwrap());
    assert!(largest(&plain, &moved) < 1e-5);
}

#[test]
fn weights_that_do_not_fit_are_refused_by_name_and_change_nothing() {
    let (vs, _model) = build(&vit(None, TextPool::Eot));
    let mut weights: BTreeMap<String, Tensor> = named_tensors(&vs).into_iter().map(|(n, t)| (n, t.detach() + 1.0)).collect();
    let before = vs.variables()["ln_final.weight"].copy();
    let gone = weights.remove("visual.proj").unwrap();
    assert!(load_weights(&vs, &weights, true).unwrap_err().to_string().contains("visual.proj"));
    weights.insert("visual.proj".into(), gone.tr());
    assert!(load_weights(&vs, &weights, true).unwrap_err().to_string().contains("visual.proj"));
    assert_eq!(vs.variables()["ln_final.weight"], before);
    weights.insert("visual.proj".into(), gone);
    weights.insert("visual.bn1.num_batches_tracked".into(), Tensor::from(3i64));
    let prefixed = weights.into_iter().map(|(n, t)| (format!("module.{n}"), t.to_kind(Kind::Half))).collect();
    load_weights(&vs, &prefixed, true).unwrap();
    assert_ne!(vs.variables()["ln_final.weight"], before);
}

#[test]
fn inputs_of_the_wrong_size_are_errors() {
    let (_vs, model) = build(&vit(None, TextPool::Eot));
    let images = Tensor::zeros([1, 3, 16, 16], (Kind::Float, Device::Cpu));
    assert!(model.encode_image(&images, Mode::Eval).unwrap_err().to_string().contains("32"));
    assert!(model.encode_text(&Tensor::zeros([1, 17], (Kind::Int64, Device::Cpu))).unwrap_err().to_string().contains("16"));
    assert!(model.encode_regions(&some_regions(12)).unwrap_err().to_string().contains("region branch"));
    let (_vs, model) = build(&vit(Some(RegionConfig { dim: 8, ..RegionConfig::default() }), TextPool::Eot));
    assert!(model.encode_regions(&some_regions(12)).unwrap_err().to_string().contains("[N, R, 8]"));
}

#[test]
fn the_presets_have_the_published_numbers_of_parameters() {
    for (name, expected) in [("rn50", 102_007_137i64), ("vit_b_32", 151_277_313)] {
        let (vs, _model) = build(&ClipConfig::preset(name).unwrap());
        let count: i64 = vs.trainable_variables().iter().map(|t| t.numel() as i64).sum();
        assert_eq!(count, expected, "{name}");
    }
}
