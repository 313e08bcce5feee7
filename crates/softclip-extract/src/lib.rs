//! Soft targets of whole collections: what is in each image, as tags and region features, written once as sidecar shards that every
//! training run reads.

mod error;
mod found;
pub mod import;
pub mod tags;

pub use error::{Error, Result};
pub use found::{Found, Object, Objects};
