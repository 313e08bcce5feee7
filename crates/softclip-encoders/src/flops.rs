//! How much a model computes, counted from its configuration.

use crate::config::{ClipConfig, ResNetConfig, TextConfig, TorchvisionConfig, VisionConfig, VitConfig};

/// Operations of one forward pass, a multiplication and an addition apart: twice the multiply-accumulates that others count. Matrix
/// products, convolutions and attention (in full under a causal mask too) are in it; norms, activations, additions and embeddings,
/// a few hundredths of that, are not. A backward pass takes twice as much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flops {
    /// Of one image, projection included.
    pub image: u64,
    /// Of one text, projection included.
    pub text: u64,
}

impl Flops {
    /// Of training on one pair: forward and backward.
    pub fn training(&self) -> u64 {
        3 * (self.image + self.text)
    }
}

impl ClipConfig {
    /// Counts a forward pass of an image and of a text of `tokens` tokens: as many as the batch's rows have, padding included. Regions
    /// are left out.
    pub fn flops(&self, tokens: i64) -> Flops {
        let image = match &self.vision {
            VisionConfig::Resnet(c) => resnet(c, self.embed_dim),
            VisionConfig::Vit(c) => vit(c, self.embed_dim),
            VisionConfig::Resnet50(c) => torchvision(c, self.embed_dim),
        };
        let head = |width: i64| width as f64 * self.embed_dim as f64;
        let text = match &self.text {
            TextConfig::Clip(c) => c.layers as f64 * block(tokens as f64, c.width, c.hidden()) + head(c.width),
            TextConfig::Bert(c) => {
                let w = c.hidden_size as f64;
                let pooler = if c.pool == crate::BertPool::Pooler { w * w } else { 0.0 };
                let blocks = c.num_hidden_layers as f64 * block(tokens as f64, c.hidden_size, c.intermediate_size);
                blocks + pooler + head(c.hidden_size)
            }
        };
        // Counted in f64, which cannot overflow and is exact up to 2^53; the cast saturates.
        let flops = |products: f64| (2.0 * products) as u64;
        Flops { image: flops(image), text: flops(text) }
    }
}

/// Multiply-accumulates of a Transformer's block: four projections, scores and their sums, two layers of the MLP.
fn block(tokens: f64, width: i64, hidden: i64) -> f64 {
    let (width, hidden) = (width as f64, hidden as f64);
    tokens * (4.0 * width * width + 2.0 * width * hidden) + 2.0 * tokens * tokens * width
}

fn vit(c: &VitConfig, embed_dim: i64) -> f64 {
    let (grid, w, side) = (c.grid() as f64, c.width as f64, c.patch_size as f64);
    let patches = grid * grid;
    let pooler = if c.pooler { w * w } else { 0.0 };
    let blocks = c.layers as f64 * block(patches + 1.0, c.width, c.hidden());
    patches * 3.0 * side * side * w + blocks + pooler + w * embed_dim as f64
}

/// Stem, stages, attention pool, which asks with one query and leaves out what is not for it.
fn resnet(c: &ResNetConfig, embed_dim: i64) -> f64 {
    let (w, half, side) = (c.width as f64, (c.width / 2) as f64, c.image_size / 2);
    let stem = side as f64 * side as f64 * 9.0 * (3.0 * half + half * half + half * w);
    // The average pool comes before the last convolution of a block that strides.
    let (stages, side, channels) = stages(c.layers, c.width, side / 2, false);
    let positions = side * side + 1.0;
    let pool = (2.0 * positions + 1.0) * channels * channels + 2.0 * positions * channels + channels * embed_dim as f64;
    stem + stages + pool
}

fn torchvision(c: &TorchvisionConfig, embed_dim: i64) -> f64 {
    let half = |side: i64| (side + 1) / 2;
    let side = half(c.image_size);
    let stem = side as f64 * side as f64 * 49.0 * 3.0 * c.width as f64;
    let (stages, _, channels) = stages(c.layers, c.width, half(side), true);
    stem + stages + channels * embed_dim as f64
}

/// Bottleneck blocks, and the side and channels behind them; `early`: the 3×3 convolution has the stride.
fn stages(layers: [i64; 4], width: i64, side: i64, early: bool) -> (f64, f64, f64) {
    let (mut sum, mut side, mut input) = (0.0, side, width as f64);
    for (i, count) in layers.into_iter().enumerate() {
        let planes = width as f64 * f64::from(1 << i);
        for j in 0..count {
            let from = side;
            if i > 0 && j == 0 {
                side = (side + 1) / 2;
            }
            let area = |side: i64| side as f64 * side as f64;
            let middle = if early { side } else { from };
            let shortcut = if j == 0 { input * 4.0 * planes } else { 0.0 };
            sum += area(from) * input * planes
                + area(middle) * 9.0 * planes * planes
                + area(side) * (planes * 4.0 * planes + shortcut);
            input = 4.0 * planes;
        }
    }
    (sum, side as f64, input)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BertPool, ClipTextConfig};

    fn giga_macs(flops: u64) -> f64 {
        flops as f64 / 2e9
    }

    /// GMACs as open_clip's profile of its models and torchvision's table tell them.
    #[test]
    fn presets_are_as_published() {
        let close = |macs: f64, published: f64| assert!((macs / published - 1.0).abs() < 0.01, "{macs} for {published}");
        for (name, image, text) in [("vit_b_32", 4.4, 2.98), ("vit_b_16", 17.6, 2.98), ("resnet50", 4.09, 2.98)] {
            let flops = ClipConfig::preset(name).unwrap().flops(77);
            close(giga_macs(flops.image), image);
            close(giga_macs(flops.text), text);
        }
        // open_clip's attention pool computes all 50 queries and their outputs, and keeps one.
        let unused = 49.0 * (2048.0 * 2048.0 + 2.0 * 50.0 * 2048.0 + 2048.0 * 1024.0) / 1e9;
        close(giga_macs(ClipConfig::rn50().flops(77).image) + unused, 6.1);
    }

    /// Layer by layer, as a reader would.
    #[test]
    fn a_small_model_is_counted_by_hand() {
        let text = TextConfig::Clip(ClipTextConfig { heads: 2, layers: 2, ..ClipTextConfig::clip(8) });
        let config = ClipConfig::new(6, VisionConfig::Vit(VitConfig::clip(16, 8, 4, 1, 2)), text);
        // Four patches of 192 numbers; qkv, out, MLP of 5 tokens; scores and sums of 5 × 5; projection.
        let image = 4 * 192 * 4 + 5 * (4 * 12 + 4 * 4 + 4 * 16 + 16 * 4) + 2 * 5 * 5 * 4 + 4 * 6;
        let text = 2 * (3 * (8 * 24 + 8 * 8 + 8 * 32 + 32 * 8) + 2 * 3 * 3 * 8) + 8 * 6;
        let flops = config.flops(3);
        assert_eq!(flops, Flops { image: 2 * image, text: 2 * text });
        assert_eq!(flops.training(), 6 * (image + text));
        assert!(config.flops(4).text > flops.text && config.flops(4).image == flops.image);
    }

    #[test]
    fn berts_pooler_counts_where_it_is_used() {
        let bert = |pool| {
            let text = crate::BertConfig { pool, ..crate::BertConfig::bert_base() };
            ClipConfig { text: TextConfig::Bert(text), ..ClipConfig::resnet50() }.flops(30).text
        };
        assert_eq!(bert(BertPool::Pooler) - bert(BertPool::Class), 2 * 768 * 768);
        // 12 blocks of 7.08 M weights a token.
        assert!((giga_macs(bert(BertPool::Mean)) - 30.0 * 12.0 * 7.08e-3).abs() < 0.03);
    }
}
