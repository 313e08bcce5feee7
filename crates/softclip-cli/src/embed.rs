//! `softclip embed`.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use softclip_score::embed::{self, EmbedOptions, Encoder, Input, Outcome};
use softclip_tensor::Precision;
use softclip_train::stop_on_signals;

use crate::args::collection::{Dtype, Embed, Rows, What};
use crate::progress::Count;

/// Whether it was interrupted.
pub fn embed(args: &Embed) -> Result<bool> {
    let device = crate::device(&args.device)?;
    let what = match (args.what, args.source.as_str()) {
        (Some(What::Texts), _) | (None, "-") => embed::What::Texts,
        (Some(What::Images) | None, _) => embed::What::Images,
    };
    let precision = args.precision.as_deref().map(serde_yaml::from_str::<Precision>).transpose().context("--precision")?;
    let input = Input::open(&args.source, what)?;
    let model = crate::model::open(&args.model, device)?;
    let options = EmbedOptions {
        format: match args.format {
            Rows::Npy => embed::Format::Npy,
            Rows::Safetensors => embed::Format::Safetensors,
        },
        dtype: match args.dtype {
            Dtype::F32 => embed::Dtype::F32,
            Dtype::F16 => embed::Dtype::F16,
        },
        batch_size: usize::from(args.batch_size),
        max_bad_share: args.max_bad_share,
        ..EmbedOptions::default()
    };
    let stop = stop_on_signals()?;
    let mut count = Count::new("embedding");
    let mut progress = |done: usize, of: usize| {
        count.set(done, of);
        if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let encoder = Encoder { decode: args.decoding.limit(model.decode()), ..model.encoder(device, precision) };
    let outcome = embed::embed(&encoder, &model.id()?, &input, &args.out, &options, &mut progress)?;
    count.finish();
    report(&args.out, input.len(), &outcome);
    Ok(outcome.meta.is_none())
}

fn report(out: &Path, of: usize, outcome: &Outcome) {
    let Outcome { meta, before, samples, rows, seconds } = outcome;
    let Some(meta) = meta else {
        tracing::info!("stopped after {samples} of {of} samples, which are kept: the same command continues from there");
        return;
    };
    outln!("{}: {} rows of {} numbers in {}", out.display(), meta.rows, meta.plan.dim, meta.format.file());
    if !meta.skipped.is_empty() {
        let each: Vec<String> = meta.skipped.iter().map(|(cause, n)| format!("{cause} {n}")).collect();
        outln!("left out: {} (each is in skipped.txt)", each.join(", "));
    }
    match (before, rows) {
        (_, 0) => outln!("nothing was left to do"),
        (0, _) => outln!("{seconds:.1} s, {:.1} rows/s", *rows as f64 / seconds),
        _ => outln!("{before} samples were done before; {seconds:.1} s, {:.1} rows/s", *rows as f64 / seconds),
    }
}
