//! `softclip train`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use softclip_distributed::{Environment, World};
use softclip_train::{Outcome, Resume, RunOptions, config, stop_on_signals};

use crate::args::Train;

/// Whether it was interrupted.
pub fn train(args: &Train) -> Result<bool> {
    let environment = Environment::from_env()?;
    let config = config::load(&args.config, &args.sets)?;
    let name = args.config.file_stem().unwrap_or_default();
    let device = crate::device_of(&environment, &args.device)?;
    let world = World::join(&environment, device, Duration::from_secs(60 * u64::from(args.timeout)))?;
    let options = RunOptions {
        dir: args.run_dir.clone().unwrap_or_else(|| PathBuf::from("runs").join(name)),
        resume: match args.resume.as_str() {
            "auto" => Resume::Auto,
            "never" => Resume::Never,
            path => Resume::From(path.into()),
        },
        device,
        quiet: false,
        // From here on: whoever waits for other ranks ends at once.
        stop: stop_on_signals()?,
    };
    let outcome = softclip_train::train_among(&config, &options, world.clone())?;
    if world.rank() == 0 {
        tell(&options, &outcome);
    }
    if let Err(e) = world.leave() {
        tracing::warn!("the run is complete, but not all ranks have ended: {e}");
    }
    Ok(outcome.interrupted)
}

fn tell(options: &RunOptions, outcome: &Outcome) {
    let loss = outcome.loss.map_or_else(String::new, |loss| format!(", loss {loss:.4}"));
    outln!(
        "{}: {} steps{loss}, {:.0} s, unreadable samples: {}",
        options.dir.display(),
        outcome.step,
        outcome.seconds,
        outcome.skipped
    );
    outcome.results.iter().for_each(|result| out!("{result}"));
}
