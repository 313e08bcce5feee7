//! torchvision's ResNet.

use serde::{Deserialize, Serialize};
use softclip_torch::guard;
use tch::Tensor;
use tch::nn::Path;

use crate::clip::Trace;
use crate::config::check;
use crate::error::{Error, Result};
use crate::layers::{BatchNorm, Conv, Linear, Mode, stages};
use crate::recompute::{Share, recomputed};
use crate::size::check_room;

/// torchvision's ResNet of bottleneck blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResNet50Config {
    /// Bottleneck blocks of the four stages.
    pub layers: [i64; 4],
    /// Channels after the stem; the last stage has 32 times as many.
    pub width: i64,
    /// Outputs of the classifier `fc`; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<i64>,
}

impl ResNet50Config {
    /// ResNet-50 with ImageNet's 1,000 classes: torchvision's file.
    pub fn imagenet() -> Self {
        ResNet50Config { layers: [3, 4, 6, 3], width: 64, classes: Some(1000) }
    }

    /// Channels C of the last stage, which is the width of the features.
    pub fn features(&self) -> i64 {
        self.width.saturating_mul(8 * EXPANSION)
    }

    /// Checks the sizes.
    ///
    /// # Errors
    /// The key that is not in its range.
    pub fn validate(&self) -> Result<()> {
        self.layers.iter().try_for_each(|&l| check::layers("layers", l))?;
        check::size("width", self.width)?;
        self.classes.map_or(Ok(()), |n| check::size("classes", n))
    }
}

const EXPANSION: i64 = 4;

/// 1×1, 3×3 that may stride, 1×1; the shortcut strides too.
#[derive(Debug)]
struct Bottleneck {
    conv1: Conv,
    bn1: BatchNorm,
    conv2: Conv,
    bn2: BatchNorm,
    conv3: Conv,
    bn3: BatchNorm,
    downsample: Option<(Conv, BatchNorm)>,
}

impl Bottleneck {
    fn new(p: &Path, input: i64, planes: i64, stride: i64) -> Self {
        let output = planes * EXPANSION;
        let shortcut = p / "downsample";
        Bottleneck {
            conv1: Conv::normal(&(p / "conv1"), input, planes, 1, 1),
            bn1: BatchNorm::new(&(p / "bn1"), planes, 1.0),
            conv2: Conv::normal(&(p / "conv2"), planes, planes, 3, stride),
            bn2: BatchNorm::new(&(p / "bn2"), planes, 1.0),
            conv3: Conv::normal(&(p / "conv3"), planes, output, 1, 1),
            bn3: BatchNorm::new(&(p / "bn3"), output, 1.0),
            downsample: (stride > 1 || input != output).then(|| {
                (Conv::normal(&(&shortcut / 0), input, output, 1, stride), BatchNorm::new(&(&shortcut / 1), output, 1.0))
            }),
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
        let out = self.bn3.forward(&self.conv3.forward(&out), mode);
        match &self.downsample {
            None => (out + x).relu(),
            Some((conv, bn)) => (out + bn.forward(&conv.forward(x), mode)).relu(),
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
            downsample: self.downsample.share(learned),
        }
    }
}

/// A convolution and a pool: [N, 3, H, W] → [N, width, H/4, W/4].
fn stem((conv, bn): &(Conv, BatchNorm), images: &Tensor, mode: Mode) -> Tensor {
    bn.forward(&conv.forward(images), mode).relu().max_pool2d([3; 2], [2; 2], [1; 2], [1; 2], false)
}

/// ResNet-50 (He et al. 2015) as torchvision has it, under its parameter names (`layer1.0.conv2.weight`, …): Text-based
/// SoftCLIP's image tower, and the features of regions. The stride is in the 3×3 convolution (v1.5).
///
/// ```
/// use softclip_encoders::{Mode, ResNet50, ResNet50Config};
/// use tch::{Device, Kind, Tensor, nn};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let vs = nn::VarStore::new(Device::Cpu);
/// let model = ResNet50::new(&vs.root(), &ResNet50Config { layers: [1, 1, 1, 1], width: 4, classes: Some(10) })?;
///
/// let images = Tensor::randn([2, 3, 64, 48], (Kind::Float, Device::Cpu));
/// let features = model.encode(&images, Mode::TrainFrozenNorm)?; // [2, 128]
/// assert_eq!(model.classify(&features)?.size(), [2, 10]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ResNet50 {
    config: ResNet50Config,
    stem: (Conv, BatchNorm),
    stages: Vec<Vec<Bottleneck>>,
    fc: Option<Linear>,
    recompute: bool,
}

impl ResNet50 {
    /// Creates the parameters below `path` and draws them as torchvision does. They are reproducible inside
    /// [`seeded`](crate::seeded).
    ///
    /// # Errors
    /// The configuration makes no sense, or the model does not fit into memory.
    pub fn new(path: &Path, config: &ResNet50Config) -> Result<Self> {
        config.validate()?;
        check_room(config.parameter_count(), config.memory_bytes(), path.device())?;
        Ok(guard(|| Self::build(path, config))?)
    }

    fn build(path: &Path, config: &ResNet50Config) -> Self {
        let w = config.width;
        let stem = (Conv::normal(&(path / "conv1"), 3, w, 7, 2), BatchNorm::new(&(path / "bn1"), w, 1.0));
        let (stages, input) = stages(path, config.layers, w, EXPANSION, Bottleneck::new);
        let fc = config.classes.map(|classes| Linear::new(&(path / "fc"), input, classes, true));
        ResNet50 { config: config.clone(), stem, stages, fc, recompute: false }
    }

    /// Whether blocks keep their inputs alone for backward in training, and compute the rest again: less memory, a second forward pass.
    /// Running statistics are updated once all the same.
    #[must_use]
    pub fn with_recompute(mut self, recompute: bool) -> Self {
        self.set_recompute(recompute);
        self
    }

    pub(crate) fn set_recompute(&mut self, recompute: bool) {
        self.recompute = recompute;
    }

    /// The configuration it was made from.
    pub fn config(&self) -> &ResNet50Config {
        &self.config
    }

    /// Normalised images [N, 3, H, W] of any size → features [N, C], the mean over the last stage's positions.
    ///
    /// # Errors
    /// The images have another shape or kind, or are too few and small for statistics of the batch.
    pub fn encode(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        self.encode_with(images, mode, &mut |_, _| {})
    }

    /// As [`ResNet50::encode`]; `trace` sees `maxpool` and `layer1` to `layer4`. The last, [N, C, H/32, W/32] with sides rounded
    /// up, is the map that detectors call C5.
    ///
    /// # Errors
    /// As [`ResNet50::encode`].
    pub fn encode_with(&self, images: &Tensor, mode: Mode, trace: Trace) -> Result<Tensor> {
        check(images, mode)?;
        let recompute = self.recompute && mode != Mode::Eval;
        let mut x = match recompute {
            true => recomputed(&self.stem, &[images], move |own, inputs, pass| stem(own, &inputs[0], mode.of_pass(pass)))?,
            false => stem(&self.stem, images, mode),
        };
        trace("maxpool", &x);
        for (i, stage) in self.stages.iter().enumerate() {
            x = stage.iter().try_fold(x, |x, block| block.forward(&x, mode, recompute))?;
            trace(&format!("layer{}", i + 1), &x);
        }
        Ok(x.mean_dim([2i64, 3].as_slice(), false, None))
    }

    /// Features [N, C] → logits [N, classes].
    ///
    /// # Errors
    /// There is no classifier, or the features have another width.
    pub fn classify(&self, features: &Tensor) -> Result<Tensor> {
        let fc = self.fc.as_ref().ok_or_else(|| Error::Config { key: "classes", why: "this model has no classifier".into() })?;
        let (size, c) = (features.size(), self.config.features());
        if size.len() != 2 || size[1] != c || !features.is_floating_point() {
            let (expected, kind) = (format!("floats [N, {c}]"), features.kind());
            return Err(Error::Input { what: "features", expected, found: size, kind });
        }
        Ok(fc.forward(features))
    }
}

fn check(images: &Tensor, mode: Mode) -> Result<()> {
    let fail = |expected: &str| {
        let (found, kind) = (images.size(), images.kind());
        Err(Error::Input { what: "images", expected: expected.into(), found, kind })
    };
    match images.size()[..] {
        [n, 3, h, w] if h > 0 && w > 0 && images.is_floating_point() => {
            let values = n * ((h + 31) / 32) * ((w + 31) / 32);
            if values < 2 && mode.is_train() {
                return fail("more than one value a channel in the last stage, which batch norm needs in training");
            }
            Ok(())
        }
        _ => fail("floats [N, 3, H, W]"),
    }
}
