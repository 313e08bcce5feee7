//! The `softclip` binary: argument parsing and wiring, nothing else.

mod args;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};

use args::{Cli, Command};

fn main() -> ExitCode {
    // Before anything asks libtorch about devices; parsing does not, so that --help and completions stay instant.
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "softclip", &mut std::io::stdout());
        }
        Command::Man { dir } => {
            std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            clap_mangen::generate_to(Cli::command(), &dir).with_context(|| format!("cannot write to {}", dir.display()))?;
            eprintln!("manual pages are in {}", dir.display());
        }
        _ => anyhow::bail!("wiring"),
    }
    Ok(ExitCode::SUCCESS)
}
