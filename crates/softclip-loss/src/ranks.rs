//! The processes that compute the loss of one batch together.

use tch::Tensor;

use crate::error::Result;

/// Why ranks could not exchange: the transport's own error.
pub type RanksError = Box<dyn std::error::Error + Send + Sync>;

/// What the loss wants of a group of processes. All ranks call the same operations in the same order, with tensors of the same shapes,
/// f32 or f64, contiguous, on the device of the embeddings.
pub trait Ranks {
    /// From 0.
    fn rank(&self) -> usize;

    /// The number of ranks, at least 1.
    fn size(&self) -> usize;

    /// Replaces each number by its sum over the ranks, with the same result on all.
    ///
    /// # Errors
    /// [`crate::Error::Ranks`].
    fn sum(&self, tensor: &Tensor) -> Result<()>;

    /// Replaces each number by the largest among the ranks.
    ///
    /// # Errors
    /// [`crate::Error::Ranks`].
    fn max(&self, tensor: &Tensor) -> Result<()>;
}

/// One process by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alone;

impl Ranks for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum(&self, _: &Tensor) -> Result<()> {
        Ok(())
    }

    fn max(&self, _: &Tensor) -> Result<()> {
        Ok(())
    }
}
