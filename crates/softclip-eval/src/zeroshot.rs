//! Zero-shot classification: images against classes that are named by prompts.

use std::collections::HashMap;

use serde::Serialize;
use softclip_tensor::Embeddings;
use softclip_torch::guard;
use tch::{Kind, Tensor};

use crate::result::{ClassScore, Confusion};
use crate::{EvalError, Prompts};

/// Images whose scores of all classes are held at a time.
const CHUNK: i64 = 1024;

/// Confusions that a result keeps.
pub(crate) const CONFUSIONS: usize = 50;

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
    guard(|| {
        let grouped = prompts.tensor().view([classes, prompts.rows() / classes, prompts.dim()]);
        Ok(Embeddings::normalize(&grouped.mean_dim([1i64].as_slice(), false, None::<Kind>))?)
    })?
}

/// The names of `of_source`'s classes as prompts have them, and the place of each of its ids among them.
pub(crate) fn names_and_ids(
    prompts: &Prompts,
    keys: Option<&[String]>,
    of_source: &[String],
) -> Result<(Vec<String>, Vec<usize>), EvalError> {
    match &prompts.classes {
        Some(classes) => {
            let ids = classes.ids(keys.unwrap_or(of_source))?;
            Ok((classes.entries.iter().map(|(_, name)| name.clone()).collect(), ids))
        }
        None => Ok((of_source.to_vec(), (0..of_source.len()).collect())),
    }
}

/// Names to tell classes apart by: with the data set's key behind those that several have, such as ImageNet's two missiles.
pub(crate) fn told_apart(names: &[String], keys: &[String]) -> Vec<String> {
    let mut count: HashMap<&str, usize> = HashMap::new();
    names.iter().for_each(|name| *count.entry(name).or_default() += 1);
    let told = |(i, name): (usize, &String)| match keys.get(i) {
        Some(key) if count.get(name.as_str()) > Some(&1) => format!("{name} ({key})"),
        _ => name.clone(),
    };
    names.iter().enumerate().map(told).collect()
}

/// Top-1, top-5 and mean per class of scores `[N, C]` with `labels` in 0..C. Of equal scores the class that comes first ranks first.
///
/// # Errors
/// Shapes do not fit, or a label is out of range.
pub fn classify(scores: &Tensor, labels: &[i64]) -> Result<ZeroShot, EvalError> {
    let classes = scores.size().get(1).copied().unwrap_or(0);
    let mut tally = Tally::new(classes as usize);
    tally.add(scores, labels)?;
    tally.zero_shot()
}

/// How many classes come before each image's own, and the class of its highest score. Operators panic where libtorch fails.
fn ranks_and_predicted(scores: &Tensor, labels: &[i64]) -> Result<(Vec<i64>, Vec<i64>), EvalError> {
    let classes = scores.size()[1];
    let label = Tensor::from_slice(labels).to_device(scores.device()).unsqueeze(1);
    let own = scores.f_gather(1, &label, false)?;
    let columns = Tensor::arange(classes, (Kind::Int64, scores.device())).unsqueeze(0);
    let before = scores.gt_tensor(&own).logical_or(&scores.eq_tensor(&own).logical_and(&columns.lt_tensor(&label)));
    let ranks = Vec::<i64>::try_from(before.sum_dim_intlist([1i64].as_slice(), false, Kind::Int64))?;
    // argmax gives any of equal ones; the first of them is wanted.
    let best = scores.eq_tensor(&scores.amax([1i64].as_slice(), true));
    let first = columns.where_self(&best, &columns.full_like(classes)).amin([1i64].as_slice(), false);
    Ok((ranks, Vec::<i64>::try_from(first)?))
}

/// What classifying images comes to, image by image. Takes memory for classes and for pairs of classes that were confused.
#[derive(Clone, Debug)]
pub struct Tally {
    images: usize,
    top5: usize,
    /// Right ones and all of each class.
    per_class: Vec<(usize, usize)>,
    /// How often one class, the first, was taken for another.
    confused: HashMap<(usize, usize), usize>,
}

impl Tally {
    /// Of no image yet.
    pub fn new(classes: usize) -> Self {
        Self { images: 0, top5: 0, per_class: vec![(0, 0); classes], confused: HashMap::new() }
    }

    /// All of `images` `[N, D]` with their `labels`, against `classes` `[C, D]`; never more than 1,024 rows of scores at once.
    ///
    /// # Errors
    /// Shapes do not fit, or a label is out of range.
    pub fn of(images: &Embeddings, classes: &Embeddings, labels: &[i64]) -> Result<Self, EvalError> {
        if images.rows() != labels.len() as i64 {
            return Err(EvalError::Input(format!("{} images, {} labels", images.rows(), labels.len())));
        }
        let mut tally = Self::new(classes.rows() as usize);
        let transposed = classes.tensor().f_tr()?;
        for (chunk, from) in labels.chunks(CHUNK as usize).zip((0..).step_by(CHUNK as usize)) {
            tally.add(&images.tensor().f_narrow(0, from, chunk.len() as i64)?.f_matmul(&transposed)?, chunk)?;
        }
        Ok(tally)
    }

    /// Scores `[n, C]` of some images with their labels. Of equal scores the class that comes first ranks first.
    ///
    /// # Errors
    /// Shapes do not fit, or a label is out of range.
    pub fn add(&mut self, scores: &Tensor, labels: &[i64]) -> Result<(), EvalError> {
        let size = scores.size();
        let (n, classes) = (labels.len() as i64, self.per_class.len() as i64);
        if size.len() != 2 || size[1] != classes {
            return Err(EvalError::Input(format!("scores must be [images, {classes} classes], found {size:?}")));
        }
        if n != size[0] || n == 0 {
            return Err(EvalError::Input(format!("{} rows of scores, {n} labels", size[0])));
        }
        if let Some(label) = labels.iter().find(|label| !(0..classes).contains(label)) {
            return Err(EvalError::Input(format!("label {label} is not among {classes} classes")));
        }
        let (ranks, predicted) = guard(|| ranks_and_predicted(scores, labels))??;
        for ((&rank, &label), &predicted) in ranks.iter().zip(labels).zip(&predicted) {
            let (right, all) = &mut self.per_class[label as usize];
            *all += 1;
            self.top5 += usize::from(rank < 5);
            if rank == 0 {
                *right += 1;
            } else {
                *self.confused.entry((label as usize, predicted as usize)).or_default() += 1;
            }
        }
        self.images += labels.len();
        Ok(())
    }

    /// The accuracies.
    ///
    /// # Errors
    /// There is no image.
    pub fn zero_shot(&self) -> Result<ZeroShot, EvalError> {
        if self.images == 0 {
            return Err(EvalError::Input("no image was classified".to_owned()));
        }
        let right: usize = self.per_class.iter().map(|(right, _)| right).sum();
        let with_images = self.per_class.iter().filter(|(_, all)| *all > 0);
        let recalls: Vec<f64> = with_images.map(|(right, all)| *right as f64 / *all as f64).collect();
        Ok(ZeroShot {
            acc1: right as f64 / self.images as f64,
            acc5: (self.per_class.len() > 5).then(|| self.top5 as f64 / self.images as f64),
            mean_per_class_recall: recalls.iter().sum::<f64>() / recalls.len() as f64,
            images: self.images,
            classes: self.per_class.len(),
        })
    }

    /// Each class with its name, in order.
    pub fn classes(&self, names: &[String]) -> Vec<ClassScore> {
        let name = |class: usize| names.get(class).cloned().unwrap_or_else(|| class.to_string());
        let mut worst: Vec<Option<(usize, usize)>> = vec![None; self.per_class.len()];
        for (&(truth, predicted), &count) in &self.confused {
            let (most, other) = worst[truth].unwrap_or((0, usize::MAX));
            // Of equally frequent ones the first class.
            if count > most || (count == most && predicted < other) {
                worst[truth] = Some((count, predicted));
            }
        }
        let score = |(class, worst): (usize, Option<(usize, usize)>)| {
            let (right, images) = self.per_class[class];
            ClassScore {
                class: name(class),
                images,
                right,
                recall: (images > 0).then(|| right as f64 / images as f64),
                most_wrong: worst.map(|(_, predicted)| name(predicted)),
            }
        };
        worst.into_iter().enumerate().map(score).collect()
    }

    /// The `most` most frequent confusions, the most frequent first, equally frequent ones in the order of classes.
    pub fn confusions(&self, names: &[String], most: usize) -> Vec<Confusion> {
        let name = |class: usize| names.get(class).cloned().unwrap_or_else(|| class.to_string());
        let mut all: Vec<((usize, usize), usize)> = self.confused.iter().map(|(pair, count)| (*pair, *count)).collect();
        all.sort_unstable_by_key(|&(pair, count)| (usize::MAX - count, pair));
        all.truncate(most);
        all.into_iter()
            .map(|((truth, predicted), count)| Confusion { truth: name(truth), predicted: name(predicted), count })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_one_name_are_told_apart_by_their_keys() {
        let all = |names: [&str; 3]| names.map(str::to_owned).to_vec();
        let keys = all(["n03773504", "n02123045", "n04008634"]);
        let names = all(["missile", "tabby cat", "missile"]);
        assert_eq!(told_apart(&names, &keys), ["missile (n03773504)", "tabby cat", "missile (n04008634)"]);
        assert_eq!(told_apart(&names, &[]), names);
    }
}
