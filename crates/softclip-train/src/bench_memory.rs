//! Peak memory and time of whole training steps, by what saves memory.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use softclip_encoders::ClipConfig;
use softclip_loss::LossConfig;
use softclip_tensor::Precision;
use softclip_torch::{
    Error as TorchError, MemoryStats, available_memory, limit_memory, memory, reset_peak_memory, synchronize, trim_heap,
    tune_training,
};
use tch::Device;

use crate::bench::made_up;
use crate::config::ConfigError;
use crate::{Error, Inputs, Model, Result, StepOptions, Trainer};

/// Tokens of every caption.
const TOKENS: i64 = 32;

/// What a process leaves to others of the memory that it finds free.
const RESERVE: u64 = 1 << 30;

/// SIGKILL.
const KILLED: i32 = 9;

/// One way to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryCase {
    /// A preset's name.
    pub model: String,
    /// Pairs a step.
    pub batch_size: i64,
    /// Pairs that are encoded with their graph at once, if not all.
    pub chunk_size: Option<i64>,
    /// Whether blocks are recomputed in backward.
    pub recompute: bool,
    /// Number type of the encoders.
    pub precision: Precision,
    /// Whether GPUs multiply f32 matrices in TF32.
    pub tf32: bool,
    /// Timed steps.
    pub steps: usize,
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum MemoryOutcome {
    /// It was measured.
    Done(MemoryUse),
    /// It ended before.
    Failed {
        /// Why: most often because memory ran out.
        why: String,
    },
}

/// Memory in bytes and time of steps of CLIP training: normalisation, both towers forward and backward, loss, AdamW.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// What is there between steps: libraries, weights, gradients, moments, the batch.
    pub resident: u64,
    /// The most that a step needed beside it.
    pub peak: u64,
    /// Shortest of the timed steps.
    pub seconds: f64,
}

/// A measured case.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemoryRow {
    /// The case.
    #[serde(flatten)]
    pub case: MemoryCase,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: MemoryOutcome,
}

impl MemoryRow {
    /// The line above a table of these.
    pub fn heading() -> String {
        format!(
            "{:<12} {:>5} {:>5}  {:<9} {:>11} {:>11} {:>10}",
            "model", "batch", "chunk", "recompute", "resident", "peak", "step"
        )
    }
}

impl fmt::Display for MemoryRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MemoryCase { model, batch_size, chunk_size, recompute, .. } = &self.case;
        let chunk = chunk_size.map_or_else(|| "all".to_owned(), |chunk| chunk.to_string());
        write!(f, "{model:<12} {batch_size:>5} {chunk:>5}  {:<9} ", if *recompute { "yes" } else { "no" })?;
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        match &self.outcome {
            MemoryOutcome::Done(MemoryUse { resident, peak, seconds }) => {
                write!(f, "{:>7.2} GiB {:>7.2} GiB {seconds:>8.2} s", gib(*resident), gib(*peak))
            }
            MemoryOutcome::Failed { why } => write!(f, "{why}"),
        }
    }
}

/// Each model and batch size four times: as a whole, recomputed, in chunks, and both; twice where one chunk would hold the batch.
pub fn cases(
    models: &[String],
    batch_sizes: &[i64],
    chunk_size: i64,
    precision: Precision,
    tf32: bool,
    steps: usize,
) -> Vec<MemoryCase> {
    let ways = [(None, false), (None, true), (Some(chunk_size), false), (Some(chunk_size), true)];
    let case = |model: &String, batch_size, (chunk_size, recompute)| MemoryCase {
        model: model.clone(),
        batch_size,
        chunk_size,
        recompute,
        precision,
        tf32,
        steps,
    };
    let of = |model| {
        batch_sizes.iter().flat_map(move |&n| {
            let cut = ways.into_iter().filter(move |(chunk, _)| chunk.is_none_or(|chunk| chunk < n));
            cut.map(move |way| case(model, n, way))
        })
    };
    models.iter().flat_map(of).collect()
}

/// Checks what can be wrong with a case before it costs a process.
///
/// # Errors
/// An unknown preset, a batch of fewer than two pairs, an empty chunk, no step.
pub fn check(case: &MemoryCase) -> Result<()> {
    let wrong = |key: &str, why: &str| Err(ConfigError::Value { key: key.to_owned(), why: why.to_owned() }.into());
    ClipConfig::preset(&case.model)?;
    match case {
        MemoryCase { batch_size: ..2, .. } => wrong("--batch-size", "at least 2 pairs"),
        MemoryCase { chunk_size: Some(..1), .. } => wrong("--chunk-size", "at least 1"),
        MemoryCase { steps: 0, .. } => wrong("--steps", "0: at least 1"),
        _ => Ok(()),
    }
}

/// Measures a case in this process, which should do nothing else before or after: what memory was used for once shows in the peak.
/// On the CPU it may use what the system has free but for a reserve, and what it cannot get is an error: no other program has to go.
///
/// # Errors
/// Memory ran out, or as [`check`].
pub fn measure(case: &MemoryCase, device: Device) -> Result<MemoryUse> {
    check(case)?;
    if let Some(free) = available_memory(device) {
        limit_memory(share(free)?)?;
    }
    tune_training(case.tf32)?;
    let config = ClipConfig::preset(&case.model)?;
    let loss = LossConfig::Clip(Default::default());
    let model = Model::new(&config, loss.needs(), 0.07, 0, device)?;
    let options = StepOptions {
        precision: case.precision,
        chunk_size: case.chunk_size,
        recompute: case.recompute,
        ..StepOptions::default()
    };
    let mut trainer = Trainer::new(model, loss, options)?;
    // Afterwards gradients are there, and what libraries set aside once.
    trainer.step(&inputs(2, &config, device)?, 1e-5)?;
    let inputs = inputs(case.batch_size, &config, device)?;
    synchronize(device)?;
    trim_heap();
    let used = |stats: MemoryStats| (stats.device.unwrap_or(stats.host_rss), stats.device_peak.unwrap_or(stats.host_peak));
    reset_peak_memory(device)?;
    let (resident, _) = used(memory(device));
    let mut seconds = f64::INFINITY;
    for _ in 0..case.steps {
        let start = Instant::now();
        trainer.step(&inputs, 1e-5)?;
        synchronize(device)?;
        seconds = seconds.min(start.elapsed().as_secs_f64());
    }
    let (_, peak) = used(memory(device));
    Ok(MemoryUse { resident, peak: peak.saturating_sub(resident), seconds })
}

/// Bytes that a process may take of those that are free.
fn share(free: u64) -> Result<u64> {
    match free.checked_sub(RESERVE) {
        None | Some(0) => {
            let why = format!("{} MiB are free, and {} MiB are left to other programs", free >> 20, RESERVE >> 20);
            Err(TorchError::OutOfMemory(why).into())
        }
        Some(bytes) => Ok(bytes),
    }
}

/// Runs `child`, a program that prints the [`MemoryOutcome`] of one case as JSON, and tells what came of it, also where the system
/// ended it.
///
/// # Errors
/// It cannot be started.
pub fn measure_in(mut child: Command) -> Result<MemoryOutcome> {
    let started = child.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let ended = started.and_then(Child::wait_with_output).map_err(Error::io(child.get_program()))?;
    if let Ok(outcome) = serde_json::from_slice(&ended.stdout) {
        return Ok(outcome);
    }
    let why = match ended.status.signal() {
        Some(KILLED) => "killed (signal 9), as the system does when memory runs out".to_owned(),
        Some(signal) => format!("ended by signal {signal}"),
        None => format!("{} and no result", ended.status),
    };
    Ok(MemoryOutcome::Failed { why })
}

fn inputs(n: i64, config: &ClipConfig, device: Device) -> Result<Inputs> {
    made_up(vec![TOKENS.min(config.context_length()); n as usize], config, device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_and_size_is_taken_four_times() {
        let models = ["rn50".to_owned(), "vit_b_32".to_owned()];
        let all = cases(&models, &[8, 16], 4, Precision::Bf16, false, 2);
        assert_eq!(all.len(), 16);
        let ways: Vec<_> = all[4..8].iter().map(|c| (c.batch_size, c.chunk_size, c.recompute)).collect();
        assert_eq!(ways, [(16, None, false), (16, None, true), (16, Some(4), false), (16, Some(4), true)]);
        // A chunk that holds the batch is no chunk.
        let whole = cases(&models, &[2, 4], 4, Precision::Bf16, false, 2);
        assert!(whole.len() == 8 && whole.iter().all(|c| c.chunk_size.is_none()));
        assert!(all.iter().all(|case| check(case).is_ok()));
        for (wrong, words) in [
            (MemoryCase { model: "rn51".to_owned(), ..all[0].clone() }, "rn51"),
            (MemoryCase { batch_size: 1, ..all[0].clone() }, "--batch-size"),
            (MemoryCase { chunk_size: Some(0), ..all[0].clone() }, "--chunk-size"),
            (MemoryCase { steps: 0, ..all[0].clone() }, "--steps"),
        ] {
            let error = check(&wrong).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_reserve_is_left_to_others() {
        assert_eq!(share(RESERVE + 5).unwrap(), 5);
        for free in [0, 300 << 20, RESERVE] {
            let error = share(free).unwrap_err().to_string();
            assert!(error.contains(&format!("{} MiB are free", free >> 20)), "{error}");
        }
    }

    #[test]
    fn what_came_of_a_child_is_told() {
        let shell = |script: &str| {
            let mut child = Command::new("sh");
            child.args(["-c", script]);
            measure_in(child)
        };
        let done = shell(r#"echo '{"resident": 3, "peak": 5, "seconds": 0.5}'"#).unwrap();
        assert_eq!(done, MemoryOutcome::Done(MemoryUse { resident: 3, peak: 5, seconds: 0.5 }));
        let told = |script: &str| match shell(script).unwrap() {
            MemoryOutcome::Failed { why } => why,
            MemoryOutcome::Done(done) => panic!("{done:?}"),
        };
        assert_eq!(told(r#"echo '{"why": "out of memory"}'"#), "out of memory");
        assert!(told("kill -9 $$").contains("memory runs out"));
        assert!(told("exit 3").contains("exit status: 3"));
        let none = measure_in(Command::new("/nonexistent/program")).unwrap_err().to_string();
        assert!(none.contains("/nonexistent/program"), "{none}");
    }
}
