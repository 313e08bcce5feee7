//! Ranks of the best right candidates, both ways in one pass over the similarities, tile by tile on the CPU.
//!
//! What a query's best right candidate is needs no matrix: it is one of its few own pairs, whose cosines are computed in f64. A tile of
//! f32 similarities is then only counted: what lies above the best by more than rounding ranks before it, what lies about as high is
//! computed again in f64. Ranks are therefore those of f64, the same for any size of tile, and ties are ties of equal rows.

use rayon::prelude::*;
use softclip_tensor::Embeddings;
use softclip_torch::{guard, linear};
use tch::{Kind, Tensor, no_grad};

use crate::EvalError;

/// Images and texts of a tile: 4 MiB of similarities, which stay in the cache.
const TILE: (usize, usize) = (512, 2048);
/// How far an f32 product of unit rows may be off.
const MARGIN: f32 = 1e-4;
/// Similarities that are looked at together.
const LANES: usize = 64;

/// The best right candidate of a query.
#[derive(Clone, Copy, Debug)]
struct Best {
    score: f64,
    index: usize,
}

impl Best {
    /// Whether a candidate ranks before it: it is more similar, or equal and earlier.
    fn is_beaten_by(&self, score: f64, index: usize) -> bool {
        score > self.score || (score == self.score && index < self.index)
    }
}

/// Ranks from 1: of each text its image among `image` [M, D], and of each image the best of its texts among `text` [T, D].
pub(super) fn ranks(image: &Embeddings, text: &Embeddings, owner: &[i64]) -> Result<(Vec<i64>, Vec<i64>), EvalError> {
    no_grad(|| {
        let (of_texts, of_images) = best(image, text, owner)?;
        let mut beaten = Beaten { texts: vec![0; of_texts.len()], images: vec![0; of_images.len()] };
        let (mut images, mut texts, mut scores) = (Rows::new(image), Rows::new(text), Vec::new());
        for t in (0..of_texts.len()).step_by(TILE.1) {
            let text_rows = texts.read(t, TILE.1)?;
            for i in (0..of_images.len()).step_by(TILE.0) {
                let image_rows = images.read(i, TILE.0)?;
                copy(&guard(|| linear(&image_rows, &text_rows, None))?, &mut scores)?; // [images, texts]
                Tile { scores: &scores, images: (i, &images.numbers), texts: (t, &texts.numbers), dim: images.dim }.count(
                    &of_images,
                    &of_texts,
                    &mut beaten,
                );
            }
        }
        let from_1 = |beaten: Vec<u32>| beaten.into_iter().map(|n| i64::from(n) + 1).collect();
        Ok((from_1(beaten.texts), from_1(beaten.images)))
    })
}

/// How many candidates rank before each query's best right one.
struct Beaten {
    texts: Vec<u32>,
    images: Vec<u32>,
}

/// Embeddings, of which some rows at a time are in plain memory.
struct Rows<'a> {
    all: &'a Embeddings,
    dim: usize,
    numbers: Vec<f32>,
}

impl<'a> Rows<'a> {
    fn new(all: &'a Embeddings) -> Self {
        Rows { all, dim: all.dim() as usize, numbers: Vec::new() }
    }

    /// At most `n` rows from `first` on, as f32; also in `numbers`.
    fn read(&mut self, first: usize, n: usize) -> Result<Tensor, EvalError> {
        let n = (n as i64).min(self.all.rows() - first as i64);
        let rows = self.all.tensor().detach().f_narrow(0, first as i64, n)?.f_to_kind(Kind::Float)?;
        copy(&rows, &mut self.numbers)?;
        Ok(rows)
    }
}

fn copy(tensor: &Tensor, to: &mut Vec<f32>) -> Result<(), EvalError> {
    to.resize(tensor.numel(), 0.0);
    Ok(tensor.f_contiguous()?.f_copy_data(to, tensor.numel())?)
}

/// The best right candidates of texts (images), and of images (texts).
fn best(image: &Embeddings, text: &Embeddings, owner: &[i64]) -> Result<(Vec<Best>, Vec<Best>), EvalError> {
    let mut of_texts = Vec::with_capacity(owner.len());
    let (mut texts, mut images) = (Rows::new(text), Vec::new());
    for (n, owners) in owner.chunks(TILE.1).enumerate() {
        let _ = texts.read(n * TILE.1, TILE.1)?;
        copy(&image.tensor().detach().f_index_select(0, &Tensor::from_slice(owners))?.f_to_kind(Kind::Float)?, &mut images)?;
        let pairs = images.par_chunks_exact(texts.dim).zip(texts.numbers.par_chunks_exact(texts.dim));
        let found: Vec<Best> =
            pairs.zip(owners).map(|((image, text), &own)| Best { score: dot(image, text), index: own as usize }).collect();
        of_texts.extend(found);
    }
    if let Some(bad) = of_texts.iter().position(|best| !best.score.is_finite()) {
        let of = of_texts[bad].index;
        return Err(EvalError::Input(format!("text {bad} or its image {of} has an embedding that is not finite")));
    }
    let mut of_images = vec![Best { score: f64::NEG_INFINITY, index: usize::MAX }; image.rows() as usize];
    for (text, best) in of_texts.iter().enumerate() {
        let own = &mut of_images[best.index];
        if own.is_beaten_by(best.score, text) {
            *own = Best { score: best.score, index: text };
        }
    }
    Ok((of_texts, of_images))
}

/// Similarities of some images and some texts, each with the number of its first row and its rows.
struct Tile<'a> {
    scores: &'a [f32],
    images: (usize, &'a [f32]),
    texts: (usize, &'a [f32]),
    dim: usize,
}

impl Tile<'_> {
    fn count(&self, of_images: &[Best], of_texts: &[Best], beaten: &mut Beaten) {
        let (rows, columns) = (self.images.1.len() / self.dim, self.texts.1.len() / self.dim);
        let of_images = &of_images[self.images.0..][..rows];
        let of_texts = &of_texts[self.texts.0..][..columns];
        let limits: Vec<f32> = of_texts.iter().map(|best| best.score as f32).collect();
        let band = rows.div_ceil(rayon::current_num_threads()).max(1);
        let of_rows = beaten.images[self.images.0..][..rows].par_chunks_mut(band);
        let bands = of_rows.zip(self.scores.par_chunks(band * columns)).zip(of_images.par_chunks(band)).enumerate();
        let counted: Vec<Vec<u32>> = bands
            .map(|(number, ((of_rows, scores), best))| {
                let mut of_columns = vec![0; columns];
                let rows = scores.chunks_exact(columns).zip(best).zip(of_rows);
                for (row, ((scores, best), of_row)) in (number * band..).zip(rows) {
                    *of_row += self.count_row(row, scores, best, (of_texts, &limits), &mut of_columns);
                }
                of_columns
            })
            .collect();
        for of_columns in counted {
            beaten.texts[self.texts.0..].iter_mut().zip(of_columns).for_each(|(all, more)| *all += more);
        }
    }

    /// Counts an image's similarities: how many texts rank before its best text, and for each text whether this image ranks before
    /// its own.
    fn count_row(&self, row: usize, scores: &[f32], best: &Best, texts: (&[Best], &[f32]), of_columns: &mut [u32]) -> u32 {
        let own = best.score as f32;
        let mut of_row = 0;
        let lanes = scores.chunks(LANES).zip(texts.1.chunks(LANES)).zip(of_columns.chunks_mut(LANES));
        for (n, ((scores, limits), of_columns)) in lanes.enumerate() {
            let mut close = false;
            for ((&score, &limit), of_column) in scores.iter().zip(limits).zip(&mut *of_columns) {
                let (above_own, above_limit) = (score - own, score - limit);
                of_row += u32::from(above_own > MARGIN);
                *of_column += u32::from(above_limit > MARGIN);
                close |= (above_own.abs() <= MARGIN) | (above_limit.abs() <= MARGIN);
            }
            if close {
                let first = n * LANES;
                of_row += self.count_close(row, first, (scores, best), (&texts.0[first..], limits), of_columns);
            }
        }
        of_row
    }

    /// What [`Self::count_row`] could not tell in f32.
    fn count_close(
        &self,
        row: usize,
        first: usize,
        (scores, best): (&[f32], &Best),
        (of_texts, limits): (&[Best], &[f32]),
        of_columns: &mut [u32],
    ) -> u32 {
        let mut of_row = 0;
        for (lane, &score) in scores.iter().enumerate() {
            let close_to_own = (score - best.score as f32).abs() <= MARGIN;
            let close_to_limit = (score - limits[lane]).abs() <= MARGIN;
            if close_to_own || close_to_limit {
                let column = first + lane;
                let exact = dot(&self.images.1[row * self.dim..][..self.dim], &self.texts.1[column * self.dim..][..self.dim]);
                of_row += u32::from(close_to_own && best.is_beaten_by(exact, self.texts.0 + column));
                of_columns[lane] += u32::from(close_to_limit && of_texts[lane].is_beaten_by(exact, self.images.0 + row));
            }
        }
        of_row
    }
}

/// In f64, always summed in the same order: equal rows have equal products.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0f64; 8];
    let (a_lanes, b_lanes) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a_lanes.remainder().iter().zip(b_lanes.remainder()).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    for (a, b) in a_lanes.zip(b_lanes) {
        for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
            *sum += f64::from(a) * f64::from(b);
        }
    }
    sums.iter().sum::<f64>() + rest
}
