//! A run: a folder, and the loop that fills it.

mod inputs;
mod resume;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use softclip_data::loader::{LoadError, Position, TrainBatches, TrainItem, train_batches};
use softclip_data::source::{self, Source};
use softclip_data::tokenizer::Tokenizer;
use softclip_encoders::ClipConfig;
use softclip_eval::EvalResult;
use softclip_tensor::file::{read_safetensors, write_atomic};
use tch::Device;

use self::inputs::{category_encoder, keep_tokenizer, loader_options, tokenizer};
use self::resume::{Lock, find, fits};
use crate::category::CategoryEncoder;
use crate::checkpoint::{self, Checkpoint, State};
use crate::config::RunConfig;
use crate::evaluate::{self, Planned};
use crate::init::{Init, read_at_end};
use crate::log::{Progress, RunLog};
use crate::model::Model;
use crate::schedule::LearningRate;
use crate::step::{Inputs, StepOptions, StepReport, Trainer};
use crate::watch::{Now, collapse, first_targets, non_finite};
use crate::{Error, Result};

/// Where to go on from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Resume {
    /// The newest checkpoint of the run's folder that verifies, if there is one.
    #[default]
    Auto,
    /// The beginning; a folder with checkpoints is refused.
    Never,
    /// This checkpoint's folder.
    From(PathBuf),
}

/// What is asked of a run beside its configuration.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The run's folder.
    pub dir: PathBuf,
    /// Where to go on from.
    pub resume: Resume,
    /// Where to compute.
    pub device: Device,
    /// Nothing on standard error but warnings.
    pub quiet: bool,
    /// Set to stop after the step at hand, with a checkpoint.
    pub stop: Arc<AtomicBool>,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// Steps done in all.
    pub step: u64,
    /// Whether it was asked to stop before the last step.
    pub interrupted: bool,
    /// The last loss, if there was a step.
    pub loss: Option<f64>,
    /// The last results of the evaluations.
    pub results: Vec<EvalResult>,
    /// Unreadable samples by cause, as one line.
    pub skipped: String,
    /// Seconds of this call.
    pub seconds: f64,
}

/// Trains until the last step, or until it is told to stop; a checkpoint is there in both cases.
///
/// # Errors
/// Configuration, data, disk, or a loss that is not finite. What was saved before stays.
pub fn train(config: &RunConfig, options: &RunOptions) -> Result<Outcome> {
    let start = Instant::now();
    fs::create_dir_all(&options.dir).map_err(Error::io(&options.dir))?;
    let _lock = Lock::take(&options.dir)?;
    let checkpoint = find(options)?;
    let mut watch = crate::log::Downloads::new(options.quiet);
    let wanted = config.model.init.as_ref().filter(|_| checkpoint.is_none() || !config.model.is_complete());
    let init = Init::open(wanted, &mut |event| watch.see(event))?;
    drop(watch);
    let mut clip = config.model.resolve(&init.given()).map_err(crate::config::model_error)?;
    config.validate_model(&clip)?;
    let tokenizer = tokenizer(config, &clip, &init, checkpoint.as_ref())?;
    tokenizer.iter().for_each(|tokenizer| read_at_end(&mut clip.text, tokenizer));
    let config = &config.clone().with_towers(&clip, tokenizer.is_some());
    let spec = config.data.train.as_deref().ok_or_else(|| {
        let why = "nothing to train on: --set data.train=SOURCE, or data: {train: SOURCE} in the configuration".to_owned();
        crate::config::ConfigError::Value { key: "data.train".to_owned(), why }
    })?;
    let source = source::open(spec)?;
    let category = category_encoder(config, options)?;
    let start_from = Start { checkpoint, init, tokenizer, category };
    let mut run = Run::prepare(config, &clip, source, start_from, options)?;
    let result = run.go(options);
    run.progress.finish();
    let interrupted = result?;
    Ok(Outcome {
        step: run.state.step,
        interrupted,
        loss: run.loss,
        results: run.results.into_iter().map(|(_, result)| result).collect(),
        skipped: run.batches.health().summary(),
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// What a run begins with.
struct Start {
    checkpoint: Option<Checkpoint>,
    init: Init,
    tokenizer: Option<Tokenizer>,
    category: Option<CategoryEncoder>,
}

struct Run<'a> {
    config: &'a RunConfig,
    tokenizer: Option<Tokenizer>,
    category: Option<CategoryEncoder>,
    trainer: Trainer,
    batches: TrainBatches,
    rate: LearningRate,
    state: State,
    log: RunLog,
    progress: Progress,
    every_checkpoint: u64,
    evaluations: Vec<Planned>,
    /// The last result of each, by name.
    results: Vec<(String, EvalResult)>,
    /// What went wrong without ending the run; the first of it.
    failed: Option<Error>,
    loss: Option<f64>,
    /// Whether collapse was told of.
    alarmed: bool,
    /// The step of the last checkpoint.
    saved: Option<u64>,
}

/// Since the last log line.
#[derive(Default)]
struct Window {
    samples: u64,
    wait: Duration,
    time: Duration,
    /// Texts that the category encoder ran on.
    encoded: u64,
}

impl<'a> Run<'a> {
    fn prepare(
        config: &'a RunConfig,
        clip: &ClipConfig,
        source: Arc<dyn Source>,
        start: Start,
        options: &RunOptions,
    ) -> Result<Self> {
        let (t, Start { checkpoint, init, tokenizer, category }) = (&config.train, start);
        let evaluations = evaluate::plan(config)?;
        let model = Model::new(clip, config.loss.needs(), config.tau(), t.seed, options.device)?;
        let mut trainer = Trainer::new(model, config.loss.clone(), StepOptions::of(config, clip))?;
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
        let state = match &checkpoint {
            Some(checkpoint) => {
                fits(checkpoint, &fresh)?;
                for path in checkpoint::tidy(&options.dir, checkpoint.state.step)? {
                    eprintln!("warning: a later checkpoint is left behind; it is kept as {}", path.display());
                }
                trainer.model_mut().load(&checkpoint.path.join(checkpoint::MODEL))?;
                trainer.load_optimizer(&read_safetensors(checkpoint.path.join(checkpoint::OPTIMIZER))?)?;
                // A constant one may have been changed meanwhile.
                config.loss.constant_tau().map_or(Ok(()), |tau| trainer.model().set_tau(tau))?;
                checkpoint.state.clone()
            }
            None => {
                told = init.apply(trainer.model_mut(), config.says_tau())?;
                fresh
            }
        };
        let faults = source.faults().len();
        let about = source.describe();
        let batches = train_batches(source, loader_options(config, clip, tokenizer.clone()), state.position)?;
        let per_epoch = batches.batches_per_epoch();
        let total = t.steps.unwrap_or(((t.epochs * per_epoch as f64).round() as u64).max(1));
        let warmup = if t.warmup < 1.0 { (t.warmup * total as f64).round() } else { t.warmup } as u64;
        let progress = Progress::new(state.step, total, options.quiet);
        keep_tokenizer(&options.dir, tokenizer.as_ref())?;
        write_config(&options.dir, config)?;
        if faults > 0 {
            progress.say(&format!("{about}; {faults} faults (softclip data inspect lists them)"));
        } else {
            progress.say(&about);
        }
        progress.say(&format!(
            "{} parameters, loss {}, {total} steps of {} pairs on {:?}; writing to {}",
            millions(trainer.model().parameter_count()),
            config.loss.name(),
            t.batch_size,
            options.device,
            options.dir.display()
        ));
        told.iter().for_each(|line| progress.say(line));
        category.iter().for_each(|encoder| progress.say(&encoder.describe()));
        config.loss.warnings().iter().for_each(|warning| progress.say(&format!("note: {warning}")));
        if let Some(checkpoint) = &checkpoint {
            progress.say(&format!("going on after step {} ({})", state.step, checkpoint.path.display()));
        }
        Ok(Self {
            config,
            tokenizer,
            category,
            trainer,
            batches,
            rate: LearningRate { base: t.lr, warmup, total, schedule: t.schedule },
            log: RunLog::open(&options.dir, state.step)?,
            saved: checkpoint.map(|_| state.step),
            state,
            progress,
            every_checkpoint: t.checkpoint_every.unwrap_or(per_epoch),
            evaluations,
            results: Vec::new(),
            failed: None,
            alarmed: false,
            loss: None,
        })
    }

    /// All steps that are left; whether it was told to stop.
    fn go(&mut self, options: &RunOptions) -> Result<bool> {
        let mut window = Window::default();
        // Those of the checkpoint's step, if they were cut short.
        let mut whole = self.evaluate(options, |path| !path.is_file());
        while self.state.step < self.rate.total {
            if options.stop.load(Ordering::Relaxed) {
                self.save(options)?;
                self.progress.say(&format!("stopped after step {}; the same command goes on from there", self.state.step));
                return Ok(true);
            }
            self.step(&mut window)?;
            if self.state.step == self.rate.total {
                // Before the evaluations: whatever happens to them, the weights are there.
                self.save(options)?;
            } else if self.state.step.is_multiple_of(self.every_checkpoint)
                && let Err(e) = self.save(options)
            {
                // A disk that is full now may not be so at the next checkpoint.
                self.fail(&format!("no checkpoint of step {}", self.state.step), e);
            }
            whole = self.evaluate(options, |_| true);
        }
        self.save(options)?;
        if !whole {
            self.progress.say("stopped while evaluating; the same command goes on from there");
        }
        self.failed.take().map_or(Ok(!whole), Err)
    }

    /// Notes an error that need not end the run now.
    fn fail(&mut self, what: &str, error: Error) {
        let goes_on = if self.state.step < self.rate.total { "; training goes on" } else { "" };
        self.progress.warn(&format!("warning: {what}: {error}{goes_on}"));
        self.failed.get_or_insert(error);
    }

    fn step(&mut self, window: &mut Window) -> Result<()> {
        let start = Instant::now();
        let item = self.batches.next().ok_or_else(|| LoadError::Worker("there is no further batch".to_owned()))??;
        let wait = start.elapsed();
        let TrainItem { batch, position } = item;
        let keys = batch.keys.clone();
        let mut inputs = Inputs::from(batch.to_device(self.trainer.model().device())?);
        let (step, lr) = (self.state.step, self.rate.at(self.state.step));
        if let (Some(encoder), Some(texts)) = (&mut self.category, &batch.texts) {
            let before = encoder.encoded();
            let category = encoder.embed(texts)?;
            window.encoded += encoder.encoded() - before;
            if step == 0 {
                match first_targets(&category, &self.config.loss) {
                    Ok(lines) => lines.iter().for_each(|line| self.progress.say(line)),
                    Err(e) => self.progress.warn(&format!("warning: the first batch's targets: {e}; training goes on")),
                }
            }
            inputs.category = Some(category);
        }
        self.trainer.freeze(step);
        let report = self.trainer.step(&inputs, lr).map_err(|e| non_finite(e, step, lr, &keys))?;
        self.state.step += 1;
        self.state.position = self.batches.after(position);
        self.loss = Some(report.loss);
        window.samples += keys.len() as u64;
        window.wait += wait;
        window.time += start.elapsed();
        if self.state.step.is_multiple_of(self.config.train.log_every) || self.state.step == self.rate.total || step == 0 {
            self.log(&report, lr, &std::mem::take(window));
        } else {
            self.progress.tick(self.state.step);
        }
        Ok(())
    }

    fn log(&mut self, report: &StepReport, lr: f64, window: &Window) {
        let step = self.state.step;
        let seconds = window.time.as_secs_f64().max(1e-9);
        let now = Now {
            report,
            lr,
            epoch: step as f64 / self.batches.batches_per_epoch() as f64,
            samples_per_second: window.samples as f64 / seconds,
            data_wait: window.wait.as_secs_f64() / seconds,
            skipped_samples: self.batches.health().bad(),
            category_encoded: self.category.as_ref().map(|_| window.encoded),
        };
        self.log.write("train", step, &now.values());
        self.progress.at(step, || now.line());
        if step >= self.rate.warmup
            && !self.alarmed
            && let Some(what) = collapse(&report.diagnostics, &self.config.loss)
        {
            self.alarmed = true;
            self.progress.warn(&format!("warning: step {step}: {what}"));
        }
    }

    fn save(&mut self, options: &RunOptions) -> Result<()> {
        if self.saved == Some(self.state.step) {
            return Ok(());
        }
        // The steps behind the checkpoint are to meet the vectors that they met.
        if let Some(Err(e)) = self.category.as_ref().map(CategoryEncoder::sync) {
            self.progress.warn(&format!("warning: {e}"));
        }
        let (model, optimizer) = (self.trainer.model().tensors(), self.trainer.optimizer_tensors());
        let keep = self.config.train.keep_checkpoints;
        checkpoint::save(&options.dir, self.state.clone(), &model, &optimizer, keep)?;
        self.saved = Some(self.state.step);
        Ok(())
    }

    /// What is due after this step and whose result's path is `wanted`; whether nothing was cut short.
    fn evaluate(&mut self, options: &RunOptions, wanted: impl Fn(&Path) -> bool) -> bool {
        let (step, per_epoch) = (self.state.step, self.batches.batches_per_epoch());
        let planned = std::mem::take(&mut self.evaluations);
        let due = |p: &&Planned| p.is_due(step, self.rate.total, per_epoch) && wanted(&p.path(&options.dir, step));
        let due: Vec<&Planned> = planned.iter().filter(due).collect();
        let mut whole = true;
        for p in due {
            self.progress.say(&format!("evaluating after step {step}: {}", p.name));
            match self.measure(p, options) {
                Ok(done) => whole &= done,
                Err(e) => self.fail(&format!("no {} after step {step}", p.name), e),
            }
        }
        self.evaluations = planned;
        whole
    }

    fn measure(&mut self, planned: &Planned, options: &RunOptions) -> Result<bool> {
        let step = self.state.step;
        let measured =
            planned.measure(self.trainer.model().clip(), self.tokenizer.as_ref(), self.config, options.device, &options.stop)?;
        let Some(mut result) = measured else { return Ok(false) };
        result.model = format!("{} step {step}", options.dir.display());
        let values: Vec<(String, f64)> =
            result.metrics.iter().map(|(name, value)| (format!("{}_{name}", planned.name), *value)).collect();
        // In this order: what could not be kept is measured again, and must not be logged twice then.
        evaluate::write(&planned.path(&options.dir, step), &result)?;
        self.log.write("eval", step, &values);
        self.progress.say(&result.to_string());
        self.results.retain(|(name, _)| *name != planned.name);
        self.results.push((planned.name.clone(), result));
        Ok(true)
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
