//! Where time and memory went.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;
use softclip_torch::{MemoryStats, memory, synchronize};
use tch::Device;

use crate::score::Summary;

/// A part of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Opening the model.
    Load,
    /// Reading or fetching images' files.
    Read,
    /// Decoding and resizing images.
    Decode,
    /// Captions to tokens.
    Tokenize,
    /// The main thread's waiting for these three.
    Wait,
    /// The image encoder, with the images' way to the device.
    Image,
    /// The text encoder.
    Text,
    /// Dot products, and writing them.
    Score,
}

const STAGES: [(Stage, &str); 8] = [
    (Stage::Load, "load the model"),
    (Stage::Read, "read or fetch images"),
    (Stage::Decode, "decode and resize"),
    (Stage::Tokenize, "tokenize"),
    (Stage::Wait, "wait for these three"),
    (Stage::Image, "image tower"),
    (Stage::Text, "text tower"),
    (Stage::Score, "score and write"),
];

/// Measures time and memory by stage.
#[derive(Debug)]
pub struct Meter {
    device: Device,
    start: Instant,
    at_start: MemoryStats,
    busy: [Duration; STAGES.len()],
    main: [Option<Duration>; STAGES.len()],
    host: [u64; STAGES.len()],
    on_device: [u64; STAGES.len()],
}

impl Meter {
    /// Starts the clock.
    pub fn start(device: Device) -> Self {
        Meter {
            device,
            start: Instant::now(),
            at_start: memory(device),
            busy: Default::default(),
            main: Default::default(),
            host: Default::default(),
            on_device: Default::default(),
        }
    }

    /// Does `work` on the main thread and books it to `stage`, until the device has done what it was asked for.
    ///
    /// # Errors
    /// What `work` asked for fails on the device.
    pub fn time<T>(&mut self, stage: Stage, work: impl FnOnce() -> T) -> Result<T, softclip_torch::Error> {
        let (before, start) = (memory(self.device), Instant::now());
        let value = work();
        synchronize(self.device)?;
        let (took, after, i) = (start.elapsed(), memory(self.device), stage as usize);
        *self.main[i].get_or_insert_default() += took;
        if stage != Stage::Wait {
            self.busy[i] += took;
        }
        self.host[i] += after.host_peak.saturating_sub(before.host_peak);
        self.on_device[i] += after.device_peak.unwrap_or(0).saturating_sub(before.device_peak.unwrap_or(0));
        Ok(value)
    }

    /// Books work that another thread has done.
    pub(crate) fn add(&mut self, stage: Stage, busy: Duration) {
        self.busy[stage as usize] += busy;
    }

    /// What was measured until now.
    pub fn report(&self, summary: &Summary) -> Report {
        let (seconds, peak) = (self.start.elapsed().as_secs_f64(), memory(self.device));
        let has_device = peak.device_peak.is_some();
        let stages = STAGES.iter().map(|&(stage, name)| {
            let i = stage as usize;
            StageReport {
                stage: name,
                busy_s: (stage != Stage::Wait).then(|| self.busy[i].as_secs_f64()),
                main_s: self.main[i].map(|main| main.as_secs_f64()),
                host_growth: self.main[i].map(|_| self.host[i]),
                device_growth: self.main[i].filter(|_| has_device).map(|_| self.on_device[i]),
            }
        });
        Report {
            rows: summary.rows,
            scored: summary.scored,
            failed: summary.failed,
            captions_cut: summary.captions_cut,
            stages: stages.collect(),
            seconds,
            seconds_a_pair: seconds / summary.rows.max(1) as f64,
            pairs_a_second: summary.rows as f64 / seconds,
            host_start: self.at_start.host_peak,
            host_peak: peak.host_peak,
            device_peak: peak.device_peak,
        }
    }
}

/// Time and memory of one stage.
#[derive(Clone, Debug, Serialize)]
pub struct StageReport {
    /// Its name.
    pub stage: &'static str,
    /// Seconds of work, summed over all threads that did it.
    pub busy_s: Option<f64>,
    /// Seconds that the main thread spent on it: they add up to the total but for what lies between.
    pub main_s: Option<f64>,
    /// Bytes by which the peak of the process's memory rose meanwhile.
    pub host_growth: Option<u64>,
    /// The same for the device.
    pub device_growth: Option<u64>,
}

/// What was done, and what it took. Its text is a table.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Rows read.
    pub rows: u64,
    /// Rows that have a score.
    pub scored: u64,
    /// Rows that have an error.
    pub failed: u64,
    /// Captions longer than the model's context, which were cut.
    pub captions_cut: u64,
    /// By stage.
    pub stages: Vec<StageReport>,
    /// Seconds from [`Meter::start`] on.
    pub seconds: f64,
    /// `seconds` by `rows`.
    pub seconds_a_pair: f64,
    /// `rows` by `seconds`.
    pub pairs_a_second: f64,
    /// Bytes of memory that the process had at [`Meter::start`], libtorch's code among them.
    pub host_start: u64,
    /// The most that it had until the end.
    pub host_peak: u64,
    /// The most that tensors took on the device; absent on the CPU.
    pub device_peak: Option<u64>,
}

const FOOT: &str = "busy: summed over the threads that did it; main: of the main thread, which the threads that read, decode and
tokenize work beside; memory: by how much the stage raised the peak (threads' share: with the main thread's stage).";

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |s: Option<f64>| s.map_or_else(|| "–".to_owned(), |s| format!("{s:.3}"));
        let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
        let growth = |bytes: Option<u64>| bytes.map_or_else(|| "–".to_owned(), |b| format!("+{}", mib(b)));
        let mut line = |cells: [&str; 5]| {
            let [name, busy, main, host, device] = cells;
            write!(f, "{name:<22} {busy:>10} {main:>10} {host:>10}")?;
            if self.device_peak.is_some() { writeln!(f, " {device:>11}") } else { writeln!(f) }
        };
        line(["", "busy s", "main s", "host MiB", "device MiB"])?;
        line(["before", "–", "–", &mib(self.host_start), "–"])?;
        for s in &self.stages {
            line([s.stage, &seconds(s.busy_s), &seconds(s.main_s), &growth(s.host_growth), &growth(s.device_growth)])?;
        }
        let device = self.device_peak.map(mib).unwrap_or_default();
        line(["total, peak", "", &format!("{:.3}", self.seconds), &mib(self.host_peak), &device])?;
        line(["a pair", "", &format!("{:.4}", self.seconds_a_pair), "", ""])?;
        writeln!(f, "{FOOT}")?;
        write!(f, "{} pairs, {} with a score, {:.1} pairs/s", self.rows, self.scored, self.pairs_a_second)?;
        if self.captions_cut > 0 {
            write!(f, "; {} captions were longer than the model's context and cut", self.captions_cut)?;
        }
        writeln!(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_of_the_main_thread_has_its_line() {
        let mut meter = Meter::start(Device::Cpu);
        meter.time(Stage::Image, || std::thread::sleep(Duration::from_millis(2))).unwrap();
        meter.time(Stage::Wait, || ()).unwrap();
        meter.add(Stage::Decode, Duration::from_secs(5));
        let summary = Summary { rows: 4, scored: 3, failed: 1, captions_cut: 2, ..Summary::default() };
        let report = meter.report(&summary);
        let text = report.to_string();
        let line =
            |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().rev().collect::<Vec<_>>();
        assert_eq!(line("decode")[..3], ["–", "–", "5.000"]);
        assert_eq!(line("wait")[2], "–");
        assert_eq!(line("image tower")[1], line("image tower")[2]);
        assert!(text.contains("4 pairs, 3 with a score") && text.contains("2 captions were longer") && !text.contains("device"));
        assert!(report.stages.iter().filter_map(|s| s.main_s).sum::<f64>() <= report.seconds);
    }
}
