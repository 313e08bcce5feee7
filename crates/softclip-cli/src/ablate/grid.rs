//! The runs of a plan: which are finished, and running the others.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::HumanDuration;
use serde_json::json;
use softclip_tensor::file::write_atomic;
use softclip_train::ablation::{Cell, Plan};
use softclip_train::config::RunConfig;
use softclip_train::stop_on_signals;

use super::child::{Child, End, Resources};
use super::mark;

/// Between two looks at the processes.
const PAUSE: Duration = Duration::from_millis(200);

/// One run of the grid.
pub struct Run {
    pub cell: Cell,
    /// `RN50 / CLIP / seed 0`.
    pub name: String,
    pub dir: PathBuf,
    pub config: RunConfig,
    pub done: bool,
    /// How much of it was done before, in [0, 1].
    before: f64,
    /// Why it failed.
    pub failed: Option<String>,
}

impl Run {
    /// Arguments of `softclip` that train it.
    pub fn command(&self, more: &[String]) -> Vec<String> {
        let text = |path: &Path| path.display().to_string();
        let mut command = vec!["train".to_owned(), text(&self.cell.config), "--run-dir".to_owned(), text(&self.dir)];
        command.extend(self.cell.sets.iter().flat_map(|set| ["--set".to_owned(), set.clone()]));
        command.extend(more.iter().cloned());
        command
    }

    /// Writes down what it is made with, before it begins and when it is finished.
    fn mark(&mut self, finished: bool) -> Result<()> {
        std::fs::create_dir_all(&self.dir).with_context(|| self.dir.display().to_string())?;
        let text = serde_json::to_string(&json!({"finished": finished, "config": self.config}))?;
        write_atomic(mark(&self.dir), format!("{text}\n").as_bytes())?;
        self.done = finished;
        Ok(())
    }

    /// How much of it is done, in [0, 1], by the end of its log.
    fn progress(&self) -> f64 {
        let text = tail(&self.dir.join("metrics.jsonl"));
        let last = text.lines().rev().find(|line| line.starts_with('{') && line.ends_with('}') && line.contains("\"epoch\""));
        let line: serde_json::Value = serde_json::from_str(last.unwrap_or_default()).unwrap_or_default();
        let share = match self.config.train.steps {
            Some(steps) => line["step"].as_f64().unwrap_or(0.0) / steps as f64,
            None => line["epoch"].as_f64().unwrap_or(0.0) / self.config.train.epochs,
        };
        share.clamp(0.0, 1.0)
    }
}

/// The end of a file; nothing of one that is not there.
fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        let from = file.metadata()?.len().saturating_sub(1 << 14);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// All runs, in the order in which they are run.
pub struct Grid {
    pub runs: Vec<Run>,
    /// What is to be told of each.
    metrics: Vec<String>,
}

impl Grid {
    /// Resolves every configuration before the first run, and sees which runs are finished.
    pub fn open(plan: &Plan, sets: &[String], out: &Path) -> Result<Self> {
        let mut runs = Vec::new();
        for cell in plan.cells(sets) {
            let name = format!("{} / {} / seed {}", plan.columns[cell.column].name, plan.rows[cell.row].name, cell.seed);
            let config = cell.resolve().map_err(|e| e.of_plan(sets)).with_context(|| name.clone())?;
            if config.eval.is_empty() {
                bail!("{name}: its `eval` is empty, so that nothing would be measured: --set 'eval=[{{task: retrieval}}]'");
            }
            let dir = out.join(&cell.dir);
            let done = finished(&dir, &config)?;
            let mut run = Run { cell, name, dir, config, done, before: 0.0, failed: None };
            run.before = if done { 1.0 } else { run.progress() };
            runs.push(run);
        }
        Ok(Self { runs, metrics: plan.metrics.clone() })
    }

    /// Runs what is not finished; whether it was interrupted. Runs that fail are noted.
    pub fn run(&mut self, resources: &Resources) -> Result<bool> {
        // All would fail in the same way, one after another.
        if let Some(run) = self.runs.iter().find(|run| !run.done && run.config.data.train.is_none()) {
            bail!("{}: nothing to train on: --set data.train=SOURCE", run.name);
        }
        let stop = stop_on_signals()?;
        let mut waiting: Vec<usize> = (0..self.runs.len()).filter(|&i| !self.runs[i].done).rev().collect();
        let mut told = Told::new(self.runs.len(), waiting.len());
        let mut running: Vec<(usize, Child)> = Vec::new();
        let mut interrupted = false;
        loop {
            while !interrupted && running.len() < resources.jobs {
                let Some(i) = waiting.pop() else { break };
                let slot = (0..resources.jobs).find(|slot| running.iter().all(|(_, child)| child.slot != *slot)).unwrap_or(0);
                self.runs[i].mark(false)?;
                running.push((i, Child::start(&self.runs[i], slot, resources)?));
            }
            if running.is_empty() {
                break;
            }
            std::thread::sleep(PAUSE);
            if stop.load(Ordering::Relaxed) && !interrupted {
                interrupted = true;
                told.say("interrupted: the runs write their checkpoints");
                running.iter_mut().for_each(|(_, child)| child.stop());
            }
            let mut going_on = Vec::new();
            for (i, mut child) in running {
                match child.ended()? {
                    None => going_on.push((i, child)),
                    Some(end) => self.take(i, end, &mut told)?,
                }
            }
            running = going_on;
            told.update(&self.runs, &running);
        }
        told.finish();
        Ok(interrupted)
    }

    fn take(&mut self, i: usize, end: End, told: &mut Told) -> Result<()> {
        let run = &mut self.runs[i];
        match end {
            End::Done => {
                run.mark(true)?;
                told.done(&run.name);
                // A wrong name is better known after the first run than after the last.
                for metric in self.metrics.iter().filter(|_| told.done == 1) {
                    if let Err(e) = super::value(&run.dir, metric) {
                        tracing::warn!("{e:#}");
                    }
                }
            }
            End::Interrupted => {}
            End::Failed(why) => {
                tracing::warn!("{} failed: {why}; the others continue", run.name);
                run.failed = Some(why);
            }
        }
        Ok(())
    }
}

/// Whether the run in `dir` is finished. One that was begun with another configuration than `config` is refused: what it has learned
/// belongs to neither.
fn finished(dir: &Path, config: &RunConfig) -> Result<bool> {
    let path = mark(dir);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e).with_context(|| path.display().to_string()),
    };
    let marked: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("{}: remove it to run this again", path.display()))?;
    // Through text, as the other: numbers lose their last bit there or nowhere.
    let now: serde_json::Value = serde_json::from_str(&serde_json::to_string(config)?)?;
    match difference("", &marked["config"], &now) {
        None => Ok(marked["finished"] == true),
        Some((key, then, now)) => bail!(
            "{}: this run was begun with {key} = {then}, and the plan says {now}: give another --out, or remove the folder",
            dir.display()
        ),
    }
}

/// The first key whose values differ, and both.
fn difference(key: &str, then: &serde_json::Value, now: &serde_json::Value) -> Option<(String, String, String)> {
    match (then.as_object(), now.as_object()) {
        (Some(a), Some(b)) => {
            let null = serde_json::Value::Null;
            let join = |inner: &str| if key.is_empty() { inner.to_owned() } else { format!("{key}.{inner}") };
            let more = b.keys().filter(|inner| !a.contains_key(*inner));
            a.keys()
                .chain(more)
                .find_map(|inner| difference(&join(inner), a.get(inner).unwrap_or(&null), b.get(inner).unwrap_or(&null)))
        }
        _ => (then != now).then(|| (key.to_owned(), then.to_string(), now.to_string())),
    }
}

/// What is told on the way.
struct Told {
    bar: indicatif::ProgressBar,
    start: Instant,
    updated: Instant,
    /// Runs that were not finished at the start.
    of: usize,
    /// Of these, finished.
    done: usize,
}

impl Told {
    fn new(all: usize, of: usize) -> Self {
        if of < all {
            tracing::info!("{} of {all} runs are finished already", all - of);
        }
        Self { bar: crate::progress::bar("runs"), start: Instant::now(), updated: Instant::now(), of, done: 0 }
    }

    fn say(&self, text: &str) {
        tracing::info!("{text}");
    }

    fn done(&mut self, name: &str) {
        self.done += 1;
        let minutes = self.start.elapsed().as_secs_f64() / 60.0;
        self.say(&format!("{} of {}: {name} is finished, {minutes:.1} min after the start", self.done, self.of));
    }

    /// What this start has done and what is left, in runs, give the time that is left.
    fn update(&mut self, runs: &[Run], running: &[(usize, Child)]) {
        if self.updated.elapsed() < Duration::from_secs(2) {
            return;
        }
        self.updated = Instant::now();
        let (mut done, mut left) = (0.0, 0.0);
        for (i, run) in runs.iter().enumerate().filter(|(_, run)| run.failed.is_none()) {
            let now = match (run.done, running.iter().any(|(other, _)| *other == i)) {
                (true, _) => 1.0,
                (false, true) => run.progress().max(run.before),
                (false, false) => run.before,
            };
            done += now - run.before;
            left += 1.0 - now;
        }
        let rate = done / self.start.elapsed().as_secs_f64();
        let left = match rate > 0.0 {
            true => format!("{} left", HumanDuration(Duration::from_secs_f64(left / rate))),
            false => "no step yet".to_owned(),
        };
        let names: Vec<&str> = running.iter().map(|(i, _)| runs[*i].name.as_str()).collect();
        self.bar.set_length(self.of as u64);
        self.bar.set_position(self.done as u64);
        self.bar.set_message(format!("{left}; now {}", names.join(", ")));
    }

    fn finish(self) {
        self.bar.finish_and_clear();
    }
}
