//! One training as a process of its own: one that fails costs the grid nothing else.

use std::fs::OpenOptions;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};

use super::grid::Run;
use crate::args::Ablate;

/// What runs say while they train.
const LOG: &str = "train.log";

/// How many runs at a time, and where.
pub struct Resources {
    pub jobs: usize,
    devices: Vec<String>,
    threads: u16,
}

impl Resources {
    pub fn of(args: &Ablate) -> Result<Self> {
        let jobs = args.jobs.map_or(args.device.len(), usize::from);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = args.threads.unwrap_or_else(|| u16::try_from(cores / jobs).unwrap_or(u16::MAX).max(1));
        Ok(Self { jobs, devices: args.device.clone(), threads })
    }

    fn arguments(&self, slot: usize) -> [String; 4] {
        let device = &self.devices[slot % self.devices.len()];
        ["--device".to_owned(), device.clone(), "--threads".to_owned(), self.threads.to_string()]
    }
}

/// How a run's process ended.
pub enum End {
    Done,
    Interrupted,
    Failed(String),
}

/// A run's process.
pub struct Child {
    process: std::process::Child,
    /// Which of the places at a time is its.
    pub slot: usize,
    log: PathBuf,
    ended: bool,
    /// Whether it was asked to end.
    stopped: bool,
}

impl Child {
    pub fn start(run: &Run, slot: usize, resources: &Resources) -> Result<Self> {
        std::fs::create_dir_all(&run.dir).with_context(|| run.dir.display().to_string())?;
        let log = run.dir.join(LOG);
        let open = || OpenOptions::new().create(true).append(true).open(&log).with_context(|| log.display().to_string());
        let me = std::env::current_exe().context("where is this program?")?;
        let process = Command::new(me)
            .args(run.command(&resources.arguments(slot)))
            .stdin(Stdio::null())
            .stdout(open()?)
            .stderr(open()?)
            // A group of its own: Ctrl-C comes to it through us alone, once. And it ends with us however we end.
            .process_group(0)
            .env(softclip_distributed::LAUNCHER, std::process::id().to_string())
            .spawn()
            .with_context(|| format!("cannot start the run {}", run.dir.display()))?;
        Ok(Self { process, slot, log, ended: false, stopped: false })
    }

    /// Asks for a checkpoint and the end.
    pub fn stop(&mut self) {
        self.stopped = true;
        // It may have ended just now: that is as well.
        let _ = kill_process_group(Pid::from_child(&self.process), Signal::TERM);
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<End>> {
        let Some(status) = self.process.try_wait().context("cannot wait for a run")? else { return Ok(None) };
        self.ended = true;
        Ok(Some(match status.code() {
            Some(0) => End::Done,
            Some(code) if code == i32::from(crate::INTERRUPTED) => End::Interrupted,
            // Too early to have heard of it in any other way.
            None if self.stopped => End::Interrupted,
            _ => End::Failed(self.why(status)),
        }))
    }

    /// The last line that tells of an error, and where the rest is.
    fn why(&self, status: ExitStatus) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = text.lines().rev().find(|line| line.starts_with("error")).or(text.lines().next_back()).unwrap_or_default();
        let how = match status.signal() {
            Some(signal) => format!("ended by signal {signal}"),
            None => last.to_owned(),
        };
        format!("{how} ({})", self.log.display())
    }
}

impl Drop for Child {
    /// An error elsewhere must not leave it training unseen.
    fn drop(&mut self) {
        if !self.ended {
            self.stop();
            let _ = self.process.wait();
        }
    }
}
