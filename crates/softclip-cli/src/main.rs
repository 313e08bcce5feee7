//! The `softclip` binary: argument parsing and wiring, nothing else.

#[macro_use]
mod output;
#[macro_use]
mod usage;

mod ablate;
mod args;
mod bench;
mod bench_memory;
mod data;
mod demo;
mod detector;
mod embed;
mod eval;
mod explain;
mod export;
mod extract;
mod launch;
mod model;
mod patches;
mod progress;
mod report;
mod results;
mod score;
mod search;
mod train;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::CommandFactory;
use softclip_distributed::Environment;

use args::{Cli, Command};
use progress::bar;

/// As a shell reports a process that SIGINT ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    // Parsing touches no tensor, so that --help and completions stay instant; init comes before anything that does.
    let args: Vec<OsString> = std::env::args_os().collect();
    let cli = usage::parse(&args).unwrap_or_else(|error| error.exit());
    output::init();
    if let Err(e) = softclip_io::raise_open_file_limit() {
        tracing::warn!("cannot raise the limit of open files to the hard limit: {e}");
    }
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{}", told(&error));
            if usage::is_usage(&error) { ExitCode::from(usage::STATUS) } else { ExitCode::FAILURE }
        }
    }
}

/// The error and its causes, each once: many of our errors tell their cause themselves.
fn told(error: &anyhow::Error) -> String {
    error
        .chain()
        .skip(1)
        .map(ToString::to_string)
        .fold(error.to_string(), |text, cause| if text.contains(&cause) { text } else { format!("{text}: {cause}") })
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Completions { shell } => {
            // Into memory first: `generate` panics where it cannot write.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "softclip", &mut script);
            out!("{}", String::from_utf8_lossy(&script));
        }
        Command::Man { dir } => {
            std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            clap_mangen::generate_to(Cli::command(), &dir).with_context(|| format!("cannot write to {}", dir.display()))?;
            tracing::info!("manual pages are in {}", dir.display());
        }
        Command::Config(args) => {
            let config = softclip_train::config::load(&args.config, &args.sets)?;
            // Towers that only pretrained weights tell of are not looked up for a mere print.
            if let Ok(clip) = config.model.resolve(&Default::default()) {
                let adam = softclip_train::StepOptions::of(&config, &clip).adam;
                outln!(
                    "# null stands for what follows from the rest: images of {} px, {} tokens, D = {}; β₂ = {}, ε = {:e}, τ = {}",
                    clip.image_size(),
                    clip.context_length(),
                    clip.embed_dim,
                    adam.beta2,
                    adam.eps,
                    config.tau()
                );
            }
            out!("{}", serde_yaml::to_string(&config)?);
        }
        Command::Results(args) => results::results(&args)?,
        // Its ranks compute; it needs no device.
        Command::Launch(args) => return launch::launch(&args),
        Command::Ablate(args) => {
            softclip_train::end_on_signals()?;
            return ablate::ablate(&args);
        }
        command => {
            // First: a launcher may be killed while a rank is still on its way.
            softclip_distributed::die_with_launcher();
            softclip_train::end_on_signals()?;
            softclip_torch::init()?;
            return compute(command);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn compute(command: Command) -> Result<ExitCode> {
    // Not where models are used once on a small machine: there the peak counts. The loss's bench does it once it has measured memory.
    let measures_memory = matches!(command, Command::Bench(args::bench::Bench::Loss(_) | args::bench::Bench::Recall(_)));
    if matches!(command, Command::Train(_) | Command::Demo(_) | Command::Extract(_) | Command::Bench(_)) && !measures_memory {
        let _ = softclip_torch::keep_freed_memory();
    }
    let interrupted = match command {
        Command::Train(args) => train::train(&args)?,
        Command::Demo(args) => demo::demo(&args)?,
        Command::Report(args) => report::report(&args)?,
        Command::Embed(args) => embed::embed(&args)?,
        Command::Extract(args) => extract::extract(&args)?,
        Command::Detect(args) => {
            detector::detect(&args)?;
            false
        }
        Command::Search(args) => {
            search::search(&args)?;
            false
        }
        Command::Eval(args) => {
            eval::eval(&args)?;
            false
        }
        Command::Explain(args) => {
            explain::explain(&args)?;
            false
        }
        Command::Export(args) => {
            export::export(&args)?;
            false
        }
        Command::Score(args) => return score::score(&args),
        Command::Data(args) => data::data(args)?,
        Command::Bench(args) => {
            bench::bench(args)?;
            false
        }
        Command::Completions { .. }
        | Command::Man { .. }
        | Command::Config(_)
        | Command::Launch(_)
        | Command::Ablate(_)
        | Command::Results(_) => false,
    };
    Ok(if interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// The device of a process by itself, with as many threads as asked for.
fn device(args: &args::Device) -> Result<tch::Device> {
    device_of(&Environment::alone(), args)
}

/// As [`device`], of one of several processes.
fn device_of(place: &Environment, args: &args::Device) -> Result<tch::Device> {
    if let Some(threads) = args.threads {
        tch::set_num_threads(i32::from(threads));
    }
    Ok(place.device(&args.device)?)
}
