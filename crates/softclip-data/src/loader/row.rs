//! One sample's share of a batch.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{LoaderOptions, RegionShape, TagSentence};
use crate::image::{Decoder, ImageError};
use crate::rng::{RngKey, Stream};
use crate::source::{Rois, Sample, SampleError, SampleErrorKind, Source};
use crate::tokenizer::Tokenizer;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// One caption by chance.
    Train,
    /// All captions.
    Eval,
}

/// Everything of a sample but its pixels.
pub(super) struct Row {
    pub(super) key: String,
    pub(super) index: usize,
    pub(super) class: Option<usize>,
    pub(super) captions: Vec<Vec<i64>>,
    /// The sentence of the tags, and whether there is any tag behind it.
    pub(super) tags: Option<(Vec<i64>, bool)>,
    /// `[count, dim]` with rows of zeros behind the `present` ones.
    pub(super) regions: Option<(Vec<f32>, usize)>,
    /// The caption, the sentence of the tags, and whether there is any tag behind it.
    pub(super) texts: Option<(String, String, bool)>,
}

/// What `make` makes of the sample `index`. A defect of the source, a decoder or the tokenizer costs the sample, not the run.
pub(crate) fn guarded<T>(
    source: &dyn Source,
    index: usize,
    make: impl FnOnce() -> Result<T, SampleError>,
) -> Result<T, SampleError> {
    catch_unwind(AssertUnwindSafe(make)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(SampleError::new(source.key(index), SampleErrorKind::Panic, text.unwrap_or("no message")))
    })
}

/// Reads the sample `index` and writes its pixels. All chance is drawn from `key`.
pub(super) fn row(
    source: &dyn Source,
    index: usize,
    key: RngKey,
    mode: Mode,
    options: &LoaderOptions,
    (tokenizer, decoder): (&Tokenizer, &mut Decoder),
    pixels: &mut [u8],
) -> Result<Row, SampleError> {
    let sample = source.read(index)?;
    options.transform.apply(&sample.image, key, decoder, pixels).map_err(|e| image_error(&sample.key, &e))?;
    let encode = |text: &String| tokenizer.encode(text, options.context_length);
    let chosen = match mode {
        Mode::Eval => &sample.captions[..],
        Mode::Train if options.first_caption => sample.captions.get(..1).unwrap_or_default(),
        Mode::Train => {
            let chosen = key.rng(Stream::Caption).below(sample.captions.len() as u64) as usize;
            sample.captions.get(chosen).map_or(&[][..], std::slice::from_ref)
        }
    };
    let captions = chosen.iter().map(encode).collect();
    let tags = options.tags.as_ref().map(|form| sentence(&sample, form)).transpose()?;
    let texts = match (&options.texts, chosen) {
        (Some(form), [caption]) if mode == Mode::Train => {
            let (sentence, present) = sentence(&sample, form)?;
            Some((caption.clone(), sentence, present))
        }
        _ => None,
    };
    let regions = options.regions.map(|shape| regions(&sample.key, sample.rois.as_ref(), shape)).transpose()?;
    let tags = tags.map(|(text, present)| (encode(&text), present));
    Ok(Row { key: sample.key, index, class: sample.class, captions, tags, regions, texts })
}

fn sentence(sample: &Sample, form: &TagSentence) -> Result<(String, bool), SampleError> {
    match &sample.tags {
        Some(tags) => Ok((form.of(tags), !tags.is_empty())),
        None => {
            Err(SampleError::new(&sample.key, SampleErrorKind::MissingTags, "the loss needs tags; the sample has none listed"))
        }
    }
}

fn regions(key: &str, rois: Option<&Rois>, shape: RegionShape) -> Result<(Vec<f32>, usize), SampleError> {
    let error = |kind, detail: String| SampleError::new(key, kind, detail);
    let RegionShape { count, dim } = shape;
    let Some(rois) = rois else {
        return Err(error(SampleErrorKind::MissingRois, "the loss needs regions; the sample has no array of them".to_owned()));
    };
    if rois.dim != dim && rois.count > 0 {
        return Err(error(SampleErrorKind::BadRois, format!("{} features a region, the model takes {dim}", rois.dim)));
    }
    let present = rois.count.min(count);
    let mut features = rois.features[..present * rois.dim].to_vec();
    features.resize(count * dim, 0.0);
    Ok((features, present))
}

/// An image's fault as that of the sample `key`.
pub fn image_error(key: &str, error: &ImageError) -> SampleError {
    let kind = match error {
        ImageError::Empty => SampleErrorKind::EmptyImage,
        ImageError::UnknownFormat { .. } | ImageError::Unsupported(_) => SampleErrorKind::UnknownFormat,
        ImageError::TooLarge { .. } | ImageError::TooManyScans { .. } => SampleErrorKind::ImageTooLarge,
        ImageError::Truncated => SampleErrorKind::TruncatedImage,
        _ => SampleErrorKind::CorruptImage,
    };
    SampleError::new(key, kind, error)
}
