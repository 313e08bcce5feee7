//! Second pass: the gradient off the diagonal, block by block, and what is made of it.
//!
//! The formulas of `rows::guided` with the positive factors inside of the exponents, P̂ = p*·factor and Ŵ = w*·factor, D = G − S:
//!
//! | divergence | −∂/∂S | −∂/∂G |
//! | --- | --- | --- |
//! | symmetric KL | Ŵ + P̂ (D − level) | P̂ − Ŵ (D + level') |
//! | KL(q‖p) | Ŵ − P̂ | −Ŵ (D + level') |
//! | KL(p‖q) | P̂ (D − level) | P̂ − Ŵ |
//!
//! Only cross-entropy: −P̂. Two exponentials an entry and direction; all else is a handful of passes over blocks that stay in the cache.

use tch::Tensor;

use super::plan::{Direction, Plan, Target};
use super::rows::{Kernel, Rows};
use super::sheet::{Accumulators, Operands, Queries, Sheet, Span, Tiles};
use super::statistics::sides;
use crate::config::Divergence;
use crate::error::Result;

/// The scratch block that a second gradient of the same matrix goes through.
pub(super) const SCRATCH: usize = 4;

/// Runs over this rank's pairs of tiles once and multiplies gradients into `sums`.
pub(super) fn accumulate(operands: &Operands, plan: &Plan, rows: &[Rows], sums: &Accumulators, tiles: Tiles) -> Result<()> {
    let kernels: Vec<Kernel> = rows.iter().map(|r| r.kernel.to_kind(operands.kind)).collect();
    let mut sheet = Sheet::new(plan.matrices.len(), tiles);
    for (rows, cols) in tiles.pairs() {
        sheet.open(rows, cols);
        for (direction, kernel) in plan.directions.iter().zip(&kernels) {
            for &queries in sides(direction, rows == cols) {
                visit(operands, plan, &mut sheet, direction, kernel, queries)?;
            }
        }
        sheet.flush(operands, &plan.matrices, sums)?;
    }
    Ok(())
}

/// e^{z − shift} into `out`.
fn exponential(out: &mut Tensor, z: &Tensor, shift: &Tensor) -> Result<()> {
    let _ = z.f_sub_out(out, shift)?;
    let _ = out.f_exp_()?;
    Ok(())
}

fn visit(
    operands: &Operands,
    plan: &Plan,
    sheet: &mut Sheet,
    direction: &Direction,
    kernel: &Kernel,
    queries: Queries,
) -> Result<()> {
    let span = sheet.span(queries);
    let logits = direction.logits.by(queries);
    let s = sheet.values(operands, &plan.matrices, logits)?;
    let target = match direction.target {
        Target::Guided { matrix, .. } | Target::Labels { matrix, .. } => Some(matrix.by(queries)),
        Target::Smoothed { .. } => None,
    };
    let mut p = sheet.scratch(operands, 0)?;
    match (kernel, target) {
        (Kernel::Labels { shift, factor, weight }, Some(k)) => {
            let k = sheet.values(operands, &plan.matrices, k)?;
            exponential(&mut p, &s, &queries.of(shift, span)?)?;
            let _ = p.f_mul_(&queries.of(factor, span)?)?;
            let weight = queries.of(weight, span)?;
            sheet.add_gradient(operands, logits, |out| {
                let _ = k.f_mul_out(out, &weight)?;
                let _ = out.f_sub_(&p)?;
                Ok(())
            })
        }
        (Kernel::Kl { .. }, Some(guide)) => kl(operands, plan, sheet, kernel, queries, span, (logits, guide)),
        (Kernel::Js(js), Some(guide)) => {
            let g = sheet.values(operands, &plan.matrices, guide)?;
            let (to_s, to_g) = js.gradients(queries, span, &s, &g)?;
            sheet.add_gradient(operands, logits, |out| Ok(out.f_copy_(&to_s)?))?;
            if plan.matrices[guide].flows() {
                sheet.add_gradient(operands, guide, |out| Ok(out.f_copy_(&to_g)?))?;
            }
            Ok(())
        }
        (Kernel::Cross { shift }, _) => {
            let shift = queries.of(shift, span)?;
            sheet.add_gradient(operands, logits, |out| {
                exponential(out, &s, &shift)?;
                let _ = out.f_neg_()?;
                Ok(())
            })
        }
        // `rows` gives guided and labelled directions kernels of their own.
        (_, None) => Ok(()),
    }
}

fn kl(
    operands: &Operands,
    plan: &Plan,
    sheet: &mut Sheet,
    kernel: &Kernel,
    queries: Queries,
    span: Span,
    (logits, guide): (usize, usize),
) -> Result<()> {
    let Kernel::Kl { shape, p_shift, p_level, w_shift, w_level, keep } = kernel else { return Ok(()) };
    let s = sheet.values(operands, &plan.matrices, logits)?;
    let g = sheet.values(operands, &plan.matrices, guide)?;
    let (mut p, mut w) = (sheet.scratch(operands, 0)?, sheet.scratch(operands, 1)?);
    let (mut gap, level) = (sheet.scratch(operands, 2)?, sheet.scratch(operands, 3)?);
    exponential(&mut p, &s, &queries.of(p_shift, span)?)?;
    exponential(&mut w, &g, &queries.of(w_shift, span)?)?;
    let _ = g.f_sub_out(&gap, &s)?;
    let keep = match keep {
        Some(keep) => Some(queries.of(keep, span)?),
        None => None,
    };
    if let Some(keep) = &keep {
        let _ = gap.f_mul_(keep)?;
    }
    let (p_level, w_level) = (queries.of(p_level, span)?, queries.of(w_level, span)?);
    sheet.add_gradient(operands, logits, |out| {
        let _ = match shape {
            Divergence::Kl => w.f_sub_out(out, &p)?,
            _ => gap.f_sub_out(&level, &p_level)?,
        };
        let _ = match shape {
            Divergence::Kl => return Ok(()),
            Divergence::ReverseKl => p.f_mul_out(out, &level)?,
            Divergence::SymmetricKl | Divergence::Js => w.f_addcmul_out(out, &p, &level)?,
        };
        Ok(())
    })?;
    if !plan.matrices[guide].flows() {
        return Ok(());
    }
    sheet.add_gradient(operands, guide, |out| {
        if *shape == Divergence::ReverseKl {
            let _ = p.f_sub_out(out, &w)?;
        } else {
            let _ = gap.f_add_out(&level, &w_level)?;
            let _ = level.shallow_clone().f_neg_()?;
            let _ = match shape {
                Divergence::Kl => w.f_mul_out(out, &level)?,
                _ => p.f_addcmul_out(out, &w, &level)?,
            };
        }
        if let Some(keep) = &keep {
            let _ = out.f_mul_(keep)?;
        }
        Ok(())
    })
}
