//! SigLIP's loss, which needs no row statistics: one pass.
//!
//! With L_ij = s v_i·t_j + b and ς = log sigmoid:  loss = −(1/N) (Σ_i ς(L_ii) + Σ_{j≠i} ς(−L_ij)),
//! ∂/∂L_ij = σ(L_ij)/N off the diagonal, −σ(−L_ii)/N on it.

use tch::{Kind, Tensor};

use super::plan::{Matrix, Plan, Role};
use super::sheet::{Accumulators, Operands, Sheet, Tiles};
use crate::error::Result;
use crate::ranks::Ranks;

/// Values and the scalar gradients; those of the embeddings are in the sums.
pub(super) struct Siglip {
    pub positives: f64,
    pub negatives: f64,
    pub bias: f64,
    pub log_scale: f64,
}

pub(super) fn run(
    operands: &Operands,
    plan: &Plan,
    sums: &Accumulators,
    bias: f64,
    tiles: Tiles,
    ranks: &dyn Ranks,
) -> Result<Siglip> {
    let logits: &Matrix = &plan.matrices[plan.directions[0].logits.rows];
    let n = operands.n as f64;
    let mut sheet = Sheet::new(plan.matrices.len(), tiles);
    let k = plan.directions[0].logits.rows;
    // Σ ς(−L_ij) and Σ σ(L_ij) over j ≠ i.
    let totals = Tensor::f_zeros([2], (Kind::Double, operands.device))?;
    for (rows, cols) in tiles.own_blocks() {
        sheet.open(rows, cols);
        let mut block = sheet.values(operands, &plan.matrices, k)?;
        let _ = block.f_add_scalar_(bias)?;
        let scratch = sheet.scratch(operands, 0)?;
        let _ = block.f_neg()?.f_log_sigmoid_out(&scratch)?;
        let add = |to: i64, x: &Tensor| -> Result<()> {
            let lines = x.f_sum_dim_intlist([1i64].as_slice(), false, operands.kind)?;
            let _ = totals.f_get(to)?.f_add_(&lines.f_sum(Kind::Double)?)?;
            Ok(())
        };
        add(0, &scratch)?;
        sheet.add_gradient(operands, k, |out| {
            let _ = block.f_sigmoid_out(out)?;
            add(1, out)?;
            let _ = out.f_mul_scalar_(-1.0 / n)?;
            Ok(())
        })?;
        sheet.flush(operands, &plan.matrices, sums)?;
    }
    ranks.sum(&totals)?;
    sums.merge(ranks)?;

    let own = operands.diagonal(logits, tiles)? + bias;
    let to_own = own.neg().sigmoid() * (-1.0 / n);
    let positives = -own.log_sigmoid().f_sum(Kind::Double)?.f_double_value(&[])? / n;
    sums.add_diagonal(operands, logits, &to_own.neg())?;
    let own_bias = to_own.f_sum(Kind::Double)?.f_double_value(&[])?;
    Ok(Siglip {
        positives,
        negatives: -totals.f_double_value(&[0])? / n,
        bias: own_bias + totals.f_double_value(&[1])? / n,
        log_scale: -operands.logit_scale * sums.scale_gradient(operands, Role::Logits)?,
    })
}
