//! A run: a folder, and the loop that fills it.

mod bad_samples;
mod inputs;
mod keep;
mod prepare;
mod resume;
mod resumed;
mod retry;
mod steps;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use softclip_distributed::World;
use softclip_eval::EvalResult;
use tch::Device;

pub(crate) use self::inputs::loader_options;
use self::steps::Run;
use crate::Result;
use crate::checkpoint::Writer;
use crate::config::RunConfig;
use crate::signals::interruptible;

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
    train_among(config, options, World::alone())
}

/// As [`train`], as one of the ranks of `world`, which share each batch: the result is that of one process, whatever their number, but
/// for BatchNorm, which normalises by each rank's samples. The run's folder must be the same for all; the first rank writes it.
///
/// # Errors
/// As [`train`]; and a rank that is gone, or does something else.
pub fn train_among(config: &RunConfig, options: &RunOptions, world: World) -> Result<Outcome> {
    let start = Instant::now();
    softclip_torch::tune_training(config.train.tf32)?;
    // Downloads, the index of the data and the network take their time, and are made again the same.
    let settled = interruptible(|| prepare::settle(config, options, world))?;
    let config = &settled.config.clone();
    let mut run = interruptible(|| Run::prepare(config, settled, options))?;
    run.open_folder(options)?;
    let result = run.go(options);
    run.progress.finish();
    // Where an error ends the run, what was being written is worth waiting for, and telling of.
    run.hear_of_checkpoint(Writer::finish);
    let interrupted = result?;
    let skipped = run.skipped()?;
    Ok(Outcome {
        step: run.state.step,
        interrupted,
        loss: run.loss,
        results: run.results.into_iter().map(|(_, result)| result).collect(),
        skipped,
        seconds: start.elapsed().as_secs_f64(),
    })
}
