//! open_clip's model files.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{ClipConfig, ClipTextConfig, Normalization, ResNetConfig, TextConfig, VisionConfig, VitConfig, four};
use crate::error::{Error, Result};
use crate::layers::Activation;

#[derive(Deserialize)]
struct OpenClip {
    embed_dim: i64,
    vision_cfg: Vision,
    text_cfg: Text,
    #[serde(default)]
    quick_gelu: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vision {
    image_size: i64,
    layers: Layers,
    width: i64,
    patch_size: Option<i64>,
    #[serde(default = "sixty_four")]
    head_width: i64,
    #[serde(default = "four")]
    mlp_ratio: f64,
    #[serde(default)]
    patch_dropout: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default = "seventy_seven")]
    context_length: i64,
    #[serde(default = "clips")]
    vocab_size: i64,
    width: i64,
    heads: i64,
    layers: i64,
    #[serde(default = "four")]
    mlp_ratio: f64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Layers {
    Stages([i64; 4]),
    Blocks(i64),
}

fn sixty_four() -> i64 {
    64
}

fn seventy_seven() -> i64 {
    77
}

fn clips() -> i64 {
    49408
}

/// `preprocess_cfg` of `open_clip_config.json`; what is absent is CLIP's.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Preprocess {
    mean: Option<[f64; 3]>,
    std: Option<[f64; 3]>,
    interpolation: Option<String>,
    resize_mode: Option<String>,
}

fn fail(why: impl ToString) -> Error {
    Error::Config { key: "open_clip", why: why.to_string() }
}

impl ClipConfig {
    /// Reads open_clip's model JSON: a file of its `model_configs`, or the `open_clip_config.json` of a published model.
    ///
    /// # Errors
    /// The file cannot be read, lacks a key, or describes a tower that is not among CLIP's.
    pub fn from_open_clip_file(path: &Path) -> Result<Self> {
        let fail = |why: String| Error::File { path: path.to_owned(), why };
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        Self::from_open_clip_json(&text).map_err(|e| fail(e.to_string()))
    }

    /// Reads open_clip's model JSON from text: `embed_dim`, `vision_cfg`, `text_cfg`, `quick_gelu`, on their own or as
    /// `model_cfg` beside `preprocess_cfg`.
    ///
    /// # Errors
    /// As [`ClipConfig::from_open_clip_file`].
    pub fn from_open_clip_json(text: &str) -> Result<Self> {
        let mut value: Value = serde_json::from_str(text).map_err(fail)?;
        let (model, preprocess) = match value.get_mut("model_cfg").map(Value::take) {
            Some(model) => (model, value.get_mut("preprocess_cfg").map(Value::take).unwrap_or(Value::Null)),
            None => (value, Value::Null),
        };
        let whole: OpenClip = serde_json::from_value(model).map_err(fail)?;
        let activation = Activation::of(whole.quick_gelu);
        let text = whole.text_cfg;
        let config = ClipConfig {
            embed_dim: whole.embed_dim,
            vision: vision(whole.vision_cfg, activation)?,
            text: TextConfig::Clip(ClipTextConfig {
                context_length: text.context_length,
                vocab_size: text.vocab_size,
                heads: text.heads,
                layers: text.layers,
                mlp_ratio: text.mlp_ratio,
                activation,
                ..ClipTextConfig::clip(text.width)
            }),
            normalization: normalization(preprocess)?,
            floor_crop: false,
            regions: None,
        };
        config.validate()?;
        Ok(config)
    }

    /// `open_clip_config.json` of this model: `model_cfg` and `preprocess_cfg`.
    ///
    /// # Errors
    /// A tower is not among open_clip's own.
    pub fn to_open_clip_json(&self) -> Result<Value> {
        let TextConfig::Clip(text) = &self.text else {
            return Err(fail("only CLIP's own text Transformer has a place in it"));
        };
        let (vision_cfg, activation) = match &self.vision {
            VisionConfig::Resnet(c) => {
                let head_width = c.width * 32 / c.heads;
                (
                    json!({"image_size": c.image_size, "layers": c.layers, "width": c.width, "head_width": head_width}),
                    text.activation,
                )
            }
            VisionConfig::Vit(c) if c.ln_pre && !c.patch_bias && !c.pooler => {
                let (size, head_width) = (c.image_size, c.width / c.heads);
                let mut v = json!({"image_size": size, "layers": c.layers, "width": c.width, "patch_size": c.patch_size});
                v["head_width"] = json!(head_width);
                v["mlp_ratio"] = json!(c.mlp_ratio);
                if c.patch_dropout > 0.0 {
                    v["patch_dropout"] = json!(c.patch_dropout);
                }
                (v, c.activation)
            }
            _ => return Err(fail("only CLIP's own image towers have a place in it")),
        };
        let quick_gelu = match (activation, text.activation) {
            (Activation::Gelu, Activation::Gelu) => false,
            (Activation::QuickGelu, Activation::QuickGelu) => true,
            (a, b) => return Err(fail(format!("both towers must have gelu or both quick_gelu, not {a:?} and {b:?}"))),
        };
        let eps = if let VisionConfig::Vit(c) = &self.vision { c.layer_norm_eps } else { text.layer_norm_eps };
        if [eps, text.layer_norm_eps].iter().any(|&eps| eps != super::published_eps()) {
            return Err(fail("its layer norms have an ε of 1e-5, this model's another"));
        }
        if text.pool != super::TextPool::Eot || text.eot_token_id.is_some() {
            return Err(fail("its text tower is read at the token with the largest id, this one is not"));
        }
        let mut model = json!({
            "embed_dim": self.embed_dim,
            "vision_cfg": vision_cfg,
            "text_cfg": {
                "context_length": text.context_length, "vocab_size": text.vocab_size, "width": text.width,
                "heads": text.heads, "layers": text.layers, "mlp_ratio": text.mlp_ratio,
            },
        });
        if quick_gelu {
            model["quick_gelu"] = json!(true);
        }
        let Normalization { mean, std } = self.normalization;
        Ok(json!({
            "model_cfg": model,
            "preprocess_cfg": {"mean": mean, "std": std, "interpolation": "bicubic", "resize_mode": "shortest"},
        }))
    }
}

fn vision(v: Vision, activation: Activation) -> Result<VisionConfig> {
    if v.head_width <= 0 {
        return Err(fail("vision_cfg.head_width is not positive"));
    }
    Ok(match v.layers {
        Layers::Stages(layers) => VisionConfig::Resnet(ResNetConfig {
            image_size: v.image_size,
            layers,
            width: v.width,
            heads: v.width.saturating_mul(32) / v.head_width,
        }),
        Layers::Blocks(layers) => {
            let patch_size = v.patch_size.ok_or_else(|| fail("vision_cfg lacks patch_size"))?;
            let heads = v.width / v.head_width;
            let vit = VitConfig::clip(v.image_size, patch_size, v.width, layers, heads);
            VisionConfig::Vit(VitConfig { mlp_ratio: v.mlp_ratio, activation, patch_dropout: v.patch_dropout, ..vit })
        }
    })
}

fn normalization(preprocess: Value) -> Result<Normalization> {
    if preprocess.is_null() {
        return Ok(Normalization::CLIP);
    }
    let p: Preprocess = serde_json::from_value(preprocess).map_err(fail)?;
    for (key, found, supported) in [("interpolation", &p.interpolation, "bicubic"), ("resize_mode", &p.resize_mode, "shortest")] {
        if let Some(value) = found.as_deref().filter(|v| *v != supported) {
            return Err(fail(format!("preprocess_cfg.{key} is {value}: only {supported} is supported")));
        }
    }
    Ok(Normalization { mean: p.mean.unwrap_or(Normalization::CLIP.mean), std: p.std.unwrap_or(Normalization::CLIP.std) })
}
