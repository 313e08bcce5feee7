//! The learning rate of a step.

use crate::config::{RunConfig, Schedule};

/// Linear warm-up, then half a cosine to 0 or a constant, counted in optimizer steps as open_clip does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearningRate {
    /// The peak.
    pub base: f64,
    /// Steps until it.
    pub warmup: u64,
    /// All steps.
    pub total: u64,
    /// What follows the warm-up.
    pub schedule: Schedule,
}

impl LearningRate {
    /// The schedule of `config` for a data set of `per_epoch` batches.
    pub fn of(config: &RunConfig, per_epoch: u64) -> Self {
        let t = &config.train;
        let total = t.steps.unwrap_or(((t.epochs * per_epoch as f64).round() as u64).max(1));
        let warmup = if t.warmup < 1.0 { (t.warmup * total as f64).round() } else { t.warmup } as u64;
        Self { base: t.lr, warmup, total, schedule: t.schedule }
    }

    /// The rate of step `step`, from 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.base * (step + 1) as f64 / self.warmup as f64;
        }
        match self.schedule {
            Schedule::Const => self.base,
            Schedule::Cosine => {
                let (done, all) = (step - self.warmup, self.total.saturating_sub(self.warmup).max(1));
                0.5 * (1.0 + (std::f64::consts::PI * done as f64 / all as f64).cos()) * self.base
            }
        }
    }
}
