//! Embeddings of whole collections: a row an image, caption or line, in files that NumPy reads.
//!
//! The work is done in parts, each kept in the folder as soon as it is done; at the end they are joined. Started again with the
//! same input, model and options, [`embed()`] goes on behind the last part, and the files that result are the same byte for byte
//! (on a CPU). Memory holds one part, whatever the collection's size.
//!
//! | file | is |
//! | --- | --- |
//! | `embeddings.npy` or `embeddings.safetensors` | `[N, D]`, f32 or f16, rows of unit length |
//! | `keys.jsonl` | an [`Entry`] a row, in the same order |
//! | `skipped.txt` | what could not be used: key, cause, detail |
//! | `meta.json` | [`Meta`]; written last |
//! | `plan.json`, `part-*.safetensors`, `parts.json` | unfinished work, and its checksums |

mod encoder;
mod entry;
mod files;
mod input;
mod join;
mod meta;
mod parts;
mod run;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

pub use encoder::Encoder;
pub(crate) use encoder::{crop, single};
pub use entry::Entry;
pub use input::{Input, SourceId, What};
pub use join::Format;
pub(crate) use join::KEYS;
pub use meta::{Dtype, Meta, ModelId, Plan};
use softclip_data::source::SourceFault;
use softclip_io::LockState;

use crate::error::{Error, Result};
use join::join;
use meta::PLAN;
use parts::{Parts, is_part, is_partial, skipped_line, sweep};
use run::Run;

/// How a collection is embedded.
#[derive(Clone, Debug)]
pub struct EmbedOptions {
    /// What the rows are kept as.
    pub format: Format,
    /// Their number type.
    pub dtype: Dtype,
    /// Images or texts a pass.
    pub batch_size: usize,
    /// Samples a part, rounded up to whole batches.
    pub part: usize,
    /// Loader threads; 0: one a core.
    pub workers: usize,
    /// The share of unreadable samples beyond which it stops.
    pub max_bad_share: f64,
}

impl Default for EmbedOptions {
    /// f32 as `.npy`, 64 a pass, 8192 a part, all threads, a tenth may be unreadable.
    fn default() -> Self {
        Self { format: Format::Npy, dtype: Dtype::F32, batch_size: 64, part: 8192, workers: 0, max_bad_share: 0.1 }
    }
}

/// Told the samples done and how many there are; says whether to go on.
pub type Progress<'a> = dyn FnMut(usize, usize) -> ControlFlow<()> + 'a;

/// How [`embed()`] ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What is in the folder now; `None` if `progress` wanted no more.
    pub meta: Option<Meta>,
    /// Samples that were done before this start.
    pub before: usize,
    /// Samples done in all.
    pub samples: usize,
    /// Rows made by this start.
    pub rows: usize,
    /// Seconds of this start.
    pub seconds: f64,
}

/// Embeds `input` into the folder `out`, or goes on with what was begun there. `model` tells whether the weights are the same.
///
/// # Errors
/// Reading or encoding; too many unreadable samples, or no readable one; a folder with other embeddings. What was done before stays.
pub fn embed(
    encoder: &Encoder,
    model: &ModelId,
    input: &Input,
    out: &Path,
    options: &EmbedOptions,
    progress: &mut Progress,
) -> Result<Outcome> {
    let start = Instant::now();
    if options.batch_size == 0 {
        return Err(Error::Input("batch_size is 0: at least 1".to_owned()));
    }
    fs::create_dir_all(out).map_err(Error::io(out))?;
    let lock = lock(out)?;
    let plan = Plan {
        version: 1,
        model: model.clone(),
        what: input.what,
        source: input.id.clone(),
        dim: encoder.dim(),
        dtype: options.dtype,
        precision: encoder.precision,
    };
    if let Some(meta) = finished(&plan, options.format, out, &lock)? {
        let samples = input.len();
        return Ok(Outcome { meta: Some(meta), before: samples, samples, rows: 0, seconds: start.elapsed().as_secs_f64() });
    }
    plan.keep(out)?;
    lock.remove_partials(out)?;
    let parts = Parts::open(out, plan.dim, plan.dtype)?;
    let (before, rows) = (parts.end(), parts.rows());
    let run = Run::new(encoder, options, parts, input, progress)?;
    let (parts, flow) = run.go(input)?;
    let meta = match flow {
        ControlFlow::Break(()) => None,
        ControlFlow::Continue(()) => Some(finish(&parts, plan, input.faults(), options.format, out)?),
    };
    let seconds = start.elapsed().as_secs_f64();
    Ok(Outcome { meta, before, samples: parts.end(), rows: parts.rows() - rows, seconds })
}

/// What an earlier start finished.
fn finished(plan: &Plan, format: Format, out: &Path, lock: &Lock) -> Result<Option<Meta>> {
    let Some(meta) = Meta::open(out)? else {
        let foreign = [Format::Npy, Format::Safetensors].map(Format::file).into_iter().find(|name| out.join(name).exists());
        return match foreign {
            Some(name) if !out.join(PLAN).exists() => {
                Err(Error::file(out, format!("{name} in it is not of this program's making: choose another --out")))
            }
            _ => Ok(None),
        };
    };
    plan.refuse_other(&meta.plan, out)?;
    if meta.format != format {
        return Err(Error::file(out, format!("it has {} already: choose another --out", meta.format.file())));
    }
    // Killed between the last write and this.
    lock.remove_partials(out)?;
    sweep(out, |name| (is_part(name) && !is_partial(name)) || name == PLAN)?;
    Ok(Some(meta))
}

fn finish(parts: &Parts, plan: Plan, faults: &[SourceFault], format: Format, out: &Path) -> Result<Meta> {
    let mut skipped: BTreeMap<String, usize> = parts.causes();
    let mut lines = Vec::new();
    for fault in faults {
        *skipped.entry(fault.kind.to_string()).or_default() += 1;
        lines.extend(skipped_line(&fault.place, fault.kind.name(), &fault.detail));
    }
    if parts.rows() == 0 {
        let each: Vec<String> = skipped.iter().map(|(cause, n)| format!("{cause} {n}")).collect();
        return Err(Error::Input(format!("{}: nothing in it can be used ({})", plan.source.spec, each.join(", "))));
    }
    join(out, parts, &plan, format, &lines)?;
    let meta = Meta {
        rows: parts.rows(),
        plan,
        format,
        skipped,
        working_folder: std::env::current_dir().map(|dir| dir.display().to_string()).unwrap_or_default(),
        softclip: env!("CARGO_PKG_VERSION").to_owned(),
    };
    meta.write(out)?;
    sweep(out, |name| is_part(name) || name == PLAN)?;
    Ok(meta)
}

/// A lock on the folder. It ends with the value, however the process ends.
struct Lock {
    _file: File,
    state: LockState,
}

impl Lock {
    /// Removes what killed processes left half-written. Without a lock, another process may be writing.
    fn remove_partials(&self, out: &Path) -> Result<()> {
        if self.state == LockState::Acquired {
            return sweep(out, is_partial);
        }
        softclip_io::remove_stale_files(out, is_partial);
        Ok(())
    }
}

/// Two processes must not write into one folder.
fn lock(out: &Path) -> Result<Lock> {
    let path = out.join(".lock");
    let file = File::create(&path).map_err(Error::io(&path))?;
    let state = softclip_io::try_lock(&file, &path).map_err(Error::io(&path))?;
    match state.is_free() {
        true => Ok(Lock { _file: file, state }),
        false => Err(Error::file(out, "another process embeds into this folder: wait for it, or give another --out")),
    }
}
