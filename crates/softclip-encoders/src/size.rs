//! How large a model is, counted from its configuration without building it.

use softclip_torch::available_memory;
use tch::Device;

use crate::bert::{BertConfig, BertPool};
use crate::config::{
    Aggregate, ClipConfig, ClipTextConfig, RegionConfig, ResNetConfig, TextConfig, TorchvisionConfig, VisionConfig, VitConfig,
};
use crate::error::{Error, Result};
use crate::parameter::bytes_to_allocate;
use crate::resnet50::ResNet50Config;

/// Bytes of an f32.
const F32: u64 = 4;

/// Number of values in a model's tensors. Counted in f64, which cannot overflow and is exact up to 2^53.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Count {
    /// Learned.
    parameters: f64,
    /// Not learned: the running statistics of batch norms.
    buffers: f64,
}

impl Count {
    fn parameters(parameters: f64) -> Self {
        Count { parameters, buffers: 0.0 }
    }

    fn plus(self, other: Self) -> Self {
        Count { parameters: self.parameters + other.parameters, buffers: self.buffers + other.buffers }
    }

    /// In bytes, as f32.
    fn bytes(self) -> u64 {
        // A cast from f64 saturates.
        ((self.parameters + self.buffers) as u64).saturating_mul(F32)
    }
}

impl ClipConfig {
    /// Returns the number of learned parameters that [`Clip::new`](crate::Clip::new) would create. Saturates instead of overflowing,
    /// also for a configuration that is not valid.
    pub fn parameter_count(&self) -> u64 {
        self.count().parameters as u64
    }

    /// Returns the bytes of the model's parameters and buffers in f32. A training step also needs as much for the gradients, twice as
    /// much for AdamW's moments, and activations. Saturates instead of overflowing.
    pub fn memory_bytes(&self) -> u64 {
        self.count().bytes()
    }

    fn count(&self) -> Count {
        let vision = match &self.vision {
            VisionConfig::Resnet(c) => modified_resnet(c, self.embed_dim),
            VisionConfig::Vit(c) => vit(c, self.embed_dim),
            VisionConfig::Resnet50(c) => torchvision(c, self.embed_dim),
        };
        let text = match &self.text {
            TextConfig::Clip(c) => text(c, self.embed_dim),
            TextConfig::Bert(c) => bert(c) + product(&[c.hidden_size, self.embed_dim]),
        };
        let regions = self.regions.as_ref().map_or(0.0, |r| regions(r, &self.vision));
        let logit_scale = 1.0;
        vision.plus(Count::parameters(text + regions + logit_scale))
    }
}

impl BertConfig {
    /// Returns the number of learned parameters that [`Bert::new`](crate::Bert::new) would create, saturating.
    pub fn parameter_count(&self) -> u64 {
        bert(self) as u64
    }

    /// Returns the bytes of the parameters in f32, saturating.
    pub fn memory_bytes(&self) -> u64 {
        Count::parameters(bert(self)).bytes()
    }
}

impl ResNet50Config {
    /// Returns the number of learned parameters that [`ResNet50::new`](crate::ResNet50::new) would create, saturating.
    pub fn parameter_count(&self) -> u64 {
        resnet(self).parameters as u64
    }

    /// Returns the bytes of the parameters and buffers in f32, saturating.
    pub fn memory_bytes(&self) -> u64 {
        resnet(self).bytes()
    }
}

/// Checks that `bytes`, which a model of `parameters` parameters needs, fit into the memory that is available on `device`. Passes where
/// the available memory is not known, as on a GPU: libtorch then reports an error when it runs out.
///
/// # Errors
/// [`Error::Memory`] with both figures.
pub fn check_memory(parameters: u64, bytes: u64, device: Device) -> Result<()> {
    match available_memory(device) {
        Some(available) if bytes > available => Err(Error::Memory { parameters, needed: bytes, available }),
        _ => Ok(()),
    }
}

/// As [`check_memory`] of a model that is about to be built on `device`, of a source where there is one.
pub(crate) fn check_room(parameters: u64, bytes: u64, device: Device) -> Result<()> {
    check_memory(parameters, bytes_to_allocate(bytes), device)
}

fn product(sizes: &[i64]) -> f64 {
    sizes.iter().map(|&n| n.max(0) as f64).product()
}

/// A linear layer with a bias.
fn linear(input: i64, output: i64) -> f64 {
    product(&[input, output]) + product(&[output])
}

/// A layer norm's gain and bias.
fn norm(width: i64) -> f64 {
    product(&[2, width])
}

/// Attention and MLP with a norm each.
fn blocks(layers: i64, width: i64, hidden: i64) -> f64 {
    let attention = product(&[4, width, width]) + product(&[4, width]);
    product(&[layers]) * (attention + linear(width, hidden) + linear(hidden, width) + 2.0 * norm(width))
}

fn vit(c: &VitConfig, embed_dim: i64) -> Count {
    let w = c.width;
    let grid = c.image_size.checked_div(c.patch_size).unwrap_or(0);
    let patches = product(&[w, 3, c.patch_size, c.patch_size]) + if c.patch_bias { product(&[w]) } else { 0.0 };
    let positions = (product(&[grid, grid]) + 1.0) * product(&[w]);
    let norms = norm(w) * if c.ln_pre { 2.0 } else { 1.0 };
    let pooler = if c.pooler { linear(w, w) } else { 0.0 };
    let class = product(&[w]);
    Count::parameters(patches + class + positions + norms + blocks(c.layers, w, c.hidden()) + pooler + product(&[w, embed_dim]))
}

fn text(c: &ClipTextConfig, embed_dim: i64) -> f64 {
    let tables = product(&[c.context_length, c.width]) + product(&[c.vocab_size, c.width]);
    tables + blocks(c.layers, c.width, c.hidden()) + norm(c.width) + product(&[c.width, embed_dim])
}

fn bert(c: &BertConfig) -> f64 {
    let w = c.hidden_size;
    let tables = product(&[c.vocab_size, w]) + product(&[c.max_position_embeddings, w]) + product(&[c.type_vocab_size, w]);
    let pooler = if c.pool == BertPool::Pooler { linear(w, w) } else { 0.0 };
    tables + norm(w) + blocks(c.num_hidden_layers, w, c.intermediate_size) + pooler
}

/// A convolution without a bias and its batch norm.
fn conv(input: i64, output: i64, kernel: i64) -> Count {
    Count { parameters: product(&[input, output, kernel, kernel]) + norm(output), buffers: norm(output) }
}

fn times(count: Count, n: i64) -> Count {
    let n = n.max(0) as f64;
    Count { parameters: n * count.parameters, buffers: n * count.buffers }
}

/// Four stages of bottleneck blocks over a stem of `width` channels, and the channels behind them.
fn stages(layers: [i64; 4], width: i64) -> (Count, i64) {
    let (mut sum, mut input) = (Count::default(), width);
    for (i, blocks) in layers.into_iter().enumerate() {
        let planes = width.saturating_mul(1 << i);
        let output = planes.saturating_mul(4);
        let block = |input| conv(input, planes, 1).plus(conv(planes, planes, 3)).plus(conv(planes, output, 1));
        sum = sum.plus(block(input)).plus(conv(input, output, 1)).plus(times(block(output), blocks.saturating_sub(1)));
        input = output;
    }
    (sum, input)
}

fn modified_resnet(c: &ResNetConfig, embed_dim: i64) -> Count {
    let half = c.width / 2;
    let stem = conv(3, half, 3).plus(conv(half, half, 3)).plus(conv(half, c.width, 3));
    let (stages, channels) = stages(c.layers, c.width);
    let side = c.image_size / 32;
    let positions = (product(&[side, side]) + 1.0) * product(&[channels]);
    let pool = positions + 3.0 * linear(channels, channels) + linear(channels, embed_dim);
    stem.plus(stages).plus(Count::parameters(pool))
}

fn resnet(c: &ResNet50Config) -> Count {
    let (stages, channels) = stages(c.layers, c.width);
    let classifier = c.classes.map_or(0.0, |classes| linear(channels, classes));
    conv(3, c.width, 7).plus(stages).plus(Count::parameters(classifier))
}

fn torchvision(c: &TorchvisionConfig, embed_dim: i64) -> Count {
    resnet(&c.trunk()).plus(Count::parameters(product(&[c.trunk().features(), embed_dim])))
}

/// The region branch: a projection, and with a ResNet a norm.
fn regions(c: &RegionConfig, vision: &VisionConfig) -> f64 {
    match vision {
        _ if c.aggregate != Aggregate::Mhsa => 0.0,
        VisionConfig::Vit(v) => product(&[c.dim, v.width]),
        VisionConfig::Resnet(v) => product(&[c.dim, v.width, 32]) + norm(v.width.saturating_mul(32)),
        VisionConfig::Resnet50(_) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bert, Clip, ResNet50};
    use tch::nn::VarStore;

    /// What a model that was built holds: learned values, and bytes of all.
    fn built(vs: &VarStore) -> (u64, u64) {
        let learned = vs.trainable_variables().iter().map(|t| t.numel() as u64).sum();
        (learned, vs.variables().values().map(|t| 4 * t.numel() as u64).sum())
    }

    #[test]
    fn counts_are_those_of_the_built_models() {
        let text =
            |layers| TextConfig::Clip(ClipTextConfig { layers, vocab_size: 99, mlp_ratio: 2.5, ..ClipTextConfig::clip(64) });
        let vit = VitConfig { mlp_ratio: 2.25, ..VitConfig::clip(24, 8, 64, 2, 1) };
        let original = VitConfig { ln_pre: false, patch_bias: true, pooler: true, ..vit.clone() };
        let resnet = ResNetConfig { image_size: 64, layers: [1, 2, 1, 3], width: 8, heads: 4 };
        let torchvision = TorchvisionConfig { image_size: 64, layers: [2, 1, 1, 1], width: 4 };
        let small_bert = BertConfig {
            vocab_size: 30,
            hidden_size: 16,
            num_hidden_layers: 3,
            num_attention_heads: 2,
            intermediate_size: 8,
            max_position_embeddings: 12,
            ..BertConfig::bert_base()
        };
        let branch = Some(RegionConfig { dim: 10, blocks: 1, ..RegionConfig::default() });
        let mean = Some(RegionConfig { aggregate: Aggregate::Mean, ..RegionConfig::default() });
        let class = BertConfig { pool: BertPool::Class, ..small_bert.clone() };
        for (vision, text, regions) in [
            (VisionConfig::Vit(vit), text(3), branch.clone()),
            (VisionConfig::Vit(original), TextConfig::Bert(small_bert.clone()), mean),
            (VisionConfig::Resnet(resnet), text(1), branch),
            (VisionConfig::Resnet50(torchvision), TextConfig::Bert(class), None),
        ] {
            let config = ClipConfig { regions, ..ClipConfig::new(40, vision, text) };
            let vs = VarStore::new(Device::Cpu);
            Clip::new(&vs.root(), &config).unwrap();
            assert_eq!((config.parameter_count(), config.memory_bytes()), built(&vs), "{config:?}");
        }
        let vs = VarStore::new(Device::Cpu);
        Bert::new(&vs.root(), &small_bert).unwrap();
        assert_eq!((small_bert.parameter_count(), small_bert.memory_bytes()), built(&vs));
        let config = ResNet50Config { layers: [1, 2, 1, 1], width: 4, classes: Some(10) };
        let vs = VarStore::new(Device::Cpu);
        ResNet50::new(&vs.root(), &config).unwrap();
        assert_eq!((config.parameter_count(), config.memory_bytes()), built(&vs));
    }

    #[test]
    fn published_models_have_their_published_counts() {
        assert_eq!(ClipConfig::vit_b_32().parameter_count(), 151_277_313);
        assert_eq!(ClipConfig::rn50().parameter_count(), 102_007_137);
        assert_eq!(BertConfig::bert_base().parameter_count(), 109_482_240);
        assert_eq!(ResNet50Config::imagenet().parameter_count(), 25_557_032);
    }

    #[test]
    fn impossible_sizes_saturate_and_do_not_fit() {
        let vision = VitConfig { width: i64::MAX, layers: i64::MAX, patch_size: 0, ..VitConfig::clip(224, 32, 768, 12, 12) };
        let config = ClipConfig { vision: VisionConfig::Vit(vision), ..ClipConfig::vit_b_32() };
        assert_eq!((config.parameter_count(), config.memory_bytes()), (u64::MAX, u64::MAX));
        let error = check_memory(config.parameter_count(), config.memory_bytes(), Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("needs") && error.contains("available"), "{error}");
        check_memory(1, 4, Device::Cpu).unwrap();
        let negative = ResNetConfig { image_size: i64::MIN, layers: [i64::MIN; 4], width: i64::MIN, heads: 0 };
        ClipConfig { vision: VisionConfig::Resnet(negative), ..ClipConfig::vit_b_32() }.memory_bytes();
    }
}
