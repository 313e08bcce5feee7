//! `softclip data`.

use anyhow::{Context, Result};
use softclip_data::image::DecodeOptions;
use softclip_data::inspect::inspect;
use softclip_data::source;
use softclip_data::synth::{self, SynthOptions};

use crate::args::Data;

/// Whether it was interrupted.
pub fn data(args: Data) -> Result<bool> {
    match args {
        Data::Inspect { source, context_length, decoding, json } => {
            let source = source::open(&source)?;
            let bar = crate::bar("reading");
            bar.set_length(source.len() as u64);
            let decode = decoding.limit(DecodeOptions::default());
            let found = inspect(source.as_ref(), decode, context_length, |done| bar.set_position(done as u64))?;
            bar.finish_and_clear();
            if json {
                outln!("{}", serde_json::to_string_pretty(&found)?);
            } else {
                out!("{found}");
            }
        }
        Data::Synth { dir, train, val, zeroshot, size, seed } => {
            let options = SynthOptions {
                images: train,
                val_images: val,
                zeroshot_per_class: zeroshot,
                size,
                seed,
                ..SynthOptions::default()
            };
            let bar = crate::bar("drawing");
            let report = synth::write(&dir, &options, &|done, total| {
                bar.set_length(total as u64);
                bar.set_position(done as u64);
            })?;
            bar.finish_and_clear();
            let state = if report.already_there { "was there" } else { "written" };
            outln!(
                "{} {state}: {} + {} scenes, {} captions, {} shards; {} single objects of {} classes",
                dir.display(),
                report.images,
                report.val_images,
                report.captions,
                report.shards,
                report.zeroshot_images,
                report.classes
            );
        }
        Data::Prompts { set, dir } => {
            let set = softclip_eval::published(&set).context("no such set")?;
            set.write(&dir)?.iter().for_each(|path| outln!("{}", path.display()));
        }
        Data::Patches(args) => return crate::patches::patches(&args),
    }
    Ok(false)
}
