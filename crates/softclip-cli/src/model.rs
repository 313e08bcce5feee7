//! Models as commands name them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use softclip_data::image::{Alpha, DecodeOptions};
use softclip_data::tokenizer::Tokenizer;
use softclip_encoders::{Clip, named_tensors};
use softclip_pretrained::{HubOptions, Loaded, ModelFiles, Pretrained};
use softclip_score::embed::{Encoder, ModelId};
use softclip_tensor::Precision;
use softclip_train::log::Downloads;
use softclip_train::{TrainedModel, checkpoint};
use tch::{Device, Tensor};

/// A model with all that its inputs need.
pub enum Opened {
    /// A run's.
    Run(Box<TrainedModel>),
    /// Of other origin.
    Pretrained(Box<(ModelFiles, Loaded)>),
}

/// Opens a run's folder or one of its checkpoints; all else is a pretrained model: a folder, a file, or a hub's name.
pub fn open(name: &str, device: Device) -> Result<Opened> {
    let path = Path::new(name);
    if path.join("config.yaml").is_file() || path.join(checkpoint::STATE).is_file() {
        return Ok(Opened::Run(Box::new(TrainedModel::open(path, device)?)));
    }
    let found = read_pretrained(name);
    let pretrained = match path.is_dir() {
        true => found.with_context(|| format!("{name} is no run (it has no config.yaml); as a pretrained model")),
        false => found,
    }?;
    let files = pretrained.files.clone();
    Ok(Opened::Pretrained(Box::new((files, pretrained.into_clip(device)?))))
}

/// Finds and reads a pretrained model; downloads show on standard error.
pub fn read_pretrained(name: &str) -> Result<Pretrained> {
    let mut downloads = Downloads::new(false);
    Ok(Pretrained::open(name, &HubOptions::from_env()?, &mut |event| downloads.see(event))?)
}

impl Opened {
    pub fn clip(&self) -> &Clip {
        match self {
            Self::Run(trained) => trained.model.clip(),
            Self::Pretrained(of) => &of.1.clip,
        }
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        match self {
            Self::Run(trained) => &trained.tokenizer,
            Self::Pretrained(of) => &of.1.tokenizer,
        }
    }

    /// What it was trained with; f32 where that is not known.
    pub fn precision(&self) -> Precision {
        match self {
            Self::Run(trained) => trained.config.train.precision,
            Self::Pretrained(_) => Precision::Fp32,
        }
    }

    /// How images are decoded: as the run did; for a pretrained model as its own library does, to the pixel.
    pub fn decode(&self) -> DecodeOptions {
        match self {
            Self::Run(trained) => trained.config.data.decode,
            Self::Pretrained(of) => DecodeOptions {
                dct_scaling: false,
                apply_exif: false,
                // The models that are cut as by Hugging Face's processors are composed on white as by them.
                alpha: if of.1.clip.config().floor_crop { Alpha::White } else { Alpha::Drop },
                ..DecodeOptions::default()
            },
        }
    }

    /// `logit_bias` of a model that was trained with SigLIP's loss.
    pub fn logit_bias(&self) -> Option<f64> {
        match self {
            Self::Run(trained) => trained.model.bias().map(|bias| bias.double_value(&[])),
            Self::Pretrained(of) => {
                named_tensors(&of.1.vs).into_iter().find(|(name, _)| name == "logit_bias").map(|(_, bias)| bias.double_value(&[]))
            }
        }
    }

    /// All weights by name, those of the loss among them.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        match self {
            Self::Run(trained) => trained.model.tensors().into_iter().collect(),
            Self::Pretrained(of) => named_tensors(&of.1.vs).into_iter().collect(),
        }
    }

    /// A name that opens the same weights later.
    pub fn lasting_name(&self) -> Result<String> {
        Ok(match self {
            Self::Run(trained) => std::path::absolute(&trained.checkpoint.path)?.display().to_string(),
            Self::Pretrained(of) => of.0.lasting_name()?,
        })
    }

    /// What embeddings are known by. Of a pretrained model all weights are read again for it.
    pub fn id(&self) -> Result<ModelId> {
        let weights = match self {
            Self::Run(trained) => trained.checkpoint.state.sha256.get(checkpoint::MODEL).cloned().unwrap_or_default(),
            Self::Pretrained(of) => of.0.sha256()?,
        };
        Ok(ModelId { name: self.lasting_name()?, weights })
    }

    pub fn encoder(&self, device: Device, precision: Option<Precision>) -> Encoder<'_> {
        let precision = precision.unwrap_or(self.precision());
        Encoder { clip: self.clip(), tokenizer: self.tokenizer(), decode: self.decode(), device, precision }
    }
}
