//! What models make of the data, one model in memory at a time.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use softclip_data::source::Source;
use softclip_eval::{Encoded, EvalError, EvalOptions, encode_source};
use softclip_loss::LossConfig;
use softclip_loss::config::Blend;
use softclip_train::{BatchTargets, TrainedModel};
use tch::Device;

use super::run::Run;
use super::words::{self, Photo};
use crate::explain;
use crate::progress::Count;

/// Images or captions a forward pass.
const BATCH: usize = 64;
/// The same pairs are drawn in every page.
const SEED: u64 = 0;

/// A model's view of the data.
pub struct View {
    pub name: String,
    pub colour: usize,
    pub encoded: Encoded,
    /// 1/τ.
    pub scale: f64,
}

/// A batch, and what a run's loss and model make of it.
pub struct Seen {
    pub name: String,
    pub colour: usize,
    pub soft: bool,
    /// What is to be known of the loss to read its matrices.
    pub note: Option<String>,
    pub batch: BatchTargets,
}

/// What was found of all runs, and what is missing, in words.
#[derive(Default)]
pub struct Views {
    pub views: Vec<View>,
    pub seen: Vec<Seen>,
    /// Of each run that was opened its name, its colour, and what it sees in each photograph.
    pub words: Vec<(String, usize, Vec<explain::View>)>,
    pub missing: Vec<String>,
}

/// Where to look, and how.
pub struct Look<'a> {
    pub source: Arc<dyn Source>,
    /// Samples for the soft targets, and how many.
    pub batch: (Arc<dyn Source>, usize),
    /// Photographs to look for words in.
    pub photos: &'a [Photo],
    pub device: Device,
    pub stop: &'a AtomicBool,
}

/// Encodes the data with the newest model of each run; `None` if it was told to stop. A run without a model is told of.
pub fn look(runs: &[Run], look: &Look) -> Result<Option<Views>> {
    let mut all = Views::default();
    let count = RefCell::new(Count::new("encoding"));
    for (i, run) in runs.iter().enumerate() {
        let done = |n: usize, of: usize| {
            count.borrow_mut().set(i * of + n, runs.len() * of);
            if look.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let trained = match TrainedModel::open(&run.dir, look.device) {
            Ok(trained) => trained,
            Err(e) => {
                all.missing.push(format!("{}: {e}.", run.name));
                continue;
            }
        };
        let config = &trained.config;
        let options = EvalOptions {
            precision: config.train.precision,
            batch_size: BATCH,
            decode: config.data.decode,
            workers: config.data.workers,
            max_bad_share: config.data.max_bad_share,
            tokenizer: Some(trained.tokenizer.clone()),
            ..EvalOptions::new(look.device)
        };
        match encode_source(trained.model.clip(), Arc::clone(&look.source), &options, &done) {
            Ok(encoded) => all.add(View { name: run.name.clone(), colour: run.colour, encoded, scale: trained.logit_scale() }),
            Err(EvalError::Stopped) => return Ok(None),
            Err(e) => all.missing.push(format!("{}: {e}.", run.name)),
        }
        let stopped = || look.stop.load(Ordering::Relaxed);
        if stopped() {
            return Ok(None);
        }
        match words::see(&run.name, &trained, look.photos, look.device) {
            Ok(seen) => all.words.push((run.name.clone(), run.colour, seen)),
            Err(e) => all.missing.push(format!("{}: no heat maps of words: {e}.", run.name)),
        }
        if stopped() {
            return Ok(None);
        }
        let (source, pairs) = &look.batch;
        match trained.batch_targets(Arc::clone(source), (*pairs).min(source.len()), SEED) {
            Ok(batch) => all.seen.push(Seen {
                name: run.name.clone(),
                colour: run.colour,
                soft: trained.has_soft_targets(),
                note: note(&config.loss, trained.has_soft_targets()),
                batch,
            }),
            Err(e) => all.missing.push(format!("{}: no targets of a batch: {e}.", run.name)),
        }
    }
    count.into_inner().finish();
    Ok(Some(all))
}

/// How a loss's rows are to be read where they are not those of a softmax beside targets that sum to 1.
fn note(loss: &LossConfig, soft: bool) -> Option<String> {
    let alone = || format!("its loss, {}, has the own pair alone as its target", loss.name());
    match loss {
        LossConfig::Siglip(_) => Some(format!(
            "{}; it takes the sigmoid of each pair by itself, and the matrix of the model is the softmax of the same logits",
            alone()
        )),
        LossConfig::TextBased(c) if soft && c.blend == Blend::Targets => {
            Some("rows of its target are cosines of texts blended with the own pair, and do not sum to 1".to_owned())
        }
        LossConfig::Softclip(c) if soft && c.soft == 0.0 => Some(
            "its loss compares with the target without the own pair alone, each row divided by what is left of it (soft is 0)"
                .to_owned(),
        ),
        _ if !soft => Some(alone()),
        _ => None,
    }
}

impl Views {
    /// Views of other samples cannot stand beside the first.
    fn add(&mut self, view: View) {
        match self.views.first() {
            Some(first) if first.encoded.indices != view.encoded.indices || first.encoded.owner != view.encoded.owner => {
                self.missing.push(format!("{}: it reads other samples of the data than {}.", view.name, first.name));
            }
            _ => self.views.push(view),
        }
    }
}
