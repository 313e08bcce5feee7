//! Ctrl-C and SIGTERM.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::{Error, Result};

/// A flag that SIGINT and SIGTERM set; a second signal ends the process at once, with status 130.
///
/// # Errors
/// The handlers cannot be installed.
pub fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let install = |signal| -> std::io::Result<()> {
        // In this order: the first signal finds the flag unset, passes the shutdown by, and sets it.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
        Ok(())
    };
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        install(signal).map_err(Error::io("signal handler"))?;
    }
    Ok(stop)
}
