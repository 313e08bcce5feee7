//! One YAML file is one experiment: its sections, their defaults and what makes sense together.

mod category;
mod changes;
mod error;
mod eval;
mod keys;
mod load;
mod locate;
mod model;
mod ranges;

use serde::{Deserialize, Serialize};
use softclip_data::image::{Augment, DecodeOptions};
use softclip_data::loader::{TagList, TagSentence};
use softclip_encoders::{ClipConfig, TextConfig, VisionConfig};
use softclip_loss::LossConfig;
use softclip_tensor::Precision;

pub use category::{CategoryConfig, Untagged};
pub use changes::{Change, changes};
pub use error::{ConfigError, Place};
pub use eval::{Compat, EvalEntry, Every, Task};
pub(crate) use keys::with_suggestion;
pub use keys::{key_named, keys};
pub use load::load;
pub(crate) use load::merge;
pub(crate) use locate::line as line_of;
pub use model::{Given, ImageSpec, InitSpec, ModelConfig, Pool, TextSpec, TowerInit};

/// Tokens of CLIP's vocabulary.
pub(crate) const TOKENS: i64 = 49408;

/// Everything that decides what a run computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The network.
    pub model: ModelConfig,
    /// The data.
    #[serde(default)]
    pub data: DataConfig,
    /// The loss.
    pub loss: LossConfig,
    /// The frozen encoder of Text-based SoftCLIP's category sentences.
    #[serde(default)]
    pub category: CategoryConfig,
    /// Optimization and the loop.
    #[serde(default)]
    pub train: TrainConfig,
    /// Evaluations while training.
    #[serde(default)]
    pub eval: Vec<EvalEntry>,
}

/// Where pairs come from and how they are read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// What to train on, in the syntax of sources.
    pub train: Option<String>,
    /// The share of the training samples that is used, above 0 and at most 1: always the same ones, a smaller share being part of a
    /// larger one.
    pub share: f64,
    /// What evaluations take that name no data of their own.
    pub val: Option<String>,
    /// Random crops and flips of training images.
    pub augment: Augment,
    /// Limits and habits of decoding.
    pub decode: DecodeOptions,
    /// Whether rows of tokens end with the batch's longest caption; the result is the same, the time is not.
    pub trim: bool,
    /// Which tags of an image its sentence names.
    pub tags: TagList,
    /// The sentence for a pair whose list of tags is empty; may be empty itself.
    pub neutral_tags: String,
    /// The most regions an image.
    pub max_regions: usize,
    /// Loader threads; 0: one a core.
    pub workers: usize,
    /// Batches made ahead.
    pub prefetch: usize,
    /// The share of unreadable samples beyond which a run stops, in [0, 1].
    pub max_bad_share: f64,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            train: None,
            share: 1.0,
            val: None,
            augment: Augment::default(),
            decode: DecodeOptions::default(),
            trim: true,
            tags: TagList::All,
            neutral_tags: "an image".to_owned(),
            max_regions: 10,
            workers: 0,
            prefetch: 4,
            max_bad_share: 0.1,
        }
    }
}

impl DataConfig {
    /// How tags become a sentence.
    pub fn tag_sentence(&self) -> TagSentence {
        TagSentence { list: self.tags, neutral: self.neutral_tags.clone() }
    }
}

/// How the learning rate goes on after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Half a cosine down to 0 at the last step.
    #[default]
    Cosine,
    /// The peak until the end.
    Const,
}

/// How a tower is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TowerTraining {
    /// Multiplies the learning rate.
    pub lr_scale: f64,
    /// The step from which on the tower is frozen, 0 for always; its projection into the joint space goes on learning. Default: never.
    pub freeze_after: Option<u64>,
    /// Whether the projection is frozen with it.
    pub freeze_projection: bool,
}

impl Default for TowerTraining {
    fn default() -> Self {
        Self { lr_scale: 1.0, freeze_after: None, freeze_projection: false }
    }
}

impl TowerTraining {
    /// Whether the tower is frozen in the step with this number, from 0.
    pub fn is_frozen(&self, step: u64) -> bool {
        self.freeze_after.is_some_and(|after| step >= after)
    }
}

/// Optimization (AdamW, cosine with warm-up) and the loop around it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the data; a fraction ends within one.
    pub epochs: f64,
    /// Steps instead of epochs.
    pub steps: Option<u64>,
    /// Pairs that the loss contrasts.
    pub batch_size: usize,
    /// Pairs that are encoded with their graph at once; smaller than the batch to save memory (gradient caching), at the price of a
    /// second forward pass. A ResNet's BatchNorm normalises each chunk by itself, as it does on each of several GPUs. Default: the
    /// whole batch.
    pub chunk_size: Option<usize>,
    /// Whether the blocks of both towers keep their inputs alone for backward and are computed again: less memory, a second forward
    /// pass. Nothing else changes; it goes with `chunk_size`.
    pub recompute: bool,
    /// Number type of the encoders' forward and backward passes.
    pub precision: Precision,
    /// Whether GPUs multiply f32 matrices in TF32, with 10 bits of mantissa.
    pub tf32: bool,
    /// Peak learning rate.
    pub lr: f64,
    /// Adam's β₁.
    pub beta1: f64,
    /// Adam's β₂. Default: 0.98 with a Vision Transformer, 0.999 with a ResNet (CLIP, Table 20).
    pub beta2: Option<f64>,
    /// Adam's ε. Default: 1e-6 with a Vision Transformer, 1e-8 with a ResNet.
    pub eps: Option<f64>,
    /// Weight decay of everything but gains, biases and temperatures.
    pub weight_decay: f64,
    /// Steps of linear warm-up: below 1 a share of all steps, otherwise their number.
    pub warmup: f64,
    /// What follows it.
    pub schedule: Schedule,
    /// The most that the gradients' joint L2 norm may be. Default: no limit.
    pub grad_clip: Option<f64>,
    /// Initial temperature. Default: 0.07, and 0.1 for SigLIP (its paper, with an initial bias of −10).
    pub tau: Option<f64>,
    /// The most that 1/τ may become.
    pub max_logit_scale: f64,
    /// How the image tower is trained.
    pub image_tower: TowerTraining,
    /// How the text tower is trained.
    pub text_tower: TowerTraining,
    /// Whether batch norm uses its running statistics and is not trained, as one does with a pretrained ResNet and small batches.
    pub frozen_norm: bool,
    /// Seed of initial weights, order and augmentation.
    pub seed: u64,
    /// Steps between log lines.
    pub log_every: u64,
    /// Steps between checkpoints. Default: an epoch. The last step has one always.
    pub checkpoint_every: Option<u64>,
    /// Checkpoints that are kept.
    pub keep_checkpoints: usize,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 8.0,
            steps: None,
            batch_size: 2048,
            chunk_size: None,
            recompute: false,
            precision: Precision::Fp32,
            tf32: false,
            lr: 5e-4,
            beta1: 0.9,
            beta2: None,
            eps: None,
            weight_decay: 0.2,
            warmup: 0.1,
            schedule: Schedule::Cosine,
            grad_clip: None,
            tau: None,
            max_logit_scale: 100.0,
            image_tower: TowerTraining::default(),
            text_tower: TowerTraining::default(),
            frozen_norm: false,
            seed: 0,
            log_every: 10,
            checkpoint_every: None,
            keep_checkpoints: 3,
        }
    }
}

impl RunConfig {
    /// What the types cannot say: ranges, and sections that must fit each other.
    ///
    /// # Errors
    /// Key, what is wrong, and what to write.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |key: &str, why: String| Err(ConfigError::Value { key: key.to_owned(), why });
        let t = &self.train;
        self.loss.validate().map_err(loss_error)?;
        if self.model.is_complete() || self.model.init.is_none() {
            self.validate_model(&self.model.resolve(&Given::default()).map_err(model_error)?)?;
        }
        self.data.augment.validate().map_err(|e| ConfigError::Value { key: "data.augment".to_owned(), why: e.to_string() })?;
        self.validate_ranges()?;
        if let (Some(constant), Some(initial)) = (self.loss.constant_tau(), t.tau)
            && constant != initial
        {
            return wrong("train.tau", format!("{initial} is not loss.tau, {constant}, which stays constant: leave it out"));
        }
        if 1.0 / self.tau() > t.max_logit_scale * (1.0 + 1e-9) {
            let (tau, scale) = (self.tau(), 1.0 / self.tau());
            let key = if self.loss.constant_tau().is_some() { "loss.tau" } else { "train.tau" };
            return wrong(key, format!("{tau} is a scale of {scale:.0}, more than train.max_logit_scale allows"));
        }
        for (key, tower) in [("train.image_tower", &t.image_tower), ("train.text_tower", &t.text_tower)] {
            if tower.freeze_projection && tower.freeze_after.is_none() {
                let why = "freezes nothing without freeze_after: 0 freezes the tower from the beginning".to_owned();
                return wrong(&format!("{key}.freeze_projection"), why);
            }
        }
        self.validate_eval()?;
        self.category.validate(&self.loss)?;
        Ok(())
    }

    /// As [`RunConfig::validate`], what depends on the network.
    ///
    /// # Errors
    /// As [`RunConfig::validate`].
    pub fn validate_model(&self, clip: &ClipConfig) -> Result<(), ConfigError> {
        let wrong = |key: &str, why: &str| Err(ConfigError::Value { key: key.to_owned(), why: why.to_owned() });
        let own = self.model.tokenizer.as_deref().is_none_or(|name| name == "clip") && self.model.init.is_none();
        if let TextConfig::Clip(text) = &clip.text
            && own
            && text.vocab_size < TOKENS
        {
            let why = format!("{} tokens, but CLIP's tokenizer has {TOKENS}", text.vocab_size);
            return wrong("model.text.vocab_size", &why);
        }
        if matches!(clip.text, TextConfig::Bert(_)) && self.model.tokenizer.is_none() && self.model.init.is_none() {
            let why = "BERT and RoBERTa need their vocabulary: name a folder or hub id with tokenizer.json or vocab.txt";
            return wrong("model.tokenizer", why);
        }
        if self.train.frozen_norm && matches!(clip.vision, VisionConfig::Vit(_)) {
            return wrong("train.frozen_norm", "a Vision Transformer has no batch norm");
        }
        if self.loss.needs().regions && clip.regions.is_none() {
            let why = "the loss needs region embeddings: give the model a region branch, for example `regions: {dim: 2052}`";
            return wrong("model.regions", why);
        }
        Ok(())
    }

    /// The same with the towers written out, where they come from pretrained weights or depend on a tokenizer: what a run keeps, to be
    /// opened without those.
    #[must_use]
    pub fn with_towers(mut self, clip: &ClipConfig, of_tokenizer: bool) -> Self {
        if !self.model.is_complete() || of_tokenizer {
            self.model.image = Some(ImageSpec::Tower(clip.vision.clone()));
            self.model.text = Some(TextSpec::Tower(clip.text.clone()));
        }
        if self.model.init.is_some() {
            self.model.embed_dim = Some(clip.embed_dim);
            self.model.normalization = Some(clip.normalization);
        }
        self
    }

    /// What each evaluation takes.
    fn validate_eval(&self) -> Result<(), ConfigError> {
        let scaled = |task| matches!(task, Task::Instance | Task::Copy);
        for (i, EvalEntry { task, compat, scales, prompts, classnames, .. }) in self.eval.iter().enumerate() {
            let (key, why) = if compat.is_some() && *task != Task::Pairing {
                ("compat", "only task: pairing has another protocol than ours")
            } else if prompts.is_some() && *task != Task::Zeroshot {
                ("prompts", "only task: zeroshot puts class names into prompts")
            } else if classnames.is_some() && *task != Task::Zeroshot {
                ("classnames", "only task: zeroshot names classes")
            } else if scales != &[1.0] && !scaled(*task) {
                ("scales", "only task: instance and task: copy see images at several scales")
            } else if scales.is_empty() || !scales.iter().all(|scale| (0.05..=8.0).contains(scale)) {
                ("scales", "at least one, each from 0.05 to 8")
            } else {
                continue;
            };
            return Err(ConfigError::Value { key: format!("eval.{i}.{key}"), why: why.to_owned() });
        }
        Ok(())
    }

    /// The initial temperature, or the loss's constant one.
    pub fn tau(&self) -> f64 {
        let usual = if self.loss.needs().bias { 0.1 } else { 0.07 };
        self.loss.constant_tau().or(self.train.tau).unwrap_or(usual)
    }

    /// Whether the temperature is said here, and not taken over from pretrained weights.
    pub fn says_tau(&self) -> bool {
        self.train.tau.is_some() || self.loss.constant_tau().is_some()
    }
}

/// A network that makes no sense, as an error of its key.
pub(crate) fn model_error(error: softclip_encoders::Error) -> ConfigError {
    match error {
        softclip_encoders::Error::Config { key, why } => {
            // The network calls its image tower otherwise than the section.
            let key = key.strip_prefix("vision").map_or_else(|| key.to_owned(), |rest| format!("image{rest}"));
            ConfigError::Value { key: format!("model.{key}"), why }
        }
        other => ConfigError::Value { key: "model".to_owned(), why: other.to_string() },
    }
}

fn loss_error(error: softclip_loss::Error) -> ConfigError {
    match error {
        softclip_loss::Error::Config { key, why } => ConfigError::Value { key: format!("loss.{key}"), why },
        other => ConfigError::Value { key: "loss".to_owned(), why: other.to_string() },
    }
}
