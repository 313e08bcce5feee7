//! The Jensen-Shannon divergence: log(p + q) needs both normalisers first, so its means take a pass of their own.
//!
//! With x = log q − log p and m = (p + q)/2:  log(q/m) = ln 2 + ς(x),  log(p/m) = ln 2 + ς(x) − x,  ς(x) = log sigmoid x.
//! Off the diagonal x = Δ + shift for the soft term, x* = Δ for the relation-enhanced one (`rows::Pieces` has the names). Then
//!
//! ```text
//!     K_q = KL(q‖m) = β n_w (ln 2 + E_w*[ς(x)]) + q_ii log(q_ii/m_ii)
//!     K_p = KL(p‖m) = n_p (ln 2 + E_p*[ς(x) − x]) + p_ii log(p_ii/m_ii)
//!     JS  = ½ (K_q + K_p)
//!     ∂JS/∂S_j = ½ p_j (log(p_j/m_j) − K_p)
//!     ∂JS/∂G_j = ½ β w_j (log(q_j/m_j) − U),   U = Σ_j w_j log(q_j/m_j)
//! ```
//!
//! and the same with stars and n = β = 1 for the relation-enhanced term.

use std::f64::consts::LN_2;

use tch::{Kind, Tensor};

use super::plan::{Plan, Target};
use super::rows::{Kernel, Pieces, RowInputs, Rows, relation_exists};
use super::sheet::{Operands, Queries, Sheet, Span, Tiles};
use super::statistics::{Statistics, sides};
use crate::config::Divergence;
use crate::error::Result;
use crate::ranks::Ranks;

/// E_w*[ς(x)], E_p*[ς(x) − x] and the same of x*, f64 `[N]`.
pub(super) struct JsMeans {
    w: Tensor,
    p: Tensor,
    w_star: Tensor,
    p_star: Tensor,
}

/// Row numbers for a block: p* = e^{S − s_mass}, w* = e^{G − g_mass}, Δ = (G − g_mass) − (S − s_mass).
struct Lines {
    s_mass: Tensor,
    g_mass: Tensor,
    shift: Tensor,
}

impl Lines {
    fn new(q: &Pieces, kind: Kind) -> Self {
        Lines { s_mass: q.p.log_mass.to_kind(kind), g_mass: q.w.log_mass.to_kind(kind), shift: q.shift.to_kind(kind) }
    }
}

/// A block's p*, w*, ς and x for the soft and the relation-enhanced term.
struct Blocks {
    p: Tensor,
    w: Tensor,
    soft: (Tensor, Tensor),
    star: (Tensor, Tensor),
}

impl Lines {
    fn blocks(&self, queries: Queries, span: Span, s: &Tensor, g: &Tensor) -> Result<Blocks> {
        let log_p = s.f_sub(&queries.of(&self.s_mass, span)?)?;
        let log_w = g.f_sub(&queries.of(&self.g_mass, span)?)?;
        // The left-out diagonal stands at -1e30 in both: a difference of 0 there, weighted with 0.
        let star = log_w.f_sub(&log_p)?;
        let soft = star.f_add(&queries.of(&self.shift, span)?)?;
        Ok(Blocks {
            p: log_p.f_exp()?,
            w: log_w.f_exp()?,
            soft: (soft.f_log_sigmoid()?, soft),
            star: (star.f_log_sigmoid()?, star),
        })
    }
}

/// The second pass over the tiles, among the ranks, for the directions that want JS.
pub(super) fn collect(
    operands: &Operands,
    plan: &Plan,
    pieces: &[Option<Pieces>],
    tiles: Tiles,
    ranks: &dyn Ranks,
) -> Result<Vec<Option<JsMeans>>> {
    let zeros = || Tensor::f_zeros([operands.n], (Kind::Double, operands.device));
    let mut all = Vec::new();
    for p in pieces {
        all.push(match p {
            Some(q) => {
                Some((Lines::new(q, operands.kind), JsMeans { w: zeros()?, p: zeros()?, w_star: zeros()?, p_star: zeros()? }))
            }
            None => None,
        });
    }
    if all.iter().all(Option::is_none) {
        return Ok(all.into_iter().map(|_| None).collect());
    }
    let mut sheet = Sheet::new(plan.matrices.len(), tiles);
    for (rows, cols) in tiles.pairs() {
        sheet.open(rows, cols);
        for (direction, entry) in plan.directions.iter().zip(&all) {
            let (Some((lines, means)), Target::Guided { matrix, .. }) = (entry, direction.target) else { continue };
            for &queries in sides(direction, rows == cols) {
                let s = sheet.values(operands, &plan.matrices, direction.logits.by(queries))?;
                let g = sheet.values(operands, &plan.matrices, matrix.by(queries))?;
                let span = sheet.span(queries);
                let x = lines.blocks(queries, span, &s, &g)?;
                let add = |to: &Tensor, weights: &Tensor, value: &Tensor| -> Result<()> {
                    let part = weights.f_mul(value)?.f_sum_dim_intlist([queries.along()].as_slice(), false, operands.kind)?;
                    let _ = to.f_narrow(0, span.start, span.len)?.f_add_(&part.f_to_kind(Kind::Double)?)?;
                    Ok(())
                };
                add(&means.w, &x.w, &x.soft.0)?;
                add(&means.p, &x.p, &x.soft.0.f_sub(&x.soft.1)?)?;
                add(&means.w_star, &x.w, &x.star.0)?;
                add(&means.p_star, &x.p, &x.star.0.f_sub(&x.star.1)?)?;
            }
        }
    }
    let means = all.iter().flatten().flat_map(|(_, means)| [&means.w, &means.p, &means.w_star, &means.p_star]);
    means.into_iter().try_for_each(|sum| ranks.sum(sum))?;
    Ok(all.into_iter().map(|x| x.map(|(_, means)| means)).collect())
}

/// The pieces of a direction, if JS is its divergence.
pub(super) fn pieces(x: &RowInputs) -> Option<Pieces> {
    match (x.direction.target, x.statistics) {
        (Target::Guided { divergence: Divergence::Js, .. }, Statistics::Guided { g, .. }) => {
            Some(Pieces::new(x, g.log_mass(), x.beta))
        }
        _ => None,
    }
}

/// The gradient off the diagonal:
/// ∂/∂S = p* (e₁ (ς(x) − x) + e₂ (ς(x*) − x*) + e₀),  ∂/∂G = w* (f₁ ς(x) + f₂ ς(x*) + f₀).
pub(super) struct JsKernel {
    lines: Lines,
    s: [Tensor; 3],
    g: [Tensor; 3],
}

impl JsKernel {
    pub fn to_kind(&self, kind: Kind) -> JsKernel {
        let cast = |t: &Tensor| t.to_kind(kind);
        let lines = Lines { s_mass: cast(&self.lines.s_mass), g_mass: cast(&self.lines.g_mass), shift: cast(&self.lines.shift) };
        JsKernel { lines, s: self.s.each_ref().map(cast), g: self.g.each_ref().map(cast) }
    }

    /// Negated gradients of a block with respect to S and G.
    pub fn gradients(&self, queries: Queries, span: Span, s: &Tensor, g: &Tensor) -> Result<(Tensor, Tensor)> {
        let x = self.lines.blocks(queries, span, s, g)?;
        let blend = |c: &[Tensor; 3], soft: &Tensor, star: &Tensor| -> Result<Tensor> {
            let c = [queries.of(&c[0], span)?, queries.of(&c[1], span)?, queries.of(&c[2], span)?];
            Ok(soft.f_mul(&c[1])?.f_addcmul_(star, &c[2])?.f_add_(&c[0])?)
        };
        let to_s = blend(&self.s, &x.soft.0.f_sub(&x.soft.1)?, &x.star.0.f_sub(&x.star.1)?)?.f_mul_(&x.p)?.f_neg_()?;
        let to_g = blend(&self.g, &x.soft.0, &x.star.0)?.f_mul_(&x.w)?.f_neg_()?;
        Ok((to_s, to_g))
    }
}

pub(super) fn rows(x: &RowInputs, q: &Pieces, mean_g: &Tensor, means: &JsMeans) -> Rows {
    let keep = q.hard_row.neg() + 1.0;
    let (n_p, n_w) = (q.p.log_rest.exp(), q.w.log_rest.exp());
    let own_gap = &q.log_own - &q.p.log_own;
    let own_q = own_gap.log_sigmoid() + LN_2; // log(q_ii/m_ii)
    let own_p = own_gap.neg().log_sigmoid() + LN_2;
    let (p_own, w_own) = (q.p.log_own.exp(), q.w.log_own.exp());

    let k_q = &q.rest * (&means.w + LN_2) + q.log_own.exp() * &own_q;
    let k_p = &n_p * (&means.p + LN_2) + &p_own * &own_p;
    let u = &n_w * (&means.w + LN_2) + &w_own * &own_q;
    let soft = (k_q + &k_p) * 0.5;
    let relation = ((&means.w_star + &means.p_star) * 0.5 + LN_2) * &keep * relation_exists(&keep);
    let cross = q.p.log_own.neg();

    let d = x.direction;
    let half = 0.5 * d.soft * x.share;
    let star = &keep * (0.5 * d.relation * x.share);
    let hard = d.hard * x.share;
    let from_w = x.beta * &n_w * half;
    let s0 = (k_p.neg() + LN_2) * &n_p * half - &star * &means.p_star + &n_p * hard;
    let g0 = (u.neg() + LN_2) * &from_w - &star * &means.w_star;
    Rows {
        loss: &soft * d.soft + &relation * d.relation + &cross * d.hard,
        softness: q.rest.shallow_clone(),
        entropy: Some(q.entropy(mean_g)),
        soft: Some(soft),
        relation: Some(relation),
        hard: cross,
        s_diagonal: &p_own * (own_p - k_p) * half - &n_p * hard,
        g_diagonal: Some(x.beta * w_own * (own_q - u) * half),
        uniform: 0.0,
        kernel: Kernel::Js(JsKernel {
            lines: Lines::new(q, Kind::Double),
            s: [s0, &n_p * half, star.shallow_clone()],
            g: [g0, from_w, star],
        }),
    }
}
