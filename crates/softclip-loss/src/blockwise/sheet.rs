//! One pair of tiles at a time: the blocks [I, J] of every matrix, and of every matrix's gradient, in buffers that are reused.

use tch::{Device, Kind, Tensor};

use super::plan::{Matrix, Role};
use crate::error::Result;
use crate::inputs::Set;
use crate::ranks::Ranks;

/// Stands on the diagonal of logits and guides, which the tiles leave out: its exponential is 0 in f32 and f64, and differences of two
/// such entries are 0 where infinities would give NaN.
const LEFT_OUT: f64 = -1e30;

/// A range of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub start: i64,
    pub len: i64,
}

/// Which side of a block holds the queries: a softmax runs along the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queries {
    Rows,
    Columns,
}

impl Queries {
    /// The dimension that the softmax runs along.
    pub fn along(self) -> i64 {
        match self {
            Queries::Rows => 1,
            Queries::Columns => 0,
        }
    }

    /// The entries of a vector `[N]` that belong to the block's queries, shaped to be broadcast over the block.
    pub fn of(self, vector: &Tensor, span: Span) -> Result<Tensor> {
        let shape = match self {
            Queries::Rows => [span.len, 1],
            Queries::Columns => [1, span.len],
        };
        Ok(vector.f_narrow(0, span.start, span.len)?.f_view(shape)?)
    }
}

/// The embeddings in the kind that the arithmetic runs in, and the factor of each role.
pub(super) struct Operands {
    sets: Vec<Option<Tensor>>,
    pub logit_scale: f64,
    pub guide_scale: f64,
    pub kind: Kind,
    pub device: Device,
    pub n: i64,
}

impl Operands {
    pub fn new(sets: Vec<Option<Tensor>>, logit_scale: f64, guide_scale: f64) -> Self {
        let lead = sets.iter().flatten().next();
        let (kind, device, n) = lead.map_or((Kind::Float, Device::Cpu, 0), |t| (t.kind(), t.device(), t.size()[0]));
        Operands { sets, logit_scale, guide_scale, kind, device, n }
    }

    /// [N, D]; sets that the loss needs are there by `LossInputs::check`.
    pub fn set(&self, set: Set) -> Result<&Tensor> {
        self.sets[set as usize].as_ref().ok_or(crate::Error::Missing {
            loss: "blockwise",
            what: set.what(),
            hint: "the plan asks for a set that was not loaded",
        })
    }

    pub fn scale(&self, role: Role) -> f64 {
        match role {
            Role::Logits => self.logit_scale,
            Role::Guide => self.guide_scale,
            Role::Labels { .. } => 1.0,
        }
    }

    fn rows(&self, set: Set, span: Span) -> Result<Tensor> {
        Ok(self.set(set)?.f_narrow(0, span.start, span.len)?)
    }

    /// The diagonal of a matrix, scaled, f64 `[N]`.
    pub fn diagonal(&self, m: &Matrix, tiles: Tiles) -> Result<Tensor> {
        let out = Tensor::f_zeros([self.n], (Kind::Double, self.device))?;
        for span in tiles.spans() {
            let mut part = out.f_narrow(0, span.start, span.len)?;
            for p in &m.products {
                let x = self.rows(p.left, span)?.f_to_kind(Kind::Double)?;
                let y = self.rows(p.right, span)?.f_to_kind(Kind::Double)?;
                let dots = x.f_mul(&y)?.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Double)?;
                let _ = part.f_add_(&(dots * (p.weight * self.scale(m.role))))?;
            }
        }
        if m.role == (Role::Labels { clamp: true }) {
            return Ok(out.f_relu()?);
        }
        Ok(out)
    }
}

/// The batch cut into tiles, of whose pairs this rank takes its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tiles {
    n: i64,
    edge: i64,
    rank: usize,
    ranks: usize,
}

impl Tiles {
    /// Tiles of at most `edge`, small enough that every rank has pairs of them to work at.
    pub fn new(n: i64, edge: i64, ranks: &dyn Ranks) -> Self {
        let size = ranks.size().max(1);
        // About 4.5 pairs a rank: more would be smaller products, fewer would be shared less evenly.
        let tiles = if size > 1 { (3.0 * (size as f64).sqrt()).ceil() as i64 } else { 1 };
        let edge = edge.min((n + tiles - 1) / tiles);
        Tiles { n, edge: edge.max(1), rank: ranks.rank(), ranks: size }
    }

    /// All tiles.
    pub fn spans(self) -> impl Iterator<Item = Span> + Clone {
        (0..self.n).step_by(self.edge as usize).map(move |start| Span { start, len: self.edge.min(self.n - start) })
    }

    /// This rank's pairs of tiles with I before or at J; a pair serves the blocks [I, J] and [J, I].
    pub fn pairs(self) -> impl Iterator<Item = (Span, Span)> {
        let upper = self.blocks().filter(|(i, j)| j.start >= i.start);
        // A diagonal block of one entry has nothing off the diagonal.
        self.mine(upper.filter(|(i, j)| i != j || i.len > 1))
    }

    /// This rank's blocks.
    pub fn own_blocks(self) -> impl Iterator<Item = (Span, Span)> {
        self.mine(self.blocks())
    }

    fn blocks(self) -> impl Iterator<Item = (Span, Span)> {
        self.spans().flat_map(move |i| self.spans().map(move |j| (i, j)))
    }

    fn mine<T>(self, all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        all.skip(self.rank).step_by(self.ranks)
    }
}

/// Sums over blocks of −gradient · embeddings, by role and set, without the role's scale: f32 or f64 [N, D].
pub(super) struct Accumulators {
    slots: Vec<(Role, Set, Tensor)>,
}

impl Accumulators {
    pub fn new(operands: &Operands, matrices: &[Matrix]) -> Result<Self> {
        let mut slots: Vec<(Role, Set, Tensor)> = Vec::new();
        for m in matrices {
            for set in m.products.iter().filter(|p| p.flow).flat_map(|p| [p.left, p.right]) {
                if !slots.iter().any(|(r, s, _)| *r == m.role && *s == set) {
                    slots.push((m.role, set, operands.set(set)?.f_zeros_like()?));
                }
            }
        }
        Ok(Accumulators { slots })
    }

    /// Adds up what all ranks have summed.
    pub fn merge(&self, ranks: &dyn Ranks) -> Result<()> {
        self.slots.iter().try_for_each(|(_, _, sum)| ranks.sum(sum))
    }

    pub fn get(&self, role: Role, set: Set) -> Option<&Tensor> {
        self.slots.iter().find(|(r, s, _)| *r == role && *s == set).map(|(_, _, t)| t)
    }

    /// The part of `gradient of ln scale` that these sums hold, negated and without the scale: Σ −g·M/scale. Each product's sum shows
    /// up once in its left and once in its right set.
    pub fn scale_gradient(&self, operands: &Operands, role: Role) -> Result<f64> {
        let mut total = 0.0;
        for (_, set, sum) in self.slots.iter().filter(|(r, _, _)| *r == role) {
            let dots = sum.f_mul(operands.set(*set)?)?.f_sum_dim_intlist([1i64].as_slice(), false, operands.kind)?;
            total += dots.f_sum(Kind::Double)?.f_double_value(&[])?;
        }
        Ok(total / 2.0)
    }

    /// −Σ over roles of scale · sum: the gradient of a set.
    pub fn gradient(&self, operands: &Operands, set: Set) -> Result<Option<Tensor>> {
        let mut total: Option<Tensor> = None;
        for (role, _, sum) in self.slots.iter().filter(|(_, s, _)| *s == set) {
            let mut sum = sum.shallow_clone();
            let _ = sum.f_mul_scalar_(-operands.scale(*role))?;
            total = Some(match total {
                None => sum,
                Some(mut t) => t.f_add_(&sum)?,
            });
        }
        Ok(total)
    }

    /// Adds `vector_i · right_i` to the left set's row i and the reverse: a gradient that sits on the diagonal, negated.
    pub fn add_diagonal(&self, operands: &Operands, m: &Matrix, vector: &Tensor) -> Result<()> {
        let vector = vector.f_to_kind(operands.kind)?.f_unsqueeze(1)?;
        for p in m.products.iter().filter(|p| p.flow) {
            let weighted = &vector * p.weight;
            for (to, from) in [(p.left, p.right), (p.right, p.left)] {
                if let Some(sum) = self.get(m.role, to) {
                    let _ = sum.shallow_clone().f_addcmul_(&weighted, operands.set(from)?)?;
                }
            }
        }
        Ok(())
    }

    /// Adds a gradient that is `value` in every entry of the matrix, negated.
    pub fn add_uniform(&self, operands: &Operands, m: &Matrix, value: f64) -> Result<()> {
        for p in m.products.iter().filter(|p| p.flow) {
            for (to, from) in [(p.left, p.right), (p.right, p.left)] {
                if let Some(sum) = self.get(m.role, to) {
                    let row = operands.set(from)?.f_sum_dim_intlist([0i64].as_slice(), true, operands.kind)?;
                    let _ = sum.shallow_clone().f_add_(&(row * (value * p.weight)))?;
                }
            }
        }
        Ok(())
    }
}

/// The blocks at the current pair of tiles.
pub(super) struct Sheet {
    buffers: Vec<Option<Tensor>>,
    filled: Vec<bool>,
    written: Vec<bool>,
    matrices: usize,
    edge: i64,
    rows: Span,
    cols: Span,
}

impl Sheet {
    pub fn new(matrices: usize, tiles: Tiles) -> Self {
        let none = Span { start: 0, len: 0 };
        let flags = vec![false; matrices];
        Sheet { buffers: Vec::new(), filled: flags.clone(), written: flags, matrices, edge: tiles.edge, rows: none, cols: none }
    }

    /// Moves to another pair of tiles.
    pub fn open(&mut self, rows: Span, cols: Span) {
        (self.rows, self.cols) = (rows, cols);
        self.filled.fill(false);
        self.written.fill(false);
    }

    /// Scratch block number `k`, content undefined.
    pub fn scratch(&mut self, operands: &Operands, k: usize) -> Result<Tensor> {
        self.buffer(operands, 2 * self.matrices + k)
    }

    fn buffer(&mut self, operands: &Operands, k: usize) -> Result<Tensor> {
        if self.buffers.len() <= k {
            self.buffers.resize_with(k + 1, || None);
        }
        let (r, c) = (self.rows.len, self.cols.len);
        let side = self.edge;
        let whole = match self.buffers[k].take() {
            Some(t) => t,
            None => Tensor::f_empty([side * side], (operands.kind, operands.device))?,
        };
        let view = whole.f_narrow(0, 0, r * c)?.f_view([r, c])?;
        self.buffers[k] = Some(whole);
        Ok(view)
    }

    /// The block of matrix `k`, computed at the first call after [`Sheet::open`].
    pub fn values(&mut self, operands: &Operands, matrices: &[Matrix], k: usize) -> Result<Tensor> {
        let mut out = self.buffer(operands, k)?;
        if self.filled[k] {
            return Ok(out);
        }
        let m = &matrices[k];
        for (i, p) in m.products.iter().enumerate() {
            let left = operands.rows(p.left, self.rows)?.f_mul_scalar(operands.scale(m.role) * p.weight)?;
            let right = operands.rows(p.right, self.cols)?.f_tr()?;
            let _ = if i == 0 { left.f_mm_out(&out, &right)? } else { out.f_addmm_(&left, &right)? };
        }
        if m.role == (Role::Labels { clamp: true }) {
            let _ = out.f_relu_()?;
        }
        if self.rows == self.cols {
            let fill = if matches!(m.role, Role::Labels { .. }) { 0.0 } else { LEFT_OUT };
            let _ = out.f_fill_diagonal_(fill, false)?;
        }
        self.filled[k] = true;
        Ok(out)
    }

    /// Adds to the negated gradient of matrix `k` what `write` puts into the block it is given.
    pub fn add_gradient(&mut self, operands: &Operands, k: usize, write: impl FnOnce(&mut Tensor) -> Result<()>) -> Result<()> {
        let mut sum = self.buffer(operands, self.matrices + k)?;
        if !self.written[k] {
            self.written[k] = true;
            return write(&mut sum);
        }
        let mut block = self.scratch(operands, super::gradient::SCRATCH)?;
        write(&mut block)?;
        let _ = sum.f_add_(&block)?;
        Ok(())
    }

    /// Multiplies the gradients of this pair of tiles into the sums.
    pub fn flush(&mut self, operands: &Operands, matrices: &[Matrix], sums: &Accumulators) -> Result<()> {
        for (k, m) in matrices.iter().enumerate().filter(|(k, _)| self.written[*k]).collect::<Vec<_>>() {
            let g = self.buffer(operands, self.matrices + k)?;
            let g_t = g.f_tr()?;
            for p in m.products.iter().filter(|p| p.flow) {
                let blocks = [(p.left, self.rows, &g, p.right, self.cols), (p.right, self.cols, &g_t, p.left, self.rows)];
                for (to, at, g, from, other) in blocks {
                    let Some(sum) = sums.get(m.role, to) else { continue };
                    let mut factor = operands.rows(from, other)?;
                    if p.weight != 1.0 {
                        factor = factor.f_mul_scalar(p.weight)?;
                    }
                    let _ = sum.f_narrow(0, at.start, at.len)?.f_addmm_(g, &factor)?;
                }
            }
        }
        Ok(())
    }

    /// The span of the block's queries.
    pub fn span(&self, queries: Queries) -> Span {
        match queries {
            Queries::Rows => self.rows,
            Queries::Columns => self.cols,
        }
    }
}
