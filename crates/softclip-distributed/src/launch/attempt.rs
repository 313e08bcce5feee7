//! One start of all ranks, to the end of the last.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use signal_hook::iterator::Signals;
use softclip_torch::{PEER_LOST, Store};

use super::rank::Rank;
use super::{Failure, LaunchOptions, Outcome, output};
use crate::error::Result;

/// How often signals are looked for.
const TICK: Duration = Duration::from_millis(20);
/// How long after the first failure others may fail by themselves, before they are ended: among these the culprit is sought.
const SETTLE: Duration = Duration::from_millis(250);
/// How long the ranks' connections to the store may take.
const STORE: Duration = Duration::from_secs(60);

/// Starts all ranks and waits until none is left.
/// Returns how they ended, and whether a signal was passed on to them.
pub(super) fn run(options: &LaunchOptions, restart: u32, signals: &mut Signals) -> Result<(Outcome, bool)> {
    // A new store each time, on a port of its own: nothing of an earlier start can be met.
    let store = Store::host("127.0.0.1", 0, STORE)?;
    let port = store.port().unwrap_or_default();
    let (ended, events) = mpsc::channel();
    let ranks =
        (0..options.ranks).map(|rank| Rank::start(options, rank, restart, port, ended.clone())).collect::<Result<Vec<_>>>()?;
    let mut attempt = Attempt { ranks, phase: Phase::Running, failed: Vec::new(), passed_on: Vec::new(), grace: options.grace };
    attempt.watch(&events, signals)?;
    let interrupted = attempt.is_interrupted();
    Ok((attempt.outcome(restart), interrupted))
}

/// Where an attempt is on its way to its end.
enum Phase {
    Running,
    /// A rank has failed; until then others may fail by themselves.
    Settling(Instant),
    /// SIGTERM was sent; then SIGKILL will be.
    Ending(Instant),
    Killed,
}

/// As training ends that a signal has interrupted, whichever it was.
const INTERRUPTED: i32 = 130;

/// Whether a process has ended as one does to which we have sent these signals: by one of them, or by the status that tells of it.
fn heeds(status: ExitStatus, sent: &[Signal]) -> bool {
    let by = |number| sent.iter().any(|signal| signal.as_raw() == number);
    status.signal().is_some_and(by) || status.code().is_some_and(|code| code == INTERRUPTED || by(code - 128))
}

struct Attempt {
    ranks: Vec<Rank>,
    phase: Phase,
    /// Ranks that failed by themselves, in the order of their ends.
    failed: Vec<usize>,
    /// Signals that were passed on, in their order.
    passed_on: Vec<Signal>,
    grace: Duration,
}

impl Attempt {
    fn watch(&mut self, events: &Receiver<usize>, signals: &mut Signals) -> Result<()> {
        let mut running = self.ranks.len();
        while running > 0 {
            match events.recv_timeout(TICK) {
                Ok(rank) => {
                    running -= 1;
                    self.ended(rank)?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            signals.pending().for_each(|signal| self.pass_on(signal));
            self.advance();
        }
        Ok(())
    }

    fn ended(&mut self, rank: usize) -> Result<()> {
        let status = self.ranks[rank].reap()?;
        if status.success() {
            return Ok(());
        }
        if self.is_interrupted() {
            // The others are about to finish: another signal would keep them from saving their state.
            if !heeds(status, &self.sent()) {
                self.failed.push(rank);
            }
            return Ok(());
        }
        match self.phase {
            Phase::Running => self.phase = Phase::Settling(Instant::now() + SETTLE),
            Phase::Settling(_) => {}
            // It was ended by us.
            Phase::Ending(_) if heeds(status, &[Signal::TERM]) => return Ok(()),
            Phase::Killed if heeds(status, &[Signal::TERM, Signal::KILL]) => return Ok(()),
            // It may be what the first one failed of: one that writes a core, or its last words, takes its time to end.
            Phase::Ending(_) | Phase::Killed => {}
        }
        self.failed.push(rank);
        Ok(())
    }

    fn is_interrupted(&self) -> bool {
        !self.passed_on.is_empty()
    }

    /// All signals that the ranks were sent.
    fn sent(&self) -> Vec<Signal> {
        let ours: &[Signal] = match self.phase {
            Phase::Running | Phase::Settling(_) => &[],
            Phase::Ending(_) => &[Signal::TERM],
            Phase::Killed => &[Signal::TERM, Signal::KILL],
        };
        [&self.passed_on, ours].concat()
    }

    fn pass_on(&mut self, number: i32) {
        let Some(signal) = Signal::from_named_raw(number) else { return };
        output::say(&format!("signal {number} goes on to all ranks"));
        self.send(signal);
        // Who asks twice does not want to wait; a closed terminal does not ask, and may send more than one.
        let again = self.is_interrupted() && signal != Signal::HUP;
        self.passed_on.push(signal);
        if again && !matches!(self.phase, Phase::Ending(_) | Phase::Killed) {
            self.phase = Phase::Ending(Instant::now() + self.grace);
        }
    }

    fn advance(&mut self) {
        let now = Instant::now();
        match self.phase {
            Phase::Settling(until) if now >= until => {
                self.send(Signal::TERM);
                self.phase = Phase::Ending(now + self.grace);
            }
            Phase::Ending(until) if now >= until => {
                self.send(Signal::KILL);
                self.phase = Phase::Killed;
            }
            _ => {}
        }
    }

    fn send(&self, signal: Signal) {
        self.ranks.iter().for_each(|rank| rank.signal(signal));
    }

    fn outcome(self, restarts: u32) -> Outcome {
        // A rank that only lost its peer may end before the one that left it: it says so.
        let consequence = |rank: usize| self.ranks[rank].tail.lines().iter().any(|line| line.contains(PEER_LOST));
        let culprit = self.failed.iter().copied().find(|&rank| !consequence(rank));
        if let (Some(signal), None) = (self.passed_on.last(), culprit) {
            return Outcome::Interrupted(signal.as_raw());
        }
        let culprit = culprit.or(self.failed.first().copied());
        let found = culprit.and_then(|rank| self.ranks[rank].status.map(|status| (rank, status)));
        found.map_or(Outcome::Done, |(rank, status)| {
            Outcome::Failed(Failure { rank, status, last_lines: self.ranks[rank].tail.lines(), restarts })
        })
    }
}
