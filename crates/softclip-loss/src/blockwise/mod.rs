//! The losses without an N×N matrix: memory O(N·D) for sums and O(tile²) for work, value and all gradients in closed form, no autograd.
//!
//! Two passes over pairs of tiles (I, J). The first leaves a handful of numbers a row (`statistics`); from them follow each row's loss
//! and its gradient on the diagonal (`rows`); the second recomputes the blocks and multiplies the gradient off the diagonal into the
//! embeddings' sums (`gradient`). The Jensen-Shannon divergence takes one pass more (`js`), SigLIP's loss one in all (`siglip`).
//!
//! All sums over j leave the diagonal out: with p*, w* the softmax of S, G off the diagonal (eq. 12), everything else follows from
//! ln Σ_{j≠i} e^{S_ij}, ln Σ_{j≠i} e^{G_ij} and the means of D = G − S under p* and w*, by
//!
//! ```text
//!     x = S_ii − ln Σ_{j≠i} e^{S_ij}      log p_ii = ς(x)     log n_p = log(1 − p_ii) = ς(−x)      ς = log sigmoid
//!     F  = KL(q‖p)  = β n_w (E_w*`[D]` + gap + shift) + q_ii (log q_ii − log p_ii)
//!     B  = KL(p‖q)  = −n_p (E_p*`[D]` + gap + shift) + p_ii (log p_ii − log q_ii)
//!     F* = KL(w*‖p*) = E_w*`[D]` + gap      B* = −E_p*`[D]` − gap
//!     gap = ln Σ e^{S} − ln Σ e^{G}       shift = ln β + ln n_w − ln n_p
//! ```
//!
//! so that nothing is ever divided by a probability, and β cancels in F*, B* by construction.
//!
//! **Work.** Both directions read the same logits (text→image is the transpose), and a guide R Rᵀ is its own transpose. A pair of tiles
//! therefore serves the blocks [I, J] and [J, I] of both directions with four products in each pass (V_I T_Jᵀ, T_I V_Jᵀ, R_I R_Jᵀ, A_I A_Jᵀ)
//! and eight for the gradients: N²D multiply-adds times 2 in the first pass and 6 in the second, half of what two separate directions take.
//!
//! **Precision.** Tiles are computed in f64 for f64 embeddings, else in f32 (bf16 is widened first). All numbers of a row and their sums
//! over tiles are f64; gradients are summed over tiles in the tiles' own kind.

mod gradient;
mod js;
mod plan;
mod rows;
mod sheet;
mod siglip;
mod statistics;

use tch::{Device, Kind, Tensor};

use self::plan::{Plan, Role, Target};
use self::rows::{RowInputs, Rows};
use self::sheet::{Accumulators, Operands, Tiles};
use self::siglip::Siglip;
use self::statistics::Statistics;
use crate::config::{LossConfig, TargetTemperature};
use crate::error::{Error, Result};
use crate::inputs::{LossInputs, SETS, Scales, Set, target_scale};
use crate::parts::{SIGLIP, SideTerms};
use crate::ranks::{Alone, Ranks};
use crate::value::{Diagnostics, Gradients, Loss};

/// How the blocks are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockOptions {
    /// Rows and columns of a tile, at least 1. SoftCLIP holds about 13 tile² numbers at a time with its defaults, 4 more with γ < 1, 5 more
    /// with JS.
    pub tile: i64,
}

impl Default for BlockOptions {
    fn default() -> Self {
        BlockOptions { tile: 1024 }
    }
}

impl BlockOptions {
    /// A tile that suits the device: 1,024 on CPU, 4,096 on a GPU, where launches cost more than memory traffic.
    pub fn for_device(device: Device) -> Self {
        match device {
            Device::Cuda(_) => BlockOptions { tile: 4096 },
            _ => BlockOptions::default(),
        }
    }
}

/// The loss of a batch and its gradients with respect to the embeddings as given, computed outside of autograd.
///
/// # Errors
/// Configuration, shapes or missing inputs ([`Error::Config`], [`Error::Shape`], [`Error::Missing`], …), fewer than two pairs, inputs or a
/// value that are not finite, or libtorch's own failures such as lack of memory.
pub fn blockwise(config: &LossConfig, inputs: &LossInputs, scales: &Scales, options: &BlockOptions) -> Result<Loss> {
    blockwise_among(config, inputs, scales, options, &Alone)
}

/// As [`blockwise`], with the tiles shared out among `ranks`. Every rank gives the embeddings of the *whole* batch, the same on all, and
/// gets the whole loss and all rows' gradients: those of one process to rounding. A rank does 1/size of the N²D work and exchanges
/// O(N·D) numbers.
///
/// # Errors
/// As [`blockwise`], on all ranks alike; [`Error::Ranks`] where the ranks cannot exchange.
pub fn blockwise_among(
    config: &LossConfig,
    inputs: &LossInputs,
    scales: &Scales,
    options: &BlockOptions,
    ranks: &dyn Ranks,
) -> Result<Loss> {
    let _no_grad = tch::no_grad_guard();
    let needed = inputs.check(config, scales)?;
    if options.tile < 1 {
        return Err(Error::Config { key: "tile", why: format!("{} is not a size, use 512 to 4096", options.tile) });
    }
    let tiles = Tiles::new(inputs.image.rows(), options.tile, ranks);
    let operands = load(config, inputs, scales, &needed)?;
    let plan = Plan::new(config, operands.n);
    let sums = Accumulators::new(&operands, &plan.matrices)?;
    if let LossConfig::Siglip(_) = config {
        let found = siglip::run(&operands, &plan, &sums, scales.bias.unwrap_or(0.0), tiles, ranks)?;
        return siglip_loss(inputs, &operands, &sums, &found, &needed);
    }
    let statistics = statistics::collect(&operands, &plan, tiles, ranks)?;
    let rows = all_rows(config, inputs, &operands, &plan, &statistics, tiles, ranks)?;
    check_finite(&rows, &plan, &operands)?;
    gradient::accumulate(&operands, &plan, &rows, &sums, tiles)?;
    sums.merge(ranks)?;
    finish(config, inputs, &operands, &plan, &sums, &rows, &needed)
}

/// Embeddings in the kind of the arithmetic, and the scales as factors.
fn load(config: &LossConfig, inputs: &LossInputs, scales: &Scales, needed: &[Set]) -> Result<Operands> {
    let kind = if inputs.image.tensor().kind() == Kind::Double { Kind::Double } else { Kind::Float };
    let mut sets = Vec::with_capacity(SETS.len());
    for set in SETS {
        sets.push(match inputs.get(set) {
            Some(e) if needed.contains(&set) => Some(e.tensor().detach().f_to_kind(kind)?.f_contiguous()?),
            _ => None,
        });
    }
    let logit_scale = match config {
        LossConfig::TextBased(c) => c.tau.map_or(scales.log_scale.exp(), f64::recip),
        _ => scales.log_scale.exp(),
    };
    Ok(Operands::new(sets, logit_scale, target_scale(config, scales)))
}

fn all_rows(
    config: &LossConfig,
    inputs: &LossInputs,
    operands: &Operands,
    plan: &Plan,
    statistics: &[Statistics],
    tiles: Tiles,
    ranks: &dyn Ranks,
) -> Result<Vec<Rows>> {
    let beta = match (config, inputs.row_beta) {
        (LossConfig::Softclip(_), Some(b)) => b.detach().f_to_kind(Kind::Double)?.f_to_device(operands.device)?,
        (LossConfig::Softclip(c), None) => Tensor::f_full([operands.n], c.beta, (Kind::Double, operands.device))?,
        _ => Tensor::f_zeros([operands.n], (Kind::Double, operands.device))?,
    };
    let mut inputs = Vec::new();
    for (direction, statistics) in plan.directions.iter().zip(statistics) {
        let target = match direction.target {
            Target::Guided { matrix, .. } | Target::Labels { matrix, .. } => Some(&plan.matrices[matrix.rows]),
            Target::Smoothed { .. } => None,
        };
        let logits = &plan.matrices[direction.logits.rows];
        let s_total = match direction.target {
            Target::Smoothed { alpha } if alpha > 0.0 => Some(row_totals(operands, direction.side)?),
            _ => None,
        };
        inputs.push(RowInputs {
            direction,
            statistics,
            s_diagonal: operands.diagonal(logits, tiles)?,
            g_diagonal: target.map(|m| operands.diagonal(m, tiles)).transpose()?,
            s_total,
            beta: &beta,
            share: 0.5 / operands.n as f64,
        });
    }
    let pieces: Vec<_> = inputs.iter().map(js::pieces).collect();
    let means = js::collect(operands, plan, &pieces, tiles, ranks)?;
    let rows = inputs.into_iter().zip(pieces.iter().zip(&means)).map(|(x, js)| match (js, x.statistics) {
        ((Some(pieces), Some(means)), Statistics::Guided { g, .. }) => js::rows(&x, pieces, &g.mean(0), means),
        _ => rows::rows(x),
    });
    Ok(rows.collect())
}

/// Σ_j S_ij over all j, f64 `[N]`.
fn row_totals(operands: &Operands, side: usize) -> Result<Tensor> {
    let (own, other) = if side == 0 { (Set::Image, Set::Text) } else { (Set::Text, Set::Image) };
    let total = operands.set(other)?.f_sum_dim_intlist([0i64].as_slice(), false, Kind::Double)?.f_to_kind(operands.kind)?;
    Ok(operands.set(own)?.f_matmul(&total)?.f_to_kind(Kind::Double)?.f_mul_scalar(operands.logit_scale)?)
}

fn check_finite(rows: &[Rows], plan: &Plan, operands: &Operands) -> Result<()> {
    for (r, direction) in rows.iter().zip(&plan.directions) {
        if r.loss.f_sum(Kind::Double)?.f_double_value(&[])?.is_finite() {
            continue;
        }
        let row = r.loss.f_isfinite()?.f_to_kind(Kind::Int)?.f_argmin(None, false)?.f_int64_value(&[])?;
        let part = ["image to text", "text to image"][direction.side];
        return Err(Error::NonFiniteLoss { part, row, scale: operands.logit_scale, target_scale: operands.guide_scale });
    }
    Ok(())
}

fn finish(
    config: &LossConfig,
    inputs: &LossInputs,
    operands: &Operands,
    plan: &Plan,
    sums: &Accumulators,
    rows: &[Rows],
    needed: &[Set],
) -> Result<Loss> {
    for (r, direction) in rows.iter().zip(&plan.directions) {
        let logits = &plan.matrices[direction.logits.rows];
        sums.add_diagonal(operands, logits, &r.s_diagonal.f_neg()?)?;
        if r.uniform != 0.0 {
            sums.add_uniform(operands, logits, -r.uniform)?;
        }
        if let (Some(g), Target::Guided { matrix, .. }) = (&r.g_diagonal, direction.target) {
            sums.add_diagonal(operands, &plan.matrices[matrix.rows], &g.f_neg()?)?;
        }
    }
    let (value, terms) = values(plan, rows)?;
    let diagnostics = diagnostics(operands, plan, rows, needed)?;
    let soft_targets = matches!(config, LossConfig::Softclip(_));
    let grads = gradients(config, inputs, operands, sums)?;
    Ok(Loss { value, parts: terms.named(soft_targets), grads, diagnostics })
}

fn values(plan: &Plan, rows: &[Rows]) -> Result<(f64, SideTerms)> {
    let mean = |t: &Tensor| t.f_mean(Kind::Double)?.f_double_value(&[]);
    let mut terms = SideTerms::default();
    let mut value = 0.0;
    for (r, d) in rows.iter().zip(&plan.directions) {
        value += mean(&r.loss)? / 2.0;
        let soft = r.soft.as_ref().map(mean).transpose()?;
        let relation = r.relation.as_ref().map(mean).transpose()?;
        for (sum, part) in [(&mut terms.soft, soft), (&mut terms.relation, relation)] {
            if let Some(part) = part {
                sum.get_or_insert([0.0; 2])[d.side] += d.mix * part;
            }
        }
        terms.hard.get_or_insert([0.0; 2])[d.side] = mean(&r.hard)?;
    }
    Ok((value, terms))
}

/// Sends the sums to where they belong. The sums hold negated gradients.
fn gradients(config: &LossConfig, inputs: &LossInputs, operands: &Operands, sums: &Accumulators) -> Result<Gradients> {
    let to_logits = -operands.logit_scale * sums.scale_gradient(operands, Role::Logits)?;
    let to_guides = -operands.guide_scale * sums.scale_gradient(operands, Role::Guide)?;
    let (mut log_scale, mut target_log_scale) = (to_logits, None);
    match config {
        LossConfig::Softclip(c) => match c.target_temperature {
            TargetTemperature::Shared => log_scale += to_guides,
            TargetTemperature::Own => target_log_scale = Some(to_guides),
            TargetTemperature::Fixed(_) => {}
        },
        LossConfig::TextBased(c) if c.tau.is_some() => log_scale = 0.0,
        _ => {}
    }
    let kind = inputs.image.tensor().kind();
    let take = |set: Set| -> Result<Option<Tensor>> { Ok(sums.gradient(operands, set)?.map(|g| g.f_to_kind(kind)).transpose()?) };
    let zeros = || inputs.image.tensor().f_zeros_like();
    Ok(Gradients {
        image: take(Set::Image)?.map_or_else(zeros, Ok)?,
        text: take(Set::Text)?.map_or_else(zeros, Ok)?,
        regions: take(Set::Regions)?,
        tags: take(Set::Tags)?,
        log_scale,
        target_log_scale,
        bias: None,
    })
}

fn diagnostics(operands: &Operands, plan: &Plan, rows: &[Rows], needed: &[Set]) -> Result<Diagnostics> {
    let (mut softness, mut entropy, mut weight) = (0.0, Some(0.0), 0.0);
    for (r, d) in rows.iter().zip(&plan.directions) {
        weight += d.mix;
        softness += d.mix * r.softness.f_mean(Kind::Double)?.f_double_value(&[])?;
        entropy = match (entropy, &r.entropy) {
            (Some(sum), Some(e)) => Some(sum + d.mix * e.f_mean(Kind::Double)?.f_double_value(&[])?),
            _ => None,
        };
    }
    let mean_cosine = mean_cosines(operands, needed)?;
    Ok(Diagnostics { target_softness: softness / weight, target_entropy: entropy.map(|e| e / weight), mean_cosine })
}

/// (‖Σ_i x_i‖² − Σ_i ‖x_i‖²)/(N (N − 1)) of each set.
fn mean_cosines(operands: &Operands, needed: &[Set]) -> Result<Vec<(&'static str, f64)>> {
    let n = operands.n as f64;
    let mut out = Vec::new();
    for &set in needed {
        let x = operands.set(set)?;
        let sum = x.f_sum_dim_intlist([0i64].as_slice(), false, operands.kind)?.f_to_kind(Kind::Double)?;
        let own = x.f_square()?.f_sum_dim_intlist([1i64].as_slice(), false, operands.kind)?.f_sum(Kind::Double)?;
        let all = (&sum * &sum).f_sum(Kind::Double)?.f_double_value(&[])?;
        out.push((set.short(), (all - own.f_double_value(&[])?) / (n * (n - 1.0))));
    }
    Ok(out)
}

fn siglip_loss(inputs: &LossInputs, operands: &Operands, sums: &Accumulators, r: &Siglip, needed: &[Set]) -> Result<Loss> {
    let value = r.positives + r.negatives;
    if !value.is_finite() {
        return Err(Error::NonFiniteLoss { part: "all pairs", row: 0, scale: operands.logit_scale, target_scale: 1.0 });
    }
    let config = LossConfig::Siglip(Default::default());
    let grads = Gradients { bias: Some(r.bias), log_scale: r.log_scale, ..gradients(&config, inputs, operands, sums)? };
    let diagnostics =
        Diagnostics { target_softness: 0.0, target_entropy: Some(0.0), mean_cosine: mean_cosines(operands, needed)? };
    Ok(Loss { value, parts: SIGLIP.into_iter().zip([r.positives, r.negatives]).collect(), grads, diagnostics })
}
