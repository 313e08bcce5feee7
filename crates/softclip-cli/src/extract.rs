//! `softclip extract`.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap::error::ErrorKind;
use softclip_data::source;
use softclip_distributed::Environment;
use softclip_extract::import::{self, Both};
use softclip_extract::tags::AttributeStyle;
use softclip_extract::{Backbone, ExtractOptions, Objects, Origin, Outcome, Part, extract as run};
use softclip_train::stop_on_signals;
use tch::Device;

use crate::args::Cli;
use crate::args::extract::{Attributes, Extract};
use crate::progress::Count;

/// Whether it was interrupted.
pub fn extract(args: &Extract) -> Result<bool> {
    if let (None, Some(name)) = (&args.detector, args.network.of_detector()) {
        let why = format!("{name} says how a detector runs, and none does: leave it out, or give --detector\n");
        Cli::command().error(ErrorKind::ArgumentConflict, why).exit();
    }
    let (part, device) = part(args)?;
    let config = crate::detector::config(&args.network)?;
    let source = source::open(&args.source)?;
    let origin = match &args.detector {
        Some(path) => Origin::Detector(Box::new(config.open(path, args.network.trust, device)?), config.thresholds),
        None => Origin::Given(given(&args.objects)?),
    };
    let letterbox = match &origin {
        Origin::Detector(network, _) => *network.letterbox(),
        Origin::Given(_) => config.letterbox.or_default(),
    };
    let backbone = args.backbone.as_deref().map(crate::model::read_pretrained).transpose()?;
    let backbone = backbone.map(|found| Backbone::new(found, config.precision, device)).transpose()?;
    if backbone.is_none() && args.detector.is_some() {
        tracing::info!("note: without --backbone the sidecars have tags and no region features");
    }
    let stop = stop_on_signals()?;
    let options = ExtractOptions {
        letterbox,
        backbone,
        regions: args.regions,
        tags: args.tags,
        attributes: match args.attributes {
            Attributes::None => AttributeStyle::None,
            Attributes::Best => AttributeStyle::Best,
            Attributes::All => AttributeStyle::All,
        },
        shard_size: args.shard_size,
        batch_size: args.batch_size.unwrap_or(if device == Device::Cpu { 1 } else { 16 }),
        threads: args.workers,
        device,
        part,
        max_bad_share: args.max_bad_share,
        stop: stop.clone(),
        decode: args.decoding.limit(Default::default()),
        ..ExtractOptions::new(args.out.clone(), args.source.clone())
    };
    let mut count = Count::new("extracting");
    let mut progress = |done: usize, of: usize| {
        count.set(done, of);
        if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let outcome = run(&source, &origin, &options, &mut progress)?;
    count.finish();
    if args.json {
        outln!("{}", serde_json::to_string_pretty(&outcome)?);
    } else {
        report(args, &outcome);
    }
    Ok(outcome.interrupted)
}

/// The share of this process and its device: as the command line says, else as a launcher does.
fn part(args: &Extract) -> Result<(Part, Device)> {
    if let (Some(rank), Some(of)) = (args.rank, args.world_size) {
        return Ok((Part { rank, of }, crate::device(&args.device)?));
    }
    let place = Environment::apart_from_env()?;
    let part = Part { rank: place.rank, of: place.world_size };
    if part.of > 1 {
        // Of a batch script's variables alone, a part would look like the whole.
        tracing::info!("part {} of {}, as the launcher's variables say", part.rank + 1, part.of);
    }
    Ok((part, crate::device_of(&place, &args.device)?))
}

fn given(specs: &[String]) -> Result<Box<dyn Objects>> {
    let open = |spec: &String| import::open(spec).with_context(|| "--objects".to_owned());
    Ok(match specs {
        [one] => open(one)?,
        [first, second] => Box::new(Both(open(first)?, open(second)?)),
        _ => usage!("--objects: one file, or two that complete each other"),
    })
}

fn report(args: &Extract, outcome: &Outcome) {
    let Outcome { sidecars, done_before, samples, objects, without_objects, regions, skipped, .. } = outcome;
    let out = args.out.display();
    if outcome.interrupted {
        tracing::info!("stopped; the complete sidecars in {out} are kept: the same command continues from there");
    } else if sidecars == done_before {
        outln!("{out}: all {sidecars} sidecars were there already");
    }
    outln!(
        "{out}: {sidecars} sidecars, {samples} samples, {objects} objects, {regions} regions; {without_objects} images without objects"
    );
    if !skipped.is_empty() {
        let each: Vec<String> = skipped.iter().map(|(cause, n)| format!("{cause} {n}")).collect();
        outln!("left out: {} (each is in the records, *.sidecar.json)", each.join(", "));
    }
    if outcome.images > 0 {
        out!("{outcome}");
    }
}
