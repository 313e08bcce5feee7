//! What a source holds, by reading all of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::Serialize;

use crate::image::{DecodeOptions, Decoder, ImageError};
use crate::loader::{guarded, image_error};
use crate::source::{SampleError, Source, SourceFault};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Least, median and most of some number over all samples, and its mean.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Least.
    pub min: u64,
    /// The lower median.
    pub median: u64,
    /// 99 % are not above it.
    pub p99: u64,
    /// Most.
    pub max: u64,
    /// Mean.
    pub mean: f64,
}

impl Spread {
    fn of(mut values: Vec<u64>) -> Option<Self> {
        values.sort_unstable();
        let at = |share: f64| values.get(((values.len() - 1) as f64 * share) as usize).copied();
        (!values.is_empty()).then(|| Self {
            min: values[0],
            median: at(0.5).unwrap_or(0),
            p99: at(0.99).unwrap_or(0),
            max: values[values.len() - 1],
            mean: values.iter().sum::<u64>() as f64 / values.len() as f64,
        })
    }
}

/// What [`inspect`] found.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// The source in one line.
    pub source: String,
    /// Samples listed.
    pub samples: usize,
    /// Samples that can be used.
    pub usable: usize,
    /// Captions of the usable ones.
    pub captions: usize,
    /// Classes, where the source has them.
    pub classes: Option<usize>,
    /// Samples with tags, with region features.
    pub with_tags: usize,
    /// Samples with region features.
    pub with_rois: usize,
    /// Width of images in pixels.
    pub width: Option<Spread>,
    /// Height of images in pixels.
    pub height: Option<Spread>,
    /// Size of image files in bytes.
    pub bytes: Option<Spread>,
    /// Captions an image.
    pub captions_per_image: Option<Spread>,
    /// Tokens a caption, start and end among them.
    pub caption_tokens: Option<Spread>,
    /// Captions that the context cuts.
    pub cut_captions: usize,
    /// The context, in tokens.
    pub context_length: usize,
    /// Unusable samples by cause.
    pub unusable: BTreeMap<String, usize>,
    /// The first unusable samples, with what was found.
    pub unusable_examples: Vec<String>,
    /// Faults of the layout by kind: truncated shards, members without an image, …
    pub faults: BTreeMap<String, usize>,
    /// The first faults.
    pub fault_examples: Vec<String>,
}

struct Facts {
    size: (u32, u32),
    bytes: usize,
    tokens: Vec<usize>,
    tags: bool,
    rois: bool,
}

/// Reads and decodes every sample, on all threads. `done` is called with the number of samples done so far.
///
/// # Errors
/// The tokenizer's vocabulary is damaged. Everything wrong with the data is in the result.
pub fn inspect(
    source: &dyn Source,
    decode: DecodeOptions,
    context_length: usize,
    done: impl Fn(usize) + Sync,
) -> Result<Inspection, TokenizerError> {
    let tokenizer = Tokenizer::clip()?;
    let count = AtomicUsize::new(0);
    let facts: Vec<Result<Facts, SampleError>> = (0..source.len())
        .into_par_iter()
        .map_init(
            || Decoder::new(decode),
            |decoder, index| {
                let facts = guarded(source, index, || facts(source, index, decoder, &tokenizer));
                done(count.fetch_add(1, Ordering::Relaxed) + 1);
                facts
            },
        )
        .collect();
    Ok(summary(source, facts, context_length))
}

fn facts(
    source: &dyn Source,
    index: usize,
    decoder: &mut Result<Decoder, ImageError>,
    tokenizer: &Tokenizer,
) -> Result<Facts, SampleError> {
    let sample = source.read(index)?;
    let decoder = decoder.as_mut().map_err(|e| image_error(&sample.key, e))?;
    let image = decoder.decode(&sample.image).map_err(|e| image_error(&sample.key, &e))?;
    let tokens = sample.captions.iter().map(|caption| tokenizer.encode(caption, usize::MAX).len()).collect();
    Ok(Facts {
        size: image.full_size,
        bytes: sample.image.len(),
        tokens,
        tags: sample.tags.is_some(),
        rois: sample.rois.is_some(),
    })
}

fn summary(source: &dyn Source, facts: Vec<Result<Facts, SampleError>>, context_length: usize) -> Inspection {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for fact in facts {
        match fact {
            Ok(fact) => good.push(fact),
            Err(e) => bad.push(e),
        }
    }
    let spread = |f: fn(&Facts) -> u64| Spread::of(good.iter().map(f).collect());
    let tokens: Vec<u64> = good.iter().flat_map(|fact| fact.tokens.iter().map(|&n| n as u64)).collect();
    let mut unusable = BTreeMap::new();
    bad.iter().for_each(|e| *unusable.entry(e.kind.to_string()).or_default() += 1);
    let mut faults = BTreeMap::new();
    source.faults().iter().for_each(|fault| *faults.entry(fault.kind.to_string()).or_default() += 1);
    Inspection {
        source: source.describe(),
        samples: source.len(),
        usable: good.len(),
        captions: tokens.len(),
        classes: source.classes().map(<[String]>::len),
        with_tags: good.iter().filter(|fact| fact.tags).count(),
        with_rois: good.iter().filter(|fact| fact.rois).count(),
        width: spread(|fact| u64::from(fact.size.0)),
        height: spread(|fact| u64::from(fact.size.1)),
        bytes: spread(|fact| fact.bytes as u64),
        captions_per_image: spread(|fact| fact.tokens.len() as u64),
        cut_captions: tokens.iter().filter(|&&n| n > context_length as u64).count(),
        caption_tokens: Spread::of(tokens),
        context_length,
        unusable,
        unusable_examples: bad.iter().take(10).map(ToString::to_string).collect(),
        faults,
        fault_examples: source.faults().iter().take(10).map(SourceFault::to_string).collect(),
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.source)?;
        writeln!(f, "usable        {} of {} samples, {} captions", self.usable, self.samples, self.captions)?;
        if let Some(classes) = self.classes {
            writeln!(f, "classes       {classes}")?;
        }
        if self.with_tags + self.with_rois > 0 {
            writeln!(f, "with tags     {}, with region features {}", self.with_tags, self.with_rois)?;
        }
        writeln!(f, "{:<20} {:>9} {:>9} {:>9} {:>9} {:>11}", "", "min", "median", "99 %", "max", "mean")?;
        let rows = [
            ("width, px", self.width),
            ("height, px", self.height),
            ("file, bytes", self.bytes),
            ("captions an image", self.captions_per_image),
            ("tokens a caption", self.caption_tokens),
        ];
        for (name, spread) in rows.into_iter().filter_map(|(name, spread)| Some((name, spread?))) {
            let Spread { min, median, p99, max, mean } = spread;
            writeln!(f, "{name:<20} {min:>9} {median:>9} {p99:>9} {max:>9} {mean:>11.1}")?;
        }
        if self.cut_captions > 0 {
            writeln!(f, "{} captions are longer than {} tokens and are cut", self.cut_captions, self.context_length)?;
        }
        for (title, counts, examples) in [
            ("unusable samples", &self.unusable, &self.unusable_examples),
            ("faults of the layout", &self.faults, &self.fault_examples),
        ] {
            let each: Vec<String> = counts.iter().map(|(cause, n)| format!("{cause} {n}")).collect();
            writeln!(f, "{title}: {}", if each.is_empty() { "none".to_owned() } else { each.join(", ") })?;
            examples.iter().try_for_each(|example| writeln!(f, "  {example}"))?;
        }
        Ok(())
    }
}
