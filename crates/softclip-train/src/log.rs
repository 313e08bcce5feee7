//! What a run writes down: metrics.jsonl, TensorBoard events, and what a person sees.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value, json};
use softclip_tensor::file::write_atomic;

use crate::tensorboard::Events;
use crate::{Error, Result};

/// The files of a run that grow while it trains.
pub struct RunLog {
    metrics: File,
    events: Option<Events>,
}

impl RunLog {
    /// Opens a run's logs to go on after step `from`. Lines of later steps, which a killed run left behind, are removed.
    ///
    /// # Errors
    /// The folder is not writable.
    pub fn open(run: &Path, from: u64) -> Result<Self> {
        let path = run.join("metrics.jsonl");
        if let Ok(text) = std::fs::read_to_string(&path) {
            let kept: String = text.lines().filter(|line| step_of(line).is_some_and(|step| step <= from)).fold(
                String::new(),
                |mut all, line| {
                    all.push_str(line);
                    all.push('\n');
                    all
                },
            );
            if kept.len() != text.len() {
                write_atomic(&path, kept.as_bytes())?;
            }
        }
        let metrics = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        let folder = run.join("tb");
        let events = Some(Events::create(&folder, from).map_err(Error::io(&folder))?);
        Ok(Self { metrics, events })
    }

    /// Adds a line of `kind` (`train`, `eval`). A full disk costs log lines, not the run.
    pub fn write(&mut self, kind: &str, step: u64, values: &[(String, f64)]) {
        let mut line = Map::new();
        line.insert("kind".to_owned(), kind.into());
        line.insert("step".to_owned(), step.into());
        for (name, value) in values {
            // JSON has no NaN; null says that there was none.
            line.insert(name.clone(), serde_json::Number::from_f64(*value).map_or(Value::Null, Value::Number));
        }
        let mut text = json!(line).to_string();
        text.push('\n');
        let written = self.metrics.write_all(text.as_bytes()).and_then(|()| match &mut self.events {
            Some(events) => {
                let tagged: Vec<(String, f64)> = values.iter().map(|(name, value)| (format!("{kind}/{name}"), *value)).collect();
                events.scalars(step, tagged.iter().map(|(name, value)| (name.as_str(), *value)))
            }
            None => Ok(()),
        });
        if let Err(e) = written
            && self.events.take().is_some()
        {
            tracing::warn!("step {step}: cannot write metrics ({e}); training continues");
        }
    }
}

fn step_of(line: &str) -> Option<u64> {
    serde_json::from_str::<Value>(line).ok()?.get("step")?.as_u64()
}

/// A bar on a terminal, a line now and then elsewhere; on standard error.
pub struct Progress {
    bar: ProgressBar,
    lines: bool,
    last: Option<Instant>,
    quiet: bool,
}

/// Between lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(10);

impl Progress {
    /// For `total` steps of which `done` are done.
    pub fn new(done: u64, total: u64, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal() && !quiet;
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed} eta {eta}  {msg}") {
            bar.set_style(style);
        }
        bar.set_position(done);
        bar.reset_eta();
        Self { bar, lines: !terminal && !quiet, last: None, quiet }
    }

    /// The state at a step.
    pub fn at(&mut self, step: u64, message: impl FnOnce() -> String) {
        self.bar.set_position(step);
        let due = self.last.is_none_or(|last| last.elapsed() >= PAUSE) || Some(step) == self.bar.length();
        if !self.bar.is_hidden() {
            self.bar.set_message(message());
        } else if self.lines && due {
            self.last = Some(Instant::now());
            let left = self.bar.eta().as_secs();
            tracing::info!("step {step}/{}  eta {}:{:02}  {}", self.bar.length().unwrap_or(0), left / 60, left % 60, message());
        }
    }

    /// One step done without anything to say.
    pub fn tick(&self, step: u64) {
        self.bar.set_position(step);
    }

    /// A line that stays.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            self.bar.suspend(|| tracing::info!("{text}"));
        }
    }

    /// A line that stays, however quiet the run.
    pub fn warn(&self, text: &str) {
        self.bar.suspend(|| tracing::warn!("{text}"));
    }

    /// Leaves the terminal clean.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A bar on standard error for what is fetched; warnings as lines.
pub struct Downloads {
    quiet: bool,
    file: String,
    bar: ProgressBar,
}

impl Downloads {
    /// With `quiet`, warnings alone.
    pub fn new(quiet: bool) -> Self {
        Self { quiet, file: String::new(), bar: ProgressBar::hidden() }
    }

    /// Shows what happens.
    pub fn see(&mut self, event: softclip_pretrained::Event<'_>) {
        match event {
            softclip_pretrained::Event::Warning(text) => self.bar.suspend(|| tracing::warn!("{text}")),
            softclip_pretrained::Event::Download { file, done, total } if !self.quiet => {
                if self.file != file {
                    self.bar.finish_and_clear();
                    self.file = file.to_owned();
                    self.bar = ProgressBar::new(total.unwrap_or(0));
                    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:24} {bytes}/{total_bytes} eta {eta}") {
                        self.bar.set_style(style);
                    }
                    self.bar.set_message(self.file.clone());
                }
                self.bar.set_position(done);
            }
            softclip_pretrained::Event::Download { .. } => {}
        }
    }
}

impl Drop for Downloads {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
