//! Batches for benches: made up once, or from a loader.

use std::time::Instant;

use softclip_data::image::{Augment, Transform};
use softclip_data::loader::{LoadError, LoaderOptions, Position, TrainBatches, train_batches};
use softclip_data::rng::{RngKey, Stream};
use softclip_encoders::{ClipConfig, TextConfig};
use softclip_tensor::TokenRows;
use tch::{Device, Kind, Tensor};

use super::StepBench;
use crate::{Inputs, Result};

pub(super) struct Batches {
    from: From,
    context: i64,
    padding: i64,
    device: Device,
}

enum From {
    /// The same batch always.
    Memory(Inputs),
    Loader(TrainBatches),
}

impl Batches {
    pub(super) fn new(bench: &StepBench, config: &ClipConfig) -> Result<Self> {
        let from = match &bench.data {
            None => From::Memory(made_up(lengths(bench.batch_size), config, bench.device)?),
            Some(data) => {
                let transform = Transform::train(config.image_size() as u32, Augment::default());
                let context_length = config.context_length() as usize;
                let options = LoaderOptions { context_length, ..LoaderOptions::new(bench.batch_size, transform) };
                From::Loader(train_batches(softclip_data::source::open(data)?, options, Position::default())?)
            }
        };
        let padding = match &config.text {
            TextConfig::Clip(_) => 0,
            TextConfig::Bert(c) => c.pad_token_id,
        };
        Ok(Self { from, context: config.context_length(), padding, device: bench.device })
    }

    /// A batch on the device, and the seconds that it was waited for, its way to the device among them.
    pub(super) fn next(&mut self, trimmed: bool) -> Result<(Inputs, f64)> {
        let start = Instant::now();
        let (mut inputs, wait) = match &mut self.from {
            From::Memory(inputs) => (shallow(inputs), 0.0),
            From::Loader(batches) => {
                let none = || LoadError::Worker("there is no further batch".to_owned());
                let inputs = Inputs::from(batches.next().ok_or_else(none)??.batch.to_device(self.device)?);
                softclip_torch::synchronize(self.device)?;
                (inputs, start.elapsed().as_secs_f64())
            }
        };
        if !trimmed {
            let tokens = &mut inputs.tokens.tokens; // [N, L]
            *tokens = tokens.f_pad([0, self.context - tokens.size()[1]], "constant", self.padding as f64)?;
        }
        Ok((inputs, wait))
    }
}

fn shallow(inputs: &Inputs) -> Inputs {
    let TokenRows { tokens, lengths } = &inputs.tokens;
    Inputs {
        images: inputs.images.shallow_clone(),
        tokens: TokenRows { tokens: tokens.shallow_clone(), lengths: lengths.clone() },
        tags: None,
        regions: None,
        category: None,
    }
}

/// Tokens of captions as COCO's have them: 10 to 14 mostly, a few over 20, start and end among them.
fn lengths(n: usize) -> Vec<i64> {
    let length = |i: usize| {
        let mut rng = RngKey::new(0, 0, i as u64).rng(Stream::Caption);
        // Ten, and as many more as a coin lands heads three times out of four.
        10 + (0..20).take_while(|_| rng.chance(0.72)).count() as i64
    };
    (0..n).map(length).collect()
}

/// Random images, and captions of `lengths` tokens.
pub(crate) fn made_up(lengths: Vec<i64>, config: &ClipConfig, device: Device) -> Result<Inputs> {
    let (n, side) = (lengths.len() as i64, config.image_size());
    let images = Tensor::f_randint(256, [n, 3, side, side], (Kind::Uint8, Device::Cpu))?.f_to_device(device)?;
    let width = lengths.iter().copied().max().unwrap_or(2);
    let mut ids = vec![0i64; (n * width) as usize];
    for (row, &length) in ids.chunks_exact_mut(width as usize).zip(&lengths) {
        let last = length as usize - 1;
        row[..last].iter_mut().enumerate().for_each(|(i, id)| *id = 320 + (i * 37) as i64);
        (row[0], row[last]) = (config.text.vocab_size() - 2, config.text.vocab_size() - 1);
    }
    let tokens = TokenRows { tokens: Tensor::from_slice(&ids).view([n, width]).f_to_device(device)?, lengths };
    Ok(Inputs { images, tokens, tags: None, regions: None, category: None })
}
