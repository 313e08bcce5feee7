//! The three forms of a loss behind one face, for tests that compare them.
#![allow(dead_code)] // each test target uses its own part

use std::collections::BTreeMap;

use ndarray::{Array1, Array2};
use softclip_loss::config::{
    Blend, Divergence, Form as GuideForm, LabelSmoothingConfig, LossConfig, SoftClipConfig, TargetGrad, TargetTemperature,
    TextBasedConfig,
};
use softclip_loss::{Alone, BlockOptions, Diagnostics, LossInputs, Ranks, Scales, blockwise_among, plain, reference};
use softclip_tensor::Embeddings;
use tch::{Device, Kind, Tensor};

pub const FORMS: [Form; 3] = [Form::Reference, Form::Plain, Form::Blockwise(1024)];

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    Reference,
    Plain,
    Blockwise(i64),
}

impl Form {
    pub fn name(self) -> &'static str {
        match self {
            Form::Reference => "reference",
            Form::Plain => "plain",
            Form::Blockwise(_) => "blockwise",
        }
    }
}

/// f64 rows of a batch, by set: image, text, regions, tags, category, category_text.
#[derive(Debug, Default)]
pub struct Data {
    pub image: Option<Tensor>,
    pub text: Option<Tensor>,
    pub regions: Option<Tensor>,
    pub tags: Option<Tensor>,
    pub category: Option<Tensor>,
    pub category_text: Option<Tensor>,
    pub row_beta: Option<Tensor>,
}

/// splitmix64, so that tests draw the same numbers everywhere.
pub struct Draw(pub u64);

impl Draw {
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Unit rows [n, d]; `like` pulls each towards the row of the same index.
    pub fn rows(&mut self, n: i64, d: i64, like: Option<&Tensor>) -> Tensor {
        let values: Vec<f64> = (0..n * d).map(|_| self.next() + self.next() + self.next() - 1.5).collect();
        let mut x = Tensor::from_slice(&values).view([n, d]);
        if let Some(like) = like {
            x += like * 0.7;
        }
        &x / x.norm_scalaropt_dim(2, [1i64].as_slice(), true)
    }
}

impl Data {
    /// A batch with every set: v and t alike, r and a alike, d = 6 + something so that D differs from Dc.
    pub fn random(seed: u64, n: i64, d: i64) -> Self {
        let mut draw = Draw(seed);
        let image = draw.rows(n, d, None);
        let text = draw.rows(n, d, Some(&image));
        let regions = draw.rows(n, d + 3, None);
        let tags = draw.rows(n, d + 3, Some(&regions));
        let category = draw.rows(n, d + 1, None);
        let category_text = draw.rows(n, d + 1, Some(&category));
        let sets = [image, text, regions, tags, category, category_text].map(Some);
        let [image, text, regions, tags, category, category_text] = sets;
        Data { image, text, regions, tags, category, category_text, row_beta: None }
    }

    pub fn sets(&self) -> [Option<&Tensor>; 6] {
        [&self.image, &self.text, &self.regions, &self.tags, &self.category, &self.category_text].map(Option::as_ref)
    }

    /// Each set by its index in [`Data::sets`]; β of the rows as it is.
    pub fn map(&self, change: impl Fn(usize, &Tensor) -> Tensor) -> Self {
        let change = &change;
        let mut sets = self.sets().into_iter().enumerate().map(|(k, t)| t.map(|t| change(k, t)));
        let mut next = || sets.next().flatten();
        Data {
            image: next(),
            text: next(),
            regions: next(),
            tags: next(),
            category: next(),
            category_text: next(),
            row_beta: self.row_beta.as_ref().map(Tensor::shallow_clone),
        }
    }

    pub fn on(&self, device: Device) -> Self {
        let row_beta = self.row_beta.as_ref().map(|t| t.to_device(device));
        Data { row_beta, ..self.map(|_, t| t.to_device(device)) }
    }

    /// The same rows in another order.
    pub fn permuted(&self, order: &[i64]) -> Self {
        let index = Tensor::from_slice(order);
        let row_beta = self.row_beta.as_ref().map(|t| t.index_select(0, &index));
        Data { row_beta, ..self.map(|_, t| t.index_select(0, &index)) }
    }

    pub fn rows(&self) -> i64 {
        self.image.as_ref().unwrap().size()[0]
    }
}

/// Results of any form, f64.
#[derive(Debug)]
pub struct Outcome {
    pub value: f64,
    pub parts: BTreeMap<&'static str, f64>,
    /// By image, text, regions, tags; zeros where a form gives none.
    pub grads: [Option<Tensor>; 4],
    pub log_scale: f64,
    pub target_log_scale: f64,
    pub bias: f64,
    pub diagnostics: Option<Diagnostics>,
}

impl Outcome {
    /// A part by name, or the value under the name "value".
    pub fn get(&self, name: &str) -> f64 {
        if name == "value" { self.value } else { self.parts[name] }
    }
}

pub fn run(form: Form, config: &LossConfig, data: &Data, scales: &Scales, kind: Kind) -> Outcome {
    // Threads would spend longer waiting for each other than these small tensors take; the setting is each thread's own.
    tch::set_num_threads(1);
    match form {
        Form::Reference => run_reference(config, data, scales),
        Form::Plain => run_plain(config, &data.on(device()), scales, kind),
        Form::Blockwise(tile) => run_among(config, &data.on(device()), scales, kind, tile, &Alone),
    }
}

/// Where tensors compute: `SOFTCLIP_TEST_DEVICE` (cuda, say), or the CPU, to which their results come back.
fn device() -> Device {
    softclip_torch::parse_device(&std::env::var("SOFTCLIP_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned())).unwrap()
}

fn back(t: &Tensor) -> Tensor {
    t.to_device(Device::Cpu).to_kind(Kind::Double)
}

pub fn matrix(t: &Tensor) -> Array2<f64> {
    let (n, d) = t.size2().unwrap();
    let values = Vec::<f64>::try_from(t.to_kind(Kind::Double).contiguous().view([-1])).unwrap();
    Array2::from_shape_vec((n as usize, d as usize), values).unwrap()
}

fn tensor(m: &Array2<f64>) -> Tensor {
    let (n, d) = m.dim();
    let flat: Vec<f64> = m.iter().copied().collect();
    Tensor::from_slice(&flat).view([n as i64, d as i64])
}

fn run_reference(config: &LossConfig, data: &Data, scales: &Scales) -> Outcome {
    let m = |t: &Option<Tensor>| t.as_ref().map(matrix);
    let inputs = reference::Inputs {
        image: m(&data.image).unwrap(),
        text: m(&data.text).unwrap(),
        regions: m(&data.regions),
        tags: m(&data.tags),
        category: m(&data.category),
        category_text: m(&data.category_text),
        row_beta: data.row_beta.as_ref().map(|b| Array1::from(Vec::<f64>::try_from(b.to_kind(Kind::Double)).unwrap())),
    };
    let loss = reference::loss(config, &inputs, scales).unwrap();
    let grads = [Some(&loss.image), Some(&loss.text), loss.regions.as_ref(), loss.tags.as_ref()];
    Outcome {
        value: loss.value,
        parts: loss.parts.iter().copied().collect(),
        grads: grads.map(|g| g.map(tensor)),
        log_scale: loss.log_scale,
        target_log_scale: loss.target_log_scale.unwrap_or(0.0),
        bias: loss.bias.unwrap_or(0.0),
        diagnostics: None,
    }
}

fn run_plain(config: &LossConfig, data: &Data, scales: &Scales, kind: Kind) -> Outcome {
    let leaves = data.sets().map(|t| t.map(|t| t.to_kind(kind).detach().copy().set_requires_grad(true)));
    let sets = leaves.each_ref().map(|t| t.as_ref().map(|t| Embeddings::checked(t.shallow_clone()).unwrap()));
    let leaf = |x: f64| Tensor::from(x).to_kind(kind).to_device(device()).set_requires_grad(true);
    let tensors = plain::Scales {
        log_scale: leaf(scales.log_scale),
        target_log_scale: scales.target_log_scale.map(leaf),
        bias: scales.bias.map(leaf),
    };
    let loss = plain::loss(config, &inputs(&sets, data.row_beta.as_ref()), &tensors).unwrap();
    if loss.value.requires_grad() {
        loss.value.backward();
    }
    let grad = |t: &Tensor| {
        let g = t.grad();
        back(&if g.defined() { g } else { t.detach().zeros_like() })
    };
    let number = |t: &Tensor| grad(t).double_value(&[]);
    let [image, text, regions, tags, _, _] = leaves.each_ref().map(|t| t.as_ref().map(grad));
    Outcome {
        value: loss.value.double_value(&[]),
        parts: loss.parts.into_iter().collect(),
        grads: [image, text, regions, tags],
        log_scale: number(&tensors.log_scale),
        target_log_scale: tensors.target_log_scale.as_ref().map_or(0.0, number),
        bias: tensors.bias.as_ref().map_or(0.0, number),
        diagnostics: None,
    }
}

/// The blockwise form as one of several ranks.
pub fn run_among(config: &LossConfig, data: &Data, scales: &Scales, kind: Kind, tile: i64, ranks: &dyn Ranks) -> Outcome {
    let (sets, options) = (embeddings(data, kind), BlockOptions { tile });
    let loss = blockwise_among(config, &inputs(&sets, data.row_beta.as_ref()), scales, &options, ranks).unwrap();
    let fill = |g: &Option<Tensor>, like: &Option<Tensor>| {
        like.as_ref().map(|like| match g {
            Some(g) => {
                assert_eq!((g.kind(), g.size()), (kind, like.size()));
                back(g)
            }
            None => back(&like.zeros_like()),
        })
    };
    let [image, text] = [loss.grads.image, loss.grads.text].map(Some);
    Outcome {
        value: loss.value,
        parts: loss.parts.into_iter().collect(),
        grads: [
            fill(&image, &data.image),
            fill(&text, &data.text),
            fill(&loss.grads.regions, &data.regions),
            fill(&loss.grads.tags, &data.tags),
        ],
        log_scale: loss.grads.log_scale,
        target_log_scale: loss.grads.target_log_scale.unwrap_or(0.0),
        bias: loss.grads.bias.unwrap_or(0.0),
        diagnostics: Some(loss.diagnostics),
    }
}

pub fn embeddings(data: &Data, kind: Kind) -> [Option<Embeddings>; 6] {
    data.sets().map(|t| t.map(|t| Embeddings::checked(t.to_kind(kind)).unwrap()))
}

pub fn inputs<'a>(sets: &'a [Option<Embeddings>; 6], row_beta: Option<&'a Tensor>) -> LossInputs<'a> {
    let [image, text, regions, tags, category, category_text] = sets.each_ref().map(Option::as_ref);
    LossInputs { image: image.unwrap(), text: text.unwrap(), regions, tags, category, category_text, row_beta }
}

/// Largest difference of two matrices over the largest entry of the second.
pub fn matrix_error(found: &Tensor, expected: &Tensor) -> f64 {
    let expected = expected.to_kind(Kind::Double);
    let scale = expected.abs().max().double_value(&[]);
    nan_is_infinite((found - &expected).abs().max().double_value(&[]) / scale.max(1e-3))
}

pub fn error(found: f64, expected: f64) -> f64 {
    nan_is_infinite((found - expected).abs() / (expected.abs() + 1e-2))
}

/// `f64::max` drops a NaN: no error may be one where the worst is sought.
pub fn nan_is_infinite(error: f64) -> f64 {
    if error.is_nan() { f64::INFINITY } else { error }
}

/// Largest of all errors between two outcomes: value, parts, gradients.
pub fn outcome_error(found: &Outcome, expected: &Outcome) -> f64 {
    let mut worst = error(found.value, expected.value);
    for (name, value) in &expected.parts {
        worst = worst.max(error(found.parts[name], *value));
    }
    for (a, b) in found.grads.iter().zip(&expected.grads) {
        if let (Some(a), Some(b)) = (a, b) {
            worst = worst.max(matrix_error(a, b));
        }
    }
    for (a, b) in
        [(found.log_scale, expected.log_scale), (found.target_log_scale, expected.target_log_scale), (found.bias, expected.bias)]
    {
        worst = worst.max(error(a, b));
    }
    worst
}

pub fn cpu(kind: Kind) -> (Kind, Device) {
    (kind, Device::Cpu)
}

pub fn softclip(change: impl FnOnce(&mut SoftClipConfig)) -> LossConfig {
    let mut c = SoftClipConfig::default();
    change(&mut c);
    LossConfig::Softclip(c)
}

pub fn text_based(change: impl FnOnce(&mut TextBasedConfig)) -> LossConfig {
    let mut c = TextBasedConfig::default();
    change(&mut c);
    LossConfig::TextBased(c)
}

/// Scalars at which nothing is saturated.
pub fn scales() -> Scales {
    Scales { log_scale: 2.0, target_log_scale: Some(1.5), bias: Some(-1.0) }
}

pub fn close(found: f64, expected: f64, what: &str) {
    assert!(error(found, expected) < 1e-9, "{what}: {found} is not {expected}");
}

/// Rows of the identity.
pub fn apart(n: i64) -> Tensor {
    Tensor::eye(n, (Kind::Double, Device::Cpu))
}

pub fn smoothing(alpha: f64) -> LossConfig {
    LossConfig::LabelSmoothing(LabelSmoothingConfig { alpha })
}

/// Every loss, and every option that changes its arithmetic.
pub fn losses() -> Vec<LossConfig> {
    vec![
        LossConfig::Clip(Default::default()),
        smoothing(0.2),
        LossConfig::Siglip(Default::default()),
        softclip(|_| ()),
        softclip(|c| c.target_grad = TargetGrad::Detach),
        softclip(|c| c.divergence = Divergence::Kl),
        softclip(|c| c.divergence = Divergence::ReverseKl),
        softclip(|c| c.divergence = Divergence::Js),
        softclip(|c| (c.beta, c.lambda, c.divergence) = (0.0, 0.0, Divergence::Kl)),
        softclip(|c| c.soft = 0.0),
        softclip(|c| c.gamma = 0.6),
        softclip(|c| c.forms = [GuideForm::RA, GuideForm::AR]),
        softclip(|c| c.target_temperature = TargetTemperature::Own),
        softclip(|c| c.target_temperature = TargetTemperature::Fixed(0.2)),
        text_based(|_| ()),
        text_based(|c| (c.blend, c.symmetrize, c.tau) = (Blend::Targets, true, Some(0.1))),
        text_based(|c| c.blend = Blend::TargetsNormalized),
    ]
}
