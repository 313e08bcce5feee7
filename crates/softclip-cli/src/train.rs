//! `softclip train`.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use softclip_distributed::Environment;
use softclip_train::{Resume, RunOptions, config, stop_on_signals};

use crate::args::Train;

/// Whether it was interrupted.
pub fn train(args: &Train) -> Result<bool> {
    // All would write into one folder.
    let environment = Environment::from_env()?;
    ensure!(environment.world_size == 1, "this is {environment}, and training does not spread over ranks yet: start it once");
    let config = config::load(&args.config, &args.sets)?;
    let name = args.config.file_stem().unwrap_or_default();
    let options = RunOptions {
        dir: args.run_dir.clone().unwrap_or_else(|| PathBuf::from("runs").join(name)),
        resume: match args.resume.as_str() {
            "auto" => Resume::Auto,
            "never" => Resume::Never,
            path => Resume::From(path.into()),
        },
        device: crate::device(&args.device)?,
        quiet: false,
        stop: stop_on_signals()?,
    };
    let outcome = softclip_train::train(&config, &options)?;
    let loss = outcome.loss.map_or_else(String::new, |loss| format!(", loss {loss:.4}"));
    outln!(
        "{}: {} steps{loss}, {:.0} s, unreadable samples: {}",
        options.dir.display(),
        outcome.step,
        outcome.seconds,
        outcome.skipped
    );
    outcome.results.iter().for_each(|result| out!("{result}"));
    Ok(outcome.interrupted)
}
