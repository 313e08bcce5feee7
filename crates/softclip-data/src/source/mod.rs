//! Data sets: random access to samples by index, whatever the layout on disk.

mod error;
mod fault;
mod sample;

use std::sync::Arc;

pub use error::SourceError;
pub use fault::{SourceFault, SourceFaultKind};
pub use sample::{Rois, Sample, SampleError, SampleErrorKind};

/// A data set. Opening it reads names and positions only; samples are read when asked for, from any thread.
pub trait Source: Send + Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there is no sample.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Key of the sample `index`, unique within the source; empty when `index` is out of range.
    fn key(&self, index: usize) -> String;

    /// Reads the sample `index`.
    ///
    /// # Errors
    /// The sample is incomplete or damaged, or the system cannot read it; other samples are not concerned.
    fn read(&self, index: usize) -> Result<Sample, SampleError>;

    /// One line: layout, files, number of samples.
    fn describe(&self) -> String;

    /// Class names in the order of class ids, where the source has a folder for each class.
    fn classes(&self) -> Option<&[String]> {
        None
    }

    /// What was found wrong while indexing: truncated shards, duplicate keys, members without an image, …
    fn faults(&self) -> &[SourceFault] {
        &[]
    }
}

/// Opens a data set.
///
/// # Errors
/// See [`SourceError`].
pub fn open(spec: &str) -> Result<Arc<dyn Source>, SourceError> {
    Err(SourceError::Spec { spec: spec.to_owned(), reason: "unknown scheme".to_owned() })
}
