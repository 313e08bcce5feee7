//! `preprocessor_config.json`: what is done to an image before the model.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use softclip_encoders::Normalization;

use crate::error::{Result, file, io};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Preprocessor {
    image_mean: Option<[f64; 3]>,
    image_std: Option<[f64; 3]>,
    resample: Option<i64>,
    do_resize: Option<bool>,
    do_center_crop: Option<bool>,
    do_normalize: Option<bool>,
    size: Value,
    crop_size: Value,
}

/// Pillow's number of bicubic resampling.
const BICUBIC: i64 = 3;

/// The normalization that the file asks for.
///
/// # Errors
/// It is no such file; or, for a `whole` model, whose images are prepared here as CLIP's are (the shorter side resized bicubically to
/// `image_size`, then the centre), it asks for something else.
pub(crate) fn read(path: &Path, image_size: i64, whole: bool) -> Result<Normalization> {
    let text = fs::read_to_string(path).map_err(io(path))?;
    let mut value: Value = serde_json::from_str(&text).map_err(|e| file(path, format!("is no JSON ({e})")))?;
    // `processor_config.json` nests it.
    if let Some(nested) = value.get_mut("image_processor").map(Value::take) {
        value = nested;
    }
    let p: Preprocessor = serde_json::from_value(value).map_err(|e| file(path, e.to_string()))?;
    if whole {
        let shortest = p.size.get("shortest_edge").or(Some(&p.size)).and_then(Value::as_i64);
        let crop = p.crop_size.get("height").or(Some(&p.crop_size)).and_then(Value::as_i64);
        let other = |found: Option<i64>| found.is_some_and(|size| size != image_size);
        let unlike = [
            (p.resample.is_some_and(|r| r != BICUBIC), "resample is not 3 (bicubic)"),
            (p.do_resize == Some(false), "do_resize is false"),
            (p.do_center_crop == Some(false), "do_center_crop is false"),
            (p.do_normalize == Some(false), "do_normalize is false"),
            (p.size.get("height").is_some(), "size is not given by the shortest edge"),
            (other(shortest), "size is not the model's image size"),
            (other(crop), "crop_size is not the model's image size"),
        ];
        if let Some((_, what)) = unlike.iter().find(|(unlike, _)| *unlike) {
            return Err(file(path, format!("{what}: images are prepared only as CLIP's are; scores would not be the model's")));
        }
    }
    let clip = Normalization::CLIP;
    Ok(Normalization { mean: p.image_mean.unwrap_or(clip.mean), std: p.image_std.unwrap_or(clip.std) })
}
