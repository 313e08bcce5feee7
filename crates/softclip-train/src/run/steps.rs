//! The loop over steps.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use softclip_data::loader::{LoadError, TrainBatches, TrainItem};
use softclip_data::tokenizer::Tokenizer;
use softclip_eval::EvalResult;

use super::RunOptions;
use super::bad_samples::BadSamples;
use super::resume::Lock;
use softclip_tensor::Embeddings;

use crate::category::{Category, CategoryEncoder};
use crate::checkpoint::{State, Writer};
use crate::config::RunConfig;
use crate::evaluate::Planned;
use crate::log::{Progress, RunLog};
use crate::schedule::LearningRate;
use crate::step::{Inputs, StepReport, Trainer};
use crate::watch::{Now, collapse, first_targets, non_finite};
use crate::{Error, Result};

/// A run under way.
pub(super) struct Run<'a> {
    pub(super) config: &'a RunConfig,
    pub(super) tokenizer: Option<Tokenizer>,
    pub(super) category: Option<CategoryEncoder>,
    pub(super) trainer: Trainer,
    pub(super) batches: TrainBatches,
    pub(super) bad_samples: BadSamples,
    pub(super) rate: LearningRate,
    pub(super) state: State,
    /// Of the first rank.
    pub(super) log: Option<RunLog>,
    pub(super) progress: Progress,
    pub(super) every_checkpoint: u64,
    pub(super) evaluations: Vec<Planned>,
    /// The last result of each, by name.
    pub(super) results: Vec<(String, EvalResult)>,
    /// What went wrong without ending the run; the first of it.
    pub(super) failed: Option<Error>,
    pub(super) loss: Option<f64>,
    /// Whether collapse was told of.
    pub(super) alarmed: bool,
    pub(super) writer: Writer,
    /// Last of all: while a checkpoint is written the folder is taken.
    pub(super) _lock: Option<Lock>,
    /// The step of the last checkpoint.
    pub(super) saved: Option<u64>,
    /// The step in which ranks last made their statistics one for a checkpoint.
    pub(super) shared: Option<u64>,
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

impl Run<'_> {
    /// Whether this is the rank that writes and speaks.
    pub(super) fn leads(&self) -> bool {
        self.trainer.world().rank() == 0
    }

    /// All steps that are left; whether it was told to stop.
    pub(super) fn go(&mut self, options: &RunOptions) -> Result<bool> {
        let mut window = Window::default();
        // Those of the checkpoint's step, if they were cut short.
        let mut whole = self.evaluate(options, |path| !path.is_file())?;
        while self.state.step < self.rate.total {
            if !self.trainer.world().all_ok(!options.stop.load(Ordering::Relaxed))? {
                self.save_now(options)?;
                self.progress.say(&format!("stopped after step {}; the same command goes on from there", self.state.step));
                return Ok(true);
            }
            self.step(&mut window)?;
            self.hear_of_checkpoint(Writer::poll);
            if self.state.step == self.rate.total {
                // Before the evaluations: whatever happens to them, the weights are there.
                self.save_now(options)?;
            } else if self.state.step.is_multiple_of(self.every_checkpoint)
                && let Err(e) = self.save(options)
            {
                // A disk that is full now may not be so at the next checkpoint.
                self.fail(&format!("no checkpoint of step {}", self.state.step), e);
            }
            whole = self.evaluate(options, |_| true)?;
        }
        self.save_now(options)?;
        if !whole {
            self.progress.say("stopped while evaluating; the same command goes on from there");
        }
        let ended = self.failed.take().map_or(Ok(!whole), Err);
        self.trainer.world().all_or_none(ended)
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
                self.tell_targets(&category)?;
            }
            inputs.category = Some(category);
        }
        self.trainer.freeze(step);
        self.trainer.seed(self.config.train.seed, step);
        let first = self.trainer.world().part(self.state.batch_size).start;
        let report = self.trainer.step(&inputs, lr).map_err(|e| non_finite(e, step, lr, &keys, first))?;
        self.state.step += 1;
        self.state.position = self.batches.after(position);
        self.loss = Some(report.loss);
        window.samples += self.state.batch_size as u64;
        window.wait += wait;
        window.time += start.elapsed();
        if self.state.step.is_multiple_of(self.config.train.log_every) || self.state.step == self.rate.total || step == 0 {
            self.log(&report, lr, &std::mem::take(window))?;
        } else {
            self.progress.tick(self.state.step);
        }
        Ok(())
    }

    /// What the first batch, all ranks' parts of it, is compared with.
    fn tell_targets(&self, category: &Category) -> Result<()> {
        let gather = |part: &Embeddings| -> Result<Embeddings> {
            Ok(Embeddings::trusted(self.trainer.world().gather_parts(part.tensor(), self.state.batch_size)?)?)
        };
        let all = Category { sentences: gather(&category.sentences)?, captions: gather(&category.captions)? };
        if !self.leads() {
            return Ok(());
        }
        match first_targets(&all, &self.config.loss) {
            Ok(lines) => lines.iter().for_each(|line| self.progress.say(line)),
            Err(e) => self.progress.warn(&format!("the first batch's targets: {e}; training continues")),
        }
        Ok(())
    }

    fn log(&mut self, report: &StepReport, lr: f64, window: &Window) -> Result<()> {
        let step = self.state.step;
        let seconds = window.time.as_secs_f64().max(1e-9);
        self.bad_samples.update(self.batches.health(), self.trainer.world())?;
        let encoded = self.trainer.world().total(&[window.encoded as f64])?;
        if !self.leads() {
            return Ok(());
        }
        let now = Now {
            report,
            lr,
            epoch: step as f64 / self.batches.batches_per_epoch() as f64,
            samples_per_second: window.samples as f64 / seconds,
            data_wait: window.wait.as_secs_f64() / seconds,
            skipped_samples: self.bad_samples.count(),
            category_encoded: self.category.as_ref().map(|_| encoded[0] as u64),
        };
        if let Some(log) = &mut self.log {
            log.write("train", step, &now.values());
        }
        self.progress.at(step, || now.line());
        if step >= self.rate.warmup
            && !self.alarmed
            && let Some(what) = collapse(&report.diagnostics, &self.config.loss)
        {
            self.alarmed = true;
            self.progress.warn(&format!("step {step}: {what}"));
        }
        Ok(())
    }

    /// Unreadable samples of all ranks by cause, each counted once.
    pub(super) fn skipped(&mut self) -> Result<String> {
        self.bad_samples.update(self.batches.health(), self.trainer.world())?;
        Ok(self.bad_samples.summary())
    }
}
