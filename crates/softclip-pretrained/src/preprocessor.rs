//! `preprocessor_config.json` and `processor_config.json`: what is done to an image before the model.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use softclip_encoders::Normalization;

use crate::error::{Result, file};
use crate::locate::ModelFiles;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Preprocessor {
    image_mean: Option<[f64; 3]>,
    image_std: Option<[f64; 3]>,
    resample: Option<i64>,
    do_resize: Option<bool>,
    do_center_crop: Option<bool>,
    do_normalize: Option<bool>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    size: Value,
    crop_size: Value,
}

/// Pillow's number of bicubic resampling.
const BICUBIC: i64 = 3;

/// Reads how the model's images are prepared. transformers 5 writes it into `processor_config.json` and prefers it there; before, it was
/// in `preprocessor_config.json`, and `processor_config.json` had other things. `None` where neither says it.
///
/// # Errors
/// As [`read`].
pub(crate) fn find(files: &ModelFiles, image_size: i64, whole: bool) -> Result<Option<Normalization>> {
    let settings =
        |name: &str| -> Result<Option<(Value, PathBuf)>> { files.file(name).map(|path| Ok((json(&path)?, path))).transpose() };
    let nested = settings("processor_config.json")?;
    let nested = nested.and_then(|(mut value, path)| {
        let inner = value.get_mut("image_processor").map(Value::take)?;
        inner.is_object().then_some((inner, path))
    });
    let found = match nested {
        Some(found) => Some(found),
        None => settings("preprocessor_config.json")?,
    };
    found.map(|(value, path)| read(value, &path, image_size, whole)).transpose()
}

fn json(path: &Path) -> Result<Value> {
    let text = softclip_io::read_text(path).map_err(|e| file(path, e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| file(path, format!("is no JSON ({e})")))
}

/// The normalization that an image processor's settings ask for, with its rescaling in it.
///
/// # Errors
/// They are no such settings; or, for a `whole` model, whose images are prepared here as CLIP's are (the shorter side resized
/// bicubically to `image_size`, then the center), they ask for something else.
fn read(value: Value, path: &Path, image_size: i64, whole: bool) -> Result<Normalization> {
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
    let normalization = Normalization { mean: p.image_mean.unwrap_or(clip.mean), std: p.image_std.unwrap_or(clip.std) };
    let factor = match p.do_rescale {
        Some(false) => 1.0,
        _ => p.rescale_factor.unwrap_or(1.0 / 255.0),
    };
    if !(factor.is_finite() && factor > 0.0) {
        return Err(file(path, format!("rescale_factor is {factor}: it must be positive")));
    }
    Ok(rescaled(normalization, factor))
}

/// The normalization of x/255 that gives what `n` gives of `factor`·x: (factor·x − mean)/std.
fn rescaled(n: Normalization, factor: f64) -> Normalization {
    let scale = 255.0 * factor;
    // The usual factor, however its last digit was rounded, changes nothing.
    if (scale - 1.0).abs() < 1e-9 {
        return n;
    }
    Normalization { mean: n.mean.map(|m| m / scale), std: n.std.map(|s| s / scale) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_value(value: Value) -> std::result::Result<Normalization, String> {
        read(value, Path::new("preprocessor_config.json"), 48, true).map_err(|e| e.to_string())
    }

    #[test]
    fn rescaling_is_part_of_the_normalization() {
        let n = Normalization { mean: [0.5; 3], std: [0.25; 3] };
        let with = |more: Value| {
            let mut value = json!({"image_mean": n.mean, "image_std": n.std});
            value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            read_value(value)
        };
        for usual in [json!({}), json!({"do_rescale": true, "rescale_factor": 0.00392156862745098})] {
            assert_eq!(with(usual).unwrap(), n);
        }
        for (more, factor) in [
            (json!({"rescale_factor": 2.0 / 255.0}), 2.0 / 255.0),
            (json!({"do_rescale": false}), 1.0),
            (json!({"do_rescale": false, "rescale_factor": 0.1}), 1.0),
        ] {
            let found = with(more).unwrap();
            for x in [0.0, 7.0, 255.0] {
                let (ours, theirs) = ((x / 255.0 - found.mean[0]) / found.std[0], (factor * x - n.mean[0]) / n.std[0]);
                assert!((ours - theirs).abs() < 1e-9 * theirs.abs().max(1.0), "{ours} {theirs}");
            }
        }
        for bad in [json!({"rescale_factor": 0}), json!({"rescale_factor": -1.0})] {
            assert!(with(bad).unwrap_err().contains("rescale_factor"));
        }
    }
}
