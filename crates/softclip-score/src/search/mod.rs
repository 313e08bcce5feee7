//! Search in embeddings that [`embed()`](crate::embed::embed()) made, or that NumPy saved: the k rows of greatest cosine.
//!
//! The search is exact. Rows are read block by block, so that memory does not grow with the collection, and many queries share one
//! pass. Cosines are computed in f64 wherever they decide on a place; equal ones rank in the order of the rows.

mod answers;
mod collection;
mod picture;
mod query;

pub(crate) use answers::named;
pub use answers::{Answer, Answers, Found};
pub use collection::Collection;
pub use picture::{Pictures, thumbnail};
pub use query::{Query, encode};
pub use softclip_tensor::nearest::Hit;

use crate::embed::Encoder;
use crate::error::Result;

/// Finds the `k` nearest rows of `collection` for each query.
///
/// # Errors
/// A query that cannot be read or encoded; a collection of another width, or one that cannot be read.
pub fn search(encoder: &Encoder, collection: &Collection, queries: Vec<Query>, k: usize) -> Result<Answers> {
    let found = collection.nearest(&encode(encoder, &queries)?, k)?;
    Answers::new(collection, queries, found)
}
