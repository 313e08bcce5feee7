//! Ablations: a grid of runs that differ in little, and what came of them.
//!
//! A [`Plan`] is a YAML file with rows (what is compared), columns (in what setting) and seeds. [`Plan::cells`] lists its runs;
//! [`Summary`] puts what they measured into rows and columns, as mean and deviation over seeds, beside the figures of a paper.
//! Running them is the caller's: each is a training like any other.

mod plan;
mod summary;

pub use plan::{Cell, Column, Plan, Row, load};
pub use summary::{Entry, Estimate, Summary, Value, is_rank};
