//! First pass: running sums of each row's softmax, merged tile by tile as in online softmax.

use tch::{Kind, Tensor};

use super::plan::{Direction, Oriented, Plan, Target};
use super::sheet::{Operands, Queries, Sheet, Span, Tiles};
use crate::config::Divergence;
use crate::error::Result;
use crate::ranks::Ranks;

/// Σ_j e^{z_ij} and Σ_j e^{z_ij} y_ij over the negatives j ≠ i, relative to the largest z_ij seen: f64 `[N]`. Tiles are summed in their
/// own kind, tiles are added up in f64.
pub(super) struct Online {
    max: Tensor,
    mass: Tensor,
    sums: Vec<Tensor>,
}

impl Online {
    fn new(operands: &Operands, sums: usize) -> Result<Self> {
        let zeros = || Tensor::f_zeros([operands.n], (Kind::Double, operands.device));
        let max = Tensor::f_full([operands.n], f64::NEG_INFINITY, (Kind::Double, operands.device))?;
        Ok(Online { max, mass: zeros()?, sums: (0..sums).map(|_| zeros()).collect::<std::result::Result<_, _>>()? })
    }

    /// Takes in a block `z` and the blocks `ys` weighted with it; leaves e^{z − max} in `weights`.
    fn add(
        &mut self,
        queries: Queries,
        span: Span,
        z: &Tensor,
        ys: &[&Tensor],
        weights: &mut Tensor,
        product: &Tensor,
    ) -> Result<()> {
        let along = [queries.along()];
        let max = z.f_amax(along.as_slice(), true)?;
        let _ = z.f_sub_out(weights, &max)?;
        let _ = weights.f_exp_()?;
        let collect = |x: &Tensor| x.f_sum_dim_intlist(along.as_slice(), false, x.kind())?.f_to_kind(Kind::Double);
        let max = max.f_view([-1])?.f_to_kind(Kind::Double)?;
        let mut before = self.max.f_narrow(0, span.start, span.len)?;
        let after = before.f_maximum(&max)?;
        let (keep, gain) = ((&before - &after).f_exp()?, (max - &after).f_exp()?);
        before.f_copy_(&after)?;
        let merge = |whole: &Tensor, part: Tensor| -> Result<()> {
            let mut whole = whole.f_narrow(0, span.start, span.len)?;
            let _ = whole.f_mul_(&keep)?.f_addcmul_(&part, &gain)?;
            Ok(())
        };
        merge(&self.mass, collect(weights)?)?;
        for (sum, y) in self.sums.iter().zip(ys) {
            let _ = weights.f_mul_out(product, y)?;
            merge(sum, collect(product)?)?;
        }
        Ok(())
    }

    /// ln Σ_{j≠i} e^{z_ij}, f64 `[N]`.
    pub fn log_mass(&self) -> Tensor {
        &self.max + self.mass.log()
    }

    /// The mean of y under the softmax of z off the diagonal, f64 `[N]`.
    pub fn mean(&self, k: usize) -> Tensor {
        &self.sums[k] / &self.mass
    }
}

/// What the first pass leaves of one direction.
pub(super) enum Statistics {
    /// Cross-entropy with the own pair or smoothed labels: the logits alone.
    Logits { s: Online },
    /// Labels K: Σ K_ij, Σ |K_ij| and Σ K_ij S_ij over j ≠ i, f64 `[N]`.
    Labels { s: Online, mass: Tensor, size: Tensor, dot: Tensor },
    /// `s` with G − S where the reverse divergence needs it; `g` with G, and with G − S where the forward one does.
    Guided { s: Online, g: Online },
}

impl Statistics {
    fn new(operands: &Operands, direction: &Direction) -> Result<Self> {
        let zeros = || Tensor::f_zeros([operands.n], (Kind::Double, operands.device));
        Ok(match direction.target {
            Target::Smoothed { .. } => Statistics::Logits { s: Online::new(operands, 0)? },
            Target::Labels { .. } => {
                Statistics::Labels { s: Online::new(operands, 0)?, mass: zeros()?, size: zeros()?, dot: zeros()? }
            }
            Target::Guided { divergence, .. } => {
                let kl = divergence != Divergence::Js;
                Statistics::Guided { s: Online::new(operands, kl as usize)?, g: Online::new(operands, 1 + kl as usize)? }
            }
        })
    }

    fn onlines(&self) -> Vec<&Online> {
        match self {
            Statistics::Logits { s } | Statistics::Labels { s, .. } => vec![s],
            Statistics::Guided { s, g } => vec![s, g],
        }
    }

    /// Those that are relative to no maximum.
    fn plain_sums(&self) -> Vec<&Tensor> {
        match self {
            Statistics::Labels { mass, size, dot, .. } => vec![mass, size, dot],
            _ => Vec::new(),
        }
    }

    /// ln Σ_{j≠i} e^{S_ij}.
    pub fn logits(&self) -> &Online {
        match self {
            Statistics::Logits { s } | Statistics::Labels { s, .. } | Statistics::Guided { s, .. } => s,
        }
    }
}

/// Which sides of a pair of tiles hold queries of a direction: both blocks [I, J] and [J, I] are read off the sheet at [I, J], the second
/// as its transpose. On the diagonal one is enough, and taking the columns for text→image lets both directions share their logits.
pub(super) fn sides(direction: &Direction, diagonal: bool) -> &'static [Queries] {
    match (diagonal, direction.side) {
        (false, _) => &[Queries::Rows, Queries::Columns],
        (true, 0) => &[Queries::Rows],
        (true, _) => &[Queries::Columns],
    }
}

impl Oriented {
    pub fn by(self, queries: Queries) -> usize {
        match queries {
            Queries::Rows => self.rows,
            Queries::Columns => self.columns,
        }
    }
}

/// Runs over all pairs of tiles once, among the ranks.
pub(super) fn collect(operands: &Operands, plan: &Plan, tiles: Tiles, ranks: &dyn Ranks) -> Result<Vec<Statistics>> {
    let mut all = plan.directions.iter().map(|d| Statistics::new(operands, d)).collect::<Result<Vec<_>>>()?;
    let mut sheet = Sheet::new(plan.matrices.len(), tiles);
    for (rows, cols) in tiles.pairs() {
        sheet.open(rows, cols);
        for (direction, statistics) in plan.directions.iter().zip(&mut all) {
            for &queries in sides(direction, rows == cols) {
                visit(operands, plan, &mut sheet, direction, statistics, queries)?;
            }
        }
    }
    if ranks.size() > 1 {
        merge(&all, ranks)?;
    }
    Ok(all)
}

/// Makes each rank's sums those of all, in two operations: the largest logits first, to which all sums are then brought.
fn merge(all: &[Statistics], ranks: &dyn Ranks) -> Result<()> {
    let onlines: Vec<&Online> = all.iter().flat_map(Statistics::onlines).collect();
    let stack = |tensors: &[&Tensor]| Tensor::f_stack(tensors, 0);
    let max = stack(&onlines.iter().map(|o| &o.max).collect::<Vec<_>>())?;
    ranks.max(&max)?;
    let mut sums = Vec::new();
    for (k, online) in onlines.iter().enumerate() {
        let max = max.f_get(k as i64)?;
        // 0 where this rank has met no entry of a row.
        let gain = (&online.max - &max).f_exp()?;
        online.max.shallow_clone().f_copy_(&max)?;
        for sum in std::iter::once(&online.mass).chain(&online.sums) {
            let _ = sum.shallow_clone().f_mul_(&gain)?;
            sums.push(sum);
        }
    }
    sums.extend(all.iter().flat_map(Statistics::plain_sums));
    let total = stack(&sums)?;
    ranks.sum(&total)?;
    sums.iter().enumerate().try_for_each(|(k, sum)| Ok(sum.shallow_clone().f_copy_(&total.f_get(k as i64)?)?))
}

fn visit(
    operands: &Operands,
    plan: &Plan,
    sheet: &mut Sheet,
    direction: &Direction,
    statistics: &mut Statistics,
    queries: Queries,
) -> Result<()> {
    let span = sheet.span(queries);
    let s = sheet.values(operands, &plan.matrices, direction.logits.by(queries))?;
    let mut weights = sheet.scratch(operands, 0)?;
    let product = sheet.scratch(operands, 1)?;
    match (statistics, direction.target) {
        (Statistics::Labels { s: online, mass, size, dot }, Target::Labels { matrix, .. }) => {
            let k = sheet.values(operands, &plan.matrices, matrix.by(queries))?;
            online.add(queries, span, &s, &[], &mut weights, &product)?;
            let add = |whole: &Tensor, part: &Tensor| -> Result<()> {
                let part = part.f_sum_dim_intlist([queries.along()].as_slice(), false, part.kind())?;
                let _ = whole.f_narrow(0, span.start, span.len)?.f_add_(&part.f_to_kind(Kind::Double)?)?;
                Ok(())
            };
            add(mass, &k)?;
            add(size, &k.f_abs_out(&product)?)?;
            add(dot, &k.f_mul_out(&product, &s)?)?;
        }
        (Statistics::Guided { s: online_s, g: online_g }, Target::Guided { matrix, divergence }) => {
            let g = sheet.values(operands, &plan.matrices, matrix.by(queries))?;
            if divergence == Divergence::Js {
                online_s.add(queries, span, &s, &[], &mut weights, &product)?;
                return online_g.add(queries, span, &g, &[&g], &mut weights, &product);
            }
            let gap = sheet.scratch(operands, 2)?;
            let _ = g.f_sub_out(&gap, &s)?;
            online_s.add(queries, span, &s, &[&gap], &mut weights, &product)?;
            online_g.add(queries, span, &g, &[&g, &gap], &mut weights, &product)?;
        }
        (statistics, _) => {
            let (Statistics::Logits { s: online } | Statistics::Labels { s: online, .. } | Statistics::Guided { s: online, .. }) =
                statistics;
            online.add(queries, span, &s, &[], &mut weights, &product)?;
        }
    }
    Ok(())
}
