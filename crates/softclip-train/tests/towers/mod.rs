//! A small network with every branch, and a batch with every set, one pair of which has no detections.
#![allow(dead_code)] // Not every file of tests uses all of it.

use softclip_encoders::{ClipConfig, ClipTextConfig, RegionConfig, TextConfig, VisionConfig, VitConfig};
use softclip_tensor::{Embeddings, Regions, Tags, TokenRows};
use softclip_train::{Category, Inputs};
use tch::{Device, Kind, Tensor};

pub const N: i64 = 10;

/// Where the batch lies and steps run: `SOFTCLIP_TEST_DEVICE` (cuda, say), or the CPU.
pub fn device() -> Device {
    softclip_torch::parse_device(&std::env::var("SOFTCLIP_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned())).unwrap()
}

pub fn config() -> ClipConfig {
    let vision = VitConfig { mlp_ratio: 2.0, ..VitConfig::clip(16, 8, 24, 3, 2) };
    let text = ClipTextConfig { context_length: 12, vocab_size: 60, heads: 2, layers: 2, ..ClipTextConfig::clip(16) };
    let regions = Some(RegionConfig { dim: 8, blocks: 1, ..RegionConfig::default() });
    ClipConfig { regions, ..ClipConfig::new(16, VisionConfig::Vit(vision), TextConfig::Clip(text)) }
}

pub fn tokens() -> TokenRows {
    let ids = (Tensor::arange(N * 6, (Kind::Int64, Device::Cpu)) * 7).fmod(58.0).view([N, 6]).to_kind(Kind::Int64);
    let mut last = ids.narrow(1, 5, 1);
    let _ = last.fill_(59);
    TokenRows { tokens: ids.to_device(device()), lengths: vec![6; N as usize] }
}

pub fn wave(shape: &[i64], speed: f64) -> Tensor {
    (Tensor::arange(shape.iter().product::<i64>(), (Kind::Float, Device::Cpu)) * speed).sin().view(shape).to_device(device())
}

pub fn inputs(double: bool) -> Inputs {
    let features = wave(&[N, 3, 8], 0.31);
    let mask = Tensor::ones([N, 3], (Kind::Bool, device()));
    let _ = mask.narrow(0, 4, 1).fill_(0); // a pair without detections
    let images = wave(&[N, 3, 16, 16], 0.017);
    let mut tags = tokens();
    tags.tokens = tags.tokens.roll([1], [0]);
    Inputs {
        images: if double { images.to_kind(Kind::Double) } else { images },
        tokens: tokens(),
        tags: Some(Tags::new(tags, Tensor::ones([N], (Kind::Bool, device()))).unwrap()),
        regions: Some(Regions::new(features, mask).unwrap()),
        category: Some(category()),
    }
}

/// As a frozen encoder gives them, f32; the fifth pair has no tags and no similarity.
pub fn category() -> Category {
    let sentences = wave(&[N, 9], 0.23) + 0.5;
    let _ = sentences.narrow(0, 4, 1).fill_(0);
    let unit = |x: &Tensor| Embeddings::normalize(x).unwrap();
    Category { captions: unit(&(wave(&[N, 9], 0.29) + &sentences)), sentences: unit(&sentences) }
}

/// The rows of a range.
pub fn rows(inputs: &Inputs, range: std::ops::Range<usize>) -> Inputs {
    let (from, n) = (range.start as i64, range.len() as i64);
    let set = |x: &Embeddings| Embeddings::normalize(&x.tensor().narrow(0, from, n)).unwrap();
    Inputs {
        images: inputs.images.narrow(0, from, n),
        tokens: inputs.tokens.narrow(from, n),
        tags: inputs.tags.as_ref().map(|t| Tags::new(t.sentences.narrow(from, n), t.present.narrow(0, from, n)).unwrap()),
        regions: inputs.regions.as_ref().map(|r| r.narrow(from, n)),
        category: inputs.category.as_ref().map(|c| Category { sentences: set(&c.sentences), captions: set(&c.captions) }),
    }
}
