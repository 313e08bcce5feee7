//! A pretrained model, from its files to towers and tensors under our names.

use std::collections::BTreeMap;
use std::fs;
use std::panic::resume_unwind;
use std::thread::{JoinHandle, spawn};

use softclip_data::tokenizer::Tokenizer;
use softclip_encoders::hugging_face::{from_hugging_face, read_config};
use softclip_encoders::{
    Architecture, Clip, ClipConfig, LoadReport, Normalization, TextConfig, VisionConfig, from_open_clip, from_torchvision,
    infer_config, infer_torchvision, to_channels_last,
};
use softclip_torch::trim_heap;
use tch::nn::VarStore;
use tch::{Device, Tensor};

use crate::error::{Error, Result, io};
use crate::locate::{Event, ModelFiles, locate};
use crate::options::HubOptions;
use crate::preprocessor;
use crate::weights::read_weights;

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
    /// The tokenizer beside it, in the making.
    tokenizer: Option<JoinHandle<Result<Tokenizer>>>,
}

/// A model ready for use.
#[derive(Debug)]
pub struct Loaded {
    /// The weights' owner.
    pub vs: VarStore,
    /// The encoders.
    pub clip: Clip,
    /// What reads its texts.
    pub tokenizer: Tokenizer,
}

impl Pretrained {
    /// Finds the model ([`locate`]) and reads it: open_clip's and OpenAI's state dicts, Hugging Face's `CLIPModel`, `ViTModel`,
    /// `BertModel` and `RobertaModel`, torchvision's ResNets.
    ///
    /// # Errors
    /// As [`locate`] and [`read_weights`]; or the model is none of these.
    pub fn open(name: &str, hub: &HubOptions, watch: &mut dyn FnMut(Event<'_>)) -> Result<Self> {
        let files = locate(name, hub, watch)?;
        // A large vocabulary takes as long to read as the weights take to arrange.
        let root = files.root.clone();
        let beside = files.open_clip_config.is_none() && files.file("tokenizer.json").is_some();
        let tokenizer = beside.then(|| spawn(move || Ok(Tokenizer::from_folder(&root)?)));
        let tensors = read_weights(&files)?;
        let wrong = |source| Error::Model { name: name.to_owned(), source };
        let has = |prefix: &str| tensors.keys().any(|n| n.strip_prefix("module.").unwrap_or(n).starts_with(prefix));
        let (architecture, hugging_face) = if has("visual.") {
            let config = match &files.open_clip_config {
                Some(path) => Some(ClipConfig::from_open_clip_file(path)),
                None if has("visual.trunk.") || has("text.transformer.") => None,
                None => infer_config(&tensors).ok().map(Ok),
            };
            (config.transpose().map_err(wrong)?.map(Architecture::Clip), false)
        } else if let Some(path) = files.config.as_ref().filter(|_| !has("layer1.")) {
            let text = fs::read_to_string(path).map_err(io(path))?;
            (Some(read_config(&text).map_err(wrong)?), true)
        } else {
            (Some(Architecture::Image(infer_torchvision(&tensors).map_err(wrong)?)), false)
        };
        let (architecture, normalization) = normalized(architecture, &files, hugging_face)?;
        let tensors = match &architecture {
            Some(architecture) if hugging_face => from_hugging_face(architecture, tensors).map_err(wrong)?,
            Some(Architecture::Image(_)) => from_torchvision(tensors),
            _ => from_open_clip(tensors),
        };
        Ok(Pretrained { files, architecture, normalization, tensors, hugging_face, tokenizer })
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

    /// The whole model on `device`. Every tensor must be there, and no others.
    ///
    /// # Errors
    /// It is a single tower, or the sizes of its towers are not known; names or shapes differ; there is no tokenizer; the device has
    /// no memory left.
    pub fn into_clip(mut self, device: Device) -> Result<Loaded> {
        let name = self.files.name.clone();
        let wrong = |source| Error::Model { name: name.clone(), source };
        let Some(Architecture::Clip(config)) = &self.architecture else {
            let why = match self.architecture {
                Some(_) => {
                    "it is a single tower: images and texts meet only in a model of two, such as openai/clip-vit-base-patch32"
                }
                None => {
                    "nothing beside its weights tells the sizes of its towers: write them into a configuration to train with, \
                         and name it there as `model.init`"
                }
            };
            return Err(Error::Name { name, why: why.into() });
        };
        let mut vs = VarStore::new(Device::Cpu);
        let tokenizer = match self.tokenizer.take() {
            Some(reading) if !self.reads_as_clip() => reading.join().unwrap_or_else(|panic| resume_unwind(panic))?,
            _ => self.tokenizer()?,
        };
        let (clip, _): (Clip, LoadReport) = Clip::from_tensors(&vs, config, self.tensors, true).map_err(wrong)?;
        if device != Device::Cpu {
            vs.set_device(device);
            to_channels_last(&vs).map_err(wrong)?;
        }
        // A tokenizer's file is a large document that was read and thrown away.
        trim_heap();
        Ok(Loaded { vs, clip, tokenizer })
    }
}

/// Takes the normalization from the preprocessor's file, where there is one.
fn normalized(
    architecture: Option<Architecture>,
    files: &ModelFiles,
    hugging_face: bool,
) -> Result<(Option<Architecture>, Option<Normalization>)> {
    let path = files.file("preprocessor_config.json").or_else(|| files.file("processor_config.json"));
    Ok(match (architecture, path) {
        (Some(Architecture::Clip(config)), path) => {
            let path = path.filter(|_| hugging_face || files.open_clip_config.is_none());
            let found = path.map(|path| preprocessor::read(&path, config.image_size(), true)).transpose()?;
            let normalization = found.unwrap_or(config.normalization);
            (Some(Architecture::Clip(ClipConfig { normalization, ..config })), Some(normalization))
        }
        (Some(Architecture::Image(vision)), Some(path)) => {
            let found = preprocessor::read(&path, vision.image_size(), false)?;
            (Some(Architecture::Image(vision)), Some(found))
        }
        (other, _) => (other, None),
    })
}
