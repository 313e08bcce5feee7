//! A run's result: its newest model.

use std::path::Path;

use softclip_data::tokenizer::Tokenizer;
use softclip_tensor::file::read_safetensors;
use tch::Device;

use crate::checkpoint::{self, Checkpoint};
use crate::config::{Given, RunConfig};
use crate::init::TOKENIZER;
use crate::model::Model;
use crate::{Error, Result};

/// A trained model, as evaluations need it.
#[derive(Debug)]
pub struct TrainedModel {
    /// The network in its last state.
    pub model: Model,
    /// The run's configuration.
    pub config: RunConfig,
    /// What reads its texts.
    pub tokenizer: Tokenizer,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
}

impl TrainedModel {
    /// Opens a run's folder (its newest whole checkpoint) or one of its checkpoints' folders.
    ///
    /// # Errors
    /// There is no configuration, or no checkpoint that verifies.
    pub fn open(path: &Path, device: Device) -> Result<Self> {
        let wrong = |why: &str| Error::Run { path: path.to_owned(), why: why.to_owned() };
        let (run, checkpoint) = if path.join(checkpoint::STATE).is_file() {
            let run = path.parent().and_then(Path::parent).ok_or_else(|| wrong("a checkpoint must lie in its run's folder"))?;
            (run.to_owned(), Checkpoint::open(path)?)
        } else {
            if !path.join("config.yaml").is_file() {
                return Err(wrong("no config.yaml in it: name a run's folder or one of its checkpoints"));
            }
            let (found, damaged) = Checkpoint::newest(path)?;
            damaged.iter().for_each(|e| tracing::warn!("{e}; it is passed over"));
            (path.to_owned(), found.ok_or_else(|| wrong("it has no whole checkpoint yet"))?)
        };
        let config = crate::config::load(&run.join("config.yaml"), &[])?;
        let network = config.model.resolve(&Given::default()).map_err(crate::config::model_error)?;
        let tensors = read_safetensors(checkpoint.path.join(checkpoint::MODEL))?;
        let model = Model::from_tensors(&network, config.loss.needs(), tensors, device)?;
        let kept = run.join(TOKENIZER);
        let tokenizer = if kept.is_dir() { Tokenizer::from_folder(&kept)? } else { Tokenizer::clip()? };
        Ok(Self { model, config, tokenizer, checkpoint })
    }
}
