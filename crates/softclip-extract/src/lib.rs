//! Soft targets of whole collections: what is in each image, as tags and region features, written once as sidecar shards that every
//! training run reads.
//!
//! Objects come from a detector that runs here, or from files of what was found before ([`import`]). [`extract`] is the job; it can be
//! killed at any time, and goes on with the first shard that is not whole.

mod backbone;
mod error;
mod found;
pub mod import;
mod job;
mod look;
mod manifest;
mod prepare;
mod report;
mod run;
pub mod tags;
mod units;
mod write;

pub use backbone::Backbone;
pub use error::{Error, Result};
pub use found::{Fault, Found, Object, Objects};
pub use job::{ExtractOptions, Origin, Part};
pub use look::{Looked, look};
pub use manifest::MANIFEST;
pub use report::{Outcome, Stages};
pub use run::extract;
