//! Batches from a source: decoded, augmented and tokenized by threads, in an order that depends on nothing but (seed, epoch, index).
//!
//! ```no_run
//! use softclip_data::image::{Augment, Transform};
//! use softclip_data::loader::{LoaderOptions, Position, train_batches};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let source = softclip_data::source::open("cc3m/{00000..00331}.tar")?;
//! let options = LoaderOptions::new(256, Transform::train(224, Augment::default()));
//! for item in train_batches(source, options, Position::default())? {
//!     let item = item?;
//!     println!("{:?}: {:?}", item.position, item.batch.images.size()); // u8 [256, 3, 224, 224], without end
//! }
//! # Ok(())
//! # }
//! ```

mod collate;
mod health;
mod order;
mod pipeline;
mod row;
mod tags;

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use softclip_tensor::tch::Tensor;
use softclip_tensor::{Batch, TokenRows};

pub use health::{Health, summary};
pub(crate) use row::guarded;
pub use row::image_error;

use crate::image::{DecodeOptions, ImageError, Transform};
use crate::source::{SampleError, Source, SourceFault};
use crate::tokenizer::{Tokenizer, TokenizerError};
use pipeline::Pipeline;
pub use tags::{TagList, TagSentence};

/// How samples become batches.
#[derive(Debug, Clone)]
pub struct LoaderOptions {
    /// Pairs a batch.
    pub batch_size: usize,
    /// The places of each training batch that are made: all, or one rank's part.
    pub part: Range<usize>,
    /// What is done to each image.
    pub transform: Transform,
    /// How images are decoded.
    pub decode: DecodeOptions,
    /// What makes captions and tag sentences into tokens; `None`: CLIP's.
    pub tokenizer: Option<Tokenizer>,
    /// The most tokens of a caption, start and end among them.
    pub context_length: usize,
    /// Whether rows of tokens end with the longest caption of the batch, or have `context_length` tokens always.
    pub trim: bool,
    /// Seed of order, augmentation and choice among captions.
    pub seed: u64,
    /// Whether a training batch has each sample's first caption instead of one of them at random.
    pub first_caption: bool,
    /// Threads; 0 for as many as the machine has.
    pub workers: usize,
    /// Batches made ahead, those in the making among them; at least 1.
    pub prefetch: usize,
    /// Tag sentences as tokens, [`Batch::tags`]; `None` leaves them out.
    pub tags: Option<TagSentence>,
    /// Captions and tag sentences as texts, [`Batch::texts`]; `None` leaves them out. For training only.
    pub texts: Option<TagSentence>,
    /// The shape of region features, `None` to leave them out.
    pub regions: Option<RegionShape>,
    /// The share of samples that cannot be used beyond which loading stops; what indexing left out is looked at before.
    pub max_bad_share: f64,
}

/// Region features of a sample: the first `count` regions, rows of zeros for missing ones, `dim` numbers each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionShape {
    /// R, 10 in the paper.
    pub count: usize,
    /// F, 2052 in the paper.
    pub dim: usize,
}

impl LoaderOptions {
    /// The usual: captions of 77 of CLIP's tokens, trimmed; all threads; four batches ahead; no tags or regions; a tenth may be unreadable.
    pub fn new(batch_size: usize, transform: Transform) -> Self {
        Self {
            batch_size,
            part: 0..batch_size,
            transform,
            decode: DecodeOptions::default(),
            tokenizer: None,
            context_length: 77,
            trim: true,
            seed: 0,
            first_caption: false,
            workers: 0,
            prefetch: 4,
            tags: None,
            texts: None,
            regions: None,
            max_bad_share: 0.1,
        }
    }

    fn threads(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        }
    }
}

/// Where training stands in its data: all that a checkpoint must keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Batch within the epoch, from 0.
    pub batch: u64,
}

/// Why there is no batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The options do not fit the source or each other.
    #[error("{0}")]
    Options(String),
    /// Too many samples cannot be read.
    #[error(
        "{bad} of the {seen} samples looked at cannot be used, more than the share of {limit} that `max_bad_share` allows: \
         {causes}; the first is {first}"
    )]
    TooManyBad {
        /// Distinct samples that cannot be used.
        bad: usize,
        /// Samples looked at, bad ones among them, each counted once.
        seen: usize,
        /// The limit.
        limit: f64,
        /// Counts by cause.
        causes: String,
        /// An example.
        first: SampleError,
    },
    /// The decoder does not start.
    #[error("the image decoder does not start: {0}")]
    Decoder(#[from] ImageError),
    /// CLIP's embedded vocabulary is damaged.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Rows that do not make a batch.
    #[error(transparent)]
    Tensor(#[from] softclip_tensor::Error),
    /// A thread could not be started.
    #[error("a loader thread does not start: {0}")]
    Thread(std::io::Error),
    /// A thread ended without result: a defect, reported rather than waited for.
    #[error("a loader thread stopped: {0}")]
    Worker(String),
}

/// A training batch and its place.
#[derive(Debug)]
pub struct TrainItem {
    /// The pairs.
    pub batch: Batch,
    /// The place of this batch. The next one follows [`TrainBatches::after`] it.
    pub position: Position,
}

/// Endless training batches; see [`train_batches`].
pub struct TrainBatches {
    pipeline: Pipeline,
    batches_per_epoch: u64,
    health: Health,
}

/// Batches of `source` for training from `from` on, epoch after epoch without end. An epoch is a permutation of the samples; what
/// does not fill a batch at its end is left out. An unreadable sample is counted, and another of the same epoch takes its place.
///
/// # Errors
/// The options do not fit; indexing left out too many samples; a thread does not start. The iterator's items: too many unreadable
/// samples.
pub fn train_batches(source: Arc<dyn Source>, options: LoaderOptions, from: Position) -> Result<TrainBatches, LoadError> {
    if options.batch_size == 0 || options.batch_size > source.len() {
        return Err(LoadError::Options(format!(
            "batch_size is {}, but {} has {} samples: a batch takes 1 to that many",
            options.batch_size,
            source.describe(),
            source.len()
        )));
    }
    if options.part.is_empty() || options.part.end > options.batch_size {
        let why = format!("part {:?} is not one of a batch of {}", options.part, options.batch_size);
        return Err(LoadError::Options(why));
    }
    if source.classes().is_some() {
        return Err(LoadError::Options(format!("{}: images with classes have no captions to train on", source.describe())));
    }
    refuse_many_left_out(source.as_ref(), options.max_bad_share)?;
    let batches_per_epoch = (source.len() / options.batch_size) as u64;
    let health = Health::new(options.max_bad_share, source.len());
    let first = from.epoch * batches_per_epoch + from.batch;
    let pipeline = Pipeline::start(source, options, row::Mode::Train, first)?;
    Ok(TrainBatches { pipeline, batches_per_epoch, health })
}

impl TrainBatches {
    /// Batches an epoch: samples / batch size, rounded down.
    pub fn batches_per_epoch(&self) -> u64 {
        self.batches_per_epoch
    }

    /// The position behind `position`.
    pub fn after(&self, position: Position) -> Position {
        match position.batch + 1 < self.batches_per_epoch {
            true => Position { batch: position.batch + 1, ..position },
            false => Position { epoch: position.epoch + 1, batch: 0 },
        }
    }

    /// What could not be read so far.
    pub fn health(&self) -> &Health {
        &self.health
    }
}

impl Iterator for TrainBatches {
    type Item = Result<TrainItem, LoadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let made = match self.pipeline.next()? {
            Ok(made) => made,
            Err(e) => return Some(Err(e)),
        };
        let position = Position { epoch: made.number / self.batches_per_epoch, batch: made.number % self.batches_per_epoch };
        if let Err(e) = self.health.take(made.rows, &made.bad) {
            return Some(Err(e));
        }
        Some(made.into_batch().map(|batch| TrainItem { batch, position }))
    }
}

/// Samples in the source's order, with all their captions.
#[derive(Debug)]
pub struct EvalBatch {
    /// u8 `[n, 3, H, W]`.
    pub images: Tensor,
    /// All captions of the n samples; no rows for class folders.
    pub tokens: TokenRows,
    /// For each caption, which of the n samples it belongs to.
    pub owner: Vec<i64>,
    /// Index of each sample in the source.
    pub indices: Vec<usize>,
    /// Class of each sample, where the source has classes.
    pub classes: Vec<Option<usize>>,
    /// The samples of this stretch of the source that could not be used.
    pub bad: Vec<SampleError>,
}

/// One pass over a source; see [`eval_batches`].
pub struct EvalBatches {
    pipeline: Pipeline,
    batches: usize,
    health: Health,
}

/// One pass over `source` in its own order, without augmentation by chance unless the transform has it. Unreadable samples are left
/// out and counted.
///
/// # Errors
/// As [`train_batches`].
pub fn eval_batches(source: Arc<dyn Source>, options: LoaderOptions) -> Result<EvalBatches, LoadError> {
    if options.batch_size == 0 {
        return Err(LoadError::Options("batch_size is 0: at least 1".to_owned()));
    }
    refuse_many_left_out(source.as_ref(), options.max_bad_share)?;
    let batches = source.len().div_ceil(options.batch_size);
    let health = Health::new(options.max_bad_share, source.len());
    let pipeline = Pipeline::start(source, options, row::Mode::Eval, 0)?;
    Ok(EvalBatches { pipeline, batches, health })
}

impl EvalBatches {
    /// How many batches there are in all.
    pub fn batches(&self) -> usize {
        self.batches
    }

    /// What could not be read so far.
    pub fn health(&self) -> &Health {
        &self.health
    }
}

impl Iterator for EvalBatches {
    type Item = Result<EvalBatch, LoadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let made = match self.pipeline.next()? {
            Ok(made) => made,
            Err(e) => return Some(Err(e)),
        };
        if let Err(e) = self.health.take(made.rows, &made.bad) {
            return Some(Err(e));
        }
        Some(Ok(made.into_eval()))
    }
}

/// Samples that indexing left out are none of the source's any more: the loader never meets them.
fn refuse_many_left_out(source: &dyn Source, limit: f64) -> Result<(), LoadError> {
    let left_out: Vec<&SourceFault> = source.faults().iter().filter(|fault| fault.kind.loses_sample()).collect();
    let all = left_out.len() + source.len();
    match left_out.first() {
        Some(first) if left_out.len() as f64 > limit * all as f64 => Err(LoadError::Options(format!(
            "{}: indexing left out {} of {all} samples, more than the share of {limit} that `max_bad_share` allows; the first is \
             {first} (`softclip data inspect` counts all by cause)",
            source.describe(),
            left_out.len(),
        ))),
        _ => Ok(()),
    }
}
