//! What could not be read.

use std::collections::BTreeMap;
use std::collections::HashSet;

use super::LoadError;
use crate::source::{SampleError, SampleErrorKind};

/// Samples that the limit on bad ones is not applied to at first: a single one among the first ten is no tenth of the data.
const LEAST: usize = 200;

/// Counts unreadable samples by cause, each once however often it is met.
#[derive(Debug, Clone)]
pub struct Health {
    limit: f64,
    /// Looked at before the limit counts.
    least: usize,
    seen: usize,
    keys: HashSet<String>,
    causes: BTreeMap<SampleErrorKind, usize>,
    examples: Vec<SampleError>,
}

impl Health {
    pub(super) fn new(limit: f64, len: usize) -> Self {
        let (keys, causes, examples) = (HashSet::new(), BTreeMap::new(), Vec::new());
        Self { limit, least: LEAST.min(len), seen: 0, keys, causes, examples }
    }

    pub(super) fn take(&mut self, rows: usize, bad: &[SampleError]) -> Result<(), LoadError> {
        self.seen += rows;
        for error in bad {
            if self.keys.insert(error.key.clone()) {
                *self.causes.entry(error.kind).or_default() += 1;
                if self.examples.len() < 10 {
                    self.examples.push(error.clone());
                }
            }
        }
        let many = self.keys.len() as f64 > self.limit * self.seen.max(self.least) as f64;
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

    /// Samples looked at, those read again counted again.
    pub fn seen(&self) -> usize {
        self.seen
    }

    /// Distinct samples that could not be used.
    pub fn bad(&self) -> usize {
        self.keys.len()
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
        let each: Vec<String> = self.causes.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
        if each.is_empty() { "none".to_owned() } else { each.join(", ") }
    }
}
