//! What models make of the data, one model in memory at a time.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use softclip_data::source::Source;
use softclip_eval::{Encoded, EvalError, EvalOptions, encode_source};
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
    pub loss: &'static str,
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
        match words::see(&run.name, &trained, look.photos, look.device) {
            Ok(seen) => all.words.push((run.name.clone(), run.colour, seen)),
            Err(e) => all.missing.push(format!("{}: no heat maps of words: {e}.", run.name)),
        }
        let (source, pairs) = &look.batch;
        match trained.batch_targets(Arc::clone(source), (*pairs).min(source.len()), SEED) {
            Ok(batch) => all.seen.push(Seen {
                name: run.name.clone(),
                colour: run.colour,
                soft: trained.has_soft_targets(),
                loss: config.loss.name(),
                batch,
            }),
            Err(e) => all.missing.push(format!("{}: no targets of a batch: {e}.", run.name)),
        }
    }
    count.into_inner().finish();
    Ok(Some(all))
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
