//! Time of whole training steps, with captions trimmed to the batch's longest and not.

use std::fmt;
use std::time::Instant;

use serde::Serialize;
use softclip_data::rng::{RngKey, Stream};
use softclip_encoders::{ClipConfig, VisionConfig};
use softclip_loss::LossConfig;
use softclip_tensor::{Precision, TokenRows};
use softclip_torch::{AdamWOptions, synchronize};
use tch::{Device, Kind, Tensor};

use crate::config::ConfigError;
use crate::{Inputs, Model, Result, StepOptions, Trainer};

/// What [`step_time`] measures.
#[derive(Clone, Debug)]
pub struct StepBench {
    /// A preset's name.
    pub model: String,
    /// Pairs a step.
    pub batch_size: i64,
    /// Number type of the encoders.
    pub precision: Precision,
    /// Timed steps a case, after one that is not.
    pub steps: usize,
    /// Where.
    pub device: Device,
}

/// Seconds of a step of CLIP training: normalisation, both towers forward and backward, loss, clipping, AdamW.
#[derive(Clone, Debug, Serialize)]
pub struct StepTime {
    /// The model.
    pub model: String,
    /// Pairs a step.
    pub batch_size: i64,
    /// Tokens of the longest caption of the batch, start and end among them.
    pub longest: i64,
    /// Shortest of the timed steps, captions trimmed.
    pub trimmed: f64,
    /// Shortest of the timed steps, captions of 77 tokens.
    pub untrimmed: f64,
}

impl StepTime {
    /// How many times as fast trimming is.
    pub fn ratio(&self) -> f64 {
        self.untrimmed / self.trimmed
    }
}

impl fmt::Display for StepTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, batch_size, longest, trimmed, untrimmed } = self;
        let rate = |seconds: f64| *batch_size as f64 / seconds;
        write!(
            f,
            "{model:<12} batch {batch_size:>4}   {longest:>2} tokens {trimmed:>8.3} s ({:>7.1} pairs/s)   77 tokens {untrimmed:>8.3} s \
             ({:>7.1} pairs/s)   ratio {:.2}",
            rate(*trimmed),
            rate(*untrimmed),
            self.ratio()
        )
    }
}

/// Times both cases in turn.
///
/// # Errors
/// The preset is unknown, or the device has no memory left.
pub fn step_time(bench: &StepBench) -> Result<StepTime> {
    let config = ClipConfig::preset(&bench.model)?;
    let loss = LossConfig::Clip(Default::default());
    let model = Model::new(&config, loss.needs(), 0.07, 0, bench.device)?;
    let transformer = matches!(config.vision, VisionConfig::Vit(_));
    let adam = AdamWOptions { beta1: 0.9, beta2: if transformer { 0.98 } else { 0.999 }, eps: 1e-6 };
    let options = StepOptions { precision: bench.precision, grad_clip: 1.0, adam, ..StepOptions::default() };
    let mut trainer = Trainer::new(model, loss, options)?;
    let (inputs, longest) = (inputs(bench, &config, true)?, lengths(bench.batch_size).into_iter().max().unwrap_or(0));
    let cases = [inputs, self::inputs(bench, &config, false)?];
    let mut best = [f64::INFINITY; 2];
    for step in 0..=bench.steps {
        for (best, case) in best.iter_mut().zip(&cases) {
            let start = Instant::now();
            trainer.step(case, 1e-5)?;
            synchronize(bench.device)?;
            if step > 0 {
                *best = best.min(start.elapsed().as_secs_f64());
            }
        }
    }
    if !best[0].is_finite() {
        return Err(ConfigError::Value { key: "--steps".to_owned(), why: "0: at least 1".to_owned() }.into());
    }
    let (model, batch_size) = (bench.model.clone(), bench.batch_size);
    Ok(StepTime { model, batch_size, longest, trimmed: best[0], untrimmed: best[1] })
}

/// Tokens of captions as COCO's have them: 10 to 14 mostly, a few over 20, start and end among them.
fn lengths(n: i64) -> Vec<i64> {
    let length = |i: i64| {
        let mut rng = RngKey::new(0, 0, i as u64).rng(Stream::Caption);
        // Ten, and as many more as a coin lands heads three times out of four.
        10 + (0..20).take_while(|_| rng.chance(0.72)).count() as i64
    };
    (0..n).map(length).collect()
}

fn inputs(bench: &StepBench, config: &ClipConfig, trim: bool) -> Result<Inputs> {
    let (n, side) = (bench.batch_size, config.image_size());
    let images = Tensor::f_randint(256, [n, 3, side, side], (Kind::Uint8, Device::Cpu))?.f_to_device(bench.device)?;
    let lengths = lengths(n);
    let width = if trim { lengths.iter().copied().max().unwrap_or(2) } else { config.context_length() };
    let mut ids = vec![0i64; (n * width) as usize];
    for (row, &length) in ids.chunks_exact_mut(width as usize).zip(&lengths) {
        let last = length as usize - 1;
        row[..last].iter_mut().enumerate().for_each(|(i, id)| *id = 320 + (i * 37) as i64);
        (row[0], row[last]) = (config.text.vocab_size() - 2, config.text.vocab_size() - 1);
    }
    let tokens = TokenRows { tokens: Tensor::from_slice(&ids).view([n, width]).f_to_device(bench.device)?, lengths };
    Ok(Inputs { images, tokens, tags: None, regions: None, category: None })
}
