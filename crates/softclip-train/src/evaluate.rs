//! Evaluations as a configuration names them.

use std::path::{Path, PathBuf};

use softclip_data::source;
use softclip_encoders::Clip;
use softclip_eval::{EvalOptions, EvalResult, Prompts, Task as Protocol};
use tch::Device;

use crate::config::{EvalEntry, RunConfig, Task};
use crate::{Error, Result};

/// Evaluates a network on the source `spec` as `entry` says.
///
/// # Errors
/// The source, the prompts, or reading and encoding it.
pub fn evaluate(clip: &Clip, entry: &EvalEntry, spec: &str, config: &RunConfig, device: Device) -> Result<EvalResult> {
    let eval = |source| Error::eval(spec, source);
    let task = match entry.task {
        Task::Retrieval => Protocol::Retrieval,
        Task::Pairing => Protocol::Pairing,
        Task::Zeroshot => Protocol::Zeroshot(Prompts::named(&entry.prompts).map_err(eval)?),
    };
    let options = EvalOptions {
        device,
        precision: config.train.precision,
        batch_size: config.train.batch_size.min(256),
        decode: config.data.decode,
        workers: config.data.workers,
        max_bad_share: config.data.max_bad_share,
    };
    let mut result = softclip_eval::evaluate(clip, source::open(spec)?, spec, &task, &options, &|_, _| {}).map_err(eval)?;
    result.config = serde_json::to_value(config).unwrap_or_default();
    Ok(result)
}

/// Where a run keeps a result: task, data and step in its name.
pub fn path(run: &Path, result: &EvalResult, step: u64) -> PathBuf {
    let plain: String = result.dataset.source.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let parts: Vec<&str> = plain.split('-').filter(|part| !part.is_empty()).collect();
    // The end of a path tells more than its beginning.
    let name = parts[parts.len().saturating_sub(5)..].join("-");
    run.join("results").join(format!("{}-{name}-step-{step:08}.json", result.task))
}

/// Writes a result as JSON.
///
/// # Errors
/// The folder is not writable.
pub fn write(path: &Path, result: &EvalResult) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    result.write(path).map_err(|source| Error::eval(&result.dataset.source, source))
}
