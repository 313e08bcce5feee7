//! Time, memory and arithmetic of whole training steps, with captions trimmed to the batch's longest and not.

mod inputs;
mod report;

use std::time::Instant;

use softclip_encoders::{ClipConfig, VisionConfig};
use softclip_loss::LossConfig;
use softclip_tensor::Precision;
use softclip_torch::{AdamWOptions, guard, linear, memory, reset_peak_memory, synchronize, trim_heap, tune_training};
use tch::{Device, Kind, Tensor, no_grad};

use self::inputs::Batches;
pub(crate) use self::inputs::made_up;
pub use self::report::{Case, ModelTimes, StepTimes};
use crate::config::ConfigError;
use crate::step::Phases;
use crate::{Model, Result, StepOptions, Trainer};

/// What [`step_times`] measures.
#[derive(Clone, Debug)]
pub struct StepBench {
    /// Presets' names.
    pub models: Vec<String>,
    /// Pairs a step.
    pub batch_size: usize,
    /// Number type of the encoders.
    pub precision: Precision,
    /// Whether GPUs multiply f32 matrices in TF32.
    pub tf32: bool,
    /// Timed steps a case, after one that is not.
    pub steps: usize,
    /// Which captions.
    pub captions: Captions,
    /// Pairs to train on; `None`: random images, and captions as long as COCO's.
    pub data: Option<String>,
    /// Where.
    pub device: Device,
}

/// How long a batch's rows of tokens are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Captions {
    /// Both of the following in turn.
    Both,
    /// As long as the longest caption.
    Trimmed,
    /// As long as the model allows.
    Untrimmed,
}

impl Captions {
    /// Whether each case is trimmed.
    fn cases(self) -> &'static [bool] {
        match self {
            Captions::Both => &[true, false],
            Captions::Trimmed => &[true],
            Captions::Untrimmed => &[false],
        }
    }
}

/// Steps of CLIP training: normalisation, both towers forward and backward, loss, clipping, AdamW. Cases take turns, so that a machine
/// that slows down slows both.
///
/// # Errors
/// A preset is unknown, the data cannot be read or is too little, `steps` or the batch size is 0, or the device has no memory left.
pub fn step_times(bench: &StepBench) -> Result<StepTimes> {
    for (key, value) in [("--steps", bench.steps), ("--batch-size", bench.batch_size)] {
        if value == 0 {
            return Err(ConfigError::Value { key: key.to_owned(), why: "0: at least 1".to_owned() }.into());
        }
    }
    tune_training(bench.tf32)?;
    let mut matmul = 0f64;
    let mut models = Vec::with_capacity(bench.models.len());
    for model in &bench.models {
        // Before and after: a busy machine shows its peak now and then only.
        matmul = matmul.max(matmul_rate(bench.device, bench.precision)?);
        models.push(model_times(bench, model)?);
        matmul = matmul.max(matmul_rate(bench.device, bench.precision)?);
    }
    models.iter_mut().flat_map(|m| m.trimmed.iter_mut().chain(&mut m.untrimmed)).for_each(|case| case.of(matmul));
    Ok(StepTimes {
        device: match bench.device {
            Device::Cuda(index) => format!("cuda:{index}"),
            other => format!("{other:?}").to_lowercase(),
        },
        threads: tch::get_num_threads(),
        precision: bench.precision,
        tf32: bench.tf32,
        batch_size: bench.batch_size,
        steps: bench.steps,
        data: bench.data.clone(),
        matmul_flops_per_second: matmul,
        models,
    })
}

/// Of one case while it runs.
#[derive(Default)]
struct Seen {
    tokens: i64,
    best: Option<(f64, Phases)>,
    wait: f64,
    peak: u64,
}

fn model_times(bench: &StepBench, name: &str) -> Result<ModelTimes> {
    let config = ClipConfig::preset(name)?;
    // What the model before this one left behind is none of this one's memory.
    trim_heap();
    let mut trainer = trainer(bench, &config)?;
    let mut batches = Batches::new(bench, &config)?;
    let cases = bench.captions.cases();
    let mut seen: Vec<Seen> = cases.iter().map(|_| Seen::default()).collect();
    for round in 0..=bench.steps {
        for (seen, &trimmed) in seen.iter_mut().zip(cases) {
            if round == 0 {
                // Freed memory is kept: a case's peak shows in its first step only, the smaller case first.
                reset_peak_memory(bench.device)?;
            }
            let (inputs, wait) = batches.next(trimmed)?;
            synchronize(bench.device)?;
            let start = Instant::now();
            let phases = trainer.step(&inputs, 1e-5)?.phases;
            let seconds = start.elapsed().as_secs_f64();
            if round == 0 {
                let memory = memory(bench.device);
                seen.peak = memory.device_peak.unwrap_or(memory.host_peak);
                continue;
            }
            seen.tokens = seen.tokens.max(inputs.tokens.tokens.size()[1]);
            seen.wait += wait / bench.steps as f64;
            if seen.best.is_none_or(|(best, _)| seconds < best) {
                seen.best = Some((seconds, phases));
            }
        }
    }
    let case = |seen: &Seen| {
        let (step, phases) = seen.best.unwrap_or_default();
        let flops = config.flops(seen.tokens).training() * bench.batch_size as u64;
        Case::new(seen.tokens, phases, seen.wait, step, bench.batch_size, seen.peak, flops)
    };
    let of = |wanted: bool| cases.iter().zip(&seen).find(|(trimmed, _)| **trimmed == wanted).map(|(_, seen)| case(seen));
    Ok(ModelTimes { model: name.to_owned(), trimmed: of(true), untrimmed: of(false) })
}

fn trainer(bench: &StepBench, config: &ClipConfig) -> Result<Trainer> {
    let loss = LossConfig::Clip(Default::default());
    let model = Model::new(config, loss.needs(), 0.07, 0, bench.device)?;
    let transformer = matches!(config.vision, VisionConfig::Vit(_));
    let adam = AdamWOptions { beta1: 0.9, beta2: if transformer { 0.98 } else { 0.999 }, eps: 1e-6 };
    let options = StepOptions { precision: bench.precision, grad_clip: 1.0, adam, ..StepOptions::default() };
    let mut trainer = Trainer::new(model, loss, options)?;
    trainer.time_phases();
    Ok(trainer)
}

/// Operations a second of the fastest large product of matrices: the device's peak as libtorch reaches it.
fn matmul_rate(device: Device, precision: Precision) -> Result<f64> {
    let (n, runs) = if device == Device::Cpu { (2048i64, 5) } else { (8192, 20) };
    guard(|| matmul_rate_or_panic(device, precision, n, runs))?
}

/// Plain operators panic where the device has no memory left.
fn matmul_rate_or_panic(device: Device, precision: Precision, n: i64, runs: usize) -> Result<f64> {
    let make = || Tensor::f_randn([n, n], (Kind::Float, device)).map(|x| x.to_kind(precision.kind()));
    let (a, b) = (make()?, make()?);
    let mut best = f64::INFINITY;
    for _ in 0..runs {
        synchronize(device)?;
        let start = Instant::now();
        let product = no_grad(|| linear(&a, &b, None));
        synchronize(device)?;
        best = best.min(start.elapsed().as_secs_f64());
        drop(product);
    }
    Ok(2.0 * (n as f64).powi(3) / best)
}
