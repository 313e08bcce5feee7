//! CLIP's modified ResNet.

use tch::Tensor;
use tch::nn::{Init, Path};

use crate::config::ResNetConfig;
use crate::error::Result;
use crate::layers::{BatchNorm, Conv, Linear, Mode, stages};
use crate::parameter::parameter;
use crate::recompute::{Compute, Share, recomputed};
use crate::transformer::{Attention, Mask, join_heads, split_heads};

/// 1×1, 3×3, average pool where it strides, 1×1; the shortcut pools too.
#[derive(Debug)]
struct Bottleneck {
    conv1: Conv,
    bn1: BatchNorm,
    conv2: Conv,
    bn2: BatchNorm,
    conv3: Conv,
    bn3: BatchNorm,
    stride: i64,
    downsample: Option<(Conv, BatchNorm)>,
}

const EXPANSION: i64 = 4;

impl Bottleneck {
    fn new(p: &Path, input: i64, planes: i64, stride: i64) -> Self {
        let output = planes * EXPANSION;
        let shortcut = p / "downsample";
        Bottleneck {
            conv1: Conv::new(&(p / "conv1"), input, planes, 1, 1, 0),
            bn1: BatchNorm::new(&(p / "bn1"), planes, 1.0),
            conv2: Conv::new(&(p / "conv2"), planes, planes, 3, 1, 1),
            bn2: BatchNorm::new(&(p / "bn2"), planes, 1.0),
            conv3: Conv::new(&(p / "conv3"), planes, output, 1, 1, 0),
            // A gain of 0 makes every block start as its shortcut.
            bn3: BatchNorm::new(&(p / "bn3"), output, 0.0),
            stride,
            downsample: (stride > 1 || input != output)
                .then(|| (Conv::new(&(&shortcut / 0), input, output, 1, 1, 0), BatchNorm::new(&(&shortcut / 1), output, 1.0))),
        }
    }

    fn forward(&self, x: &Tensor, mode: Mode, recompute: bool) -> Result<Tensor> {
        if !recompute {
            return Ok(self.apply(x, mode));
        }
        recomputed(self, &[x], move |block, inputs, pass| block.apply(&inputs[0], mode.of_pass(pass)))
    }

    fn apply(&self, x: &Tensor, mode: Mode) -> Tensor {
        let out = self.bn1.forward(&self.conv1.forward(x), mode).relu();
        let out = self.bn2.forward(&self.conv2.forward(&out), mode).relu();
        let out = self.bn3.forward(&self.conv3.forward(&pool(out, self.stride)), mode);
        match &self.downsample {
            None => (out + x).relu(),
            Some((conv, bn)) => (out + bn.forward(&conv.forward(&pool(x.shallow_clone(), self.stride)), mode)).relu(),
        }
    }
}

impl Share for Bottleneck {
    fn share(&self, learned: &mut Vec<Tensor>) -> Self {
        Bottleneck {
            conv1: self.conv1.share(learned),
            bn1: self.bn1.share(learned),
            conv2: self.conv2.share(learned),
            bn2: self.bn2.share(learned),
            conv3: self.conv3.share(learned),
            bn3: self.bn3.share(learned),
            stride: self.stride,
            downsample: self.downsample.share(learned),
        }
    }
}

/// Three convolutions and a pool: [N, 3, H, W] → [N, width, H/4, W/4].
#[derive(Debug)]
struct Stem([(Conv, BatchNorm); 3]);

impl Stem {
    fn forward(&self, images: &Tensor, mode: Mode, recompute: bool) -> Result<Tensor> {
        if !recompute {
            return Ok(self.apply(images, mode));
        }
        recomputed(self, &[images], move |stem, inputs, pass| stem.apply(&inputs[0], mode.of_pass(pass)))
    }

    fn apply(&self, images: &Tensor, mode: Mode) -> Tensor {
        let layer = |x: Tensor, (conv, bn): &(Conv, BatchNorm)| bn.forward(&conv.forward(&x), mode).relu();
        pool(self.0.iter().fold(images.shallow_clone(), layer), 2)
    }
}

impl Share for Stem {
    fn share(&self, learned: &mut Vec<Tensor>) -> Self {
        Stem(self.0.each_ref().map(|layer| layer.share(learned)))
    }
}

fn pool(x: Tensor, side: i64) -> Tensor {
    if side == 1 { x } else { x.avg_pool2d([side; 2], [side; 2], [0; 2], false, true, None) }
}

/// One query, the mean, attends to all positions.
#[derive(Debug)]
struct AttentionPool {
    positional_embedding: Tensor,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    c_proj: Linear,
    heads: i64,
}

impl AttentionPool {
    fn new(p: &Path, positions: i64, width: i64, heads: i64, output: i64) -> Self {
        let std = (width as f64).powf(-0.5);
        let linear = |name: &str, out: i64| Linear::normal(&(p / name), width, out, std, false);
        AttentionPool {
            positional_embedding: parameter(
                p,
                "positional_embedding",
                &[positions + 1, width],
                Init::Randn { mean: 0.0, stdev: std },
            ),
            k_proj: linear("k_proj", width),
            q_proj: linear("q_proj", width),
            v_proj: linear("v_proj", width),
            c_proj: linear("c_proj", output),
            heads,
        }
    }

    /// [N, C, H, W] → [N, D].
    fn forward(&self, x: &Tensor, attention: Attention) -> Tensor {
        let x = x.flatten(2, 3).transpose(1, 2); // [N, HW, C]
        let mean = x.mean_dim([1i64].as_slice(), true, None);
        let x = Tensor::cat(&[mean, x], 1) + &self.positional_embedding; // [N, 1 + HW, C]
        self.attend(&x, Mask::None, attention)
    }

    /// The first of `x` [N, L, C] asks, all answer → [N, D].
    fn attend(&self, x: &Tensor, mask: Mask, attention: Attention) -> Tensor {
        let heads = |x: Tensor| split_heads(&x, self.heads);
        let q = heads(self.q_proj.forward(&x.narrow(1, 0, 1)));
        let (k, v) = (heads(self.k_proj.forward(x)), heads(self.v_proj.forward(x)));
        let y = join_heads(&attention.forward(&q, &k, &v, mask)); // [N, 1, C]
        self.c_proj.forward(&y.squeeze_dim(1))
    }
}

#[derive(Debug)]
pub(crate) struct ModifiedResNet {
    stem: Stem,
    stages: Vec<Vec<Bottleneck>>,
    attnpool: AttentionPool,
    /// Channels of the last stage.
    pub width: i64,
}

impl ModifiedResNet {
    pub fn new(p: &Path, c: &ResNetConfig, embed_dim: i64) -> Self {
        let w = c.width;
        let conv = |i: usize, input, output, stride| {
            let conv = Conv::new(&(p / format!("conv{i}")), input, output, 3, stride, 1);
            (conv, BatchNorm::new(&(p / format!("bn{i}")), output, 1.0))
        };
        let stem = Stem([conv(1, 3, w / 2, 2), conv(2, w / 2, w / 2, 1), conv(3, w / 2, w, 1)]);
        let (stages, input) = stages(p, c.layers, w, EXPANSION, Bottleneck::new);
        let side = c.image_size / 32;
        let attnpool = AttentionPool::new(&(p / "attnpool"), side * side, input, c.heads, embed_dim);
        ModifiedResNet { stem, stages, attnpool, width: input }
    }

    /// [N, 3, H, W] → [N, D].
    pub fn forward(&self, images: &Tensor, mode: Mode, compute: Compute, trace: crate::Trace) -> Result<Tensor> {
        let recompute = compute.recompute && mode != Mode::Eval;
        let mut x = self.stem.forward(images, mode, recompute)?;
        trace("visual.avgpool", &x);
        for (i, stage) in self.stages.iter().enumerate() {
            x = stage.iter().try_fold(x, |x, block| block.forward(&x, mode, recompute))?;
            trace(&format!("visual.layer{}", i + 1), &x);
        }
        Ok(self.attnpool.forward(&x, compute.attention))
    }

    /// Regions [N, 1 + R, C], the query first, with a mask [N, 1 + R] → [N, D] by the attention pool's weights.
    pub fn forward_regions(&self, x: &Tensor, keys: &Tensor, attention: Attention) -> Tensor {
        self.attnpool.attend(x, Mask::Keys(keys), attention)
    }
}
