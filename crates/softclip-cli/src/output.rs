//! The only place that writes to standard output and standard error.
//!
//! Results go to standard output through `out!` and `outln!`. Diagnostics go to standard error through `tracing`. A diagnostic
//! that cannot be written (full disk, closed terminal, ended reader) is dropped: it must never end the work that it describes.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Sets the level of diagnostics: `warn`, `info` (default), `debug`, or levels per crate such as `softclip_data=debug`.
pub const LOG_VARIABLE: &str = "SOFTCLIP_LOG";

/// The progress bar that is cleared while a diagnostic is written.
static ACTIVE_BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Writes a result to standard output; see [`write_out`].
macro_rules! out {
    ($($text:tt)*) => { $crate::output::write_out(format_args!($($text)*)) };
}

/// As `out!`, followed by a line break.
macro_rules! outln {
    ($($text:tt)*) => { $crate::output::write_out(format_args!("{}\n", format_args!($($text)*))) };
}

/// Writes to standard output. If its reader has ended (`| head`), the process exits with status 0, because the work is done by then.
pub fn write_out(text: std::fmt::Arguments) {
    let mut out = io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => {
            tracing::error!("standard output: {e}");
            std::process::exit(1);
        }
    }
}

/// Starts writing diagnostics to standard error, at the levels that [`LOG_VARIABLE`] sets.
pub fn init() {
    let levels = std::env::var(LOG_VARIABLE).unwrap_or_default();
    let default = || Targets::new().with_target("softclip", Level::INFO);
    let (targets, invalid) = match levels.trim() {
        "" => (default(), None),
        text => match text.parse::<Targets>() {
            Ok(targets) => (targets, None),
            Err(e) => (default(), Some(e)),
        },
    };
    tracing_subscriber::registry().with(Diagnostics.with_filter(targets)).init();
    if let Some(e) = invalid {
        tracing::warn!("{LOG_VARIABLE}={levels}: {e}; use a level such as `debug`, or `softclip_data=debug,warn`");
    }
}

/// Clears `bar` from the terminal while a diagnostic is written.
pub fn set_active_bar(bar: &ProgressBar) {
    *ACTIVE_BAR.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
}

/// Formats events as lines: `warning: …`, `error: …`, and plain text for information.
struct Diagnostics;

impl<S: Subscriber> Layer<S> for Diagnostics {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let prefix = match *event.metadata().level() {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            Level::INFO => "",
            Level::DEBUG => "debug: ",
            Level::TRACE => "trace: ",
        };
        let mut line = Line { text: prefix.to_owned() };
        event.record(&mut line);
        let mut text: String = line.text.chars().flat_map(safe).collect();
        text.push('\n');
        let write = || {
            // One write per line, so that lines of several threads do not mix.
            let _ = io::stderr().lock().write_all(text.as_bytes());
        };
        match ACTIVE_BAR.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(bar) if !bar.is_finished() => bar.suspend(write),
            _ => write(),
        }
    }
}

/// Text from files and servers must not control the terminal.
fn safe(character: char) -> impl Iterator<Item = char> {
    let control = character.is_control() && character != '\n' && character != '\t';
    let (escaped, plain) = (control.then(|| character.escape_default()), (!control).then_some(character));
    escaped.into_iter().flatten().chain(plain)
}

struct Line {
    text: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        use std::fmt::Write;
        let _ = match field.name() {
            "message" => write!(self.text, "{value:?}"),
            name => write!(self.text, " {name}={value:?}"),
        };
    }
}
