//! One rank: a process, and whatever it starts.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::output::{Tail, forward};
use super::{LAUNCHER, LaunchOptions};
use crate::error::{Error, Result};

/// How long the streams of an ended rank may stay open: something that left its process group may hold them for ever.
const DRAIN: Duration = Duration::from_secs(1);

/// A running or ended rank. Dropped, it is killed.
pub(super) struct Rank {
    child: Child,
    pid: Pid,
    pub status: Option<ExitStatus>,
    pub tail: Tail,
    streams: Vec<JoinHandle<()>>,
}

impl Rank {
    /// Starts rank number `rank`, which meets the others at `port`. Its end is told by `ended`.
    pub fn start(options: &LaunchOptions, rank: usize, restart: u32, port: u16, ended: Sender<usize>) -> Result<Self> {
        let (program, arguments) = options.command.split_first().ok_or_else(|| Error::Invalid("no command".into()))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stderr(Stdio::piped());
        command.stdout(if rank == 0 { Stdio::inherit() } else { Stdio::piped() });
        // A group of its own: Ctrl-C comes to it through us alone, once, and what it starts can be ended with it.
        command.process_group(0);
        for (name, value) in variables(options, rank, restart, port) {
            command.env(name, value);
        }
        let failed = |source| Error::Process { what: format!("cannot start {}", program.to_string_lossy()), source };
        let mut child = command.spawn().map_err(failed)?;
        let tail = Tail::default();
        let mut streams = Vec::new();
        streams.extend(child.stdout.take().map(|stream| forward(rank, stream, None)));
        streams.extend(child.stderr.take().map(|stream| forward(rank, stream, Some(tail.clone()))));
        let pid = Pid::from_child(&child);
        std::thread::spawn(move || {
            // It stays a zombie, and its number taken, until we reap it.
            while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {}
            let _ = ended.send(rank);
        });
        Ok(Rank { child, pid, status: None, tail, streams })
    }

    /// Sends a signal to the rank and what it has started, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.status.is_none() {
            // It may have ended just now: that is as well.
            let _ = kill_process_group(self.pid, signal);
        }
    }

    /// Takes the status of a rank that has ended, and ends what it has left behind.
    pub fn reap(&mut self) -> Result<ExitStatus> {
        // Before reaping: until then nobody else can have this number.
        self.signal(Signal::KILL);
        let status = self.child.wait().map_err(|source| Error::Process { what: "cannot wait for a rank".into(), source })?;
        self.status = Some(status);
        let until = Instant::now() + DRAIN;
        while Instant::now() < until && !self.streams.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(status)
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        if self.status.is_none() {
            let _ = self.reap();
        }
    }
}

/// What torchrun sets, and its elastic agent.
fn variables(options: &LaunchOptions, rank: usize, restart: u32, port: u16) -> Vec<(&'static str, String)> {
    let size = options.ranks.to_string();
    let mut variables = vec![
        ("RANK", rank.to_string()),
        ("LOCAL_RANK", rank.to_string()),
        ("WORLD_SIZE", size.clone()),
        ("LOCAL_WORLD_SIZE", size),
        ("MASTER_ADDR", "127.0.0.1".to_owned()),
        ("MASTER_PORT", port.to_string()),
        ("TORCHELASTIC_USE_AGENT_STORE", "True".to_owned()),
        ("TORCHELASTIC_RESTART_COUNT", restart.to_string()),
        ("TORCHELASTIC_MAX_RESTARTS", options.max_restarts.to_string()),
        (LAUNCHER, std::process::id().to_string()),
    ];
    if std::env::var_os("OMP_NUM_THREADS").is_none() {
        // Each rank would take all cores otherwise, and they would fight.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        variables.push(("OMP_NUM_THREADS", (cores / options.ranks).max(1).to_string()));
    }
    variables
}
