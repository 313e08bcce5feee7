//! How a run reads its samples: batches, tokens, category sentences.

use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

use softclip_data::image::Transform;
use softclip_data::loader::{LoaderOptions, RegionShape};
use softclip_data::tokenizer::Tokenizer;
use softclip_distributed::World;
use softclip_encoders::ClipConfig;

use super::{Resume, RunOptions};
use crate::category::CategoryEncoder;
use crate::config::RunConfig;
use crate::init::{Init, TOKENIZER, check_size};
use crate::{Error, Result};

/// The tokenizer of the run that goes on, or what the configuration leads to; `None` for CLIP's own.
pub(super) fn tokenizer(
    config: &RunConfig,
    clip: &ClipConfig,
    init: &Init,
    goes_on: Option<&RunOptions>,
) -> Result<Option<Tokenizer>> {
    let Some(options) = goes_on else { return init.tokenizer(&config.model, clip) };
    let run = match &options.resume {
        Resume::From(checkpoint) => checkpoint.parent().and_then(Path::parent),
        Resume::Auto | Resume::Never => Some(options.dir.as_path()),
    };
    let kept = run.map(|run| run.join(TOKENIZER));
    let found = kept.filter(|kept| kept.is_dir()).map(|kept| Tokenizer::from_folder(&kept)).transpose()?;
    check_size(found.as_ref(), clip)?;
    Ok(found)
}

/// Keeps the tokenizer in the run, or none where it is CLIP's own.
pub(super) fn keep_tokenizer(run: &Path, tokenizer: Option<&Tokenizer>) -> Result<()> {
    let (kept, beside) = (run.join(TOKENIZER), run.join(format!(".{TOKENIZER}.partial")));
    for old in [&kept, &beside] {
        match fs::remove_dir_all(old) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(old)(e)),
            _ => {}
        }
    }
    let Some(tokenizer) = tokenizer else { return Ok(()) };
    fs::create_dir_all(&beside).map_err(Error::io(&beside))?;
    tokenizer.save(&beside)?;
    fs::rename(&beside, &kept).map_err(Error::io(&kept))
}

/// The frozen encoder, where the loss needs it.
pub(super) fn category_encoder(config: &RunConfig, options: &RunOptions, leads: bool) -> Result<Option<CategoryEncoder>> {
    if !config.loss.needs().category {
        return Ok(None);
    }
    let mut watch = crate::log::Downloads::new(options.quiet || !leads);
    CategoryEncoder::open(&config.category, &options.dir, options.device, &mut |event| watch.see(event)).map(Some)
}

/// What the loader is asked for: this rank's part of each batch, made by its share of the machine's threads.
pub(crate) fn loader_options(
    config: &RunConfig,
    clip: &ClipConfig,
    tokenizer: Option<Tokenizer>,
    world: &World,
) -> LoaderOptions {
    let (data, needs) = (&config.data, config.loss.needs());
    let transform = Transform::train(clip.image_size() as u32, data.augment.clone());
    let regions = clip.regions.as_ref().filter(|_| needs.regions);
    LoaderOptions {
        decode: data.decode,
        context_length: clip.context_length() as usize,
        trim: data.trim,
        seed: config.train.seed,
        workers: match (data.workers, world.local_size()) {
            (0, ranks @ 2..) => (available_parallelism().map_or(1, usize::from) / ranks).max(1),
            (workers, _) => workers,
        },
        part: world.part(config.train.batch_size),
        prefetch: data.prefetch,
        tags: needs.tags.then(|| data.tag_sentence()),
        texts: needs.category.then(|| data.tag_sentence()),
        regions: regions.map(|regions| RegionShape { count: data.max_regions, dim: regions.dim as usize }),
        max_bad_share: data.max_bad_share,
        tokenizer,
        ..LoaderOptions::new(config.train.batch_size, transform)
    }
}
