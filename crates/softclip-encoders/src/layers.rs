//! Layers with PyTorch's names, defaults and initialisation.

use serde::{Deserialize, Serialize};
use softclip_torch::{Pass, linear};
use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

use crate::parameter::{buffer, parameter};
use crate::recompute::{Share, handle};

/// Whether encoders run as in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Batch norm uses its running statistics.
    #[default]
    Eval,
    /// Batch norm uses the batch's statistics and updates the running ones; patches are dropped where the model says so.
    Train,
    /// Batch norm uses the batch's statistics and leaves the running ones alone: for the first of gradient caching's two passes. All
    /// else is [`Mode::Train`]'s.
    TrainKeepStatistics,
    /// Batch norm is frozen: its running statistics are used and kept, and its gain and bias get no gradient. Values are
    /// [`Mode::Eval`]'s; everything but batch norm trains (torchvision's `FrozenBatchNorm2d`).
    TrainFrozenNorm,
}

impl Mode {
    /// Whether values are those of training: by the batch's statistics, of some patches.
    pub(crate) fn is_train(self) -> bool {
        matches!(self, Mode::Train | Mode::TrainKeepStatistics)
    }

    /// The same where what is counted once has been counted by the first pass.
    pub(crate) fn of_pass(self, pass: Pass) -> Self {
        match (self, pass) {
            (Mode::Train, Pass::Again) => Mode::TrainKeepStatistics,
            (mode, _) => mode,
        }
    }
}

pub(crate) const EPS: f64 = 1e-5;

#[derive(Debug)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// PyTorch's default: U(±1/√in) for weight and bias.
    pub fn new(p: &Path, input: i64, output: i64, bias: bool) -> Self {
        let bound = (input as f64).powf(-0.5);
        let init = Init::Uniform { lo: -bound, up: bound };
        Linear {
            weight: parameter(p, "weight", &[output, input], init),
            bias: bias.then(|| parameter(p, "bias", &[output], init)),
        }
    }

    /// Normal weights, and a bias of zeros or by PyTorch's default.
    pub fn normal(p: &Path, input: i64, output: i64, std: f64, zero_bias: bool) -> Self {
        let bound = (input as f64).powf(-0.5);
        let bias = if zero_bias { Init::Const(0.0) } else { Init::Uniform { lo: -bound, up: bound } };
        Linear {
            weight: parameter(p, "weight", &[output, input], Init::Randn { mean: 0.0, stdev: std }),
            bias: Some(parameter(p, "bias", &[output], bias)),
        }
    }

    /// Normal weights without a bias: a projection into the joint space.
    pub fn without_bias(p: &Path, input: i64, output: i64, std: f64) -> Self {
        Linear { weight: parameter(p, "weight", &[output, input], Init::Randn { mean: 0.0, stdev: std }), bias: None }
    }

    /// U(±bound) weights and a bias of zeros, as `nn.MultiheadAttention` starts its output projection.
    pub fn uniform_zero_bias(p: &Path, input: i64, output: i64, bound: f64) -> Self {
        Linear {
            weight: parameter(p, "weight", &[output, input], Init::Uniform { lo: -bound, up: bound }),
            bias: Some(parameter(p, "bias", &[output], Init::Const(0.0))),
        }
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        linear(x, &self.weight, self.bias.as_ref())
    }
}

impl Share for Linear {
    fn share(&self, learned: &mut Vec<Tensor>) -> Self {
        Linear { weight: handle(&self.weight, learned), bias: self.bias.as_ref().map(|b| handle(b, learned)) }
    }
}

#[derive(Debug)]
pub(crate) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    width: i64,
    eps: f64,
}

impl LayerNorm {
    pub fn new(p: &Path, width: i64) -> Self {
        Self::with_eps(p, width, EPS)
    }

    pub fn with_eps(p: &Path, width: i64, eps: f64) -> Self {
        LayerNorm {
            weight: parameter(p, "weight", &[width], Init::Const(1.0)),
            bias: parameter(p, "bias", &[width], Init::Const(0.0)),
            width,
            eps,
        }
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm([self.width], Some(&self.weight), Some(&self.bias), self.eps, true)
    }
}

impl Share for LayerNorm {
    fn share(&self, learned: &mut Vec<Tensor>) -> Self {
        LayerNorm { weight: handle(&self.weight, learned), bias: handle(&self.bias, learned), ..*self }
    }
}

/// A convolution without bias.
#[derive(Debug)]
pub(crate) struct Conv {
    weight: Tensor,
    stride: i64,
    padding: i64,
}

impl Conv {
    pub fn new(p: &Path, input: i64, output: i64, kernel: i64, stride: i64, padding: i64) -> Self {
        // Kaiming's uniform with a = √5, as PyTorch has it.
        let bound = ((input * kernel * kernel) as f64).powf(-0.5);
        let weight = parameter(p, "weight", &[output, input, kernel, kernel], Init::Uniform { lo: -bound, up: bound });
        Conv { weight, stride, padding }
    }

    /// torchvision's: drawn by Kaiming's normal over the outputs, padded to keep the size at stride 1.
    pub fn normal(p: &Path, input: i64, output: i64, kernel: i64, stride: i64) -> Self {
        let stdev = (2.0 / (output * kernel * kernel) as f64).sqrt();
        let weight = parameter(p, "weight", &[output, input, kernel, kernel], Init::Randn { mean: 0.0, stdev });
        Conv { weight, stride, padding: kernel / 2 }
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.conv2d(&self.weight, None::<&Tensor>, [self.stride; 2], [self.padding; 2], [1; 2], 1)
    }
}

impl Share for Conv {
    fn share(&self, learned: &mut Vec<Tensor>) -> Self {
        Conv { weight: handle(&self.weight, learned), ..*self }
    }
}

/// Square patches side by side and a linear layer: a convolution as wide as its stride, which libtorch computes faster so.
#[derive(Debug)]
pub(crate) struct Patches {
    weight: Tensor,
    bias: Option<Tensor>,
    size: i64,
}

impl Patches {
    pub fn new(p: &Path, width: i64, size: i64, bias: bool) -> Self {
        let bound = ((3 * size * size) as f64).powf(-0.5);
        Patches {
            weight: parameter(p, "weight", &[width, 3, size, size], Init::Uniform { lo: -bound, up: bound }),
            bias: bias.then(|| parameter(p, "bias", &[width], Init::Const(0.0))),
            size,
        }
    }

    /// [N, 3, H, W] → [N, grid², width].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let (size, p) = (x.size(), self.size);
        let (rows, columns) = (size[2] / p, size[3] / p);
        let x = x.reshape([size[0], 3, rows, p, columns, p]).permute([0, 2, 4, 1, 3, 5]);
        linear(&x.reshape([size[0], rows * columns, 3 * p * p]), &self.weight.reshape([-1, 3 * p * p]), self.bias.as_ref())
    }
}

#[derive(Debug)]
pub(crate) struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
}

impl BatchNorm {
    pub fn new(p: &Path, width: i64, gain: f64) -> Self {
        BatchNorm {
            weight: parameter(p, "weight", &[width], Init::Const(gain)),
            bias: parameter(p, "bias", &[width], Init::Const(0.0)),
            running_mean: buffer(p, "running_mean", &[width], 0.0),
            running_var: buffer(p, "running_var", &[width], 1.0),
        }
    }

    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let keep = mode != Mode::TrainKeepStatistics;
        let statistics = |t| if keep { Some(t) } else { None::<&Tensor> };
        let affine = |t: &Tensor| if mode == Mode::TrainFrozenNorm { t.detach() } else { t.shallow_clone() };
        x.batch_norm(
            Some(&affine(&self.weight)),
            Some(&affine(&self.bias)),
            statistics(&self.running_mean),
            statistics(&self.running_var),
            mode.is_train(),
            0.1,
            EPS,
            true,
        )
    }
}

impl Share for BatchNorm {
    fn share(&self, learned: &mut Vec<Tensor>) -> Self {
        BatchNorm {
            weight: handle(&self.weight, learned),
            bias: handle(&self.bias, learned),
            running_mean: handle(&self.running_mean, learned),
            running_var: handle(&self.running_var, learned),
        }
    }
}

/// The activation inside an MLP, by Hugging Face's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x·Φ(x).
    #[default]
    Gelu,
    /// x·σ(1.702x): OpenAI's approximation.
    QuickGelu,
    /// GELU with Φ by tanh: Google's approximation.
    #[serde(alias = "gelu_pytorch_tanh")]
    GeluNew,
    /// max(x, 0).
    Relu,
}

impl Activation {
    pub(crate) fn of(quick_gelu: bool) -> Self {
        if quick_gelu { Activation::QuickGelu } else { Activation::Gelu }
    }

    /// In place where nothing has to be kept for a gradient.
    pub(crate) fn forward(self, mut x: Tensor) -> Tensor {
        if x.requires_grad() {
            return match self {
                Activation::Gelu => x.gelu("none"),
                Activation::QuickGelu => &x * (&x * 1.702).sigmoid(),
                Activation::GeluNew => x.gelu("tanh"),
                Activation::Relu => x.relu(),
            };
        }
        match self {
            Activation::Gelu => x.gelu_("none"),
            // x·σ(1.702x) = silu(1.702x)/1.702: one kernel instead of two.
            Activation::QuickGelu => {
                x *= 1.702;
                x = x.silu_();
                x *= 1.0 / 1.702;
                x
            }
            Activation::GeluNew => x.gelu_("tanh"),
            Activation::Relu => x.relu_(),
        }
    }
}

/// The row of each text in `x` [N, L, W] at position `index` `[N]` → [N, W].
pub(crate) fn take_position(x: &Tensor, index: &Tensor) -> Tensor {
    let n = x.size()[0];
    let rows = Tensor::arange(n, (Kind::Int64, x.device()));
    x.index(&[Some(rows), Some(index.shallow_clone())])
}

/// The mean of what is real in `x` [N, L, W] by a mask [N, L] → [N, 1, W]; zeros where nothing is.
pub(crate) fn masked_mean(x: &Tensor, mask: &Tensor) -> Tensor {
    let weights = mask.unsqueeze(-1).to_kind(x.kind()); // [N, L, 1]
    let count = weights.sum_dim_intlist([1i64].as_slice(), true, x.kind()).clamp_min(1.0);
    (x * weights).sum_dim_intlist([1i64].as_slice(), true, x.kind()) / count
}

/// A ResNet's four stages below `layer1` to `layer4`, and the channels behind them. `block(path, input, planes, stride)` makes a
/// block of `planes · expansion` channels; every stage but the first begins with stride 2.
pub(crate) fn stages<B>(
    p: &Path,
    layers: [i64; 4],
    width: i64,
    expansion: i64,
    block: impl Fn(&Path, i64, i64, i64) -> B,
) -> (Vec<Vec<B>>, i64) {
    let mut input = width;
    let mut stages = Vec::new();
    for (i, count) in layers.into_iter().enumerate() {
        let planes = width << i;
        let p = p / format!("layer{}", i + 1);
        let mut blocks = Vec::new();
        for j in 0..count {
            let stride = if i > 0 && j == 0 { 2 } else { 1 };
            blocks.push(block(&(&p / j), input, planes, stride));
            input = planes * expansion;
        }
        stages.push(blocks);
    }
    (stages, input)
}
