//! `softclip launch`.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use softclip_distributed::{LaunchOptions, Outcome};

use crate::args::{Cli, Command, Launch};
use crate::usage;

pub fn launch(args: &Launch) -> Result<ExitCode> {
    // Wrong usage is told once, not by each rank.
    let line: Vec<OsString> = std::iter::once(OsString::from("softclip")).chain(args.command.iter().cloned()).collect();
    match usage::parse(&line) {
        Ok(Cli { command: Command::Launch(_) }) => usage!("a launch cannot start launches: -n says how many ranks"),
        Ok(_) => {}
        Err(error) => error.exit(),
    }
    let me = std::env::current_exe().context("where is this program?")?;
    let command = std::iter::once(me.into()).chain(args.command.iter().cloned()).collect();
    let mut options = LaunchOptions::new(usize::from(args.ranks), command);
    options.max_restarts = args.max_restarts;
    options.grace = Duration::from_secs(args.grace);
    match softclip_distributed::launch(&options)? {
        Outcome::Done => Ok(ExitCode::SUCCESS),
        Outcome::Failed(failure) => bail!("{failure}"),
        Outcome::Interrupted(_) => Ok(ExitCode::from(crate::INTERRUPTED)),
    }
}
