//! What was found, for people and for machines.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::{Collection, Hit, Query};
use crate::embed::Entry;
use crate::error::Result;

/// All that one search found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answers {
    /// The folder that was searched.
    pub collection: PathBuf,
    /// Its model, where that is known.
    pub model: Option<String>,
    /// N.
    pub rows: usize,
    /// One a query, in their order.
    pub answers: Vec<Answer>,
}

/// What was found for a query.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// What was searched for.
    pub query: Query,
    /// Best first.
    pub hits: Vec<Found>,
}

/// A row that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    /// Place, from 1.
    pub rank: usize,
    /// Cosine.
    pub score: f64,
    /// Number of the row, from 0.
    pub row: usize,
    /// What it is of.
    #[serde(flatten)]
    pub entry: Entry,
}

impl Answers {
    /// Names what was found.
    ///
    /// # Errors
    /// The keys cannot be read.
    pub fn new(collection: &Collection, queries: Vec<Query>, hits: Vec<Vec<Hit>>) -> Result<Self> {
        let answer = |(query, hits): (Query, Vec<Found>)| Answer { query, hits };
        let hits = named(collection, hits)?;
        Ok(Self {
            collection: collection.folder().to_owned(),
            model: collection.meta().map(|meta| meta.plan.model.name.clone()),
            rows: collection.rows(),
            answers: queries.into_iter().zip(hits).map(answer).collect(),
        })
    }
}

/// Hits of several queries with what their rows are of.
pub(crate) fn named(collection: &Collection, hits: Vec<Vec<Hit>>) -> Result<Vec<Vec<Found>>> {
    let entries = collection.entries(hits.iter().flatten().map(|hit| hit.row))?;
    let found = |(i, hit): (usize, Hit)| {
        let entry = entries.get(&hit.row)?.clone();
        Some(Found { rank: i + 1, score: hit.score, row: hit.row, entry })
    };
    Ok(hits.into_iter().map(|hits| hits.into_iter().enumerate().filter_map(found).collect()).collect())
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "\"{}\"", plain(text)),
            Self::Image(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Answer { query, hits }) in self.answers.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            writeln!(f, "{query}")?;
            for Found { rank, score, entry, .. } in hits {
                write!(f, "{rank:>5}  {score:>7.4}  {}", plain(&entry.key))?;
                match (&entry.text, &entry.path) {
                    (Some(text), _) => writeln!(f, "  {}", plain(text))?,
                    (None, Some(path)) => writeln!(f, "  {}", path.display())?,
                    (None, None) => writeln!(f)?,
                }
            }
        }
        Ok(())
    }
}

/// On one line, without what a terminal would take for a command.
fn plain(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}
