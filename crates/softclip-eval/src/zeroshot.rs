//! Zero-shot classification: images against classes that are named by prompts.

use serde::Serialize;
use softclip_tensor::Embeddings;
use tch::{Kind, Tensor};

use crate::EvalError;

/// Accuracies, in [0, 1].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ZeroShot {
    /// Top-1.
    pub acc1: f64,
    /// Top-5; none for five classes or fewer, where it says nothing.
    pub acc5: Option<f64>,
    /// Mean over the classes that have images of their top-1.
    pub mean_per_class_recall: f64,
    /// Images.
    pub images: usize,
    /// Classes.
    pub classes: usize,
}

/// A class's embedding: the mean of its prompts' unit embeddings, made unit again. `prompts` is `[C · P, D]`, class by class.
///
/// # Errors
/// The rows are no multiple of `classes`.
pub fn class_embeddings(prompts: &Embeddings, classes: i64) -> Result<Embeddings, EvalError> {
    if classes == 0 || prompts.rows() % classes != 0 {
        return Err(EvalError::Input(format!("{} prompts cannot be shared by {classes} classes", prompts.rows())));
    }
    let grouped = prompts.tensor().view([classes, prompts.rows() / classes, prompts.dim()]);
    Ok(Embeddings::normalize(&grouped.mean_dim([1i64].as_slice(), false, None::<Kind>))?)
}

/// Top-1, top-5 and mean per class of scores `[N, C]` with `labels` in 0..C. Of equal scores the class that comes first ranks first.
///
/// # Errors
/// Shapes do not fit, or a label is out of range.
pub fn classify(scores: &Tensor, labels: &[i64]) -> Result<ZeroShot, EvalError> {
    let size = scores.size();
    let (Some(&n), Some(&classes), 2) = (size.first(), size.get(1), size.len()) else {
        return Err(EvalError::Input(format!("scores must be [images, classes], found {size:?}")));
    };
    if n != labels.len() as i64 || n == 0 {
        return Err(EvalError::Input(format!("{n} rows of scores, {} labels", labels.len())));
    }
    if let Some(label) = labels.iter().find(|label| !(0..classes).contains(label)) {
        return Err(EvalError::Input(format!("label {label} is not among {classes} classes")));
    }
    let label = Tensor::from_slice(labels).to_device(scores.device()).unsqueeze(1);
    let own = scores.f_gather(1, &label, false)?;
    let columns = Tensor::arange(classes, (Kind::Int64, scores.device())).unsqueeze(0);
    let before = scores.gt_tensor(&own).logical_or(&scores.eq_tensor(&own).logical_and(&columns.lt_tensor(&label)));
    let ranks = Vec::<i64>::try_from(before.sum_dim_intlist([1i64].as_slice(), false, Kind::Int64))?;
    let share = |k: i64| ranks.iter().filter(|&&rank| rank < k).count() as f64 / n as f64;
    let mut per_class = vec![(0u32, 0u32); classes as usize];
    for (&rank, &label) in ranks.iter().zip(labels) {
        let (hits, all) = &mut per_class[label as usize];
        *hits += u32::from(rank == 0);
        *all += 1;
    }
    let recalls: Vec<f64> =
        per_class.iter().filter(|(_, all)| *all > 0).map(|(hits, all)| f64::from(*hits) / f64::from(*all)).collect();
    Ok(ZeroShot {
        acc1: share(1),
        acc5: (classes > 5).then(|| share(5)),
        mean_per_class_recall: recalls.iter().sum::<f64>() / recalls.len() as f64,
        images: n as usize,
        classes: classes as usize,
    })
}
