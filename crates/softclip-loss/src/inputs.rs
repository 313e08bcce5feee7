//! What a loss is computed from, checked once at the border.

use softclip_tensor::Embeddings;
use tch::{Device, Kind, Tensor};

use crate::config::{Form, Guide, LossConfig, TargetTemperature};
use crate::error::{Error, Result};

/// Embeddings of one batch of N pairs: row i of every set belongs to pair i. All sets share kind and device.
#[derive(Clone, Copy, Debug)]
pub struct LossInputs<'a> {
    /// v, [N, D].
    pub image: &'a Embeddings,
    /// t, [N, D].
    pub text: &'a Embeddings,
    /// r, [N, Dr]; Dr equals that of the tags where a form compares the two.
    pub regions: Option<&'a Embeddings>,
    /// a, [N, Da].
    pub tags: Option<&'a Embeddings>,
    /// c, [N, Dc]: the frozen encoder's embedding of each image's category sentence.
    pub category: Option<&'a Embeddings>,
    /// d, [N, Dc]: the frozen encoder's embedding of each caption.
    pub category_text: Option<&'a Embeddings>,
    /// β of each row, floats `[N]` in [0, 1], in place of `beta`. A row of 0 has a plain hard label ([`crate::plain`] says what that
    /// means for each divergence): meant for pairs without detections.
    pub row_beta: Option<&'a Tensor>,
}

/// The learned scalars.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scales {
    /// ln(1/τ) of the logits.
    pub log_scale: f64,
    /// ln(1/τ) of the targets, for `target_temperature: own`.
    pub target_log_scale: Option<f64>,
    /// SigLIP's bias.
    pub bias: Option<f64>,
}

impl Scales {
    /// Only a logit scale.
    pub fn new(log_scale: f64) -> Self {
        Scales { log_scale, target_log_scale: None, bias: None }
    }
}

/// One of the embedding sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Set {
    Image,
    Text,
    Regions,
    Tags,
    Category,
    CategoryText,
}

pub(crate) const SETS: [Set; 6] = [Set::Image, Set::Text, Set::Regions, Set::Tags, Set::Category, Set::CategoryText];

impl Set {
    pub(crate) fn what(self) -> &'static str {
        match self {
            Set::Image => "image embeddings",
            Set::Text => "text embeddings",
            Set::Regions => "region embeddings",
            Set::Tags => "tag embeddings",
            Set::Category => "category embeddings",
            Set::CategoryText => "category text embeddings",
        }
    }
}

impl Set {
    /// The name in diagnostics.
    pub(crate) fn short(self) -> &'static str {
        match self {
            Set::Image => "image",
            Set::Text => "text",
            Set::Regions => "regions",
            Set::Tags => "tags",
            Set::Category => "category",
            Set::CategoryText => "category_text",
        }
    }
}

impl From<Guide> for Set {
    fn from(g: Guide) -> Set {
        match g {
            Guide::Regions => Set::Regions,
            Guide::Tags => Set::Tags,
        }
    }
}

impl<'a> LossInputs<'a> {
    /// Image and text embeddings alone; the other fields are set with struct update syntax.
    pub fn new(image: &'a Embeddings, text: &'a Embeddings) -> Self {
        LossInputs { image, text, regions: None, tags: None, category: None, category_text: None, row_beta: None }
    }

    pub(crate) fn get(&self, set: Set) -> Option<&'a Embeddings> {
        match set {
            Set::Image => Some(self.image),
            Set::Text => Some(self.text),
            Set::Regions => self.regions,
            Set::Tags => self.tags,
            Set::Category => self.category,
            Set::CategoryText => self.category_text,
        }
    }

    /// Everything that can be wrong with the inputs for this loss, before any arithmetic. Looks only at sets that are needed.
    pub(crate) fn check(&self, config: &LossConfig, scales: &Scales) -> Result<Vec<Set>> {
        config.validate()?;
        let rows = self.image.rows();
        if rows < 2 {
            return Err(Error::BatchTooSmall { rows });
        }
        let needed = needed_sets(config);
        for &set in &needed {
            self.check_set(config.name(), set)?;
        }
        self.check_dims(config)?;
        self.check_row_beta()?;
        check_scales(config, scales)?;
        Ok(needed)
    }

    fn check_set(&self, loss: &'static str, set: Set) -> Result<()> {
        let what = set.what();
        let Some(e) = self.get(set) else { return Err(Error::Missing { loss, what, hint: hint(set) }) };
        let (rows, lead) = (self.image.rows(), self.image.tensor());
        if e.rows() != rows {
            return Err(Error::Shape { what, expected: format!("[{rows}, D]"), found: e.tensor().size() });
        }
        let mixed = |expected, found| Err(Error::Mixed { what, expected, found });
        if e.tensor().kind() != lead.kind() {
            return mixed(format!("{:?}", lead.kind()), format!("{:?}", e.tensor().kind()));
        }
        if e.tensor().device() != lead.device() {
            return mixed(format!("{:?}", lead.device()), format!("{:?}", e.tensor().device()));
        }
        match first_bad_row(e.tensor())? {
            Some(row) => Err(Error::NonFiniteInput { what, row }),
            None => Ok(()),
        }
    }

    fn check_dims(&self, config: &LossConfig) -> Result<()> {
        let same = |a: Set, b: Set| match (self.get(a), self.get(b)) {
            (Some(x), Some(y)) if x.dim() != y.dim() => {
                let expected = format!("[{}, {}] like the {}", x.rows(), x.dim(), a.what());
                Err(Error::Shape { what: b.what(), expected, found: y.tensor().size() })
            }
            _ => Ok(()),
        };
        same(Set::Image, Set::Text)?;
        let needs = config.needs();
        match config {
            LossConfig::Softclip(c) if (needs.regions || needs.tags) && c.forms.iter().any(|f: &Form| f.is_cross()) => {
                same(Set::Regions, Set::Tags)
            }
            LossConfig::TextBased(_) if needs.category => same(Set::Category, Set::CategoryText),
            _ => Ok(()),
        }
    }

    fn check_row_beta(&self) -> Result<()> {
        let Some(beta) = self.row_beta else { return Ok(()) };
        let rows = self.image.rows();
        if beta.size() != [rows] || !beta.is_floating_point() {
            return Err(Error::Shape { what: "row_beta", expected: format!("[{rows}] floats"), found: beta.size() });
        }
        let beta = beta.detach().f_to_kind(Kind::Double)?.f_to_device(Device::Cpu)?;
        let values = Vec::<f64>::try_from(&beta)?;
        match values.iter().position(|b| !(0.0..=1.0).contains(b)) {
            Some(i) => Err(Error::Range { what: "row_beta", row: i as i64, value: values[i], expected: "a β in [0, 1]" }),
            None => Ok(()),
        }
    }
}

fn hint(set: Set) -> &'static str {
    match set {
        Set::Regions => "give the data set region features (`rois`), or set gamma: 0 or forms: [AA, AA]",
        Set::Tags => "give the data set tags, or set gamma: 0 or forms: [RR, RR]",
        Set::Category | Set::CategoryText => "encode the category sentences and the captions with the frozen text encoder",
        Set::Image | Set::Text => "encode the batch first",
    }
}

fn needed_sets(config: &LossConfig) -> Vec<Set> {
    let needs = config.needs();
    SETS.into_iter()
        .filter(|s| match s {
            Set::Image | Set::Text => true,
            Set::Regions => needs.regions,
            Set::Tags => needs.tags,
            Set::Category | Set::CategoryText => needs.category,
        })
        .collect()
}

fn check_scales(config: &LossConfig, scales: &Scales) -> Result<()> {
    let (needs, loss) = (config.needs(), config.name());
    if needs.bias && scales.bias.is_none() {
        return Err(Error::Missing { loss, what: "a bias", hint: "start it at -10 with a logit scale of 10, as SigLIP does" });
    }
    if needs.target_scale && scales.target_log_scale.is_none() {
        let hint = "target_temperature: own learns ln(1/τ) of the targets; start it at ln(1/0.07)";
        return Err(Error::Missing { loss, what: "a target scale", hint });
    }
    let named = [("logit scale", Some(scales.log_scale)), ("target scale", scales.target_log_scale), ("bias", scales.bias)];
    for (what, value) in named {
        if value.is_some_and(|v| !v.is_finite()) {
            return Err(Error::NonFiniteInput { what, row: 0 });
        }
    }
    Ok(())
}

/// The first row with a NaN or an infinity; one pass and one synchronisation where there is none.
fn first_bad_row(x: &Tensor) -> Result<Option<i64>> {
    let x = x.detach();
    // 0·x is 0 for finite x and NaN otherwise; a row's sum keeps the NaN.
    let marks = x.f_mul_scalar(0.0)?.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)?;
    if marks.f_sum(Kind::Float)?.f_double_value(&[])? == 0.0 {
        return Ok(None);
    }
    Ok(Some(marks.f_isnan()?.f_to_kind(Kind::Int)?.f_argmax(None, false)?.f_int64_value(&[])?))
}

/// 1/τ of the targets under this configuration.
pub(crate) fn target_scale(config: &LossConfig, scales: &Scales) -> f64 {
    match config {
        LossConfig::Softclip(c) => match c.target_temperature {
            TargetTemperature::Shared => scales.log_scale.exp(),
            TargetTemperature::Fixed(tau) => 1.0 / tau,
            TargetTemperature::Own => scales.target_log_scale.unwrap_or(scales.log_scale).exp(),
        },
        _ => 1.0,
    }
}
