//! How a model's similarities are distributed: sorted probabilities, and positives beside negatives.

use softclip_tensor::Embeddings;
use softclip_torch::guard;
use tch::{Kind, Tensor};

use crate::EvalError;
use crate::retrieval::checked_owners;

/// Rows whose similarities to all candidates are held at a time.
const CHUNK: i64 = 256;

/// The softmax of each query over all candidates, `scale`·cosine (1/τ), sorted from the largest down; the mean over the queries of the
/// first `ranks` of them, or of all where there are fewer. SoftCLIP's Figure 6: how much of a prediction falls on whom it ranks second,
/// third and so on.
///
/// # Errors
/// Widths differ, there is no query, or the scale is no positive number.
pub fn sorted_probabilities(
    queries: &Embeddings,
    candidates: &Embeddings,
    scale: f64,
    ranks: usize,
) -> Result<Vec<f64>, EvalError> {
    if queries.rows() == 0 || queries.dim() != candidates.dim() || !(scale.is_finite() && scale > 0.0) {
        let found = format!("[{}, {}] and [{}, {}]", queries.rows(), queries.dim(), candidates.rows(), candidates.dim());
        return Err(EvalError::Input(format!(
            "probabilities need rows of one width and a scale above 0, found {found}, {scale}"
        )));
    }
    guard(|| sorted_or_panic(queries, candidates, scale, ranks))?
}

fn sorted_or_panic(queries: &Embeddings, candidates: &Embeddings, scale: f64, ranks: usize) -> Result<Vec<f64>, EvalError> {
    let k = (ranks as i64).min(candidates.rows());
    let transposed = candidates.tensor().tr();
    let mut sum = Tensor::zeros([k], (Kind::Double, queries.tensor().device()));
    for from in (0..queries.rows()).step_by(CHUNK as usize) {
        let rows = queries.tensor().narrow(0, from, CHUNK.min(queries.rows() - from));
        let logits = rows.f_matmul(&transposed)?.to_kind(Kind::Float) * scale; // [n, C]
        let (first, _) = logits.f_softmax(1, Kind::Float)?.f_topk(k, 1, true, true)?;
        sum += first.sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
    }
    Ok(Vec::try_from(sum / queries.rows() as f64)?)
}

/// Cosines of own pairs and of all others.
#[derive(Clone, Debug, PartialEq)]
pub struct Similarities {
    /// Share of the own pairs in each of the equal bins between −1 and 1, from the lowest; they sum to 1.
    pub positives: Vec<f64>,
    /// The same of the other pairs; empty where there are none.
    pub negatives: Vec<f64>,
    /// Mean cosine of the own pairs.
    pub positive_mean: f64,
    /// Mean cosine of the others; NaN where there are none.
    pub negative_mean: f64,
    /// Area that both histograms share, in [0, 1]: 0 where any threshold between them tells own pairs from others, 1 where they are
    /// one. It depends on the bins: few of them, or few pairs, make it larger or smaller.
    pub overlap: f64,
}

/// Histograms of the cosines of `image` `[M, D]` and `text` `[T, D]` in `bins` bins between −1 and 1: each text with its own image
/// (`owner[i]` is the image of text i), and with every other.
///
/// # Errors
/// As [`crate::retrieval`], or there is no bin.
pub fn similarity_histogram(
    image: &Embeddings,
    text: &Embeddings,
    owner: &[i64],
    bins: usize,
) -> Result<Similarities, EvalError> {
    checked_owners(image, text, owner)?;
    if bins == 0 {
        return Err(EvalError::Input("a histogram needs a bin at least".to_owned()));
    }
    guard(|| histogram_or_panic(image, text, owner, bins as i64))?
}

fn histogram_or_panic(image: &Embeddings, text: &Embeddings, owner: &[i64], bins: i64) -> Result<Similarities, EvalError> {
    let device = image.tensor().device();
    let owner = Tensor::from_slice(owner).to_device(device);
    let transposed = image.tensor().tr();
    let zeros = || Tensor::zeros([bins], (Kind::Int64, device));
    let (mut own, mut all) = (zeros(), zeros());
    let (mut own_sum, mut all_sum) = (0.0, 0.0);
    for from in (0..text.rows()).step_by(CHUNK as usize) {
        let n = CHUNK.min(text.rows() - from);
        let cosines = text.tensor().narrow(0, from, n).f_matmul(&transposed)?.to_kind(Kind::Float); // [n, M]
        let positive = cosines.f_gather(1, &owner.narrow(0, from, n).unsqueeze(1), false)?;
        own += counts(&positive, bins)?;
        all += counts(&cosines, bins)?;
        own_sum += positive.sum(Kind::Double).double_value(&[]);
        all_sum += cosines.sum(Kind::Double).double_value(&[]);
    }
    let (positives, pairs) = (text.rows() as f64, (text.rows() * image.rows()) as f64);
    let shares = |counts: Tensor, of: f64| -> Result<Vec<f64>, EvalError> {
        if of == 0.0 { Ok(Vec::new()) } else { Ok(Vec::try_from(counts.to_kind(Kind::Double) / of)?) }
    };
    let others = pairs - positives;
    let negatives = shares(&all - &own, others)?;
    let positive = shares(own, positives)?;
    Ok(Similarities {
        overlap: positive.iter().zip(&negatives).map(|(p, n)| p.min(*n)).sum(),
        positive_mean: own_sum / positives,
        negative_mean: (all_sum - own_sum) / others,
        positives: positive,
        negatives,
    })
}

/// How many of `cosines` lie in each bin.
fn counts(cosines: &Tensor, bins: i64) -> Result<Tensor, EvalError> {
    // Rounding takes unit vectors' products a little beyond 1.
    let bin = ((cosines + 1.0) * (bins as f64 / 2.0)).floor().to_kind(Kind::Int64).clamp(0, bins - 1);
    Ok(bin.reshape([-1]).f_bincount::<Tensor>(None, bins)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[f64], width: i64) -> Embeddings {
        Embeddings::normalize(&Tensor::from_slice(values).to_kind(Kind::Float).view([-1, width])).unwrap()
    }

    fn close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len(), "{found:?}");
        found.iter().zip(expected).for_each(|(f, e)| assert!((f - e).abs() < 1e-6, "{found:?}, expected {expected:?}"));
    }

    #[test]
    fn probabilities_are_sorted_before_they_are_averaged() {
        // Cosines of the first query: 1, 0, −1; of the second: 0, 1, 0. At a scale of ln 2 their exponentials are 2, 1, ½ and 1, 2, 1.
        let queries = rows(&[1.0, 0.0, 0.0, 1.0], 2);
        let candidates = rows(&[1.0, 0.0, 0.0, 1.0, -1.0, 0.0], 2);
        let expected = [(4.0 / 7.0 + 0.5) / 2.0, (2.0 / 7.0 + 0.25) / 2.0, (1.0 / 7.0 + 0.25) / 2.0];
        close(&sorted_probabilities(&queries, &candidates, 2f64.ln(), 10).unwrap(), &expected);
        close(&sorted_probabilities(&queries, &candidates, 2f64.ln(), 2).unwrap(), &expected[..2]);
        for scale in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(sorted_probabilities(&queries, &candidates, scale, 3).is_err());
        }
        assert!(sorted_probabilities(&queries, &rows(&[1.0, 0.0, 0.0], 3), 1.0, 3).is_err());
    }

    #[test]
    fn chunks_change_nothing() {
        let n = 2 * CHUNK + 3;
        let x = Embeddings::normalize(&softclip_torch::Generator::new(n as u64).normal([n, 8]).unwrap()).unwrap();
        let found = sorted_probabilities(&x, &x, 5.0, 50).unwrap();
        let whole = (x.tensor().matmul(&x.tensor().tr()) * 5.0).softmax(1, Kind::Double);
        let (whole, _) = whole.sort(1, true);
        let mean: Vec<f64> = Vec::try_from(whole.mean_dim([0i64].as_slice(), false, Kind::Double)).unwrap();
        close(&found, &mean[..50]);
        assert!(found.is_sorted_by(|a, b| a >= b));
        let all: f64 = sorted_probabilities(&x, &x, 5.0, n as usize).unwrap().iter().sum();
        assert!((all - 1.0).abs() < 1e-5, "{all}");
        let owner: Vec<i64> = (0..n).collect();
        let found = similarity_histogram(&x, &x, &owner, 40).unwrap();
        close(&[found.positives[39], found.positive_mean], &[1.0, 1.0]);
        close(&[found.negatives.iter().sum()], &[1.0]);
    }

    #[test]
    fn positives_and_negatives_are_counted_apart() {
        // Two images, three texts: cosines with image 0 are 1, 0.6, −1; with image 1: 0, 0.8, 0.
        let image = rows(&[1.0, 0.0, 0.0, 1.0], 2);
        let text = rows(&[1.0, 0.0, 0.6, 0.8, -1.0, 0.0], 2);
        let found = similarity_histogram(&image, &text, &[0, 1, 0], 4).unwrap();
        // Bins begin at −1, −0.5, 0, 0.5. Own: 1, 0.8, −1; others: 0, 0.6, 0.
        let third = 1.0 / 3.0;
        close(&found.positives, &[third, 0.0, 0.0, 2.0 * third]);
        close(&found.negatives, &[0.0, 0.0, 2.0 * third, third]);
        close(&[found.positive_mean, found.negative_mean, found.overlap], &[0.8 * third, 0.2, third]);
        assert!(similarity_histogram(&image, &text, &[0, 2, 0], 4).is_err());
        assert!(similarity_histogram(&image, &text, &[0, 1, 0], 0).is_err());
    }

    #[test]
    fn one_image_has_no_negatives() {
        let found = similarity_histogram(&rows(&[1.0, 0.0], 2), &rows(&[0.0, 1.0], 2), &[0], 4).unwrap();
        assert!(found.negatives.is_empty() && found.negative_mean.is_nan());
        close(&[found.overlap, found.positives[2]], &[0.0, 1.0]);
    }
}
