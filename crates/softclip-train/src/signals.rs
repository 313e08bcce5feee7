//! SIGINT (Ctrl-C), SIGTERM and SIGHUP (a closed terminal).
//!
//! A process handles them in one of two ways. Before its work begins, and while [`interruptible`] runs, there is nothing to save:
//! the first signal ends the process. Otherwise the first signal sets a flag, at which the work saves its state and returns.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::{Error, Result};

/// Exit status of a process that a signal interrupted, as a shell reports one that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// The handlers of this process.
struct Handlers {
    stop: Arc<AtomicBool>,
    /// Whether the work has begun, so that the first signal sets the flag only.
    working: AtomicBool,
    /// Sections that may be interrupted, running now.
    interruptible: AtomicUsize,
}

static HANDLERS: OnceLock<Handlers> = OnceLock::new();

impl Handlers {
    fn end_at_once(&self) -> bool {
        !self.working.load(Ordering::SeqCst) || self.interruptible.load(Ordering::SeqCst) > 0
    }

    /// Handles one signal. `stop` is set first: a section that begins at the same moment finds it set.
    fn receive(&self, signal: i32) {
        let repeated = self.stop.swap(true, Ordering::SeqCst);
        if self.end_at_once() {
            tracing::info!("stopped by {}: nothing was lost", name(signal));
        } else if !repeated || signal == SIGHUP {
            // A closed terminal may send several: from the kernel and from the shell.
            return;
        }
        // Without destructors: threads may hold what they would wait for. Files are complete or absent at any moment.
        signal_hook::low_level::exit(INTERRUPTED);
    }
}

/// Installs the handlers of SIGINT, SIGTERM and SIGHUP (unless it is ignored, as under `nohup`). Until [`stop_on_signals`] is called,
/// each of them ends the process with status 130 and a line that says so. Calls after the first have no effect.
///
/// # Errors
/// The handlers cannot be installed.
pub fn end_on_signals() -> Result<()> {
    install().map(drop)
}

/// Returns the flag that SIGINT, SIGTERM and SIGHUP (unless it is ignored) set from now on: work that sees it saves its state and
/// returns. A second one, other than SIGHUP, ends the process immediately, with status 130.
///
/// # Errors
/// The handlers cannot be installed.
pub fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    let handlers = install()?;
    handlers.working.store(true, Ordering::SeqCst);
    Ok(Arc::clone(&handlers.stop))
}

/// Runs `work`, which may take long and loses nothing when it is repeated: while it runs, the first signal ends the process with status
/// 130 and a line that says so. Without handlers (library use) it only runs `work`.
pub fn interruptible<T>(work: impl FnOnce() -> T) -> T {
    struct Section<'a>(&'a Handlers);
    impl Drop for Section<'_> {
        fn drop(&mut self) {
            self.0.interruptible.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let _section = HANDLERS.get().map(|handlers| {
        handlers.interruptible.fetch_add(1, Ordering::SeqCst);
        let section = Section(handlers);
        if handlers.stop.load(Ordering::SeqCst) {
            tracing::info!("stopped: nothing was lost");
            signal_hook::low_level::exit(INTERRUPTED);
        }
        section
    });
    work()
}

fn install() -> Result<&'static Handlers> {
    // Two threads that handle each signal would take one for two.
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _alone = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handlers) = HANDLERS.get() {
        return Ok(handlers);
    }
    let mut handled = vec![SIGINT, SIGTERM];
    if !softclip_distributed::is_ignored(SIGHUP) {
        handled.push(SIGHUP);
    }
    let mut signals = Signals::new(handled).map_err(Error::io("signal handler"))?;
    let handlers = HANDLERS.get_or_init(|| Handlers {
        stop: Arc::new(AtomicBool::new(false)),
        working: AtomicBool::new(false),
        interruptible: AtomicUsize::new(0),
    });
    // The thread lives as long as the process.
    let watch = move || signals.forever().for_each(|signal| handlers.receive(signal));
    std::thread::Builder::new().name("signals".to_owned()).spawn(watch).map_err(Error::io("signal handler"))?;
    Ok(handlers)
}

fn name(signal: i32) -> &'static str {
    match signal {
        SIGHUP => "SIGHUP",
        SIGINT => "SIGINT",
        _ => "SIGTERM",
    }
}
