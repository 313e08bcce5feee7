//! Starts the ranks of a job on one machine, and ends them together.

mod attempt;
mod output;
mod rank;

use std::ffi::OsString;
use std::fmt;
use std::process::ExitStatus;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::{Error, Result};

/// The variable by which a rank knows that its parent is a launcher: its process id.
pub const LAUNCHER: &str = "SOFTCLIP_LAUNCHER_PID";

/// What to start, and how often.
#[derive(Clone, Debug)]
pub struct LaunchOptions {
    /// How many processes.
    pub ranks: usize,
    /// The program and its arguments, the same for each.
    pub command: Vec<OsString>,
    /// How often all are started anew after one has failed.
    pub max_restarts: u32,
    /// How long a rank may take to end after SIGTERM, before SIGKILL.
    pub grace: Duration,
}

impl LaunchOptions {
    /// No restarts, and 30 s to end: a step and a checkpoint.
    pub fn new(ranks: usize, command: Vec<OsString>) -> Self {
        LaunchOptions { ranks, command, max_restarts: 0, grace: Duration::from_secs(30) }
    }
}

/// How a launch ended.
#[derive(Debug)]
pub enum Outcome {
    /// Every rank ended with status 0.
    Done,
    /// A rank failed, in the last start that was allowed, or after a signal was passed on.
    Failed(Failure),
    /// This signal was passed on to the ranks, and they ended by it or with status 130.
    Interrupted(i32),
}

/// The rank that failed first, and how.
#[derive(Debug)]
pub struct Failure {
    /// The rank.
    pub rank: usize,
    /// How it ended.
    pub status: ExitStatus,
    /// The last lines of its standard error.
    pub last_lines: Vec<String>,
    /// How often all had been started anew before.
    pub restarts: u32,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} failed first, with {}", self.rank, self.status)?;
        if self.restarts > 0 {
            write!(f, ", after {} restarts", self.restarts)?;
        }
        if self.last_lines.is_empty() {
            return f.write_str("; it wrote nothing to standard error");
        }
        f.write_str("; its last lines:")?;
        self.last_lines.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// Starts `options.ranks` copies of a command on this machine and waits for their end. They find each other by torchrun's variables, and
/// by a store that the launcher hosts on a free port, of which they are clients.
///
/// Standard output is rank 0's, byte for byte, so that results stay readable by machines. All else goes to standard error line by line,
/// with the rank in front: `[0] …`. Standard input is empty. `OMP_NUM_THREADS` is this machine's cores shared by the ranks, unless
/// it is set.
///
/// SIGINT, SIGTERM, SIGQUIT and SIGHUP are passed on to all ranks (SIGHUP not where it is ignored, as under `nohup`). A second one,
/// other than SIGHUP, also starts the grace. A rank that then ends in another way than by these signals or with status 130 has failed,
/// for example because its checkpoint was not written.
///
/// If a rank fails, the others get SIGTERM, and SIGKILL after the grace; then all start again if restarts are left and no signal was
/// passed on. Whatever a rank leaves behind in its process group ends with it.
///
/// These signals stay without effect on this process afterwards.
///
/// # Errors
/// The command cannot be started, or no store or signal handler be made.
pub fn launch(options: &LaunchOptions) -> Result<Outcome> {
    if options.ranks == 0 || options.command.is_empty() {
        return Err(Error::Invalid("a launch needs at least one rank and a command".into()));
    }
    let handler = |source| Error::Process { what: "signal handler".into(), source };
    let mut passed_on = vec![SIGINT, SIGTERM, SIGQUIT];
    if !is_ignored(SIGHUP) {
        passed_on.push(SIGHUP);
    }
    let mut signals = Signals::new(passed_on).map_err(handler)?;
    let mut restarts = 0;
    loop {
        let (outcome, interrupted) = attempt::run(options, restarts, &mut signals)?;
        match outcome {
            Outcome::Failed(failure) if restarts < options.max_restarts && !interrupted => {
                restarts += 1;
                output::say(&format!("{failure}\nrestart {restarts} of {}", options.max_restarts));
            }
            outcome => return Ok(outcome),
        }
    }
}

/// Whether this process ignores `signal`, as `nohup` makes it ignore SIGHUP. False where the system does not say.
pub fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask =
        status.lines().find_map(|line| line.strip_prefix("SigIgn:")).and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
