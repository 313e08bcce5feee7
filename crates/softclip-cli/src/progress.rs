//! How far a long job is, on standard error.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

/// Between lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(30);

/// A bar for things counted while they are done; nothing where there is no terminal.
pub fn bar(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:24} {pos}/{len} eta {eta}") {
        bar.set_style(style);
    }
    bar.set_message(what);
    crate::output::set_active_bar(&bar);
    bar
}

/// A count that an earlier start may have begun: a bar, or a line now and then in a log.
pub struct Count {
    what: &'static str,
    bar: ProgressBar,
    /// When this start began, and at which count.
    from: Option<(Instant, usize)>,
    told: Instant,
}

impl Count {
    pub fn new(what: &'static str) -> Self {
        Count { what, bar: bar(what), from: None, told: Instant::now() }
    }

    /// `done` of `of` are done.
    pub fn set(&mut self, done: usize, of: usize) {
        let (start, before) = *self.from.get_or_insert_with(|| {
            // What an earlier start did must not count as speed.
            self.bar.set_length(of as u64);
            self.bar.set_position(done as u64);
            self.bar.reset_eta();
            (Instant::now(), done)
        });
        self.bar.set_position(done as u64);
        let rate = (done - before.min(done)) as f64 / start.elapsed().as_secs_f64();
        if !std::io::stderr().is_terminal() && self.told.elapsed() > PAUSE && rate > 0.0 {
            self.told = Instant::now();
            let left = Duration::from_secs_f64(of.saturating_sub(done) as f64 / rate);
            tracing::info!("{}: {done} of {of}, {rate:.1}/s, {} left", self.what, HumanDuration(left));
        }
    }

    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}
