//! What a run leaves behind: checkpoints and results.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::retry::{self, retry};
use super::{Run, RunOptions};
use crate::category::CategoryEncoder;
use crate::checkpoint::{Snapshot, Writer};
use crate::evaluate::{self, Planned};
use crate::{Error, Result};

/// What ranks that wait for an evaluation are told, batch by batch: however long it takes, none runs out of patience.
const GOES_ON: u64 = 0;
const DONE: u64 = 1;
const CUT_SHORT: u64 = 2;

impl Run<'_> {
    /// Writes a checkpoint of this step while training goes on; the last one is still there if that fails, which is told when it is
    /// known. All ranks call it, the first writes.
    pub(super) fn save(&mut self, options: &RunOptions) -> Result<()> {
        if self.shared != Some(self.state.step) {
            self.trainer.share_statistics()?;
            // The steps behind the checkpoint are to meet the vectors that they met.
            if let Some(Err(e)) = self.category.as_ref().map(CategoryEncoder::sync) {
                self.progress.warn(&e.to_string());
            }
            self.shared = Some(self.state.step);
        }
        if !self.leads() || self.saved == Some(self.state.step) {
            return Ok(());
        }
        self.hear_of_checkpoint(Writer::finish);
        let tensors = (self.trainer.model().tensors(), self.trainer.optimizer_tensors());
        let snapshot = Snapshot::take(self.state.clone(), &tensors.0, &tensors.1)?;
        self.writer.start(&options.dir, snapshot, self.config.train.keep_checkpoints)?;
        self.saved = Some(self.state.step);
        Ok(())
    }

    /// As [`Run::save`], and waits until it is on the disk. A write that fails for a reason that may pass (a full disk, a file server
    /// that does not answer) is tried again for about 30 s. All ranks succeed, or none.
    ///
    /// # Errors
    /// The reason why the checkpoint cannot be written.
    pub(super) fn save_now(&mut self, options: &RunOptions) -> Result<()> {
        let report = |run: &Self, e: &Error, attempt: usize, pause: Duration| {
            let (step, of, seconds) = (run.state.step, retry::PAUSES.len() + 1, pause.as_secs_f64());
            run.progress.warn(&format!(
                "the checkpoint of step {step} was not written: {e}; attempt {attempt} of {of} follows in {seconds} s"
            ));
        };
        let saved = retry(self, &retry::PAUSES, |run| run.save_and_wait(options), report);
        self.trainer.world().all_or_none(saved)
    }

    /// One try of [`Run::save_now`]; a checkpoint that was begun in the background and failed is written again.
    fn save_and_wait(&mut self, options: &RunOptions) -> Result<()> {
        let begun = self.saved == Some(self.state.step);
        let saved = self.save(options).and_then(|()| self.writer.finish());
        if saved.is_ok() {
            return saved;
        }
        self.saved = None;
        if begun { self.save(options).and_then(|()| self.writer.finish()) } else { saved }
    }

    /// Warns of a checkpoint that could not be written. That does not fail the run: the next one may succeed, and the last one decides.
    pub(super) fn hear_of_checkpoint(&mut self, hear: fn(&mut Writer) -> Result<()>) {
        if let Err(e) = hear(&mut self.writer) {
            self.saved = None;
            self.progress.warn(&format!("a checkpoint was not written: {e}; the next one contains its steps"));
        }
    }

    /// What is due after this step and whose result's path is `wanted`; whether nothing was cut short. The first rank measures, the
    /// others wait.
    pub(super) fn evaluate(&mut self, options: &RunOptions, wanted: impl Fn(&Path) -> bool) -> Result<bool> {
        let (step, total, per_epoch) = (self.state.step, self.rate.total, self.batches.batches_per_epoch());
        if !self.config.eval.iter().any(|entry| evaluate::is_due(entry.every, step, total, per_epoch)) {
            return Ok(true);
        }
        self.trainer.share_statistics()?;
        if !self.leads() {
            return self.wait();
        }
        let planned = std::mem::take(&mut self.evaluations);
        let due = |p: &&Planned| p.is_due(step, total, per_epoch) && wanted(&p.path(&options.dir, step));
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
        self.trainer.world().told(&[if whole { DONE } else { CUT_SHORT }])?;
        Ok(whole)
    }

    /// Until the first rank is done with an evaluation, however long that takes.
    fn wait(&self) -> Result<bool> {
        loop {
            match self.trainer.world().told(&[0])?.first() {
                Some(&GOES_ON) => {}
                answer => return Ok(answer == Some(&DONE)),
            }
        }
    }

    fn measure(&mut self, planned: &Planned, options: &RunOptions) -> Result<bool> {
        let step = self.state.step;
        let world = self.trainer.world();
        let go_on = || {
            // If they are gone it will show when they are told of the end.
            let _ = world.told(&[GOES_ON]);
            !options.stop.load(Ordering::Relaxed)
        };
        let measured =
            planned.measure(self.trainer.model().clip(), self.tokenizer.as_ref(), self.config, options.device, &go_on)?;
        let Some(mut result) = measured else { return Ok(false) };
        (result.model, result.pretrained) = evaluate::weights(&options.dir, step);
        let values: Vec<(String, f64)> =
            result.metrics.iter().map(|(name, value)| (format!("{}_{name}", planned.name), *value)).collect();
        // In this order: what could not be kept is measured again, and must not be logged twice then.
        evaluate::write(&planned.path(&options.dir, step), &result)?;
        if let Some(log) = &mut self.log {
            log.write("eval", step, &values);
        }
        self.progress.say(&result.to_string());
        self.results.retain(|(name, _)| *name != planned.name);
        self.results.push((planned.name.clone(), result));
        Ok(true)
    }

    /// Notes an error that need not end the run now.
    pub(super) fn fail(&mut self, what: &str, error: Error) {
        let goes_on = if self.state.step < self.rate.total { "; training goes on" } else { "" };
        self.progress.warn(&format!("{what}: {error}{goes_on}"));
        self.failed.get_or_insert(error);
    }
}
