//! Retrieval with several captions an image: recall, median and mean rank, both ways.

use serde::Serialize;
use softclip_tensor::Embeddings;
use tch::{Kind, Tensor};

use crate::EvalError;

/// Rows whose similarities to all candidates are held at a time.
const CHUNK: i64 = 256;

/// One direction of retrieval. Ranks count from 1; of candidates with equal similarity the one that comes first in the data ranks
/// first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Direction {
    /// Share of queries with a right candidate among the first, first five and first ten, in [0, 1].
    pub recall: [f64; 3],
    /// Median rank of the best right candidate.
    pub median_rank: f64,
    /// Its mean.
    pub mean_rank: f64,
    /// Queries.
    pub queries: usize,
    /// Candidates.
    pub candidates: usize,
}

/// Both directions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Retrieval {
    /// Text → image: "image retrieval".
    pub text_to_image: Direction,
    /// Image → text, a hit if any of the image's captions is among the first: "text retrieval".
    pub image_to_text: Direction,
}

/// The k of R@k.
pub const KS: [usize; 3] = [1, 5, 10];

/// The COCO and Flickr30K protocol: `image` `[M, D]`, `text` `[T, D]`, and for each text the index of its image.
///
/// # Errors
/// Widths differ, an owner is out of range, or an image has no text.
pub fn retrieval(image: &Embeddings, text: &Embeddings, owner: &[i64]) -> Result<Retrieval, EvalError> {
    let (m, t) = (image.rows(), text.rows());
    if image.dim() != text.dim() || t != owner.len() as i64 || m == 0 {
        let found = format!("images [{m}, {}], texts [{t}, {}], {} owners", image.dim(), text.dim(), owner.len());
        return Err(EvalError::Input(format!("retrieval needs images [M, D], texts [T, D] and T owners, found {found}")));
    }
    let mut texts_of = vec![0usize; m as usize];
    for (i, &own) in owner.iter().enumerate() {
        let slot = usize::try_from(own).ok().and_then(|own| texts_of.get_mut(own));
        *slot.ok_or_else(|| EvalError::Input(format!("text {i} belongs to image {own}, but there are {m} images")))? += 1;
    }
    if let Some(bare) = texts_of.iter().position(|&n| n == 0) {
        return Err(EvalError::Input(format!("image {bare} has no text: retrieval needs at least one for each")));
    }
    let owner = Tensor::from_slice(owner).to_device(image.tensor().device());
    let to_image = ranks(text, image, |rows| owner.narrow(0, rows.0, rows.1).unsqueeze(1).eq_tensor(&positions(image)))?;
    let to_text = ranks(image, text, |rows| positions(image).narrow(0, rows.0, rows.1).unsqueeze(1).eq_tensor(&owner))?;
    Ok(Retrieval { text_to_image: direction(to_image, m as usize), image_to_text: direction(to_text, t as usize) })
}

fn positions(of: &Embeddings) -> Tensor {
    Tensor::arange(of.rows(), (Kind::Int64, of.tensor().device()))
}

/// The rank of each query's best right candidate; `right(from, n)` says for `n` queries which candidates are right, bool `[n, C]`.
fn ranks(queries: &Embeddings, candidates: &Embeddings, right: impl Fn((i64, i64)) -> Tensor) -> Result<Vec<i64>, EvalError> {
    let columns = positions(candidates).unsqueeze(0);
    let transposed = candidates.tensor().tr();
    let mut all = Vec::with_capacity(queries.rows() as usize);
    for from in (0..queries.rows()).step_by(CHUNK as usize) {
        let n = CHUNK.min(queries.rows() - from);
        let scores = queries.tensor().narrow(0, from, n).f_matmul(&transposed)?; // [n, C]
        let right = right((from, n));
        // argmax gives any of equal ones; the first of them is wanted.
        let best = scores.masked_fill(&right.logical_not(), f64::NEG_INFINITY).amax([1i64].as_slice(), true); // [n, 1]
        let first = columns
            .where_self(&right.logical_and(&scores.eq_tensor(&best)), &columns.full_like(candidates.rows()))
            .amin([1i64].as_slice(), true);
        let before = scores.gt_tensor(&best).logical_or(&scores.eq_tensor(&best).logical_and(&columns.lt_tensor(&first)));
        let rank = before.sum_dim_intlist([1i64].as_slice(), false, Kind::Int64) + 1;
        all.extend(Vec::<i64>::try_from(rank)?);
    }
    Ok(all)
}

fn direction(mut ranks: Vec<i64>, candidates: usize) -> Direction {
    let n = ranks.len();
    let recall = KS.map(|k| ranks.iter().filter(|&&rank| rank <= k as i64).count() as f64 / n as f64);
    let mean_rank = ranks.iter().sum::<i64>() as f64 / n as f64;
    ranks.sort_unstable();
    let median_rank = (ranks[(n - 1) / 2] + ranks[n / 2]) as f64 / 2.0;
    Direction { recall, median_rank, mean_rank, queries: n, candidates }
}

/// The `k` most similar candidates of each query, best first, with their cosines.
///
/// # Errors
/// Widths differ, or `k` is beyond the candidates.
pub fn top_k(queries: &Embeddings, candidates: &Embeddings, k: i64) -> Result<Vec<Vec<(usize, f64)>>, EvalError> {
    let transposed = candidates.tensor().tr();
    let mut all = Vec::new();
    for from in (0..queries.rows()).step_by(CHUNK as usize) {
        let rows = queries.tensor().narrow(0, from, CHUNK.min(queries.rows() - from));
        let (values, indices) = rows.f_matmul(&transposed)?.f_topk(k, 1, true, true)?;
        let values = Vec::<Vec<f64>>::try_from(values.to_kind(Kind::Double))?;
        let indices = Vec::<Vec<i64>>::try_from(indices)?;
        all.extend(indices.into_iter().zip(values).map(|(i, v)| i.into_iter().map(|i| i as usize).zip(v).collect()));
    }
    Ok(all)
}
