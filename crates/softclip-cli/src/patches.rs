//! `softclip data patches`.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use anyhow::Result;
use softclip_data::patches::{self, Pairs, PatchMap, PatchOptions, PatchReport, SplitBy};
use softclip_train::stop_on_signals;

use crate::args::patches::{Format, Patches, SplitBy as By};

/// How many of the pairs that were left out are named.
const NAMED: usize = 10;

/// Whether it was interrupted.
pub fn patches(args: &Patches) -> Result<bool> {
    let map = PatchMap::open(&args.map)?;
    let pairs = match (&args.pairs, &args.images, &args.masks) {
        (Some(table), ..) => Pairs::from_table(table)?,
        (None, Some(images), Some(masks)) => Pairs::in_folders(images, masks)?,
        _ => usage!("no pairs: name --images and --masks, or --pairs"),
    };
    let options = PatchOptions {
        size: args.size,
        stride: args.stride.unwrap_or(args.size),
        split: args.split,
        split_by: match args.split_by {
            By::Image => SplitBy::Image,
            By::Patch => SplitBy::Patch,
        },
        seed: args.seed,
        format: match args.format {
            Format::Folder => patches::Format::Folder,
            Format::Shards => patches::Format::Shards,
        },
        jpeg: args.jpeg,
        max_bad_share: args.max_bad_share,
        max_pixels: args.max_pixels,
        ignore_exif: args.ignore_exif,
        force: args.force,
    };
    let stop = stop_on_signals()?;
    let bar = crate::bar("cutting");
    let mut progress = |done: usize, of: usize| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
        if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let report = patches::write(&args.out, &pairs, &map, &options, &mut progress)?;
    bar.finish_and_clear();
    let Some(report) = report else {
        tracing::info!("stopped: nothing is written");
        return Ok(true);
    };
    warn(&report);
    if args.json {
        outln!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        out!("{report}");
    }
    Ok(false)
}

fn warn(report: &PatchReport) {
    report.skipped.iter().take(NAMED).for_each(|skipped| tracing::info!("skipped: {skipped}"));
    if report.skipped.len() > NAMED {
        tracing::info!("skipped: {} more, all in patches.json", report.skipped.len() - NAMED);
    }
    if report.turned > 0 {
        let turned = format!("{} images were turned upright as their Exif orientation says, their masks were not", report.turned);
        tracing::info!("note: {turned}: --ignore-exif takes images as they are stored");
    }
    for (split, class) in report.absent() {
        tracing::warn!("{split} has no patch of the class {class}");
    }
}
