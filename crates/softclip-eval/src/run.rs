//! Protocols: from a model and a data set to a result.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use softclip_data::source::Source;
use softclip_encoders::Clip;
use softclip_tensor::Embeddings;

use crate::compat::{self, encode_pairs, pairing_as_source};
use crate::encode::{Done, EvalOptions, SENTENCES, encode_source, encode_texts};
use crate::pairing::{BLOCK, pairing};
use crate::prompts::Prompts;
use crate::published::published_source;
use crate::result::{Data, EvalResult};
use crate::retrieval::{KS, retrieval};
use crate::zeroshot::{CONFUSIONS, Tally, class_embeddings, names_and_ids, told_apart};
use crate::{Encoded, EvalError};

/// What is measured.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// R@1, R@5, R@10, median and mean rank, both ways.
    Retrieval,
    /// Accuracy among 128 pairs of an image and a caption.
    Pairing(PairingProtocol),
    /// Classes named by prompts.
    Zeroshot(Prompts),
    /// mAP and mP@k on the revisited Oxford and Paris sets, at these scales of the images.
    Instance(Vec<f64>),
    /// mAP of finding a copy's original, at these scales of the images.
    Copy(Vec<f64>),
}

/// Whose pairing accuracy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PairingProtocol {
    /// Images with their first captions in the data set's order, centre crops, whole blocks, both ways.
    #[default]
    Corrected,
    /// As the code of Text-based SoftCLIP's authors has it: all captions in random order, random crops and flips, symmetrised
    /// similarities, a shorter last block counts as 0.
    Source,
}

impl Task {
    /// `retrieval`, `pairing`, `zeroshot`, `instance`, `copy`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Retrieval => "retrieval",
            Self::Pairing(_) => "pairing",
            Self::Zeroshot(_) => "zeroshot",
            Self::Instance(_) => "instance",
            Self::Copy(_) => "copy",
        }
    }

    /// The task as results name it: CLIP_benchmark's word where it has one.
    pub fn result_name(&self) -> &'static str {
        match self {
            Self::Retrieval => "zeroshot_retrieval",
            Self::Pairing(_) => "pairing",
            Self::Zeroshot(_) => "zeroshot_classification",
            Self::Instance(_) => "instance_retrieval",
            Self::Copy(_) => "copy_detection",
        }
    }
}

/// Metrics by name, and what guessing gives.
type Metrics = (Vec<(String, f64)>, BTreeMap<String, f64>);

/// Whether `source`, which was named `spec`, has what `task` needs.
///
/// # Errors
/// It has classes where pairs are needed, or the other way round.
pub fn suits(source: &dyn Source, spec: &str, task: &Task) -> Result<(), EvalError> {
    match (task, source.classes()) {
        (Task::Instance(_) | Task::Copy(_), _) => Err(not_pictures(spec, task)),
        (Task::Zeroshot(_), None) => {
            let why = "zero-shot classification needs classes: folder:DIR, imagenet:DIR and others (docs/evaluation.md)";
            Err(EvalError::Input(format!("{spec}: {why}")))
        }
        (Task::Retrieval | Task::Pairing(_), Some(_)) => {
            Err(EvalError::Input(format!("{spec}: images with classes have no captions; {} needs pairs", task.name())))
        }
        _ => Ok(()),
    }
}

/// Their data sets are no sources of pairs: see [`crate::InstanceSet`].
fn not_pictures(spec: &str, task: &Task) -> EvalError {
    EvalError::Input(format!("{spec}: a source of pairs; {} has data sets of its own", task.name()))
}

/// Encodes `source`, which was named `spec`, and measures. `model`, `pretrained` and `config` of the result are the caller's
/// to fill in.
///
/// # Errors
/// The source does not suit the task, or cannot be read or encoded.
pub fn evaluate(
    clip: &Clip,
    source: Arc<dyn Source>,
    spec: &str,
    task: &Task,
    options: &EvalOptions,
    done: &Done,
) -> Result<EvalResult, EvalError> {
    let start = Instant::now();
    suits(source.as_ref(), spec, task)?;
    let of = Arc::clone(&source);
    let (encoded, pairs) = match task {
        Task::Pairing(PairingProtocol::Source) => {
            let (pairs, encoded) = encode_pairs(clip, source, options, done)?;
            (encoded, Some(pairs))
        }
        _ => (encode_source(clip, source, options, done)?, None),
    };
    let plain = |(metrics, chance): Metrics| EvalResult { metrics, chance, ..EvalResult::default() };
    let found = match (task, &pairs) {
        (Task::Retrieval, _) => plain(of_retrieval(&encoded)?),
        (Task::Pairing(_), Some(pairs)) => plain(of_source_pairing(pairs)?),
        (Task::Pairing(_), None) => plain(of_pairing(&encoded)?),
        (Task::Instance(_) | Task::Copy(_), _) => return Err(not_pictures(spec, task)),
        (Task::Zeroshot(prompts), _) => of_classes(clip, of.as_ref(), &encoded, prompts, options, done)?,
    };
    let data = Data {
        source: spec.to_owned(),
        images: encoded.indices.len(),
        texts: encoded.owner.len(),
        classes: found.classes.len(),
        skipped: encoded.skipped,
    };
    Ok(EvalResult {
        dataset: of.name().map_or_else(|| slug(spec), str::to_owned),
        task: task.result_name().to_owned(),
        language: "en".to_owned(),
        data,
        protocol: match task {
            Task::Pairing(PairingProtocol::Corrected) => {
                let order = "images with their first captions, in the data set's order";
                Some(format!("corrected: {order}; centre crops; whole blocks of at most {BLOCK}"))
            }
            Task::Pairing(PairingProtocol::Source) => Some(compat::protocol()),
            _ => None,
        },
        seconds: start.elapsed().as_secs_f64(),
        device: format!("{:?} {:?}", options.device, options.precision).to_lowercase(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..found
    })
}

/// A source's name made of the last five words of what follows its scheme.
pub fn slug(spec: &str) -> String {
    let path = match spec.split_once(':') {
        Some((scheme, rest)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => rest,
        _ => spec,
    };
    let words: Vec<&str> = path.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words[words.len().saturating_sub(5)..].join("-")
}

fn texts(encoded: &Encoded) -> Result<&Embeddings, EvalError> {
    encoded.texts.as_ref().ok_or_else(|| EvalError::Input("the data set has no captions".to_owned()))
}

fn of_retrieval(encoded: &Encoded) -> Result<Metrics, EvalError> {
    let found = retrieval(&encoded.images, texts(encoded)?, &encoded.owner)?;
    let (m, t) = (encoded.images.rows() as usize, encoded.owner.len());
    let mut metrics = Vec::new();
    let mut chance = BTreeMap::new();
    let mut captions_of = vec![0usize; m];
    encoded.owner.iter().for_each(|&own| captions_of[own as usize] += 1);
    for (name, direction) in [("image_retrieval", &found.text_to_image), ("text_retrieval", &found.image_to_text)] {
        for (k, recall) in KS.into_iter().zip(direction.recall) {
            let key = format!("{name}_recall@{k}");
            let guess = match name {
                "image_retrieval" => (k as f64 / m as f64).min(1.0),
                _ => captions_of.iter().map(|&n| any_among(n, t, k)).sum::<f64>() / m as f64,
            };
            chance.insert(key.clone(), guess);
            metrics.push((key, recall));
        }
        metrics.push((format!("{name}_median_rank"), direction.median_rank));
        metrics.push((format!("{name}_mean_rank"), direction.mean_rank));
    }
    Ok((metrics, chance))
}

/// Chance that `k` of `all`, drawn at random, hold one of `right`.
fn any_among(right: usize, all: usize, k: usize) -> f64 {
    let none: f64 = (0..k.min(all)).map(|i| (all - right).saturating_sub(i) as f64 / (all - i) as f64).product();
    1.0 - none
}

fn of_pairing(encoded: &Encoded) -> Result<Metrics, EvalError> {
    // One caption an image, the first: with two of one image in a block there is no single right answer.
    let found = pairing(&encoded.images, &encoded.first_texts()?)?;
    let metrics = vec![
        ("pairing_text_to_image".to_owned(), found.text_to_image),
        ("pairing_image_to_text".to_owned(), found.image_to_text),
    ];
    let chance = metrics.iter().map(|(name, _)| (name.clone(), 1.0 / found.block as f64)).collect();
    Ok((metrics, chance))
}

fn of_source_pairing([image, text]: &[Embeddings; 2]) -> Result<Metrics, EvalError> {
    let name = "pairing_source".to_owned();
    let n = image.rows() as f64 / BLOCK as f64;
    let chance = n.floor() / n.ceil() / BLOCK as f64;
    Ok((vec![(name.clone(), pairing_as_source(image, text, BLOCK)?)], BTreeMap::from([(name, chance)])))
}

/// Embeddings of classes `[C, D]`, a share of them at a time: the sentences of all are many times as many.
fn embed_classes(
    clip: &Clip,
    names: &[String],
    prompts: &Prompts,
    options: &EvalOptions,
    done: &Done,
) -> Result<Embeddings, EvalError> {
    let share = (SENTENCES / prompts.templates.len().max(1)).max(1);
    let shares = names.len().div_ceil(share);
    let mut parts = Vec::with_capacity(shares);
    for (i, some) in names.chunks(share).enumerate() {
        let sentences: Vec<String> = some.iter().flat_map(|class| prompts.of(class)).collect();
        let encoded = encode_texts(clip, &sentences, options, &|_, _| done(i + 1, shares))?;
        parts.push(class_embeddings(&encoded, some.len() as i64)?);
    }
    if parts.is_empty() {
        return Err(EvalError::Input("there is no class to look for".to_owned()));
    }
    Ok(Embeddings::cat(&parts.iter().collect::<Vec<_>>())?)
}

/// All that a result says of classes.
fn of_classes(
    clip: &Clip,
    source: &dyn Source,
    encoded: &Encoded,
    prompts: &Prompts,
    options: &EvalOptions,
    done: &Done,
) -> Result<EvalResult, EvalError> {
    let (names, ids) = names_and_ids(prompts, source.class_keys(), source.classes().unwrap_or_default())?;
    let of_classes = embed_classes(clip, &names, prompts, options, done)?;
    let label = |class: &Option<usize>| class.and_then(|class| ids.get(class)).map(|&id| id as i64);
    let labels: Vec<i64> = encoded.classes.iter().filter_map(label).collect();
    let tally = Tally::of(&encoded.images, &of_classes, &labels)?;
    let found = tally.zero_shot()?;
    let told = match &prompts.classes {
        Some(classes) => {
            let keys: Vec<String> = classes.entries.iter().map(|(key, _)| key.clone()).collect();
            told_apart(&names, &keys)
        }
        None => told_apart(&names, source.class_keys().unwrap_or_default()),
    };
    let mut metrics = vec![("acc1".to_owned(), found.acc1)];
    metrics.extend(found.acc5.map(|acc5| ("acc5".to_owned(), acc5)));
    metrics.push(("mean_per_class_recall".to_owned(), found.mean_per_class_recall));
    let guess = |name: &str| if name == "acc5" { 5.0 } else { 1.0 } / names.len() as f64;
    Ok(EvalResult {
        chance: metrics.iter().map(|(name, _)| (name.clone(), guess(name))).collect(),
        metrics,
        main_metric: Some(published_source(source).map_or("acc1", |set| set.main_metric).to_owned()),
        prompts: Some(prompts.name.clone()),
        templates: prompts.templates.clone(),
        classes: tally.classes(&told),
        confusions: tally.confusions(&told, CONFUSIONS),
        classnames: names,
        ..EvalResult::default()
    })
}
