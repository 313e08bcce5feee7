//! Patch dropout of the vision Transformer.
//!
//! It draws from libtorch's default generators, which belong to the process, and the test harness runs tests on several threads. So
//! this file has one test only: no other thread of its process draws meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![expect(clippy::disallowed_methods, reason = "the only test of this process")]

use softclip_encoders::{Clip, ClipConfig, ClipTextConfig, Mode, TextConfig, VisionConfig, VitConfig, seeded};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

const SIDE: i64 = 64;

/// Where models run: `SOFTCLIP_TEST_DEVICE` (cuda, say), or the CPU.
fn device() -> Device {
    softclip_torch::parse_device(&std::env::var("SOFTCLIP_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned())).unwrap()
}

fn build(config: &ClipConfig) -> (VarStore, Clip) {
    let vs = VarStore::new(device());
    let model = seeded(7, || Clip::new(&vs.root(), config)).unwrap();
    (vs, model)
}

fn images(n: i64) -> Tensor {
    let size = [n, 3, SIDE, SIDE];
    (Tensor::arange(size.iter().product::<i64>(), (Kind::Float, device())) * 0.37).sin().view(size)
}

#[test]
fn patch_dropout() {
    patches_are_dropped_in_training_only();
    gradients_flow_through_the_patches_that_stay();
    patch_dropout_is_read_and_written_as_open_clip_does();
}

fn dropping(share: f64) -> ClipConfig {
    let text = ClipTextConfig { context_length: 16, vocab_size: 99, heads: 4, layers: 2, ..ClipTextConfig::clip(32) };
    let vision = VitConfig { patch_dropout: share, ..VitConfig::clip(SIDE, 16, 32, 3, 4) };
    ClipConfig::new(24, VisionConfig::Vit(vision), TextConfig::Clip(text))
}

/// Tokens that the blocks see.
fn tokens(model: &Clip, mode: Mode) -> i64 {
    let mut seen = 0;
    let mut trace = |name: &str, x: &Tensor| {
        if name == "visual.ln_pre" {
            seen = x.size()[1];
        }
    };
    let _ = model.encode_image_with(&images(2), mode, &mut trace).unwrap();
    seen
}

fn patches_are_dropped_in_training_only() {
    let (_plain_vs, plain) = build(&dropping(0.0));
    let (_vs, model) = build(&dropping(0.75));
    for mode in [Mode::Eval, Mode::TrainFrozenNorm] {
        assert_eq!(tokens(&model, mode), 17);
        assert_eq!(model.encode_image(&images(2), mode).unwrap(), plain.encode_image(&images(2), mode).unwrap());
    }
    for mode in [Mode::Train, Mode::TrainKeepStatistics] {
        assert_eq!((tokens(&model, mode), tokens(&plain, mode)), (5, 17));
    }
    // Another choice each time, the same from the same seed.
    let draw = || model.encode_image(&images(2), Mode::Train).unwrap();
    tch::manual_seed(3);
    let (first, second) = (draw(), draw());
    tch::manual_seed(3);
    assert!(first != second && draw() == first);
    assert!(ClipConfig::vit_b_32().with_patch_dropout(1.0).unwrap().validate().unwrap_err().to_string().contains("[0, 1)"));
    assert!(ClipConfig::rn50().with_patch_dropout(0.5).is_err() && ClipConfig::rn50().with_patch_dropout(0.0).is_ok());
}

fn gradients_flow_through_the_patches_that_stay() {
    for recompute in [false, true] {
        let (_vs, model) = build(&dropping(0.5));
        let model = model.with_recompute(recompute);
        let images = images(3).set_requires_grad(true);
        let features = model.encode_image(&images, Mode::Train).unwrap();
        (features.cumsum(1, Kind::Float)).sum(Kind::Float).backward();
        let grid = SIDE / 16;
        // [N, 3, rows, 16, columns, 16] → one number a patch.
        let reached = images.grad().view([3, 3, grid, 16, grid, 16]).abs().amax([1i64, 3, 5].as_slice(), false).gt(0.0);
        let reached = reached.view([3, grid * grid]).to_kind(Kind::Int64);
        let counts = Vec::<i64>::try_from(reached.sum_dim_intlist([1i64].as_slice(), false, Kind::Int64)).unwrap();
        assert_eq!(counts, [8, 8, 8]);
        assert!(reached.get(0) != reached.get(1) || reached.get(1) != reached.get(2), "every image keeps the same patches");
    }
}

fn patch_dropout_is_read_and_written_as_open_clip_does() {
    let config = dropping(0.5);
    let json = config.to_open_clip_json().unwrap().to_string();
    assert_eq!(ClipConfig::from_open_clip_json(&json).unwrap().patch_dropout(), 0.5);
    assert!(!dropping(0.0).to_open_clip_json().unwrap().to_string().contains("patch_dropout"));
}
