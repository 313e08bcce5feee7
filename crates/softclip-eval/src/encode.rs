//! A data set's embeddings.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use softclip_data::image::{DecodeOptions, Transform};
use softclip_data::loader::{LoaderOptions, eval_batches};
use softclip_data::source::{SampleErrorKind, Source, SourceFault};
use softclip_data::tokenizer::Tokenizer;
use softclip_encoders::Clip;
use softclip_tensor::{Embeddings, Precision, TokenRows};
use softclip_torch::{Autocast, guard};
use tch::{Device, Kind, Tensor, no_grad};

use crate::EvalError;

/// How a data set is encoded.
#[derive(Clone, Debug)]
pub struct EvalOptions {
    /// Where the model is.
    pub device: Device,
    /// Number type of the forward passes; embeddings are f32.
    pub precision: Precision,
    /// Images or captions a pass.
    pub batch_size: usize,
    /// Limits and habits of decoding.
    pub decode: DecodeOptions,
    /// Loader threads; 0: one a core.
    pub workers: usize,
    /// The share of unreadable samples beyond which it stops.
    pub max_bad_share: f64,
    /// What makes captions and prompts into tokens; `None`: CLIP's.
    pub tokenizer: Option<Tokenizer>,
}

impl EvalOptions {
    /// f32, 64 at a time, all threads, a tenth may be unreadable, CLIP's tokenizer.
    pub fn new(device: Device) -> Self {
        Self {
            device,
            precision: Precision::Fp32,
            batch_size: 64,
            decode: DecodeOptions::default(),
            workers: 0,
            max_bad_share: 0.1,
            tokenizer: None,
        }
    }
}

/// A data set, encoded in its order.
#[derive(Debug)]
pub struct Encoded {
    /// `[M, D]`.
    pub images: Embeddings,
    /// `[T, D]`; none for class folders.
    pub texts: Option<Embeddings>,
    /// For each text the row of its image.
    pub owner: Vec<i64>,
    /// For each image its number in the source.
    pub indices: Vec<usize>,
    /// For each image its class.
    pub classes: Vec<Option<usize>>,
    /// What could not be used, by cause: faults of the layout, found while indexing, and samples.
    pub skipped: BTreeMap<String, usize>,
}

impl Encoded {
    /// The first text of each image, `[M, D]`: pairs with a single right answer each.
    ///
    /// # Errors
    /// The data set has no texts, or the device no memory left.
    pub fn first_texts(&self) -> Result<Embeddings, EvalError> {
        let texts = self.texts.as_ref().ok_or_else(|| EvalError::Input("the data set has no captions".to_owned()))?.tensor();
        let mut first: Vec<i64> = Vec::new();
        for (caption, &own) in self.owner.iter().enumerate() {
            if own as usize == first.len() {
                first.push(caption as i64);
            }
        }
        Ok(Embeddings::checked(texts.f_index_select(0, &Tensor::from_slice(&first).to_device(texts.device()))?)?)
    }
}

/// Told the batches done and how many there are; says whether to go on.
pub type Done<'a> = dyn Fn(usize, usize) -> ControlFlow<()> + 'a;

/// Encodes every image and caption of `source`.
///
/// # Errors
/// Reading, encoding, or no usable sample; [`EvalError::Stopped`] if `done` says so.
pub fn encode_source(clip: &Clip, source: Arc<dyn Source>, options: &EvalOptions, done: &Done) -> Result<Encoded, EvalError> {
    encode_view(clip, source, options, View { transform: transform(clip), seed: 0, texts: true }, done)
}

/// How a pass looks at a data set.
pub(crate) struct View {
    /// What is done to each image.
    pub(crate) transform: Transform,
    /// Seed of what the transform draws.
    pub(crate) seed: u64,
    /// Whether captions are encoded, too.
    pub(crate) texts: bool,
}

pub(crate) fn encode_view(
    clip: &Clip,
    source: Arc<dyn Source>,
    options: &EvalOptions,
    view: View,
    done: &Done,
) -> Result<Encoded, EvalError> {
    guard(|| encode_or_panic(clip, source, options, view, done))?
}

/// The encoders' operators panic where libtorch fails.
fn encode_or_panic(
    clip: &Clip,
    source: Arc<dyn Source>,
    options: &EvalOptions,
    view: View,
    done: &Done,
) -> Result<Encoded, EvalError> {
    let about = source.describe();
    let loader = LoaderOptions {
        decode: options.decode,
        context_length: clip.config().context_length() as usize,
        workers: options.workers,
        max_bad_share: options.max_bad_share,
        tokenizer: options.tokenizer.clone(),
        seed: view.seed,
        ..LoaderOptions::new(options.batch_size, view.transform)
    };
    let mut batches = eval_batches(Arc::clone(&source), loader)?;
    let of = batches.batches();
    let (mut images, mut texts) = (Vec::new(), Vec::new());
    let (mut owner, mut indices, mut classes) = (Vec::new(), Vec::new(), Vec::new());
    let mut number = 0;
    for batch in batches.by_ref() {
        let batch = batch?;
        if !batch.indices.is_empty() {
            images.push(encode_images(clip, &batch.images, options)?);
        }
        if view.texts && !batch.tokens.is_empty() {
            texts.push(encode_tokens(clip, &batch.tokens, options)?.into_tensor());
        }
        owner.extend(batch.owner.iter().map(|own| own + indices.len() as i64));
        indices.extend(batch.indices);
        classes.extend(batch.classes);
        number += 1;
        if done(number, of).is_break() {
            return Err(EvalError::Stopped);
        }
    }
    if images.is_empty() {
        let causes = batches.health().summary();
        return Err(EvalError::Input(format!("{about}: no sample can be used ({causes})")));
    }
    let skipped = skipped(source.faults(), batches.health().causes());
    let texts = if texts.is_empty() { None } else { Some(Embeddings::checked(Tensor::f_cat(&texts, 0)?)?) };
    Ok(Encoded { images: Embeddings::checked(Tensor::f_cat(&images, 0)?)?, texts, owner, indices, classes, skipped })
}

/// Faults of the layout counted by kind, together with the loader's causes.
fn skipped(faults: &[SourceFault], causes: &BTreeMap<SampleErrorKind, usize>) -> BTreeMap<String, usize> {
    let faults = faults.iter().map(|fault| (fault.kind.to_string(), 1));
    let mut skipped = BTreeMap::new();
    for (cause, n) in faults.chain(causes.iter().map(|(cause, n)| (cause.to_string(), *n))) {
        *skipped.entry(cause).or_default() += n;
    }
    skipped
}

/// What is done to an image before the model.
fn transform(clip: &Clip) -> Transform {
    let config = clip.config();
    Transform::eval(config.image_size() as u32).with_floor_crop(config.floor_crop)
}

fn unit(features: &Tensor) -> Result<Embeddings, EvalError> {
    Ok(Embeddings::normalize(&features.to_kind(Kind::Float))?)
}

/// Images u8 `[n, 3, S, S]` → unit embeddings `[n, D]`. The encoders' operators panic where libtorch fails.
pub(crate) fn encode_images(clip: &Clip, images: &Tensor, options: &EvalOptions) -> Result<Tensor, EvalError> {
    no_grad(|| {
        let _autocast = Autocast::enter(options.device, options.precision).map_err(softclip_tensor::Error::from)?;
        Ok(unit(&clip.encode_pixels(&images.f_to_device(options.device)?)?)?.into_tensor())
    })
}

/// Texts `[T, L]` → unit embeddings `[T, D]`, `options.batch_size` at a time.
fn encode_tokens(clip: &Clip, tokens: &TokenRows, options: &EvalOptions) -> Result<Embeddings, EvalError> {
    no_grad(|| {
        let _autocast = Autocast::enter(options.device, options.precision).map_err(softclip_tensor::Error::from)?;
        let all = tokens.tokens.f_to_device(options.device)?;
        let step = options.batch_size.max(1) as i64;
        let parts: Vec<Tensor> = (0..tokens.len())
            .step_by(step as usize)
            .map(|from| {
                let rows = all.narrow(0, from, step.min(tokens.len() - from));
                Ok(unit(&clip.encode_text(&rows)?)?.into_tensor())
            })
            .collect::<Result<_, EvalError>>()?;
        Ok(Embeddings::checked(Tensor::f_cat(&parts, 0)?)?)
    })
}

/// Sentences that are encoded between two calls of [`Done`].
pub(crate) const SENTENCES: usize = 4096;

/// Sentences → unit embeddings `[T, D]`.
///
/// # Errors
/// Encoding, or no sentence; [`EvalError::Stopped`] if `done` says so.
pub fn encode_texts(clip: &Clip, texts: &[String], options: &EvalOptions, done: &Done) -> Result<Embeddings, EvalError> {
    if texts.is_empty() {
        return Err(EvalError::Input("there is no text to encode".to_owned()));
    }
    let context = clip.config().context_length() as usize;
    let tokenizer = options.tokenizer.clone().map_or_else(Tokenizer::clip, Ok)?;
    let mut parts = Vec::new();
    for (i, part) in texts.chunks(SENTENCES).enumerate() {
        let tokens = tokenizer.encode_batch(part, context, true);
        parts.push(guard(|| encode_tokens(clip, &tokens, options))??);
        if done(i + 1, texts.len().div_ceil(SENTENCES)).is_break() {
            return Err(EvalError::Stopped);
        }
    }
    Ok(Embeddings::cat(&parts.iter().collect::<Vec<_>>())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use softclip_data::source::SourceFaultKind;

    #[test]
    fn what_indexing_left_out_is_counted_with_what_loading_did() {
        let fault = |kind| SourceFault { kind, place: String::new(), detail: String::new() };
        let faults = [SourceFaultKind::MissingImage, SourceFaultKind::BadRow, SourceFaultKind::MissingImage].map(fault);
        let causes = BTreeMap::from([(SampleErrorKind::MissingImage, 3), (SampleErrorKind::CorruptImage, 1)]);
        let expected = [("bad_row", 1), ("corrupt_image", 1), ("missing_image", 5)].map(|(cause, n)| (cause.to_owned(), n));
        assert_eq!(skipped(&faults, &causes), BTreeMap::from(expected));
    }
}
