//! Queries against a database in which each has several right images, and some that do not count.

use rayon::prelude::*;
use softclip_tensor::Embeddings;
use tch::{Kind, no_grad};

use crate::EvalError;
use crate::retrieval::dot;

/// The k of mP@k.
pub const PRECISION_KS: [usize; 3] = [1, 5, 10];

/// What a query is to find. Numbers of rows of the database, each at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relevant {
    /// Right ones.
    pub positives: Vec<usize>,
    /// Ones that are taken out of the ranking.
    pub junk: Vec<usize>,
}

/// How good rankings are. All in [0, 1].
#[derive(Clone, Debug, PartialEq)]
pub struct Precision {
    /// Mean over the queries of their average precision.
    pub map: f64,
    /// Mean share of right images among the first 1, 5 and 10, or among those up to a query's last right one, if they are fewer.
    pub precision_at: [f64; 3],
    /// What a random order would give for [`Self::map`], in expectation.
    pub chance: f64,
    /// Queries that have something to find; the others do not count.
    pub queries: usize,
}

/// The area under the precision-recall curve by trapezoids, as Oxford5k's, Paris6k's and Holidays' protocols have it, of the places of all
/// right images, ascending from 0. Of none it is 0.
///
/// ```
/// use softclip_eval::average_precision;
///
/// assert_eq!(average_precision(&[0, 1]), 1.0);
/// assert_eq!(average_precision(&[1]), 0.25); // from precision 0 before it to 1/2 behind it
/// ```
pub fn average_precision(places: &[usize]) -> f64 {
    let trapezoid = |(before, &place): (usize, &usize)| {
        let left = if place == 0 { 1.0 } else { before as f64 / place as f64 };
        (left + (before + 1) as f64 / (place + 1) as f64) / 2.0
    };
    places.iter().enumerate().map(trapezoid).sum::<f64>() / places.len().max(1) as f64
}

/// The share of right images, whose places from 0 ascend, among the first k, or among those up to the last right one.
fn precision_at(places: &[usize], k: usize) -> f64 {
    let k = k.min(places.last().map_or(1, |last| last + 1));
    places.iter().filter(|&&place| place < k).count() as f64 / k as f64
}

/// The expectation of [`average_precision`] over all orders of `n` images with `right` ones among them.
fn by_chance(right: usize, n: usize) -> f64 {
    let (size, harmonic) = (n as f64, (1..=n).map(|i| 1.0 / i as f64).sum::<f64>());
    // Of the others before a right image at place r, this share is right.
    let share = if n > 1 { (right - 1) as f64 / (size - 1.0) } else { 0.0 };
    (1.0 + (size - 1.0) * share + share * (size - harmonic) + harmonic) / (2.0 * size)
}

/// Rankings of a database, and of distractors that come in parts. Similarities are computed in f64; of equal ones the row that comes first
/// ranks first, distractors last.
#[derive(Debug)]
pub struct Rankings {
    queries: Vec<f32>,
    dim: usize,
    /// For each level what each query is to find.
    levels: Vec<Vec<Relevant>>,
    /// Of each query with the database.
    scores: Vec<Vec<f64>>,
    distractors: usize,
    /// Of each query.
    above: Vec<Above>,
}

/// Distractors between the right images of a query.
#[derive(Debug)]
struct Above {
    /// Similarities of right images at any level, ascending.
    rights: Vec<f64>,
    /// How many distractors are more similar than so many of them, and not than one more.
    counts: Vec<usize>,
}

impl Above {
    fn count(&mut self, score: f64) {
        self.counts[self.rights.partition_point(|&right| right < score)] += 1;
    }

    /// Distractors that are more similar than this right image.
    fn more_than(&self, right: f64) -> usize {
        self.counts[self.rights.partition_point(|&other| other <= right)..].iter().sum()
    }
}

impl Rankings {
    /// `queries` `[Q, D]`, `database` `[N, D]`; for each level what each query is to find. All similarities are kept: Q·N·8 bytes.
    ///
    /// # Errors
    /// Widths differ, a level has not Q entries, a number is beyond N or named twice, or a row is not finite.
    pub fn new(queries: &Embeddings, database: &Embeddings, levels: Vec<Vec<Relevant>>) -> Result<Self, EvalError> {
        let n = database.rows() as usize;
        let wrong = |why: String| Err(EvalError::Input(why));
        for level in &levels {
            if level.len() as i64 != queries.rows() {
                return wrong(format!("{} queries, but {} lists of what they are to find", queries.rows(), level.len()));
            }
            for (query, relevant) in level.iter().enumerate() {
                let mut seen = vec![false; n];
                for &row in relevant.positives.iter().chain(&relevant.junk) {
                    match seen.get_mut(row) {
                        None => return wrong(format!("query {query} names image {row}, but there are {n}")),
                        Some(true) => return wrong(format!("query {query} names image {row} twice")),
                        Some(seen) => *seen = true,
                    }
                }
            }
        }
        let dim = queries.dim() as usize;
        let mut all = Self { queries: numbers(queries)?, dim, levels, scores: Vec::new(), distractors: 0, above: Vec::new() };
        all.scores = all.scores(database)?;
        all.above = all.scores.iter().enumerate().map(|(query, scores)| all.rights(query, scores)).collect();
        Ok(all)
    }

    fn rights(&self, query: usize, scores: &[f64]) -> Above {
        let rows = self.levels.iter().flat_map(|level| &level[query].positives);
        let mut rights: Vec<f64> = rows.map(|&row| scores[row]).collect();
        rights.sort_by(f64::total_cmp);
        rights.dedup();
        Above { counts: vec![0; rights.len() + 1], rights }
    }

    /// Of each query with each row.
    fn scores(&self, rows: &Embeddings) -> Result<Vec<Vec<f64>>, EvalError> {
        if rows.dim() as usize != self.dim {
            return Err(EvalError::Input(format!("queries have {} numbers, the database has {}", self.dim, rows.dim())));
        }
        let rows = numbers(rows)?;
        let of = |query: &[f32]| rows.chunks_exact(self.dim).map(|row| dot(query, row)).collect::<Vec<f64>>();
        let scores: Vec<Vec<f64>> = self.queries.par_chunks_exact(self.dim).map(of).collect();
        match scores.iter().flatten().all(|score| score.is_finite()) {
            true => Ok(scores),
            false => Err(EvalError::Input("an embedding is not finite: try --precision fp32, or check the model".to_owned())),
        }
    }

    /// Adds images that are right for no query. Of them only counts are kept.
    ///
    /// # Errors
    /// Widths differ, or a row is not finite.
    pub fn add_distractors(&mut self, distractors: &Embeddings) -> Result<(), EvalError> {
        let scores = self.scores(distractors)?;
        self.distractors += distractors.rows() as usize;
        self.above.par_iter_mut().zip(scores).for_each(|(above, scores)| scores.into_iter().for_each(|s| above.count(s)));
        Ok(())
    }

    /// Of each level; `None` where no query has anything to find.
    pub fn precision(&self) -> Vec<Option<Precision>> {
        self.levels.iter().map(|level| self.of_level(level)).collect()
    }

    fn of_level(&self, level: &[Relevant]) -> Option<Precision> {
        let (mut map, mut chance, mut queries, mut precision) = (0.0, 0.0, 0usize, [0.0; 3]);
        for (query, relevant) in level.iter().enumerate().filter(|(_, relevant)| !relevant.positives.is_empty()) {
            let places = self.places(query, relevant);
            map += average_precision(&places);
            let candidates = self.scores[query].len() - relevant.junk.len() + self.distractors;
            chance += by_chance(places.len(), candidates);
            precision.iter_mut().zip(PRECISION_KS).for_each(|(sum, k)| *sum += precision_at(&places, k));
            queries += 1;
        }
        let n = queries as f64;
        (queries > 0).then(|| Precision { map: map / n, precision_at: precision.map(|p| p / n), chance: chance / n, queries })
    }

    /// Where the right images stand, ascending from 0, once junk is taken out.
    fn places(&self, query: usize, relevant: &Relevant) -> Vec<usize> {
        let (scores, above) = (&self.scores[query], &self.above[query]);
        let mut kinds = vec![Kinds::Other; scores.len()];
        relevant.positives.iter().for_each(|&row| kinds[row] = Kinds::Right);
        relevant.junk.iter().for_each(|&row| kinds[row] = Kinds::Junk);
        let mut order: Vec<usize> = (0..scores.len()).filter(|&row| kinds[row] != Kinds::Junk).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        let rights = order.iter().enumerate().filter(|&(_, &row)| kinds[row] == Kinds::Right);
        rights.map(|(place, &row)| place + above.more_than(scores[row])).collect()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kinds {
    Right,
    Junk,
    Other,
}

fn numbers(rows: &Embeddings) -> Result<Vec<f32>, EvalError> {
    no_grad(|| Ok(Vec::try_from(rows.tensor().f_to_kind(Kind::Float)?.f_flatten(0, -1)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precision_at_k_ends_with_the_last_right_image() {
        assert_eq!(PRECISION_KS.map(|k| precision_at(&[0, 2], k)), [1.0, 2.0 / 3.0, 2.0 / 3.0]);
        assert_eq!(PRECISION_KS.map(|k| precision_at(&[3, 7], k)), [0.0, 0.2, 0.25]);
    }

    #[test]
    fn chance_is_the_mean_over_all_orders() {
        for (n, right) in [(1, 1), (5, 1), (6, 2), (6, 6), (7, 3)] {
            let orders = (0u32..1 << n).filter(|places| places.count_ones() == right);
            let all: Vec<f64> = orders
                .map(|order| average_precision(&(0..n).filter(|place| order >> place & 1 == 1).collect::<Vec<_>>()))
                .collect();
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            assert!((by_chance(right as usize, n) - mean).abs() < 1e-12, "{n} {right}: {mean}");
        }
    }
}
