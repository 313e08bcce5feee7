//! What can be wrong with a loss's configuration, inputs or value.

use tch::TchError;

use crate::ranks::RanksError;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key of the configuration is out of range, or two keys contradict each other.
    #[error("loss.{key}: {why}")]
    Config {
        /// The key under `loss:`.
        key: &'static str,
        /// What is wrong and what to write instead.
        why: String,
    },
    /// Fewer pairs than a contrast needs.
    #[error(
        "the loss contrasts pairs with each other and needs at least 2, this batch has {rows}; drop the last incomplete batch"
    )]
    BatchTooSmall {
        /// N of the batch.
        rows: i64,
    },
    /// Two inputs do not fit each other.
    #[error("{what}: expected shape {expected}, found {found:?}")]
    Shape {
        /// The input.
        what: &'static str,
        /// The shape it should have.
        expected: String,
        /// The shape it has.
        found: Vec<i64>,
    },
    /// An input has another kind or lies on another device than the image embeddings.
    #[error("{what}: expected {expected}, found {found}")]
    Mixed {
        /// The input.
        what: &'static str,
        /// Kind or device of the image embeddings.
        expected: String,
        /// Kind or device of this input.
        found: String,
    },
    /// The configuration needs an input that was not given.
    #[error("loss `{loss}` needs {what}, which were not given; {hint}")]
    Missing {
        /// The loss's name.
        loss: &'static str,
        /// What is missing.
        what: &'static str,
        /// Where it comes from.
        hint: &'static str,
    },
    /// An input holds NaN or infinity.
    #[error(
        "{what}: row {row} is not finite; the step that made it overflowed (lower the learning rate, or use bf16 instead of fp16)"
    )]
    NonFiniteInput {
        /// The input.
        what: &'static str,
        /// First bad row of the batch, 0 where the input is a scalar.
        row: i64,
    },
    /// A value is outside of its range.
    #[error("{what}: row {row} is {value}, expected {expected}")]
    Range {
        /// The input.
        what: &'static str,
        /// First bad row.
        row: i64,
        /// Its value.
        value: f64,
        /// The range.
        expected: &'static str,
    },
    /// The loss itself came out as NaN or infinity although its inputs were finite.
    #[error(
        "the loss is not finite: row {row} of {part}; the logit scale is {scale:.4} (clip it at 100), the target scale {target_scale:.4}"
    )]
    NonFiniteLoss {
        /// Which direction.
        part: &'static str,
        /// First bad row of the batch.
        row: i64,
        /// 1/τ of the logits.
        scale: f64,
        /// 1/τ of the targets.
        target_scale: f64,
    },
    /// The ranks that compute the loss together cannot exchange.
    #[error(transparent)]
    Ranks(RanksError),
    /// libtorch failed, for example for lack of memory.
    #[error(transparent)]
    Tch(#[from] TchError),
    /// The device failed.
    #[error(transparent)]
    Torch(#[from] softclip_torch::Error),
    /// Embeddings could not be taken.
    #[error(transparent)]
    Tensor(#[from] softclip_tensor::Error),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
