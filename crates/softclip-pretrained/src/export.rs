//! Models in other libraries' layouts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use softclip_data::tokenizer::Tokenizer;
use softclip_encoders::hugging_face::{to_clip_config, to_hugging_face};
use softclip_encoders::{ClipConfig, TextConfig};
use softclip_tensor::file::{write_atomic, write_safetensors};
use tch::Tensor;

use crate::error::{Error, Result, io};

/// What was written.
#[derive(Debug)]
pub struct Exported {
    /// The folder.
    pub folder: PathBuf,
    /// Number of tensors.
    pub tensors: usize,
    /// Tensors of the model that the layout has no place for.
    pub left_out: Vec<String>,
}

/// Whether a tensor belongs to the two towers: the region branch and the loss's own parameters have no place elsewhere.
fn is_of_towers(name: &str) -> bool {
    !name.starts_with("regions.") && !matches!(name, "logit_bias" | "target_logit_scale")
}

fn split(tensors: &BTreeMap<String, Tensor>) -> (BTreeMap<String, Tensor>, Vec<String>) {
    let (kept, left): (BTreeMap<_, _>, BTreeMap<_, _>) =
        tensors.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).partition(|(name, _)| is_of_towers(name));
    (kept, left.into_keys().collect())
}

/// Writes Hugging Face's `CLIPModel` folder: `config.json`, `model.safetensors`, `preprocessor_config.json` and the tokenizer's files.
///
/// # Errors
/// The model has no such form (a ResNet, BERT); the folder cannot be written.
pub fn export_hugging_face(
    config: &ClipConfig,
    tensors: &BTreeMap<String, Tensor>,
    tokenizer: &Tokenizer,
    folder: &Path,
) -> Result<Exported> {
    let wrong = |source| Error::Model { name: folder.display().to_string(), source };
    let start_end = [tokenizer.start_token(), tokenizer.end_token()];
    let json = to_clip_config(config, Some(start_end)).map_err(wrong)?;
    let (kept, left_out) = split(tensors);
    let theirs: Vec<(String, Tensor)> = to_hugging_face(config, &kept).map_err(wrong)?.into_iter().collect();
    let size = config.image_size();
    let preprocessor = json!({
        "image_processor_type": "CLIPImageProcessor",
        "feature_extractor_type": "CLIPFeatureExtractor",
        "do_convert_rgb": true,
        "do_resize": true,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": true,
        "crop_size": {"height": size, "width": size},
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": config.normalization.mean,
        "image_std": config.normalization.std,
    });
    fs::create_dir_all(folder).map_err(io(folder))?;
    tokenizer.save(folder)?;
    write_json(&folder.join("preprocessor_config.json"), &preprocessor)?;
    write_json(&folder.join("config.json"), &json)?;
    write_weights(&folder.join("model.safetensors"), &theirs)?;
    Ok(Exported { folder: folder.to_owned(), tensors: theirs.len(), left_out })
}

/// Writes open_clip's folder: `open_clip_config.json`, `open_clip_model.safetensors` and the tokenizer's files. A model with BERT or
/// torchvision's ResNet gets its weights under open_clip's names, but no configuration, as open_clip's names a hub's model for those.
///
/// # Errors
/// The folder cannot be written; a form of CLIP's towers that open_clip does not have.
pub fn export_open_clip(
    config: &ClipConfig,
    tensors: &BTreeMap<String, Tensor>,
    tokenizer: &Tokenizer,
    folder: &Path,
) -> Result<Exported> {
    let (kept, left_out) = split(tensors);
    let of_clip =
        matches!(config.text, TextConfig::Clip(_)) && !matches!(config.vision, softclip_encoders::VisionConfig::Resnet50(_));
    let json = of_clip.then(|| config.to_open_clip_json()).transpose();
    let json = json.map_err(|source| Error::Model { name: folder.display().to_string(), source })?;
    let kept: Vec<(String, Tensor)> = kept.into_iter().collect();
    fs::create_dir_all(folder).map_err(io(folder))?;
    tokenizer.save(folder)?;
    if let Some(json) = json {
        write_json(&folder.join("open_clip_config.json"), &json)?;
    }
    write_weights(&folder.join("open_clip_model.safetensors"), &kept)?;
    Ok(Exported { folder: folder.to_owned(), tensors: kept.len(), left_out })
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let mut bytes = format!("{value:#}").into_bytes();
    bytes.push(b'\n');
    Ok(write_atomic(path, &bytes)?)
}

fn write_weights(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    Ok(write_safetensors(path, tensors, &BTreeMap::from([("format".to_owned(), "pt".to_owned())]))?)
}
