//! Between the passes: each row's loss, its gradient on the diagonal, and the few numbers that the second pass needs of it. All f64 `[N]`.

use tch::{Kind, Tensor};

use super::js::JsKernel;
use super::plan::{Direction, Target};
use super::statistics::Statistics;
use crate::config::Divergence;

/// What a row's probabilities are, in logarithms. Off the diagonal p_ij = n p*_ij.
pub(super) struct Softmax {
    /// ln Σ_{j≠i} e^{z_ij}.
    pub log_mass: Tensor,
    /// log of the own pair's probability.
    pub log_own: Tensor,
    /// log n: of all others together.
    pub log_rest: Tensor,
}

impl Softmax {
    pub fn new(log_mass: Tensor, diagonal: &Tensor) -> Self {
        let margin = diagonal - &log_mass;
        Softmax { log_own: margin.log_sigmoid(), log_rest: margin.neg().log_sigmoid(), log_mass }
    }
}

/// Inputs of one direction's rows.
pub(super) struct RowInputs<'a> {
    pub direction: &'a Direction,
    pub statistics: &'a Statistics,
    /// S_ii.
    pub s_diagonal: Tensor,
    /// G_ii or K_ii.
    pub g_diagonal: Option<Tensor>,
    /// Σ_j S_ij over all j, for smoothed labels.
    pub s_total: Option<Tensor>,
    /// β of each row.
    pub beta: &'a Tensor,
    /// ½ for the two directions, over N.
    pub share: f64,
}

/// Results of one direction's rows.
pub(super) struct Rows {
    /// The row's weighted loss.
    pub loss: Tensor,
    /// Soft, relation-enhanced and cross-entropy term, unweighted.
    pub soft: Option<Tensor>,
    pub relation: Option<Tensor>,
    pub hard: Tensor,
    /// 1 − q_ii and the entropy of q_i.
    pub softness: Tensor,
    pub entropy: Option<Tensor>,
    /// ∂loss/∂S_ii and ∂loss/∂G_ii.
    pub s_diagonal: Tensor,
    pub g_diagonal: Option<Tensor>,
    /// A part of ∂loss/∂S_ij that is the same in all entries.
    pub uniform: f64,
    pub kernel: Kernel,
}

/// The gradient off the diagonal, as numbers per row that are broadcast over a block (`gradient` has the formulas).
pub(super) enum Kernel {
    Cross { shift: Tensor },
    Labels { shift: Tensor, factor: Tensor, weight: Tensor },
    Kl { shape: Divergence, p_shift: Tensor, p_level: Tensor, w_shift: Tensor, w_level: Tensor, keep: Option<Tensor> },
    Js(JsKernel),
}

impl Kernel {
    /// The numbers in the kind that the tiles are computed in.
    pub fn to_kind(&self, kind: Kind) -> Kernel {
        let cast = |t: &Tensor| t.to_kind(kind);
        match self {
            Kernel::Cross { shift } => Kernel::Cross { shift: cast(shift) },
            Kernel::Labels { shift, factor, weight } => {
                Kernel::Labels { shift: cast(shift), factor: cast(factor), weight: cast(weight) }
            }
            Kernel::Kl { shape, p_shift, p_level, w_shift, w_level, keep } => Kernel::Kl {
                shape: *shape,
                p_shift: cast(p_shift),
                p_level: cast(p_level),
                w_shift: cast(w_shift),
                w_level: cast(w_level),
                keep: keep.as_ref().map(cast),
            },
            Kernel::Js(k) => Kernel::Js(k.to_kind(kind)),
        }
    }
}

/// Rows of any direction whose divergence is not JS.
pub(super) fn rows(x: RowInputs) -> Rows {
    match (x.direction.target, x.statistics) {
        (Target::Guided { divergence, .. }, Statistics::Guided { g, .. }) => guided(&x, divergence, g.mean(0), g.mean(1)),
        (Target::Labels { alpha, normalized, .. }, Statistics::Labels { mass, size, dot, .. }) => {
            labels(&x, alpha, normalized, [mass, size, dot])
        }
        (Target::Smoothed { alpha }, _) => smoothed(&x, alpha),
        // `Statistics::new` pairs every target with its own kind.
        (Target::Guided { .. } | Target::Labels { .. }, _) => smoothed(&x, 0.0),
    }
}

/// Cross-entropy with ỹ of eq. (5). −Σ ỹ log p = −log p_ii + α (S_ii − mean of the others' S), so its gradient is p − y plus a constant
/// matrix: α/(N − 1) less in every entry, α + α/(N − 1) more on the diagonal.
fn smoothed(x: &RowInputs, alpha: f64) -> Rows {
    let p = Softmax::new(x.statistics.logits().log_mass(), &x.s_diagonal);
    let n = x.s_diagonal.size()[0] as f64;
    let weight = x.direction.hard * x.share;
    let cross = p.log_own.neg();
    let (mut hard, mut uniform, mut diagonal) = (cross, 0.0, p.log_rest.exp().neg());
    if let (true, Some(total)) = (alpha > 0.0, &x.s_total) {
        let others = (total - &x.s_diagonal) / (n - 1.0);
        hard += (&x.s_diagonal - others) * alpha;
        uniform = -weight * alpha / (n - 1.0);
        diagonal += alpha + alpha / (n - 1.0);
    }
    let entropy = |q: f64| if q > 0.0 { -q * q.ln() } else { 0.0 };
    let target_entropy = entropy(1.0 - alpha) + (n - 1.0) * entropy(alpha / (n - 1.0));
    Rows {
        loss: &hard * x.direction.hard,
        soft: None,
        relation: None,
        softness: hard.ones_like() * alpha,
        entropy: Some(hard.ones_like() * target_entropy),
        hard,
        s_diagonal: diagonal * weight,
        g_diagonal: None,
        uniform,
        kernel: Kernel::Cross { shift: &p.log_mass - &p.log_rest - weight.ln() },
    }
}

/// Cross-entropy with the label row (1 − α)·identity + αK, divided by `norm`, which is its sum ρ or 1:
/// Σ_j Y_ij (a − S_ij), whose gradient is ρ p − Y.
fn labels(x: &RowInputs, alpha: f64, normalized: bool, [mass, size, dot]: [&Tensor; 3]) -> Rows {
    let p = Softmax::new(x.statistics.logits().log_mass(), &x.s_diagonal);
    let full = &p.log_mass - &p.log_rest;
    let own = match &x.g_diagonal {
        Some(k) => k * alpha + (1.0 - alpha),
        None => full.ones_like(),
    };
    let rest = mass * alpha;
    let sum = &own + &rest;
    let norm = if normalized { sum.shallow_clone() } else { sum.ones_like() };
    // A sum that negative similarities cancel would say nothing of the labels' sizes.
    let (own_size, rest_size) = (own.abs(), size * alpha);
    let hard = (&own * p.log_own.neg() + &rest * &full - dot * alpha) / &norm;
    let weight = x.direction.hard * x.share;
    Rows {
        loss: &hard * x.direction.hard,
        soft: None,
        relation: None,
        softness: &rest_size / (&own_size + &rest_size).clamp_min(f64::MIN_POSITIVE),
        entropy: None,
        hard,
        s_diagonal: (&rest - &sum * p.log_rest.exp()) / &norm * weight,
        g_diagonal: None,
        uniform: 0.0,
        kernel: Kernel::Labels { shift: full, factor: &sum / &norm * weight, weight: norm.reciprocal() * (alpha * weight) },
    }
}

/// The pieces of p, w and q that every divergence uses.
pub(super) struct Pieces {
    pub p: Softmax,
    pub w: Softmax,
    pub log_beta: Tensor,
    /// log q_ii, and the mass of q off the diagonal, β n_w.
    pub log_own: Tensor,
    pub rest: Tensor,
    /// (log q_ij − log p_ij) − (log w*_ij − log p*_ij), the same for all j ≠ i.
    pub shift: Tensor,
    /// a* − b*: log w* − log p* = G − S + this.
    pub gap: Tensor,
    /// 1 where β = 0: a plain hard label.
    pub hard_row: Tensor,
}

/// Smaller than any ln β that f64 can hold; finite, so that 0 · ln β is 0.
const LOG_OF_ZERO: f64 = -1e4;

impl Pieces {
    pub fn new(x: &RowInputs, log_mass_g: Tensor, beta: &Tensor) -> Self {
        let p = Softmax::new(x.statistics.logits().log_mass(), &x.s_diagonal);
        let diagonal = x.g_diagonal.as_ref().unwrap_or(&x.s_diagonal);
        let w = Softmax::new(log_mass_g, diagonal);
        let log_beta = beta.log().clamp_min(LOG_OF_ZERO);
        let rest = beta * w.log_rest.exp();
        // log(1 − β n_w): the second form keeps its digits where β n_w is near 1, and β = 1.
        let near_one = beta.neg().log1p().logaddexp(&(&log_beta + &w.log_own));
        let log_own = rest.neg().log1p().where_self(&rest.lt(0.5), &near_one);
        let shift = &log_beta + &w.log_rest - &p.log_rest;
        let gap = &p.log_mass - &w.log_mass;
        let hard_row = x.beta.eq(0.0).to_kind(Kind::Double);
        Pieces { p, w, log_beta, log_own, rest, shift, gap, hard_row }
    }

    /// Entropy of q, from the guide's mean over w*.
    pub fn entropy(&self, mean_g: &Tensor) -> Tensor {
        let off = &self.log_beta + &self.w.log_rest + mean_g - &self.w.log_mass;
        (self.log_own.exp() * &self.log_own + &self.rest * off).neg()
    }
}

/// Weights (forward KL(q‖p), reverse KL(p‖q)).
fn halves(divergence: Divergence) -> (f64, f64) {
    match divergence {
        Divergence::SymmetricKl => (0.5, 0.5),
        Divergence::Kl | Divergence::Js => (1.0, 0.0),
        Divergence::ReverseKl => (0.0, 1.0),
    }
}

/// Soft and relation-enhanced terms by KL. `mean_g` is E_w*`[G]`, `mean_gap` E_w*[G − S].
///
/// With D = G − S, Δ = log w* − log p* = D + gap and log q − log p = Δ + shift off the diagonal, the row's gradient there is
///
/// ```text
///     ∂/∂S = p* (A − E Δ) − C w*      A  = c_F n_p − c_B n_p (shift + B) + c_F* − c_B* B* + c_CE n_p
///     ∂/∂G = w* (A' + C Δ) − E p*     A' = c_F β n_w (shift − U) + c_B n_w (n_p + κ) − c_F* F* + c_B*
///     E = c_B n_p + c_B*,  C = c_F β n_w + c_F*,  U = Σ_j w_j (log q_j − log p_j),  κ = β w_ii p_ii / q_ii
/// ```
///
/// E and C (or A and A', where one divergence is off) are positive, so they go into the exponent of p* and w*.
fn guided(x: &RowInputs, divergence: Divergence, mean_g: Tensor, mean_gap_w: Tensor) -> Rows {
    let Statistics::Guided { s, g } = x.statistics else { return smoothed(x, 0.0) };
    let is_hard = x.beta.eq(0.0);
    // Rows of β = 0 are computed with β = 1 and replaced below.
    let beta = x.beta.masked_fill(&is_hard, 1.0);
    let q = Pieces::new(x, g.log_mass(), &beta);
    let keep = q.hard_row.neg() + 1.0;
    let (forward, reverse) = halves(divergence);
    let (n_p, n_w) = (q.p.log_rest.exp(), q.w.log_rest.exp());
    let own_gap = &q.log_own - &q.p.log_own;

    let delta_w = mean_gap_w + &q.gap;
    let delta_p = s.mean(0) + &q.gap;
    let f = &q.rest * (&delta_w + &q.shift) + q.log_own.exp() * &own_gap;
    let b = &n_p * (&delta_p + &q.shift).neg() - q.p.log_own.exp() * &own_gap;
    let (f_star, b_star) = (&delta_w, delta_p.neg());
    let cross = q.p.log_own.neg();
    let soft = (&f * forward + &b * reverse).where_self(&is_hard.logical_not(), &cross);
    let relation = (f_star * forward + &b_star * reverse) * &keep * relation_exists(&keep);

    let d = x.direction;
    let c = Weights { f: d.soft * forward, b: d.soft * reverse, fs: d.relation * forward, bs: d.relation * reverse, ce: d.hard };
    let u = &n_w * (&delta_w + &q.shift) + q.w.log_own.exp() * &own_gap;
    let log_kappa = &q.log_beta + &q.w.log_own + &q.p.log_own - &q.log_own;
    let log_reach = q.p.log_rest.logaddexp(&log_kappa); // log(n_p + κ)

    let log_e = log_sum(c.b, &q.p.log_rest, c.bs);
    let log_c = log_sum(c.f, &(&q.log_beta + &q.w.log_rest), c.fs);
    let hard_ce = (d.hard + d.soft).ln() + &q.p.log_rest;
    let log_share = x.share.ln();
    let p_log = match divergence {
        Divergence::Kl => log_sum(c.f + c.ce, &q.p.log_rest, c.fs),
        _ => log_e.shallow_clone(),
    };
    let w_log = match divergence {
        Divergence::ReverseKl => log_sum(c.b, &(&q.w.log_rest + &log_reach), c.bs),
        _ => log_c.shallow_clone(),
    };
    // A/E and A'/C.
    let a_over_e =
        (&q.p.log_rest - &log_e).exp() * ((&q.shift + &b) * -c.b + (c.f + c.ce)) + c.over(&log_e, &(&b_star * -c.bs + c.fs));
    let a_over_c = (&q.w.log_rest - &log_c).exp() * (&beta * (&q.shift - &u) * c.f + log_reach.exp() * c.b)
        + c.over(&log_c, &(f_star * -c.fs + c.bs));
    let replace = |value: Tensor, by: &Tensor| value.where_self(&is_hard.logical_not(), by);
    let ones = keep.ones_like();
    let s_own = (&q.rest - &n_p) * c.f + q.p.log_own.exp() * (own_gap.neg() - &b) * c.b - &n_p * c.ce;
    let g_own = &beta * q.w.log_own.exp() * (&own_gap - &u) * c.f + ((&q.w.log_own + &log_reach).exp() - log_kappa.exp()) * c.b;
    let any_hard = is_hard.any().int64_value(&[]) != 0;
    let kernel = if d.soft == 0.0 && d.relation == 0.0 {
        // Two pairs without a soft term: only the cross-entropy is left, and above are logarithms of weights that are all 0.
        Kernel::Cross { shift: &q.p.log_mass - &q.p.log_rest - (d.hard * x.share).ln() }
    } else {
        Kernel::Kl {
            shape: divergence,
            p_shift: &q.p.log_mass - replace(p_log, &hard_ce) - log_share,
            p_level: replace(a_over_e - &q.gap, &ones),
            w_shift: &q.w.log_mass - replace(w_log, &(&ones * f64::NEG_INFINITY)) - log_share,
            w_level: replace(a_over_c + &q.gap, &ones),
            keep: (any_hard && divergence != Divergence::Kl).then(|| keep.shallow_clone()),
        }
    };
    Rows {
        loss: &soft * d.soft + &relation * d.relation + &cross * d.hard,
        softness: &q.rest * &keep,
        entropy: Some(q.entropy(&mean_g) * &keep),
        soft: Some(soft),
        relation: Some(relation),
        hard: cross,
        s_diagonal: replace(s_own, &(&n_p * -(d.hard + d.soft))) * x.share,
        g_diagonal: Some(g_own * &keep * x.share),
        uniform: 0.0,
        kernel,
    }
}

/// 1, or 0 for two pairs: one entry is left off the diagonal then, 1 on both sides whatever rounding says. The plan drops its gradient.
pub(super) fn relation_exists(row: &Tensor) -> f64 {
    if row.size()[0] > 2 { 1.0 } else { 0.0 }
}

/// c_F, c_B, c_F*, c_B*, c_CE.
struct Weights {
    f: f64,
    b: f64,
    fs: f64,
    bs: f64,
    ce: f64,
}

impl Weights {
    /// numerator / e^{log}, 0 where the relation-enhanced term is off (there the denominator may underflow).
    fn over(&self, log: &Tensor, numerator: &Tensor) -> Tensor {
        if self.fs == 0.0 && self.bs == 0.0 { numerator.zeros_like() } else { log.neg().exp() * numerator }
    }
}

/// log(x e^{log_y} + z).
fn log_sum(x: f64, log_y: &Tensor, z: f64) -> Tensor {
    let first = log_y + x.ln();
    if z > 0.0 { first.logaddexp(&(log_y.zeros_like() + z.ln())) } else { first }
}
