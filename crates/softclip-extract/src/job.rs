//! What is asked of a job.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use softclip_data::image::DecodeOptions;
use softclip_detector::{Letterbox, Network, Thresholds};
use tch::Device;

use crate::backbone::Backbone;
use crate::error::{Error, Result};
use crate::found::Objects;
use crate::tags::AttributeStyle;

/// Where objects come from.
#[derive(Debug)]
pub enum Origin {
    /// A detector that runs here.
    Detector(Box<Network>, Thresholds),
    /// What was found before.
    Given(Box<dyn Objects>),
}

/// A process's part of a job: it takes each `of`-th sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number, from 0.
    pub rank: usize,
    /// Processes in all, at least 1.
    pub of: usize,
}

/// How a job is done.
#[derive(Debug)]
pub struct ExtractOptions {
    /// The folder of sidecars.
    pub out: PathBuf,
    /// What a manifest calls the source.
    pub source: String,
    /// How images become inputs of the networks.
    pub letterbox: Letterbox,
    /// Makes region features of boxes; without it, only origins that bring features have some.
    pub backbone: Option<Backbone>,
    /// The most regions of an image.
    pub regions: usize,
    /// The most tags of an image.
    pub tags: usize,
    /// Which attributes stand in tags.
    pub attributes: AttributeStyle,
    /// Samples of a sidecar, for sources that are not shards.
    pub shard_size: usize,
    /// Images a forward pass.
    pub batch_size: usize,
    /// Threads that decode; 0: one a core.
    pub threads: usize,
    /// Limits and habits of decoding.
    pub decode: DecodeOptions,
    /// Where the networks are.
    pub device: Device,
    /// This process's part.
    pub part: Part,
    /// The share of samples beyond which a job stops that cannot be used.
    pub max_bad_share: f64,
    /// Set to stop soon; sidecars that are whole stay.
    pub stop: Arc<AtomicBool>,
}

impl ExtractOptions {
    /// Ten regions and ten tags, best attributes, batches of eight on the CPU, all of the job.
    pub fn new(out: PathBuf, source: String) -> Self {
        ExtractOptions {
            out,
            source,
            letterbox: Letterbox::default(),
            backbone: None,
            regions: 10,
            tags: 10,
            attributes: AttributeStyle::default(),
            shard_size: 1000,
            batch_size: 8,
            threads: 0,
            decode: DecodeOptions::default(),
            device: Device::Cpu,
            part: Part { rank: 0, of: 1 },
            max_bad_share: 0.1,
            stop: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// The option that makes no sense.
    pub fn validate(&self) -> Result<()> {
        self.letterbox.validate()?;
        let Part { rank, of } = self.part;
        let counts =
            [("regions", self.regions), ("tags", self.tags), ("shard size", self.shard_size), ("batch size", self.batch_size)];
        if let Some((what, _)) = counts.into_iter().find(|(_, n)| *n == 0) {
            return Err(Error::Options(format!("{what}: 0; at least 1")));
        }
        if rank >= of {
            return Err(Error::Options(format!("rank {rank} of {of}: ranks are from 0 to {}", of.saturating_sub(1))));
        }
        if !(0.0..=1.0).contains(&self.max_bad_share) {
            return Err(Error::Options(format!("the share of bad samples: {} is not in [0, 1]", self.max_bad_share)));
        }
        Ok(())
    }
}
