//! A pretrained model, from its files to towers and tensors under our names.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::thread::{JoinHandle, spawn};

use softclip_data::tokenizer::Tokenizer;
use softclip_encoders::hugging_face::{from_hugging_face, read_config};
use softclip_encoders::{
    Architecture, Clip, ClipConfig, LoadReport, Normalization, TextConfig, VisionConfig, from_open_clip, from_torchvision,
    infer_config, infer_torchvision, strip_wrappers, to_channels_last,
};
use softclip_torch::trim_heap;
use tch::nn::{Init, VarStore};
use tch::{Device, Tensor};

use crate::error::{Error, Result};
use crate::locate::{Event, ModelFiles, locate};
use crate::options::HubOptions;
use crate::weights::read_weights;
use crate::{module, preprocessor};

/// Tokens of CLIP's own vocabulary.
const CLIP_TOKENS: i64 = 49408;

/// A model as its files describe it.
#[derive(Debug)]
pub struct Pretrained {
    /// Where it is.
    pub files: ModelFiles,
    /// Both towers, or one; `None` for weights under our own names that do not tell their towers' sizes, BERT's number of heads
    /// for one.
    pub architecture: Option<Architecture>,
    /// What the pixels become before the image tower, where the files say so.
    pub normalization: Option<Normalization>,
    /// The weights under our names, those of a single tower with the prefix that it has within a [`Clip`].
    pub tensors: BTreeMap<String, Tensor>,
    /// Whether names and configuration are Hugging Face's.
    hugging_face: bool,
    /// Why the sizes of its towers are not known.
    unknown: Option<String>,
    /// What its files leave open and is assumed.
    assumed: Vec<String>,
    /// The tokenizer beside it, in the making.
    tokenizer: Option<JoinHandle<Result<Tokenizer>>>,
}

/// A model ready for use.
#[derive(Debug)]
pub struct Loaded {
    /// The weights' owner. Of a model that was trained with SigLIP's loss it also has `logit_bias`, a scalar.
    pub vs: VarStore,
    /// The encoders.
    pub clip: Clip,
    /// What reads its texts.
    pub tokenizer: Tokenizer,
}

/// What a file says of a network.
struct Described {
    architecture: Option<Architecture>,
    hugging_face: bool,
    unknown: Option<String>,
    assumed: Vec<String>,
}

impl Pretrained {
    /// Finds the model ([`locate`]) and reads it: open_clip's and OpenAI's state dicts, Hugging Face's `CLIPModel`, `ViTModel`,
    /// `BertModel` and `RobertaModel`, torchvision's ResNets. Prefixes that wrappers put before a network's names (`module.`,
    /// `_orig_mod.`, `model.`, `clip.`) are stripped.
    ///
    /// # Errors
    /// As [`locate`] and [`read_weights`]; or the model is none of these.
    pub fn open(name: &str, hub: &HubOptions, watch: &mut dyn FnMut(Event<'_>)) -> Result<Self> {
        let files = locate(name, hub, watch)?;
        // A large vocabulary takes as long to read as the weights take to arrange.
        let root = files.root.clone();
        let beside = files.open_clip_config.is_none() && files.file("tokenizer.json").is_some();
        let tokenizer = beside.then(|| spawn(move || Ok(Tokenizer::from_folder(&root)?)));
        let wrong = |source| Error::Model { name: name.to_owned(), source };
        let tensors = read_weights(&files)?;
        if tensors.keys().any(|n| n.contains(".lora_A.") || n.starts_with("base_model.model.")) {
            return Err(module::adapter(&files.root.display().to_string(), files.file(module::ADAPTER).as_deref()));
        }
        let tensors = strip_wrappers(tensors).map_err(wrong)?;
        let Described { architecture, hugging_face, unknown, mut assumed } = describe(&files, &tensors).map_err(wrong)?;
        let (architecture, normalization) = normalized(architecture, &files, hugging_face, &mut assumed)?;
        let tensors = match &architecture {
            Some(architecture) if hugging_face => from_hugging_face(architecture, tensors).map_err(wrong)?,
            Some(Architecture::Image(_)) => from_torchvision(tensors),
            _ => from_open_clip(tensors),
        };
        let pretrained = Pretrained { files, architecture, normalization, tensors, hugging_face, unknown, assumed, tokenizer };
        Ok(pretrained.with_assumed_tokenizer())
    }

    /// Where a network's sizes are assumed, so is that its texts are read as CLIP's.
    fn with_assumed_tokenizer(mut self) -> Self {
        if !self.assumed.is_empty() && !self.hugging_face && self.text().is_some() && self.reads_as_clip() {
            self.assumed.push("CLIP's tokenizer".to_owned());
        }
        self
    }

    /// What the model's files leave open and is assumed: one phrase each.
    pub fn assumptions(&self) -> &[String] {
        &self.assumed
    }

    /// Warns of what the model's files leave open and is assumed, if there is anything.
    pub fn warn_of_assumptions(&self) {
        if self.assumed.is_empty() {
            return;
        }
        let (lacks, remedy) = match self.hugging_face {
            true => ("no preprocessor_config.json or processor_config.json", "the model's"),
            false => ("no configuration", "the model's open_clip_config.json"),
        };
        tracing::warn!(
            "{}: there is {lacks} next to the weights; assumed: {}. If this is wrong, put {remedy} there",
            self.files.name,
            self.assumed.join("; ")
        );
    }

    /// Its image tower.
    pub fn vision(&self) -> Option<&VisionConfig> {
        match self.architecture.as_ref()? {
            Architecture::Clip(config) => Some(&config.vision),
            Architecture::Image(vision) => Some(vision),
            Architecture::Text(_) => None,
        }
    }

    /// Its text tower.
    pub fn text(&self) -> Option<&TextConfig> {
        match self.architecture.as_ref()? {
            Architecture::Clip(config) => Some(&config.text),
            Architecture::Text(text) => Some(text),
            Architecture::Image(_) => None,
        }
    }

    /// The tokenizer of its text tower: in Hugging Face's layout the one beside the model, to the token; else CLIP's own.
    ///
    /// # Errors
    /// The files are damaged, or missing for a text tower with another vocabulary than CLIP's.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        Ok(if self.reads_as_clip() { Tokenizer::clip()? } else { Tokenizer::from_folder(&self.files.root)? })
    }

    /// Whether a tokenizer lies beside it.
    pub fn has_tokenizer(&self) -> bool {
        ["tokenizer.json", "vocab.json", "vocab.txt"].iter().any(|name| self.files.file(name).is_some())
    }

    /// Whether its texts are read by CLIP's own tokenizer, and not by one beside it.
    pub fn reads_as_clip(&self) -> bool {
        let of_clip = matches!(self.text(), Some(TextConfig::Clip(c)) if c.vocab_size == CLIP_TOKENS);
        of_clip && !(self.has_tokenizer() && self.hugging_face)
    }

    /// The whole model on `device`. Every tensor must be there, and no others but `logit_bias`. Warns of what is assumed.
    ///
    /// # Errors
    /// It is a single tower, or the sizes of its towers are not known; names or shapes differ; there is no tokenizer, or it has more
    /// tokens than the model; the device has no memory left.
    pub fn into_clip(mut self, device: Device) -> Result<Loaded> {
        self.warn_of_assumptions();
        let name = self.files.name.clone();
        let wrong = |source| Error::Model { name: name.clone(), source };
        let tokenizer = match self.tokenizer.take() {
            Some(reading) if !self.reads_as_clip() => Some(reading.join().unwrap_or_else(|panic| resume_unwind(panic))),
            _ => None,
        };
        let Some(Architecture::Clip(config)) = &self.architecture else {
            return Err(Error::Name { name, why: self.not_whole() });
        };
        let tokenizer = tokenizer.unwrap_or_else(|| self.tokenizer())?;
        check_tokens(&name, &tokenizer, config)?;
        let mut vs = VarStore::new(Device::Cpu);
        // The encoders do not know it.
        let bias = self.tensors.remove("logit_bias");
        if let Some(shape) = bias.as_ref().map(Tensor::size).filter(|shape| !shape.is_empty()) {
            let why = format!("`logit_bias` has shape {shape:?}, and is a scalar in SigLIP's loss");
            return Err(wrong(softclip_encoders::Error::Weights(why)));
        }
        let (clip, _): (Clip, LoadReport) = Clip::from_tensors(&vs, config, self.tensors, true).map_err(wrong)?;
        let scale = clip.logit_scale().double_value(&[]);
        if !scale.exp().is_finite() {
            let why = format!("`logit_scale` is {scale}, from which no logits can be computed: the weights are damaged");
            return Err(wrong(softclip_encoders::Error::Weights(why)));
        }
        if let Some(bias) = bias {
            let _ = vs.root().var("logit_bias", &[], Init::Const(bias.double_value(&[])));
        }
        if device != Device::Cpu {
            vs.set_device(device);
            to_channels_last(&vs).map_err(wrong)?;
        }
        // A tokenizer's file is a large document that was read and thrown away.
        trim_heap();
        Ok(Loaded { vs, clip, tokenizer })
    }

    /// Why there are not two towers.
    fn not_whole(&self) -> String {
        match (&self.architecture, &self.unknown) {
            (Some(_), _) => {
                "it is a single tower: images and texts meet only in a model of two, such as openai/clip-vit-base-patch32".into()
            }
            (None, Some(why)) => why.clone(),
            (None, None) => {
                "nothing beside its weights tells the sizes of its towers: write them into a configuration to train with, \
                 and name it there as `model.init`"
                    .into()
            }
        }
    }
}

/// Reads what the network is: from a configuration, else from the weights' names and shapes.
fn describe(files: &ModelFiles, tensors: &BTreeMap<String, Tensor>) -> softclip_encoders::Result<Described> {
    let has = |prefix: &str| tensors.keys().any(|n| n.starts_with(prefix));
    let of = |architecture, hugging_face| Described { architecture, hugging_face, unknown: None, assumed: vec![] };
    if has("visual.") {
        if let Some(path) = &files.open_clip_config {
            return Ok(of(Some(Architecture::Clip(ClipConfig::from_open_clip_file(path)?)), false));
        }
        if has("visual.trunk.") || has("text.transformer.") {
            return Ok(of(None, false));
        }
        return Ok(match infer_config(tensors) {
            Ok((config, assumed)) => {
                Described { assumed: assumed.into_iter().collect(), ..of(Some(Architecture::Clip(config)), false) }
            }
            Err(e) => Described { unknown: Some(e.to_string()), ..of(None, false) },
        });
    }
    if let Some(path) = files.config.as_ref().filter(|_| !has("layer1.")) {
        let fail = |why: String| softclip_encoders::Error::File { path: path.clone(), why };
        let text = softclip_io::read_text(path).map_err(|e| fail(e.to_string()))?;
        return Ok(of(Some(read_config(&text)?), true));
    }
    Ok(of(Some(Architecture::Image(infer_torchvision(tensors)?)), false))
}

/// A token beyond the embedding would fail only when a text has it.
fn check_tokens(name: &str, tokenizer: &Tokenizer, config: &ClipConfig) -> Result<()> {
    let (tokens, rows) = (tokenizer.vocab_size() as i64, config.text.vocab_size());
    if tokens <= rows {
        return Ok(());
    }
    let why = format!(
        "its tokenizer has {tokens} tokens, but its text tower knows {rows}: remove the added tokens from the tokenizer, or resize the \
         token embedding (`model.resize_token_embeddings({tokens})` in transformers) and save the model again"
    );
    Err(Error::Name { name: name.to_owned(), why })
}

/// Takes the normalization from the preprocessor's file, where there is one; what is assumed otherwise is noted.
fn normalized(
    architecture: Option<Architecture>,
    files: &ModelFiles,
    hugging_face: bool,
    assumed: &mut Vec<String>,
) -> Result<(Option<Architecture>, Option<Normalization>)> {
    Ok(match architecture {
        Some(Architecture::Clip(config)) => {
            let looks = hugging_face || files.open_clip_config.is_none();
            let found = if looks { preprocessor::find(files, config.image_size(), true)? } else { None };
            if found.is_none() && (hugging_face || !assumed.is_empty()) {
                let size = config.image_size();
                assumed.push(format!(
                    "CLIP's mean and std of pixels, images resized bicubically to {size} pixels on the shorter side and center-cropped"
                ));
            }
            let normalization = found.unwrap_or(config.normalization);
            (Some(Architecture::Clip(ClipConfig { normalization, ..config })), Some(normalization))
        }
        Some(Architecture::Image(vision)) => {
            let found = preprocessor::find(files, vision.image_size(), false)?;
            if found.is_none() && hugging_face {
                assumed.push("pixels from -1 to 1 (mean and std of 0.5) where the configuration says nothing else".to_owned());
            }
            (Some(Architecture::Image(vision)), found)
        }
        other => (other, None),
    })
}
