//! The losses in plain tensor operations under autograd: every [N, N] matrix is built. For small batches, for tests, and as the text to
//! read beside the paper.
//!
//! All probabilities stay logarithms; p* and p̃* of eq. (12) are softmaxes off the diagonal, never quotients of probabilities.
//!
//! Rows with β = 0 in [`LossInputs::row_beta`] have a plain hard label. The relation-enhanced term is dropped from them (there is nothing
//! left off the diagonal of their target), and the soft term keeps what is finite of it: KL(y‖p), which is the cross-entropy, in place of
//! the symmetric and the reverse form, whose KL(p‖y) is infinite; JS(y, p) is finite and stays. Means run over all N rows.
//!
//! ```
//! use softclip_loss::{LossConfig, LossInputs, plain};
//! use softclip_tensor::Embeddings;
//! use tch::{Device, Kind, Tensor};
//!
//! # fn main() -> softclip_loss::Result<()> {
//! let features = Tensor::randn([4, 8], (Kind::Float, Device::Cpu)).set_requires_grad(true);
//! let (image, text) = (Embeddings::normalize(&features)?, Embeddings::normalize(&features.flip([0]))?);
//! let log_scale = Tensor::from(2.66).set_requires_grad(true);
//! let config = LossConfig::LabelSmoothing(Default::default());
//! let loss = plain::loss(&config, &LossInputs::new(&image, &text), &plain::Scales::new(log_scale))?;
//! loss.value.backward();
//! assert_eq!(features.grad().size(), [4, 8]);
//! # Ok(())
//! # }
//! ```

use tch::{Kind, Tensor, no_grad};

use crate::config::{Blend, Divergence, LossConfig, SoftClipConfig, TargetGrad, TargetTemperature, TextBasedConfig};
use crate::error::Result;
use crate::inputs::{LossInputs, Set};
use crate::parts::{SIGLIP, SideTerms};

/// The learned scalars as 0-dimensional tensors, in the graph if they require gradients.
#[derive(Debug)]
pub struct Scales {
    /// ln(1/τ) of the logits.
    pub log_scale: Tensor,
    /// ln(1/τ) of the targets, for `target_temperature: own`.
    pub target_log_scale: Option<Tensor>,
    /// SigLIP's bias.
    pub bias: Option<Tensor>,
}

impl Scales {
    /// Only a logit scale.
    pub fn new(log_scale: Tensor) -> Self {
        Scales { log_scale, target_log_scale: None, bias: None }
    }

    fn numbers(&self) -> Result<crate::Scales> {
        let number = |t: &Tensor| t.detach().f_double_value(&[]);
        Ok(crate::Scales {
            log_scale: number(&self.log_scale)?,
            target_log_scale: self.target_log_scale.as_ref().map(number).transpose()?,
            bias: self.bias.as_ref().map(number).transpose()?,
        })
    }
}

/// A loss in the graph.
#[derive(Debug)]
pub struct Loss {
    /// 0-dimensional, differentiable.
    pub value: Tensor,
    /// As [`crate::Loss::parts`].
    pub parts: Vec<(&'static str, f64)>,
}

/// The loss of a batch, dense, under autograd. Kinds below f32 are widened to f32.
///
/// # Errors
/// As [`crate::blockwise`], except that the value is not checked.
///
/// # Panics
/// Where memory is lacking: these are `tch`'s panicking operators, for the sake of reading. `softclip_torch::guard` makes an error of it.
pub fn loss(config: &LossConfig, inputs: &LossInputs, scales: &Scales) -> Result<Loss> {
    inputs.check(config, &scales.numbers()?)?;
    let batch = Dense::new(inputs, scales);
    let (value, terms) = match config {
        LossConfig::Clip(_) => batch.smoothed(0.0)?,
        LossConfig::LabelSmoothing(c) => batch.smoothed(c.alpha)?,
        LossConfig::Softclip(c) => batch.softclip(c)?,
        LossConfig::TextBased(c) => batch.text_based(c)?,
        LossConfig::Siglip(_) => return batch.siglip(),
    };
    Ok(Loss { value, parts: terms.named(matches!(config, LossConfig::Softclip(_))) })
}

/// What the loss of a batch compares each row with: image→text and text→image, each `[N, N]` with a row a query, without graph.
///
/// SoftCLIP: the soft targets of eqs (8), (9), of both kinds in their shares where γ mixes two. Text-based SoftCLIP: its label rows as
/// they stand. The identity where the label is the own pair alone: CLIP, SigLIP, blended logits.
///
/// # Errors
/// As [`loss`].
///
/// # Panics
/// As [`loss`].
pub fn targets(config: &LossConfig, inputs: &LossInputs, scales: &Scales) -> Result<[Tensor; 2]> {
    inputs.check(config, &scales.numbers()?)?;
    let batch = Dense::new(inputs, scales);
    no_grad(|| match config {
        LossConfig::Clip(_) | LossConfig::Siglip(_) => Ok([batch.smoothed_labels(0.0), batch.smoothed_labels(0.0)]),
        LossConfig::LabelSmoothing(c) => Ok([batch.smoothed_labels(c.alpha), batch.smoothed_labels(c.alpha)]),
        LossConfig::Softclip(c) => batch.soft_targets(c),
        LossConfig::TextBased(c) => {
            let text = batch.category_cosines(c)?;
            Ok([false, true].map(|transpose| batch.text_labels(c, &text, transpose)))
        }
    })
}

struct Dense<'a> {
    inputs: &'a LossInputs<'a>,
    scales: &'a Scales,
    kind: Kind,
    /// bool [N, N], true on the diagonal.
    eye: Tensor,
    n: i64,
}

/// Row losses: f `[N]`.
struct Terms {
    soft: Tensor,
    relation: Tensor,
}

impl<'a> Dense<'a> {
    fn new(inputs: &'a LossInputs<'a>, scales: &'a Scales) -> Self {
        let lead = inputs.image.tensor();
        let (n, kind) = (inputs.image.rows(), if lead.kind() == Kind::Double { Kind::Double } else { Kind::Float });
        let eye = Tensor::eye(n, (Kind::Bool, lead.device()));
        Dense { inputs, scales, kind, eye, n }
    }

    fn set(&self, set: Set) -> Result<Tensor> {
        let missing = crate::Error::Missing { loss: "plain", what: set.what(), hint: "checked inputs hold all that is needed" };
        Ok(self.inputs.get(set).ok_or(missing)?.tensor().to_kind(self.kind))
    }

    /// x_i·y_j, [N, N].
    fn cosines(&self, x: Set, y: Set) -> Result<Tensor> {
        Ok(self.set(x)?.f_matmul(&self.set(y)?.tr())?)
    }

    fn scale(&self) -> Tensor {
        self.scales.log_scale.exp().to_kind(self.kind)
    }

    fn target_scale(&self, c: &SoftClipConfig) -> Tensor {
        match (c.target_temperature, &self.scales.target_log_scale) {
            (TargetTemperature::Fixed(tau), _) => self.scale().detach().full_like(1.0 / tau),
            (TargetTemperature::Own, Some(own)) => own.exp().to_kind(self.kind),
            _ => self.scale(),
        }
    }

    /// S of image→text and text→image.
    fn logits(&self) -> Result<[Tensor; 2]> {
        let s = self.cosines(Set::Image, Set::Text)? * self.scale();
        let transposed = s.tr();
        Ok([s, transposed])
    }

    /// Eq. (5).
    fn smoothed_labels(&self, alpha: f64) -> Tensor {
        let off = alpha / (self.n - 1) as f64;
        self.eye.to_kind(self.kind) * (1.0 - alpha - off) + off
    }

    fn smoothed(&self, alpha: f64) -> Result<(Tensor, SideTerms)> {
        let y = self.smoothed_labels(alpha);
        let rows = self.logits()?.map(|s| cross_entropy(&y, &s));
        Ok(mean_of_sides(rows))
    }

    fn softclip(&self, c: &SoftClipConfig) -> Result<(Tensor, SideTerms)> {
        let logits = self.logits()?;
        let own = |t: &Tensor| t.log_softmax(1, self.kind).diagonal(0, 0, 1).neg();
        let hard = [own(&logits[0]), own(&logits[1])];
        let mut terms = SideTerms { hard: Some(hard.each_ref().map(number)), ..SideTerms::default() };
        let clip = (hard[0].mean(self.kind) + hard[1].mean(self.kind)) / 2.0;
        let mut value = clip * c.mu;
        if !c.has_targets() {
            return Ok((value, terms));
        }
        let scale = self.target_scale(c);
        for (pairs, mix) in [(false, c.gamma), (true, 1.0 - c.gamma)] {
            if mix == 0.0 {
                continue;
            }
            for (side, logits) in logits.iter().enumerate() {
                let guide = self.guide(c, pairs, side)? * &scale;
                let guide = if c.target_grad == TargetGrad::Detach { guide.detach() } else { guide };
                let t = self.guided(logits, &guide, c);
                value += (t.soft.mean(self.kind) * c.soft + t.relation.mean(self.kind) * c.lambda) * (mix / 2.0);
                terms.soft.get_or_insert([0.0; 2])[side] += mix * number(&t.soft);
                terms.relation.get_or_insert([0.0; 2])[side] += mix * number(&t.relation);
            }
        }
        Ok((value, terms))
    }

    /// The cosines that guide a side: those of regions and tags, or of the pairs' own embeddings.
    fn guide(&self, c: &SoftClipConfig, pairs: bool, side: usize) -> Result<Tensor> {
        let (x, y) = match (pairs, c.forms[side].guides()) {
            (false, (x, y)) => (x.into(), y.into()),
            (true, _) => [(Set::Image, Set::Image), (Set::Text, Set::Text)][side],
        };
        self.cosines(x, y)
    }

    fn soft_targets(&self, c: &SoftClipConfig) -> Result<[Tensor; 2]> {
        let own = self.smoothed_labels(0.0);
        let mut sides = [own.zeros_like(), own.zeros_like()];
        if !c.has_targets() {
            return Ok([own.shallow_clone(), own]);
        }
        for (pairs, mix) in [(false, c.gamma), (true, 1.0 - c.gamma)].into_iter().filter(|(_, mix)| *mix > 0.0) {
            for (side, target) in sides.iter_mut().enumerate() {
                let log_w = (self.guide(c, pairs, side)? * self.target_scale(c)).log_softmax(1, self.kind);
                let beta = self.row_beta(&own, c).unsqueeze(1);
                // A row of β = 0 has infinities in its logarithms: its label is the own pair.
                let soft = self.soft_target(&log_w, &beta.masked_fill(&beta.eq(0.0), 1.0)).exp();
                *target += own.where_self(&beta.eq(0.0), &soft) * mix;
            }
        }
        Ok(sides)
    }

    /// β of each row, `[N]`.
    fn row_beta(&self, like: &Tensor, c: &SoftClipConfig) -> Tensor {
        match self.inputs.row_beta {
            Some(b) => b.detach().to_kind(self.kind).to_device(like.device()),
            None => like.detach().select(1, 0).full_like(c.beta),
        }
    }

    /// Soft and relation-enhanced loss of each row, eqs (8) to (15).
    fn guided(&self, s: &Tensor, g: &Tensor, c: &SoftClipConfig) -> Terms {
        let row_beta = self.row_beta(s, c);
        let hard = row_beta.eq(0.0);
        let js = c.divergence == Divergence::Js;
        // β = 0 gives infinities that even a later `where` would turn into NaN gradients: KL rows are computed with β = 1 and replaced.
        let beta = if js { row_beta.shallow_clone() } else { row_beta.masked_fill(&hard, 1.0) };
        let beta = beta.unsqueeze(1);
        let (log_p, log_w) = (s.log_softmax(1, self.kind), g.log_softmax(1, self.kind));
        let log_q = self.soft_target(&log_w, &beta);
        let soft = divergence(c.divergence, &log_q, &log_p);
        let cross = log_p.diagonal(0, 0, 1).neg();
        let soft = if js { soft } else { soft.where_self(&hard.logical_not(), &cross) };
        let negatives =
            |z: &Tensor| z.masked_fill(&self.eye, f64::NEG_INFINITY).log_softmax(1, self.kind).masked_fill(&self.eye, 0.0);
        // Both are 0 on the diagonal, where their difference must not count.
        let off = self.eye.logical_not().to_kind(self.kind);
        let relation = if self.n == 2 {
            soft.zeros_like() // one entry off the diagonal: 1 on both sides
        } else {
            divergence_over(c.divergence, &negatives(g), &negatives(s), Some(&off))
        };
        Terms { soft, relation: relation * hard.logical_not().to_kind(self.kind) }
    }

    /// log of (1 − β) y + β w, eqs (8), (9).
    fn soft_target(&self, log_w: &Tensor, beta: &Tensor) -> Tensor {
        let log_beta = beta.log().clamp_min(-1e4);
        let off = log_w + &log_beta;
        let w = log_w.diagonal(0, 0, 1).unsqueeze(1);
        let rest = log_w.masked_fill(&self.eye, f64::NEG_INFINITY).logsumexp([1i64].as_slice(), true).exp() * beta;
        let near_one = beta.neg().log1p().logaddexp(&(w + log_beta));
        // log1p(−β n_w), with the argument kept inside of its range where the other form is taken.
        let on = rest.clamp_max(0.5).neg().log1p().where_self(&rest.lt(0.5), &near_one);
        on.where_self(&self.eye, &off)
    }

    /// The text-based similarities, without graph.
    fn category_cosines(&self, c: &TextBasedConfig) -> Result<Tensor> {
        match c.alpha > 0.0 {
            true => Ok(symmetrized(c, self.cosines(Set::Category, Set::CategoryText)?).detach()),
            false => Ok(self.eye.to_kind(self.kind).zeros_like()), // not asked for
        }
    }

    /// Label rows; the own pair where logits are blended instead.
    fn text_labels(&self, c: &TextBasedConfig, text: &Tensor, transpose: bool) -> Tensor {
        let eye = self.eye.to_kind(self.kind);
        let turned = if transpose { text.tr() } else { text.shallow_clone() };
        let blend = |text: Tensor| &eye * (1.0 - c.alpha) + text * c.alpha;
        match c.blend {
            Blend::Logits => eye,
            Blend::Targets => blend(turned),
            Blend::TargetsNormalized => {
                let y = blend(turned.relu());
                &y / y.sum_dim_intlist([1i64].as_slice(), true, self.kind)
            }
        }
    }

    fn text_based(&self, c: &TextBasedConfig) -> Result<(Tensor, SideTerms)> {
        let base = symmetrized(c, self.cosines(Set::Image, Set::Text)?);
        let text = self.category_cosines(c)?;
        let scale = match c.tau {
            Some(tau) => self.scale().detach().full_like(1.0 / tau),
            None => self.scale(),
        };
        let logits = match c.blend {
            Blend::Logits => (base * (1.0 - c.alpha) + &text * c.alpha) * scale,
            Blend::Targets | Blend::TargetsNormalized => base * scale,
        };
        let rows = [false, true].map(|transpose| {
            let turned = if transpose { logits.tr() } else { logits.shallow_clone() };
            cross_entropy(&self.text_labels(c, &text, transpose), &turned)
        });
        Ok(mean_of_sides(rows))
    }

    fn siglip(&self) -> Result<Loss> {
        let cosines = self.cosines(Set::Image, Set::Text)?;
        let bias = match &self.scales.bias {
            Some(b) => b.to_kind(self.kind),
            None => self.scale().zeros_like(),
        };
        let logits = cosines * self.scale() + bias;
        let n = self.n as f64;
        let positives = logits.diagonal(0, 0, 1).log_sigmoid().sum(self.kind) / -n;
        let negatives = logits.neg().log_sigmoid().masked_fill(&self.eye, 0.0).sum(self.kind) / -n;
        let parts =
            SIGLIP.into_iter().zip([positives.detach().double_value(&[]), negatives.detach().double_value(&[])]).collect();
        Ok(Loss { value: positives + negatives, parts })
    }
}

fn symmetrized(c: &TextBasedConfig, m: Tensor) -> Tensor {
    if c.symmetrize { (&m + m.tr()) / 2.0 } else { m }
}

/// Σ_j −y_ij log softmax_j(s_ij), `[N]`.
fn cross_entropy(y: &Tensor, s: &Tensor) -> Tensor {
    (y * s.log_softmax(1, s.kind())).sum_dim_intlist([1i64].as_slice(), false, s.kind()).neg()
}

fn number(rows: &Tensor) -> f64 {
    rows.detach().mean(Kind::Double).double_value(&[])
}

fn mean_of_sides(rows: [Tensor; 2]) -> (Tensor, SideTerms) {
    let terms = SideTerms { hard: Some(rows.each_ref().map(number)), ..SideTerms::default() };
    let kind = rows[0].kind();
    ((rows[0].mean(kind) + rows[1].mean(kind)) / 2.0, terms)
}

fn divergence(kind: Divergence, log_q: &Tensor, log_p: &Tensor) -> Tensor {
    divergence_over(kind, log_q, log_p, None)
}

/// The divergence of each row, over the entries where `keep` is 1.
fn divergence_over(kind: Divergence, log_q: &Tensor, log_p: &Tensor, keep: Option<&Tensor>) -> Tensor {
    let gap = log_q - log_p;
    let sum = |terms: Tensor| {
        let terms = match keep {
            Some(k) => terms * k,
            None => terms,
        };
        terms.sum_dim_intlist([1i64].as_slice(), false, log_p.kind())
    };
    let forward = || sum(log_q.exp() * &gap);
    let reverse = || sum(log_p.exp() * gap.neg());
    match kind {
        Divergence::Kl => forward(),
        Divergence::ReverseKl => reverse(),
        Divergence::SymmetricKl => (forward() + reverse()) * 0.5,
        Divergence::Js => {
            // log(q/m) = ln 2 + log sigmoid(log q − log p), and the other way round.
            let ln_2 = std::f64::consts::LN_2;
            let q = sum(log_q.exp() * (gap.log_sigmoid() + ln_2));
            let p = sum(log_p.exp() * (gap.neg().log_sigmoid() + ln_2));
            (q + p) * 0.5
        }
    }
}
