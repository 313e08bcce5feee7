//! The nearest rows, kept while blocks of rows go by, exact whatever the rounding of products: cosines are computed in f64 wherever they
//! decide on a place, and equal ones rank in the order of the rows.
//!
//! ```
//! use softclip_tensor::nearest::{Block, Nearest};
//! use softclip_tensor::tch::Tensor;
//!
//! # fn main() -> softclip_tensor::Result<()> {
//! let queries = Tensor::from_slice(&[1f32, 0.0]).view([1, 2]);
//! let mut nearest = Nearest::new(&queries, 2)?;
//! nearest.take(&Block::new(0, 2, vec![0.0, 1.0, 3.0, 4.0])?)?;
//! nearest.take(&Block::new(2, 2, vec![6.0, 8.0])?)?;
//! let hits = &nearest.into_hits()[0];
//! assert_eq!((hits[0].row, hits[1].row), (1, 2)); // equal: the first comes first
//! # Ok(())
//! # }
//! ```

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use rayon::prelude::*;
use tch::{Kind, Tensor};

use crate::error::{Error, Result};

/// How far an f32 product may be off the cosine: what comes this close to a place is computed again in f64.
const MARGIN: f64 = 1e-4;
/// Queries multiplied at a time.
const QUERIES: i64 = 64;

/// A row and its cosine with the query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Number of the row, from 0.
    pub row: usize,
    /// In [-1, 1]; 0 for a row of zeros.
    pub score: f64,
}

/// Hits in order: the greater score first, of equal ones the earlier row.
#[derive(Clone, Copy, Debug)]
struct Ranked(Hit);

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.score.total_cmp(&other.0.score).then(other.0.row.cmp(&self.0.row))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for Ranked {}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

/// Rows that follow each other in a collection.
#[derive(Debug)]
pub struct Block {
    rows: Rows,
    /// `[D, R]`, columns of unit length.
    unit: Tensor,
}

#[derive(Debug)]
struct Rows {
    first: usize,
    dim: usize,
    numbers: Vec<f32>,
    norms: Vec<f64>,
}

impl Block {
    /// The rows `first`, `first` + 1, …, `dim` numbers each, which need not be normalised.
    ///
    /// # Errors
    /// `numbers` are not whole rows of at least one number, or a row is not finite: the first such is named.
    pub fn new(first: usize, dim: usize, numbers: Vec<f32>) -> Result<Self> {
        if dim == 0 || !numbers.len().is_multiple_of(dim) {
            let why = format!("{} numbers are no whole rows of {dim}", numbers.len());
            return Err(Error::Value { what: "rows", why });
        }
        // No square of an f32 overflows here: a norm that is not finite tells of the row.
        let norms: Vec<f64> = numbers.par_chunks_exact(dim).map(norm).collect();
        if let Some(bad) = norms.iter().position(|norm| !norm.is_finite()) {
            let why = format!("row {}, counted from 0, has a number that is not finite", first + bad);
            return Err(Error::Value { what: "rows", why });
        }
        let mut unit = numbers.clone();
        unit.par_chunks_exact_mut(dim).zip(&norms).for_each(|(row, &norm)| {
            row.iter_mut().for_each(|x| *x = over(f64::from(*x), norm) as f32);
        });
        let unit = Tensor::f_from_slice(&unit)?.f_view([norms.len() as i64, dim as i64])?.f_tr()?;
        Ok(Self { rows: Rows { first, dim, numbers, norms }, unit })
    }
}

impl Rows {
    fn cosine(&self, query: &[f64], row: usize) -> f64 {
        let numbers = &self.numbers[row * self.dim..][..self.dim];
        over(query.iter().zip(numbers).map(|(q, &x)| q * f64::from(x)).sum(), self.norms[row])
    }
}

fn norm(row: &[f32]) -> f64 {
    row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

fn over(x: f64, norm: f64) -> f64 {
    if norm > 0.0 { x / norm } else { 0.0 }
}

/// The best `k` so far of each query.
#[derive(Debug)]
pub struct Nearest {
    k: usize,
    /// Unit rows.
    exact: Vec<Vec<f64>>,
    /// The same, f32 `[Q, D]`.
    queries: Tensor,
    /// The worst on top.
    best: Vec<BinaryHeap<Reverse<Ranked>>>,
}

impl Nearest {
    /// `queries` is `[Q, D]` of floats and need not be normalised.
    ///
    /// # Errors
    /// Queries of another shape, or that are not finite.
    pub fn new(queries: &Tensor, k: usize) -> Result<Self> {
        let rows: Vec<Vec<f64>> = Vec::try_from(queries.f_to_kind(Kind::Double)?)?;
        let exact = rows.into_iter().enumerate().map(|(number, row)| unit(number, row)).collect::<Result<Vec<_>>>()?;
        let flat: Vec<f32> = exact.iter().flatten().map(|&x| x as f32).collect();
        let queries = Tensor::f_from_slice(&flat)?.f_view(queries.size().as_slice())?;
        Ok(Self { k, best: vec![BinaryHeap::new(); exact.len()], exact, queries })
    }

    /// Looks at the next rows.
    ///
    /// # Errors
    /// Rows of another width than the queries.
    pub fn take(&mut self, block: &Block) -> Result<()> {
        let (k, rows) = (self.k, &block.rows);
        if k == 0 || rows.norms.is_empty() {
            return Ok(());
        }
        for from in (0..self.exact.len() as i64).step_by(QUERIES as usize) {
            let count = QUERIES.min(self.exact.len() as i64 - from);
            let scores = self.queries.f_narrow(0, from, count)?.f_matmul(&block.unit)?.f_flatten(0, -1)?;
            let scores: Vec<f32> = Vec::try_from(scores)?;
            let scores = scores.par_chunks_exact(rows.norms.len());
            let range = from as usize..(from + count) as usize;
            scores.zip(&self.exact[range.clone()]).zip(&mut self.best[range]).for_each(|((scores, query), best)| {
                keep(k, rows, scores, query, best);
            });
        }
        Ok(())
    }

    /// For each query its `k` best, best first; all rows where there were fewer.
    pub fn into_hits(self) -> Vec<Vec<Hit>> {
        // A sorted heap of reversed ranks has the best first.
        self.best.into_iter().map(|heap| heap.into_sorted_vec().into_iter().map(|Reverse(Ranked(hit))| hit).collect()).collect()
    }
}

fn unit(number: usize, row: Vec<f64>) -> Result<Vec<f64>> {
    let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
    match norm.is_finite() {
        true => Ok(row.into_iter().map(|x| over(x, norm)).collect()),
        false => {
            let why = format!("query {} has a number that is not finite", number + 1);
            Err(Error::Value { what: "queries", why })
        }
    }
}

fn keep(k: usize, rows: &Rows, scores: &[f32], query: &[f64], best: &mut BinaryHeap<Reverse<Ranked>>) {
    let worst = |best: &BinaryHeap<Reverse<Ranked>>| match best.peek() {
        Some(Reverse(Ranked(hit))) if best.len() == k => hit.score - MARGIN,
        _ => f64::NEG_INFINITY,
    };
    let mut floor = worst(best);
    for (row, &score) in scores.iter().enumerate() {
        if f64::from(score) < floor {
            continue;
        }
        let ranked = Reverse(Ranked(Hit { row: rows.first + row, score: rows.cosine(query, row) }));
        if best.len() < k {
            best.push(ranked);
        } else if best.peek().is_some_and(|worst| ranked < *worst) {
            best.pop();
            best.push(ranked);
        }
        floor = worst(best);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_no_whole_or_finite_rows_are_refused() {
        for (dim, numbers, words) in
            [(0, vec![], "rows of 0"), (2, vec![1.0; 3], "3 numbers"), (2, vec![1.0, 0.0, f32::NAN, 0.0], "row 8,")]
        {
            let error = Block::new(7, dim, numbers).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_block_may_be_empty() -> Result<()> {
        let mut nearest = Nearest::new(&Tensor::from_slice(&[1f32, 0.0]).view([1, 2]), 1)?;
        nearest.take(&Block::new(0, 2, vec![])?)?;
        assert_eq!(nearest.into_hits(), [vec![]]);
        Ok(())
    }
}
