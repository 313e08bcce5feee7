//! Pairing accuracy within blocks of pairs: the score of Text-based SoftCLIP's authors, corrected.

use serde::Serialize;
use softclip_tensor::Embeddings;
use tch::Kind;

use crate::EvalError;

/// Pairs a block.
pub const BLOCK: i64 = 128;

/// How often the right partner among a block's is the most similar.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pairing {
    /// Text → image (the columns of images × texts), in [0, 1].
    pub text_to_image: f64,
    /// Image → text.
    pub image_to_text: f64,
    /// Pairs a block: 128, or all where there are fewer.
    pub block: usize,
    /// Whole blocks; pairs behind the last one are left out, since a smaller block would be easier.
    pub blocks: usize,
}

/// Row i of `image` and row i of `text`, both `[N, D]`, are a pair. A tie with an earlier pair is a miss.
///
/// # Errors
/// Shapes differ, or there are fewer than two pairs.
pub fn pairing(image: &Embeddings, text: &Embeddings) -> Result<Pairing, EvalError> {
    let n = image.rows();
    if n != text.rows() || image.dim() != text.dim() || n < 2 {
        let found = format!("[{n}, {}] and [{}, {}]", image.dim(), text.rows(), text.dim());
        return Err(EvalError::Input(format!("pairing needs two or more pairs of one width, found {found}")));
    }
    let block = n.min(BLOCK);
    let blocks = n / block;
    let mut hits = [0i64; 2];
    for b in 0..blocks {
        let rows = |x: &Embeddings| x.tensor().narrow(0, b * block, block);
        let scores = rows(image).f_matmul(&rows(text).tr())?; // [images, texts]
        for (hits, scores) in hits.iter_mut().zip([scores.tr(), scores]) {
            let own = scores.diagonal(0, 0, 1).unsqueeze(1);
            let earlier = scores.eq_tensor(&own).tril(-1);
            let beaten = scores.gt_tensor(&own).logical_or(&earlier).any_dim(1, false);
            *hits += block - beaten.to_kind(Kind::Int64).sum(Kind::Int64).int64_value(&[]);
        }
    }
    let share = |hits: i64| hits as f64 / (blocks * block) as f64;
    Ok(Pairing { text_to_image: share(hits[0]), image_to_text: share(hits[1]), block: block as usize, blocks: blocks as usize })
}
