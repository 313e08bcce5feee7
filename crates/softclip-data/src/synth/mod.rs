//! Drawn scenes with captions, boxes, region features and classes: data for demonstrations and tests, made in seconds.
//!
//! A scene is one to four objects, each of a shape, a colour and a size, on a named background. Captions tell all of it, some of
//! it or little of it, so that many of them fit other images too: what soft targets are for. [`write()`] lays the same scenes out
//! as a COCO data set and as webdataset shards, and adds a folder of single objects for zero-shot classification:
//!
//! | path | is |
//! | --- | --- |
//! | `annotations/{captions,instances}_{train,val}.json`, `images/{train,val}/000000000001.jpg` | COCO |
//! | `shards/{train,val}-00000.tar` | webdataset: `.jpg`, `.json` (captions), `.tags.json`, `.rois.npy` |
//! | `zeroshot/red circle/00000.jpg`, `zeroshot/classnames.tsv` | a folder for each class |
//! | `synth.json` | the options and what was made |
//!
//! ```
//! use softclip_data::synth::{self, SynthOptions};
//!
//! let place = std::env::temp_dir().join(format!("softclip-synth-doc-{}", std::process::id()));
//! let options = SynthOptions { images: 8, val_images: 2, zeroshot_per_class: 1, size: 48, ..SynthOptions::default() };
//! let report = synth::write(&place, &options, &|_done, _total| {})?;
//! assert_eq!((report.images, report.captions, report.classes), (8, 50, 32));
//! assert!(synth::write(&place, &options, &|_, _| {})?.already_there); // the same options: nothing to do
//! let train = softclip_data::source::open(&format!("{}/shards/train-*.tar", place.display()))?;
//! assert_eq!(train.len(), 8);
//! # std::fs::remove_dir_all(&place)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod coco;
mod draw;
mod files;
mod folder;
mod scene;
#[cfg(test)]
mod tests;
mod words;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::FileError;

/// What to draw. The same options give the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SynthOptions {
    /// Training images, at least one.
    pub images: usize,
    /// Validation images.
    pub val_images: usize,
    /// Images of each zero-shot class; none at all for 0.
    pub zeroshot_per_class: usize,
    /// Side of the images in pixels, from 32 to 2048.
    pub size: u32,
    /// Another seed gives other scenes.
    pub seed: u64,
    /// Images in a webdataset shard, at least one.
    pub samples_per_shard: usize,
}

impl Default for SynthOptions {
    fn default() -> Self {
        SynthOptions { images: 4_000, val_images: 500, zeroshot_per_class: 20, size: 96, seed: 0, samples_per_shard: 1_000 }
    }
}

impl SynthOptions {
    fn validate(&self) -> Result<(), SynthError> {
        let bad = |option, value, accepted| Err(SynthError::Option { option, value, accepted });
        if self.images == 0 {
            return bad("images", 0, "at least 1");
        }
        if !(32..=2048).contains(&self.size) {
            return bad("size", self.size as usize, "32 to 2048");
        }
        if self.samples_per_shard == 0 {
            return bad("samples_per_shard", 0, "at least 1");
        }
        Ok(())
    }
}

/// What the folder holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SynthReport {
    /// Training images.
    pub images: usize,
    /// Validation images.
    pub val_images: usize,
    /// Zero-shot images of all classes.
    pub zeroshot_images: usize,
    /// Zero-shot classes.
    pub classes: usize,
    /// Captions of training and validation images.
    pub captions: usize,
    /// Objects in training and validation images.
    pub objects: usize,
    /// Shards of training and validation images.
    pub shards: usize,
    /// Whether the folder was there with these options, so that nothing had to be drawn.
    #[serde(skip)]
    pub already_there: bool,
}

/// Why no data set was written. What stood under its name is as it was.
#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    /// An option has a value that cannot be drawn.
    #[error("{option} is {value}: {accepted} is accepted")]
    Option {
        /// Name of the field of [`SynthOptions`].
        option: &'static str,
        /// Its value.
        value: usize,
        /// The values that are accepted.
        accepted: &'static str,
    },
    /// The folder holds something else.
    #[error("{} is not empty and {reason}: name another folder, or remove this one", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// What it holds instead.
        reason: String,
    },
    /// A file or folder cannot be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// An image cannot be compressed.
    #[error("an image of {side} × {side} pixels cannot be compressed: {reason}")]
    Compress {
        /// Side of the image.
        side: usize,
        /// What the codec said.
        reason: String,
    },
}

impl From<FileError> for SynthError {
    fn from(FileError { path, source }: FileError) -> Self {
        SynthError::Io { path, source }
    }
}

/// Writes the data set to the folder `dir`, which appears complete or not at all. `progress` is told the numbers of images done
/// and to do, on the calling thread.
///
/// A folder that already holds the data set of these options is left as it is.
///
/// # Errors
/// An option is out of range, `dir` holds something else, or the system cannot write. A half-written data set is removed.
///
/// # Examples
/// See the [module](self).
pub fn write(dir: &Path, options: &SynthOptions, progress: &dyn Fn(usize, usize)) -> Result<SynthReport, SynthError> {
    options.validate()?;
    if let Some(report) = folder::present(dir, options)? {
        return Ok(report);
    }
    folder::create(dir, options, progress)
}
