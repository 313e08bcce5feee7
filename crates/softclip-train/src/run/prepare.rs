//! What a run begins with.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use softclip_data::loader::{Position, train_batches};
use softclip_data::source::{self, Source};
use softclip_data::tokenizer::Tokenizer;
use softclip_distributed::World;
use softclip_encoders::ClipConfig;
use softclip_tensor::file::{read_safetensors, write_atomic};
use softclip_torch::available_memory;
use tch::Device;

use super::RunOptions;
use super::bad_samples::BadSamples;
use super::inputs::{category_encoder, keep_tokenizer, loader_options, tokenizer};
use super::resume::{Lock, find, fits};
use super::resumed::changes_since;
use super::steps::Run;
use crate::category::CategoryEncoder;
use crate::checkpoint::{self, Checkpoint, State, Writer};
use crate::config::RunConfig;
use crate::evaluate;
use crate::init::{Init, read_at_end};
use crate::log::{Progress, RunLog};
use crate::model::Model;
use crate::schedule::LearningRate;
use crate::step::{StepOptions, Trainer};
use crate::{Error, Result};

/// What is known of a run before its network is made.
pub(super) struct Settled {
    /// With the sizes of the towers.
    pub config: RunConfig,
    clip: ClipConfig,
    world: World,
    /// Of the first rank.
    lock: Option<Lock>,
    checkpoint: Option<Checkpoint>,
    init: Init,
    tokenizer: Option<Tokenizer>,
    source: Arc<dyn Source>,
    category: Option<CategoryEncoder>,
}

/// Opens folder, checkpoint, pretrained weights and data. The first rank takes the folder before any other looks into it.
pub(super) fn settle(config: &RunConfig, options: &RunOptions, world: World) -> Result<Settled> {
    let batch = config.train.batch_size;
    if batch < world.size() {
        let why = format!("{batch} pairs cannot be shared by {} ranks, of which each needs one at least", world.size());
        return Err(crate::config::ConfigError::Value { key: "train.batch_size".to_owned(), why }.into());
    }
    let leads = world.rank() == 0;
    let (mut lock, mut checkpoint) = (None, None);
    if leads {
        fs::create_dir_all(&options.dir).map_err(Error::io(&options.dir))?;
        lock = Some(Lock::take(&options.dir)?);
        checkpoint = find(options)?;
    }
    let resumed = world.told(&[u64::from(checkpoint.is_some())])? == [1];
    let wanted = config.model.init.as_ref().filter(|_| !resumed || !config.model.is_complete());
    let mut watch = crate::log::Downloads::new(options.quiet || !leads);
    let init = Init::open(wanted, &mut |event| watch.see(event))?;
    drop(watch);
    let mut clip = config.model.resolve(&init.given()).map_err(crate::config::model_error)?;
    config.validate_model(&clip)?;
    let tokenizer = tokenizer(config, &clip, &init, resumed.then_some(options))?;
    tokenizer.iter().for_each(|tokenizer| read_at_end(&mut clip.text, tokenizer));
    let config = config.clone().with_towers(&clip, tokenizer.is_some());
    let spec = config.data.train.as_deref().ok_or_else(|| {
        let why = "nothing to train on: --set data.train=SOURCE, or data: {train: SOURCE} in the configuration".to_owned();
        crate::config::ConfigError::Value { key: "data.train".to_owned(), why }
    })?;
    let source = source::subset(source::open(spec)?, config.data.share);
    let category = category_encoder(&config, options, leads)?;
    Ok(Settled { clip, world, lock, checkpoint, init, tokenizer, source, category, config })
}

/// Takes the first rank's place in the run. Ranks that see other data stop here.
fn follow(world: &World, state: &mut State) -> Result<()> {
    let told = world.told(&[state.step, state.position.epoch, state.position.batch, state.samples as u64])?;
    if told[3] != state.samples as u64 {
        let why = format!("rank {} has {} samples, the first has {}", world.rank(), state.samples, told[3]);
        return Err(crate::config::ConfigError::Value { key: "data.train".to_owned(), why }.into());
    }
    (state.step, state.position.epoch, state.position.batch) = (told[0], told[1], told[2]);
    Ok(())
}

impl<'a> Run<'a> {
    /// The network with its weights, and the data. Nothing is written but for later checkpoints, which are renamed.
    pub(super) fn prepare(config: &'a RunConfig, settled: Settled, options: &RunOptions) -> Result<Self> {
        let Settled { clip, world, lock, checkpoint, init, tokenizer, source, category, .. } = settled;
        let (t, leads) = (&config.train, world.rank() == 0);
        let evaluations = if leads { evaluate::plan(config)? } else { Vec::new() };
        check_memory(config, &clip, options.device)?;
        let model = Model::new(&clip, config.loss.needs(), config.tau(), t.seed, options.device)?;
        let mut trainer = Trainer::among(model, config.loss.clone(), StepOptions::of(config, &clip), world)?;
        let fresh = State {
            version: 1,
            step: 0,
            position: Position::default(),
            samples: source.len(),
            batch_size: t.batch_size,
            seed: t.seed,
            sha256: Default::default(),
        };
        let mut told = Vec::new();
        let mut state = match &checkpoint {
            Some(checkpoint) => {
                fits(checkpoint, &fresh)?;
                for path in checkpoint::tidy(&options.dir, checkpoint.state.step)? {
                    tracing::warn!("a later checkpoint is left behind; it is kept as {}", path.display());
                }
                trainer.model_mut().load(&checkpoint.path.join(checkpoint::MODEL))?;
                trainer.load_optimizer(&read_safetensors(checkpoint.path.join(checkpoint::OPTIMIZER))?)?;
                // A constant one may have been changed meanwhile.
                config.loss.constant_tau().map_or(Ok(()), |tau| trainer.model().set_tau(tau))?;
                checkpoint.state.clone()
            }
            None => {
                if leads {
                    told = init.apply(trainer.model_mut(), config.says_tau())?;
                }
                fresh
            }
        };
        trainer.follow()?;
        follow(trainer.world(), &mut state)?;
        let faults = source.faults().len();
        let about = source.describe();
        let batches = train_batches(source, loader_options(config, &clip, tokenizer.clone(), trainer.world()), state.position)?;
        let per_epoch = batches.batches_per_epoch();
        let rate = LearningRate::of(config, per_epoch);
        let total = rate.total;
        let progress = Progress::new(state.step, total, options.quiet || !leads);
        if faults > 0 {
            progress.say(&format!("{about}; {faults} faults (softclip data inspect lists them)"));
        } else {
            progress.say(&about);
        }
        progress.say(&format!(
            "{} parameters, loss {}, {total} steps of {} pairs on {}{:?}; writing to {}",
            millions(trainer.model().parameter_count()),
            config.loss.name(),
            t.batch_size,
            if trainer.world().size() > 1 { format!("{} ranks, ", trainer.world().size()) } else { String::new() },
            options.device,
            options.dir.display()
        ));
        told.iter().for_each(|line| progress.say(line));
        category.iter().for_each(|encoder| progress.say(&encoder.describe()));
        config.loss.warnings().iter().for_each(|warning| progress.say(&format!("note: {warning}")));
        if let Some(checkpoint) = &checkpoint {
            progress.say(&format!("going on after step {} ({})", state.step, checkpoint.path.display()));
            let changes = changes_since(checkpoint, config, per_epoch);
            changes.lines.iter().for_each(|line| progress.say(line));
            changes.warnings.iter().for_each(|line| progress.warn(line));
        }
        Ok(Self {
            config,
            tokenizer,
            category,
            trainer,
            batches,
            bad_samples: BadSamples::default(),
            rate,
            log: None,
            saved: (state.step > 0).then_some(state.step),
            state,
            progress,
            every_checkpoint: t.checkpoint_every.unwrap_or(per_epoch),
            evaluations,
            writer: Writer::default(),
            shared: None,
            _lock: lock,
            results: Vec::new(),
            failed: None,
            alarmed: false,
            loss: None,
        })
    }

    /// Writes what the folder keeps besides checkpoints, and opens its log. The first rank alone does.
    pub(super) fn open_folder(&mut self, options: &RunOptions) -> Result<()> {
        if !self.leads() {
            return Ok(());
        }
        keep_tokenizer(&options.dir, self.tokenizer.as_ref())?;
        write_config(&options.dir, self.config)?;
        self.log = Some(RunLog::open(&options.dir, self.state.step)?);
        Ok(())
    }
}

/// Checks that weights, gradients and AdamW's moments fit into memory, before any of them is allocated. Activations come on top.
fn check_memory(config: &RunConfig, clip: &ClipConfig, device: Device) -> Result<()> {
    let (t, weights) = (&config.train, clip.memory_bytes());
    // A tower that is frozen from the beginning has neither gradients nor moments.
    let frozen = t.image_tower.is_frozen(0) || t.text_tower.is_frozen(0);
    let needed = if frozen { weights } else { weights.saturating_mul(4) };
    match available_memory(device) {
        Some(available) if needed > available => {
            Err(Error::Memory { parameters: clip.parameter_count(), weights, needed, available })
        }
        _ => Ok(()),
    }
}

fn millions(n: u64) -> String {
    if n >= 1_000_000 { format!("{:.1} M", n as f64 / 1e6) } else { format!("{:.1} k", n as f64 / 1e3) }
}

fn write_config(run: &Path, config: &RunConfig) -> Result<()> {
    let path = run.join("config.yaml");
    let text = serde_yaml::to_string(config).map_err(|e| Error::Run { path: path.clone(), why: e.to_string() })?;
    Ok(write_atomic(&path, text.as_bytes())?)
}
