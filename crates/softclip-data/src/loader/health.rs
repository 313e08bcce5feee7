//! What could not be read.

use std::collections::{BTreeMap, HashMap};

use super::LoadError;
use crate::source::{SampleError, SampleErrorKind};

/// Samples that the limit on bad ones is not applied to at first: a single one among the first ten is no tenth of the data.
const LEAST: usize = 200;

/// Counts unreadable samples by cause, each once however often it is met.
#[derive(Debug, Clone)]
pub struct Health {
    limit: f64,
    /// Samples of the source.
    len: usize,
    seen: usize,
    /// Keys of the bad ones, with the first cause of each.
    keys: HashMap<String, SampleErrorKind>,
    causes: BTreeMap<SampleErrorKind, usize>,
    examples: Vec<SampleError>,
}

impl Health {
    pub(super) fn new(limit: f64, len: usize) -> Self {
        let (keys, causes, examples) = (HashMap::new(), BTreeMap::new(), Vec::new());
        Self { limit, len, seen: 0, keys, causes, examples }
    }

    /// Adds a batch of `rows` samples and what was `bad` on the way to it.
    pub(super) fn take(&mut self, rows: usize, bad: &[SampleError]) -> Result<(), LoadError> {
        // Bad samples are counted once, so that the good ones must not be counted again in each epoch.
        self.seen = (self.seen + rows + bad.len()).min(self.len);
        for error in bad {
            if !self.keys.contains_key(&error.key) {
                self.keys.insert(error.key.clone(), error.kind);
                *self.causes.entry(error.kind).or_default() += 1;
                if self.examples.len() < 10 {
                    self.examples.push(error.clone());
                }
            }
        }
        let many = self.keys.len() as f64 > self.limit * self.seen.max(LEAST.min(self.len)) as f64;
        match self.examples.first() {
            Some(first) if many => Err(LoadError::TooManyBad {
                bad: self.keys.len(),
                seen: self.seen,
                limit: self.limit,
                causes: self.summary(),
                first: first.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Samples looked at, bad ones among them; at most all of the source, however often they are read again.
    pub fn seen(&self) -> usize {
        self.seen
    }

    /// Distinct samples that could not be used.
    pub fn bad(&self) -> usize {
        self.keys.len()
    }

    /// Keys of the distinct samples that could not be used, in no particular order, with the first cause of each.
    pub fn bad_keys(&self) -> impl Iterator<Item = (&str, SampleErrorKind)> {
        self.keys.iter().map(|(key, kind)| (key.as_str(), *kind))
    }

    /// Distinct samples by cause.
    pub fn causes(&self) -> &BTreeMap<SampleErrorKind, usize> {
        &self.causes
    }

    /// The first ten, with key and detail.
    pub fn examples(&self) -> &[SampleError] {
        &self.examples
    }

    /// `truncated_image 3, empty_caption 1`, or `none`.
    pub fn summary(&self) -> String {
        summary(&self.causes)
    }
}

/// Counts by cause as one line: `truncated_image 3, empty_caption 1`, or `none`.
pub fn summary(causes: &BTreeMap<SampleErrorKind, usize>) -> String {
    let each: Vec<String> = causes.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
    if each.is_empty() { "none".to_owned() } else { each.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(n: usize) -> Vec<SampleError> {
        (0..n).map(|i| SampleError::new(format!("k{i}"), SampleErrorKind::Io, "gone")).collect()
    }

    #[test]
    fn the_limit_stays_the_same_however_many_epochs_there_are() {
        let mut health = Health::new(0.1, 400);
        // More than 1 / limit epochs without a fault; then a part of the data goes away.
        for _ in 0..40 {
            health.take(400, &[]).unwrap();
        }
        health.take(100, &bad(40)).unwrap();
        let message = health.take(100, &bad(41)).unwrap_err().to_string();
        assert!(message.starts_with("41 of the 400 samples looked at cannot be used"), "{message}");
    }

    #[test]
    fn bad_samples_are_among_those_looked_at() {
        let mut health = Health::new(0.1, 4000);
        health.take(270, &bad(30)).unwrap();
        assert_eq!((health.seen(), health.bad()), (300, 30));
        assert!(health.take(0, &bad(34)).is_err());
    }
}
