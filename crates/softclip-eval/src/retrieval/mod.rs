//! Retrieval with several captions an image: recall, median and mean rank, both ways.

mod tiles;

use serde::{Deserialize, Serialize};
use softclip_tensor::Embeddings;
use softclip_tensor::nearest::{Block, Nearest};
use softclip_torch::without_tf32;
use tch::{Device, Kind, Tensor};

use crate::EvalError;

pub(crate) use tiles::dot;

/// On a GPU, queries whose similarities to all candidates are held at a time, at most.
const CHUNK: i64 = 256;
/// And similarities.
const HELD: i64 = 1 << 26;
/// Numbers of candidates that [`top_k`] looks at together.
const BLOCK: i64 = 1 << 22;

/// One direction of retrieval. Ranks count from 1; of candidates with equal similarity the one that comes first in the data ranks
/// first. On the CPU similarities are equal if they are so in f64, on a GPU in f32, which is never TF32 here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retrieval {
    /// Text → image: "image retrieval".
    pub text_to_image: Direction,
    /// Image → text, a hit if any of the image's captions is among the first: "text retrieval".
    pub image_to_text: Direction,
}

/// The k of R@k.
pub const KS: [usize; 3] = [1, 5, 10];

/// The COCO and Flickr30K protocol: `image` `[M, D]`, `text` `[T, D]`, and for each text the index of its image. No matrix of
/// similarities is kept: above its inputs it takes, on the CPU, about 28 bytes a row and some MiB that grow with D.
///
/// # Errors
/// Widths differ, an owner is out of range, an image has no text, or a row is not finite.
pub fn retrieval(image: &Embeddings, text: &Embeddings, owner: &[i64]) -> Result<Retrieval, EvalError> {
    checked_owners(image, text, owner)?;
    let (to_image, to_text) = match image.tensor().device() {
        Device::Cpu => tiles::ranks(image, text, owner)?,
        device => without_tf32(|| by_tensors(image, text, &Tensor::from_slice(owner).to_device(device)))??,
    };
    Ok(Retrieval::of_ranks(to_image, to_text))
}

/// Whether each text has an image among `image`, and each image a text.
pub(crate) fn checked_owners(image: &Embeddings, text: &Embeddings, owner: &[i64]) -> Result<(), EvalError> {
    let (m, t) = (image.rows(), text.rows());
    if image.dim() != text.dim() || t != owner.len() as i64 || m == 0 {
        let found = format!("images [{m}, {}], texts [{t}, {}], {} owners", image.dim(), text.dim(), owner.len());
        return Err(EvalError::Input(format!("expected images [M, D], texts [T, D] and T owners, found {found}")));
    }
    let mut texts_of = vec![0usize; m as usize];
    for (i, &own) in owner.iter().enumerate() {
        let slot = usize::try_from(own).ok().and_then(|own| texts_of.get_mut(own));
        *slot.ok_or_else(|| EvalError::Input(format!("text {i} belongs to image {own}, but there are {m} images")))? += 1;
    }
    if let Some(bare) = texts_of.iter().position(|&n| n == 0) {
        return Err(EvalError::Input(format!("image {bare} has no text: each needs at least one")));
    }
    Ok(())
}

impl Retrieval {
    /// From the rank, counted from 1, of each text's image and of each image's best text.
    pub(crate) fn of_ranks(to_image: Vec<i64>, to_text: Vec<i64>) -> Self {
        let (m, t) = (to_text.len(), to_image.len());
        Retrieval { text_to_image: direction(to_image, m), image_to_text: direction(to_text, t) }
    }
}

/// As [`tiles::ranks`], by operations on whole rows of similarities, which suits GPUs.
fn by_tensors(image: &Embeddings, text: &Embeddings, owner: &Tensor) -> Result<(Vec<i64>, Vec<i64>), EvalError> {
    let to_image =
        ranks(("text", text), image, |rows| owner.narrow(0, rows.0, rows.1).unsqueeze(1).eq_tensor(&positions(image)))?;
    let to_text = ranks(("image", image), text, |rows| positions(image).narrow(0, rows.0, rows.1).unsqueeze(1).eq_tensor(owner))?;
    Ok((to_image, to_text))
}

fn positions(of: &Embeddings) -> Tensor {
    Tensor::arange(of.rows(), (Kind::Int64, of.tensor().device()))
}

/// The rank of each query's best right candidate; `right(from, n)` says for `n` queries which candidates are right, bool `[n, C]`.
/// Queries come with what they are.
fn ranks(
    (what, queries): (&str, &Embeddings),
    candidates: &Embeddings,
    right: impl Fn((i64, i64)) -> Tensor,
) -> Result<Vec<i64>, EvalError> {
    let columns = positions(candidates).unsqueeze(0);
    let transposed = candidates.tensor().tr();
    let mut all = Vec::with_capacity(queries.rows() as usize);
    let chunk = (HELD / candidates.rows().max(1)).clamp(1, CHUNK);
    for from in (0..queries.rows()).step_by(chunk as usize) {
        let n = chunk.min(queries.rows() - from);
        let scores = queries.tensor().narrow(0, from, n).f_matmul(&transposed)?; // [n, C]
        let right = right((from, n));
        // argmax gives any of equal ones; the first of them is wanted.
        let best = scores.masked_fill(&right.logical_not(), f64::NEG_INFINITY).amax([1i64].as_slice(), true); // [n, 1]
        let bests = Vec::<f64>::try_from(best.f_to_kind(Kind::Double)?.f_flatten(0, -1)?)?;
        // Every row is some query's right candidate, so none that is not finite escapes; it would rank first.
        if let Some(bad) = bests.iter().position(|best| !best.is_finite()) {
            let why = format!("{what} {} or what belongs to it has an embedding that is not finite", from + bad as i64);
            return Err(EvalError::Input(why));
        }
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

/// The `k` most similar candidates of each query, best first, with their cosines; of equal ones the first comes first.
///
/// # Errors
/// Widths differ, `k` is beyond the candidates, or a row is not finite.
pub fn top_k(queries: &Embeddings, candidates: &Embeddings, k: i64) -> Result<Vec<Vec<(usize, f64)>>, EvalError> {
    let (n, d) = (candidates.rows(), candidates.dim());
    if queries.dim() != d || !(0..=n).contains(&k) {
        let found = format!("queries [{}, {}], candidates [{n}, {d}], k = {k}", queries.rows(), queries.dim());
        return Err(EvalError::Input(format!("queries and at least k candidates of one width are needed, found {found}")));
    }
    let mut nearest = Nearest::new(queries.tensor(), k as usize)?;
    let step = (BLOCK / d.max(1)).max(1);
    for from in (0..n).step_by(step as usize) {
        let rows = candidates.tensor().f_narrow(0, from, step.min(n - from))?.f_to_kind(Kind::Float)?;
        let block = Block::new(from as usize, d as usize, Vec::try_from(rows.f_flatten(0, -1)?)?);
        nearest.take(&block.map_err(|why| EvalError::Input(format!("candidates: {why}")))?)?;
    }
    let hits = nearest.into_hits().into_iter();
    Ok(hits.map(|hits| hits.into_iter().map(|hit| (hit.row, hit.score)).collect()).collect())
}

#[cfg(test)]
mod tests {
    use softclip_torch::Generator;

    use super::*;

    /// Rows with many equal ones among them.
    fn rows(n: i64, different: i64, seed: u64) -> Embeddings {
        let random = Generator::new(seed);
        let few = random.normal([different, 7]).unwrap();
        let chosen = random.uniform([n], 0.0, different as f64).unwrap().to_kind(Kind::Int64);
        Embeddings::normalize(&few.index_select(0, &chosen)).unwrap()
    }

    #[test]
    fn tiles_rank_as_tensors_do_whatever_the_ties() {
        // Images beyond one tile of 512, texts beyond one of 2,048, with odd ends.
        let (m, t) = (777, 2500);
        let owner: Vec<i64> = (0..t).map(|i| (i * 41) % m).collect();
        for different in [1, 5, 900] {
            let (image, text) = (rows(m, different, 1), rows(t, different * 2, 2));
            // Products of integers are exact in f32, too: ties are the same for both.
            let whole = |x: &Embeddings| Embeddings::trusted((x.tensor() * 16.0).round() / 64.0).unwrap();
            let (image, text) = (whole(&image), whole(&text));
            checked_owners(&image, &text, &owner).unwrap();
            let found = tiles::ranks(&image, &text, &owner).unwrap();
            assert_eq!(found, by_tensors(&image, &text, &Tensor::from_slice(&owner)).unwrap(), "{different}");
        }
    }

    #[test]
    fn rows_that_are_not_finite_are_named() {
        let image = rows(3, 3, 1);
        let text = rows(3, 3, 2).into_tensor();
        let _ = text.get(1).fill_(f64::NAN);
        let text = Embeddings::trusted(text).unwrap();
        let error = retrieval(&image, &text, &[0, 1, 2]).unwrap_err().to_string();
        assert!(error.contains("text 1 or its image 1"), "{error}");
        let owner = Tensor::from_slice(&[0i64, 1, 2]);
        let error = by_tensors(&image, &text, &owner).unwrap_err().to_string();
        assert!(error.contains("text 1 or what belongs to it"), "{error}");
        assert!(by_tensors(&text, &image, &owner).is_err());
        let error = top_k(&image, &text, 1).unwrap_err().to_string();
        assert!(error.contains("candidates") && error.contains("row 1,"), "{error}");
    }

    /// Cosines that differ by about 1e-6, all of them closer to each other than f32 products are trusted to be.
    #[test]
    fn what_f32_cannot_tell_apart_ranks_as_in_f64() {
        let (m, t, d) = (600i64, 2100i64, 16i64);
        let random = Generator::new(5);
        let base = random.normal([1, d]).unwrap();
        let near = |n: i64| Embeddings::normalize(&(random.normal([n, d]).unwrap() * 1e-3 + &base)).unwrap();
        let (image, text) = (near(m), near(t));
        let owner: Vec<i64> = (0..t).map(|i| (i * 41) % m).collect();
        let numbers = |of: &Embeddings| Vec::<Vec<f64>>::try_from(of.tensor().to_kind(Kind::Double)).unwrap();
        let (images, texts) = (numbers(&image), numbers(&text));
        let cosines: Vec<Vec<f64>> =
            images.iter().map(|a| texts.iter().map(|b| a.iter().zip(b).map(|(a, b)| a * b).sum()).collect()).collect();
        let rank = |best: f64, all: &mut dyn Iterator<Item = f64>| 1 + all.filter(|&other| other > best).count() as i64;
        let to_image = owner
            .iter()
            .enumerate()
            .map(|(text, &own)| rank(cosines[own as usize][text], &mut cosines.iter().map(|row| row[text])));
        let to_text = cosines.iter().zip(0i64..).map(|(row, image)| {
            let own = row.iter().zip(&owner).filter(|(_, own)| **own == image).map(|(cosine, _)| *cosine);
            rank(own.fold(f64::NEG_INFINITY, f64::max), &mut row.iter().copied())
        });
        let expected = (to_image.collect(), to_text.collect());
        assert_eq!(tiles::ranks(&image, &text, &owner).unwrap(), expected);
    }

    #[test]
    fn equal_candidates_come_in_their_order_and_k_has_a_limit() {
        let image = rows(300, 1, 1);
        let found = top_k(&image, &image, 300).unwrap();
        assert!(found.iter().all(|hits| hits.iter().map(|hit| hit.0).eq(0..300)));
        assert!(top_k(&image, &image, 301).is_err() && top_k(&image, &image, -1).is_err());
    }
}
