//! Scoring: threads make batches, the main thread encodes them and writes.

mod fetch;
mod images;
mod loader;
mod output;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use softclip_data::image::{DecodeOptions, Transform};
use softclip_data::tokenizer::Tokenizer;
use softclip_encoders::Clip;
use softclip_tensor::Embeddings;
use softclip_torch::{Autocast, Precision, guard};
use tch::{Device, Kind, Tensor, no_grad};

use crate::error::Result;
use crate::pairs::Table;
use crate::report::{Meter, Stage};
pub use fetch::Fetch;
pub use images::{Naming, Places, Remote};
use loader::{Batch, Loader, Texts};
pub use output::{Format, Output, refuse_same_file};

/// How many failed rows a summary tells of.
const TOLD: usize = 10;

/// A model, and what its images and captions go through.
#[derive(Clone, Copy, Debug)]
pub struct Scorer<'a> {
    /// The encoders, on `device`.
    pub clip: &'a Clip,
    /// What reads captions.
    pub tokenizer: &'a Tokenizer,
    /// Where it computes.
    pub device: Device,
    /// Number type of the encoders; embeddings and scores are f32.
    pub precision: Precision,
    /// `logit_bias` of a model that was trained with SigLIP's loss. With it the model states a probability for each pair.
    pub logit_bias: Option<f64>,
}

/// How pairs are scored. Scores do not depend on it, but for rounding in f32.
#[derive(Clone)]
pub struct ScoreOptions<'a> {
    /// Rows a batch.
    pub batch_size: usize,
    /// Threads that read and decode images; 0: one a core.
    pub threads: usize,
    /// Limits and habits of decoding.
    pub decode: DecodeOptions,
    /// Scoring ends soon after it is set.
    pub stop: Arc<AtomicBool>,
    /// Told the number of rows done after each batch.
    pub progress: &'a dyn Fn(u64),
}

impl Default for ScoreOptions<'_> {
    /// 32 rows a batch, all threads, no progress.
    fn default() -> Self {
        let stop = Arc::default();
        ScoreOptions { batch_size: 32, threads: 0, decode: DecodeOptions::default(), stop, progress: &|_| {} }
    }
}

/// How well an image and a caption fit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// The cosine of the embeddings, in [−1, 1].
    pub cosine: f32,
    /// The cosine by the model's temperature, and its bias where it has one: e^`logit_scale` · cosine + `logit_bias`.
    pub logit: f32,
    /// The sigmoid of the logit, in [0, 1]; `None` for a model without a bias, whose softmax compares pairs and states no probability
    /// of a single one.
    pub probability: Option<f32>,
}

/// What turns cosines into logits.
#[derive(Clone, Copy)]
struct LogitParams {
    scale: f64,
    bias: Option<f64>,
}

impl LogitParams {
    fn score(self, cosine: f32) -> Score {
        let logit = self.scale * f64::from(cosine) + self.bias.unwrap_or(0.0);
        let probability = self.bias.map(|_| (1.0 / (1.0 + (-logit).exp())) as f32);
        Score { cosine, logit: logit as f32, probability }
    }
}

/// What became of a table's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows written.
    pub rows: u64,
    /// Rows that have a score.
    pub scored: u64,
    /// Rows that have an error.
    pub failed: u64,
    /// Captions longer than the model's context, which were cut.
    pub captions_cut: u64,
    /// Line and error of the first ten that failed.
    pub failures: Vec<(u64, String)>,
    /// Whether it was stopped before the end.
    pub stopped: bool,
}

impl<'a> Scorer<'a> {
    /// In f32, without a bias.
    pub fn new(clip: &'a Clip, tokenizer: &'a Tokenizer, device: Device) -> Self {
        Scorer { clip, tokenizer, device, precision: Precision::Fp32, logit_bias: None }
    }

    /// Scores every row of `table`, in its order, and writes it to `output`, which the caller finishes.
    ///
    /// # Errors
    /// The table cannot be read, the scores cannot be written, the table has a column `probability` and so has the model, or libtorch
    /// fails (lack of memory). An invalid row is no error of the whole: its column `error` has the reason.
    pub fn score(
        &self,
        table: Table,
        places: Places,
        options: &ScoreOptions,
        output: &mut Output,
        meter: &mut Meter,
    ) -> Result<Summary> {
        output.begin(self.logit_bias.is_some())?;
        let config = self.clip.config();
        let texts = Texts { tokenizer: self.tokenizer.clone(), context: config.context_length() as usize };
        let mut loader = Loader::start(
            table,
            places,
            Transform::eval(config.image_size() as u32).with_floor_crop(config.floor_crop),
            texts,
            options,
        )?;
        let logits = LogitParams { scale: self.clip.logit_scale().double_value(&[]).exp(), bias: self.logit_bias };
        let mut summary = Summary::default();
        // The encoders' operators panic where libtorch fails.
        guard(|| {
            no_grad(|| {
                // Over all batches, so that weights are cast once.
                let _autocast = Autocast::enter(self.device, self.precision)?;
                while let Some(batch) = meter.time(Stage::Wait, || loader.next())? {
                    let batch = batch?;
                    let cosines = self.cosines(&batch, meter)?;
                    meter.time(Stage::Score, || write(&batch, &cosines, logits, output, &mut summary))??;
                    (options.progress)(summary.rows);
                }
                Ok::<_, crate::Error>(())
            })
        })??;
        summary.stopped = options.stop.load(Ordering::Relaxed);
        Ok(summary)
    }

    /// The cosine of each pair of the batch that has an image and a caption.
    fn cosines(&self, batch: &Batch, meter: &mut Meter) -> Result<Vec<f32>> {
        for (stage, busy) in [Stage::Read, Stage::Decode, Stage::Tokenize].into_iter().zip(batch.busy) {
            meter.add(stage, busy);
        }
        if batch.texts.is_empty() {
            return Ok(Vec::new());
        }
        let images = meter.time(Stage::Image, || self.images(batch))??; // [images, D]
        let (texts, place) = meter.time(Stage::Text, || self.texts(&batch.texts))??; // [texts, D]
        meter.time(Stage::Score, || {
            let pairs = || batch.rows.iter().filter_map(|row| row.pair.as_ref().ok());
            let rows = |numbers: Vec<i64>| Tensor::from_slice(&numbers).f_to_device(self.device);
            let images = images.f_index_select(0, &rows(pairs().map(|(image, _)| *image as i64).collect())?)?;
            let texts = texts.f_index_select(0, &rows(pairs().map(|(_, text)| place[*text]).collect())?)?;
            let products = images.f_mul(&texts)?.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)?;
            Ok(Vec::<f32>::try_from(products.f_to_device(Device::Cpu)?)?)
        })?
    }

    /// Unit embeddings `[N, D]` of the batch's images.
    fn images(&self, batch: &Batch) -> Result<Tensor> {
        let size = self.clip.config().image_size();
        let bytes = Tensor::f_from_data_size(&batch.pixels, &[batch.images as i64, 3, size, size], Kind::Uint8)?;
        unit(&self.clip.encode_pixels(&bytes.f_to_device(self.device)?)?)
    }

    /// Unit embeddings `[N, D]` of texts from the shortest to the longest, and the row of each. Texts of like length share a pass, so
    /// that little of it is padding.
    fn texts(&self, texts: &[Vec<i64>]) -> Result<(Tensor, Vec<i64>)> {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&i| texts[i].len());
        let part = (texts.len() / 2).max(16);
        let encoded = order.chunks(part).map(|part| {
            let width = part.iter().map(|&i| texts[i].len()).max().unwrap_or(0);
            let mut tokens = vec![self.tokenizer.pad_token(); part.len() * width];
            for (slot, &i) in tokens.chunks_exact_mut(width).zip(part) {
                slot[..texts[i].len()].copy_from_slice(&texts[i]);
            }
            let tokens = Tensor::from_slice(&tokens).f_view([part.len() as i64, width as i64])?;
            unit(&self.clip.encode_text(&tokens.f_to_device(self.device)?)?)
        });
        let encoded = Tensor::f_cat(&encoded.collect::<Result<Vec<_>>>()?, 0)?;
        let mut place = vec![0; order.len()];
        order.iter().zip(0i64..).for_each(|(&i, row)| place[i] = row);
        Ok((encoded, place))
    }
}

fn unit(features: &Tensor) -> Result<Tensor> {
    Ok(Embeddings::normalize(&features.f_to_kind(Kind::Float)?)?.into_tensor())
}

/// Writes a batch and counts it.
fn write(batch: &Batch, cosines: &[f32], logits: LogitParams, output: &mut Output, summary: &mut Summary) -> Result<()> {
    let mut cosines = cosines.iter();
    for loaded in &batch.rows {
        let score = loaded.pair.as_ref().map_err(Clone::clone).and_then(|_| match cosines.next() {
            Some(&cosine) if cosine.is_finite() => Ok(logits.score(cosine)),
            _ => Err("the score is not a number: does the model suit this precision?".to_owned()),
        });
        output.row(&loaded.row.cells, &score)?;
        summary.rows += 1;
        match score {
            Ok(_) => summary.scored += 1,
            Err(why) => {
                summary.failed += 1;
                if summary.failures.len() < TOLD {
                    summary.failures.push((loaded.row.line, why));
                }
            }
        }
    }
    summary.captions_cut += batch.cut;
    output.flush()
}
