//! The losses from their steps.

use ndarray::{Array1, Array2};

use super::dense::{compare, log_softmax, log_softmax_back, soft_target, soft_target_back};
use super::{Inputs, Loss};
use crate::config::{Blend, Divergence, LossConfig, SoftClipConfig, TargetGrad, TargetTemperature, TextBasedConfig};
use crate::error::Result;
use crate::inputs::{Scales, Set};
use crate::parts::{SIGLIP, SideTerms};

/// Gradients as they are collected, one slot a set.
struct Tape<'a> {
    inputs: &'a Inputs,
    grads: [Option<Array2<f64>>; 6],
    log_scale: f64,
    target_log_scale: f64,
}

impl<'a> Tape<'a> {
    fn new(inputs: &'a Inputs) -> Self {
        let mut tape = Tape { inputs, grads: Default::default(), log_scale: 0.0, target_log_scale: 0.0 };
        for set in crate::inputs::SETS {
            tape.grads[set as usize] = tape.set(set).map(|x| Array2::zeros(x.dim()));
        }
        tape
    }

    fn set(&self, set: Set) -> Option<&'a Array2<f64>> {
        match set {
            Set::Image => Some(&self.inputs.image),
            Set::Text => Some(&self.inputs.text),
            Set::Regions => self.inputs.regions.as_ref(),
            Set::Tags => self.inputs.tags.as_ref(),
            Set::Category => self.inputs.category.as_ref(),
            Set::CategoryText => self.inputs.category_text.as_ref(),
        }
    }

    /// x_i·y_j; a set that is not there counts as zeros (`super::check` asks for all that are needed).
    fn cosines(&self, x: Set, y: Set) -> Array2<f64> {
        match (self.set(x), self.set(y)) {
            (Some(x), Some(y)) => x.dot(&y.t()),
            _ => Array2::zeros((self.inputs.image.nrows(), self.inputs.image.nrows())),
        }
    }

    /// Carries the gradient of x Yᵀ to both sets.
    fn add_to_sets(&mut self, x: Set, y: Set, grad: &Array2<f64>) {
        if let (Some(a), Some(b)) = (self.set(x), self.set(y)) {
            if let Some(g) = &mut self.grads[x as usize] {
                *g += &grad.dot(b);
            }
            if let Some(g) = &mut self.grads[y as usize] {
                *g += &grad.t().dot(a);
            }
        }
    }

    fn into_loss(self, value: f64, parts: Vec<(&'static str, f64)>) -> Loss {
        let [image, text, regions, tags, _, _] = self.grads;
        Loss {
            value,
            parts,
            image: image.unwrap_or_default(),
            text: text.unwrap_or_default(),
            regions,
            tags,
            log_scale: self.log_scale,
            target_log_scale: None,
            bias: None,
        }
    }
}

const SIDES: [(Set, Set); 2] = [(Set::Image, Set::Text), (Set::Text, Set::Image)];

pub fn run(config: &LossConfig, inputs: &Inputs, scales: &Scales) -> Result<Loss> {
    Ok(match config {
        LossConfig::Clip(_) => smoothed(inputs, scales, 0.0),
        LossConfig::LabelSmoothing(c) => smoothed(inputs, scales, c.alpha),
        LossConfig::Softclip(c) => softclip(c, inputs, scales),
        LossConfig::TextBased(c) => text_based(c, inputs, scales),
        LossConfig::Siglip(_) => siglip(inputs, scales),
    })
}

/// −Σ_j y_ij log p_ij of each row and its gradient with respect to the logits, each row weighted with `weight`.
fn cross_entropy(y: &Array2<f64>, z: &Array2<f64>, weight: f64) -> (Array1<f64>, Array2<f64>) {
    let log_p = log_softmax(z, false);
    let rows = -(y * &log_p).sum_axis(ndarray::Axis(1));
    (rows, log_softmax_back(&log_p, &(y * -weight)))
}

fn smoothed(inputs: &Inputs, scales: &Scales, alpha: f64) -> Loss {
    let (n, s) = (inputs.image.nrows(), scales.log_scale.exp());
    let off = alpha / (n as f64 - 1.0);
    let y = Array2::from_shape_fn((n, n), |(i, j)| if i == j { 1.0 - alpha } else { off });
    let mut tape = Tape::new(inputs);
    let mut means = [0.0; 2];
    for (side, (x, t)) in SIDES.into_iter().enumerate() {
        let z = tape.cosines(x, t) * s;
        let (rows, grad) = cross_entropy(&y, &z, 0.5 / n as f64);
        means[side] = rows.sum() / n as f64;
        tape.log_scale += (&grad * &z).sum();
        tape.add_to_sets(x, t, &(grad * s));
    }
    let terms = SideTerms { hard: Some(means), ..SideTerms::default() };
    tape.into_loss((means[0] + means[1]) / 2.0, terms.named(false))
}

/// Value and gradients of one guided direction.
struct Guided {
    soft: Array1<f64>,
    relation: Array1<f64>,
    to_logits: Array2<f64>,
    to_guide: Array2<f64>,
}

fn guided(c: &SoftClipConfig, z: &Array2<f64>, g: &Array2<f64>, beta: &Array1<f64>, weight: f64) -> Guided {
    let n = z.nrows();
    let (log_p, log_w) = (log_softmax(z, false), log_softmax(g, false));
    let log_q = soft_target(&log_w, beta);
    let mut soft = compare(c.divergence, &log_q, &log_p);
    let (p_star, w_star) = (log_softmax(z, true), log_softmax(g, true));
    let mut relation = compare(c.divergence, &w_star, &p_star);
    for i in (0..n).filter(|i| beta[*i] == 0.0) {
        relation.rows[i] = 0.0;
        relation.to_log_q.row_mut(i).fill(0.0);
        relation.to_log_p.row_mut(i).fill(0.0);
        if c.divergence != Divergence::Js {
            soft.rows[i] = -log_p[[i, i]];
            soft.to_log_q.row_mut(i).fill(0.0);
            soft.to_log_p.row_mut(i).fill(0.0);
            soft.to_log_p[[i, i]] = -1.0;
        }
    }
    let to_log_w = soft_target_back(&log_w, &log_q, beta, &soft.to_log_q);
    let (soft_weight, relation_weight) = (weight * c.soft, weight * c.lambda);
    Guided {
        to_logits: log_softmax_back(&log_p, &soft.to_log_p) * soft_weight
            + log_softmax_back(&p_star, &relation.to_log_p) * relation_weight,
        to_guide: log_softmax_back(&log_w, &to_log_w) * soft_weight
            + log_softmax_back(&w_star, &relation.to_log_q) * relation_weight,
        soft: soft.rows,
        relation: relation.rows,
    }
}

fn softclip(c: &SoftClipConfig, inputs: &Inputs, scales: &Scales) -> Loss {
    let (n, s) = (inputs.image.nrows(), scales.log_scale.exp());
    let u = match c.target_temperature {
        TargetTemperature::Shared => s,
        TargetTemperature::Fixed(tau) => 1.0 / tau,
        TargetTemperature::Own => scales.target_log_scale.unwrap_or(scales.log_scale).exp(),
    };
    let beta = inputs.row_beta.clone().unwrap_or_else(|| Array1::from_elem(n, c.beta));
    let (mut tape, mut terms) = (Tape::new(inputs), SideTerms::default());
    let (mut value, mut hard) = (0.0, [0.0; 2]);
    for (side, (x, t)) in SIDES.into_iter().enumerate() {
        let z = tape.cosines(x, t) * s;
        let (rows, mut to_logits) = cross_entropy(&Array2::eye(n), &z, c.mu * 0.5 / n as f64);
        hard[side] = rows.sum() / n as f64;
        value += c.mu * hard[side] / 2.0;
        for (pairs, mix) in [(false, c.gamma), (true, 1.0 - c.gamma)] {
            if mix == 0.0 || !c.has_targets() {
                continue;
            }
            let (gx, gy): (Set, Set) = match (pairs, c.forms[side].guides()) {
                (false, (a, b)) => (a.into(), b.into()),
                (true, _) => (x, x),
            };
            let g = tape.cosines(gx, gy) * u;
            let d = guided(c, &z, &g, &beta, mix * 0.5 / n as f64);
            let (soft, relation) = (d.soft.sum() / n as f64, d.relation.sum() / n as f64);
            value += mix * (c.soft * soft + c.lambda * relation) / 2.0;
            terms.soft.get_or_insert([0.0; 2])[side] += mix * soft;
            terms.relation.get_or_insert([0.0; 2])[side] += mix * relation;
            to_logits += &d.to_logits;
            if c.target_grad == TargetGrad::Flow {
                tape.target_log_scale += (&d.to_guide * &g).sum();
                tape.add_to_sets(gx, gy, &(d.to_guide * u));
            }
        }
        tape.log_scale += (&to_logits * &z).sum();
        tape.add_to_sets(x, t, &(to_logits * s));
    }
    terms.hard = Some(hard);
    let to_targets = tape.target_log_scale;
    let mut loss = tape.into_loss(value, terms.named(true));
    match c.target_temperature {
        TargetTemperature::Shared => loss.log_scale += to_targets,
        TargetTemperature::Own => loss.target_log_scale = Some(to_targets),
        TargetTemperature::Fixed(_) => {}
    }
    loss
}

fn text_based(c: &TextBasedConfig, inputs: &Inputs, scales: &Scales) -> Loss {
    let n = inputs.image.nrows();
    let s = c.tau.map_or(scales.log_scale.exp(), |tau| 1.0 / tau);
    let mut tape = Tape::new(inputs);
    let symmetrized = |m: Array2<f64>| if c.symmetrize { (&m + &m.t()) / 2.0 } else { m };
    let base = symmetrized(tape.cosines(Set::Image, Set::Text));
    let text = symmetrized(tape.cosines(Set::Category, Set::CategoryText));
    let blended = c.blend == Blend::Logits;
    let (own, other) = if blended { (1.0 - c.alpha, c.alpha) } else { (1.0, 0.0) };
    let logits = (&base * own + &text * other) * s;
    let labels = |transpose: bool| {
        let text = if transpose { text.t().to_owned() } else { text.clone() };
        let mut y = Array2::eye(n);
        if blended {
            return y;
        }
        let normalized = c.blend == Blend::TargetsNormalized;
        y = y * (1.0 - c.alpha) + text.mapv(|k| if normalized { k.max(0.0) } else { k }) * c.alpha;
        if normalized {
            y /= &y.sum_axis(ndarray::Axis(1)).insert_axis(ndarray::Axis(1));
        }
        y
    };
    let (i2t, to_logits) = cross_entropy(&labels(false), &logits, 0.5 / n as f64);
    let (t2i, to_transposed) = cross_entropy(&labels(true), &logits.t().to_owned(), 0.5 / n as f64);
    let grad = to_logits + to_transposed.t();
    if c.tau.is_none() {
        tape.log_scale = (&grad * &logits).sum();
    }
    let grad = symmetrized(grad * (s * own));
    tape.add_to_sets(Set::Image, Set::Text, &grad);
    let means = [i2t.sum() / n as f64, t2i.sum() / n as f64];
    let terms = SideTerms { hard: Some(means), ..SideTerms::default() };
    tape.into_loss((means[0] + means[1]) / 2.0, terms.named(false))
}

fn siglip(inputs: &Inputs, scales: &Scales) -> Loss {
    let (n, s, b) = (inputs.image.nrows() as f64, scales.log_scale.exp(), scales.bias.unwrap_or(0.0));
    let mut tape = Tape::new(inputs);
    let z = tape.cosines(Set::Image, Set::Text) * s;
    let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
    let sigmoid = |x: f64| if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) };
    let (mut sums, mut grad) = ([0.0; 2], Array2::zeros(z.dim()));
    for ((i, j), &x) in z.indexed_iter() {
        // −log sigmoid(sign · (x + b))
        let sign = if i == j { 1.0 } else { -1.0 };
        sums[(i != j) as usize] += softplus(-sign * (x + b)) / n;
        grad[[i, j]] = -sign * sigmoid(-sign * (x + b)) / n;
    }
    tape.log_scale = (&grad * &z).sum();
    let bias = grad.sum();
    tape.add_to_sets(Set::Image, Set::Text, &(grad * s));
    Loss { bias: Some(bias), ..tape.into_loss(sums[0] + sums[1], SIGLIP.into_iter().zip(sums).collect()) }
}
