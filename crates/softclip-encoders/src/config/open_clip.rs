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
    vision_cfg: Value,
    text_cfg: Value,
    #[serde(default)]
    quick_gelu: bool,
}

/// `vision_cfg`; what is absent is open_clip's default.
#[derive(Deserialize)]
#[serde(default)]
struct Vision {
    image_size: Side,
    layers: Layers,
    width: i64,
    patch_size: Side,
    head_width: i64,
    mlp_ratio: f64,
    patch_dropout: f64,
}

impl Default for Vision {
    fn default() -> Self {
        Vision {
            image_size: Side::Square(224),
            layers: Layers::Blocks(12),
            width: 768,
            patch_size: Side::Square(16),
            head_width: 64,
            mlp_ratio: four(),
            patch_dropout: 0.0,
        }
    }
}

/// `text_cfg`, likewise.
#[derive(Deserialize)]
#[serde(default)]
struct Text {
    context_length: i64,
    vocab_size: i64,
    width: i64,
    heads: i64,
    layers: i64,
    mlp_ratio: f64,
}

impl Default for Text {
    fn default() -> Self {
        Text { context_length: 77, vocab_size: 49408, width: 512, heads: 8, layers: 12, mlp_ratio: four() }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Layers {
    Stages([i64; 4]),
    Blocks(i64),
}

/// A side, or height and width.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Side {
    Square(i64),
    Sides([i64; 2]),
}

impl Side {
    fn square(self, key: &str) -> Result<i64> {
        match self {
            Side::Square(side) => Ok(side),
            Side::Sides([height, width]) if height == width => Ok(height),
            Side::Sides(sides) => Err(fail(format!("{key} is {sides:?}: only squares are supported"))),
        }
    }
}

const VISION_KEYS: [&str; 7] = ["image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio", "patch_dropout"];
const TEXT_KEYS: [&str; 6] = ["context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"];

/// What open_clip's other keys of either section are by default: with these values they change nothing.
fn neutral(section: &str, key: &str) -> Option<Value> {
    let value = match (section, key) {
        ("vision_cfg", "pool_type") => json!("tok"),
        ("vision_cfg", "pos_embed_type") => json!("learnable"),
        ("text_cfg", "pool_type") => json!("argmax"),
        ("text_cfg", "proj_type") => json!("linear"),
        ("text_cfg", "proj_bias" | "embed_cls" | "no_causal_mask") => json!(false),
        ("vision_cfg", "attentional_pool" | "no_ln_pre" | "input_patchnorm" | "global_average_pool") => json!(false),
        ("text_cfg" | "vision_cfg", "final_ln_after_pool" | "qk_norm" | "scaled_cosine_attn" | "scale_heads") => json!(false),
        ("text_cfg" | "vision_cfg", "scale_attn_inner" | "scale_attn" | "scale_fc") => json!(false),
        ("text_cfg" | "vision_cfg", "block_type") => json!("default"),
        ("text_cfg" | "vision_cfg", "act_kwargs" | "norm_kwargs" | "tokenizer_kwargs") => json!({}),
        _ => return None,
    };
    Some(value)
}

/// Keys that change nothing without another key, such as `timm_model_name`, which is refused itself.
fn is_idle(section: &str, key: &str) -> bool {
    let of_vision = ["timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias", "timm_drop", "timm_drop_path"];
    let of_text = ["hf_model_pretrained", "hf_proj_type", "hf_pooler_type", "pad_id", "eos_id"];
    let of_pooler = ["attn_pooler_queries", "attn_pooler_heads", "n_queries"];
    key == "output_tokens"
        || section == "vision_cfg" && (of_vision.contains(&key) || of_pooler.contains(&key))
        || section == "text_cfg" && of_text.contains(&key)
}

/// The keys of a section that shape the network. Others may be there if they say what is the default anyway.
fn section<T: serde::de::DeserializeOwned>(value: Value, name: &str, known: &[&str]) -> Result<T> {
    let Value::Object(mut keys) = value else { return Err(fail(format!("{name} is not an object"))) };
    keys.retain(|_, value| !value.is_null());
    for (key, value) in keys.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
        match neutral(name, key) {
            Some(supported) if supported == *value => {}
            Some(supported) => return Err(fail(format!("{name}.{key} is {value}: only {supported} is supported"))),
            None if is_idle(name, key) => {}
            None => return Err(fail(format!("{name}.{key} is {value}: this key is not supported"))),
        }
    }
    keys.retain(|key, _| known.contains(&key.as_str()));
    serde_json::from_value(Value::Object(keys)).map_err(|e| fail(format!("{name}: {e}")))
}

/// `preprocess_cfg` of `open_clip_config.json`; what is absent is CLIP's.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Preprocess {
    mean: Option<[f64; 3]>,
    std: Option<[f64; 3]>,
    size: Option<Side>,
    mode: Option<String>,
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
        let text: Text = section(whole.text_cfg, "text_cfg", &TEXT_KEYS)?;
        let vision = vision(section(whole.vision_cfg, "vision_cfg", &VISION_KEYS)?, activation)?;
        let normalization = normalization(preprocess, vision.image_size())?;
        let config = ClipConfig {
            embed_dim: whole.embed_dim,
            vision,
            text: TextConfig::Clip(ClipTextConfig {
                context_length: text.context_length,
                vocab_size: text.vocab_size,
                heads: text.heads,
                layers: text.layers,
                mlp_ratio: text.mlp_ratio,
                activation,
                ..ClipTextConfig::clip(text.width)
            }),
            normalization,
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
    let image_size = v.image_size.square("vision_cfg.image_size")?;
    Ok(match v.layers {
        Layers::Stages(layers) => {
            let heads = v.width.saturating_mul(32) / v.head_width;
            VisionConfig::Resnet(ResNetConfig { image_size, layers, width: v.width, heads })
        }
        Layers::Blocks(layers) => {
            let patch_size = v.patch_size.square("vision_cfg.patch_size")?;
            let vit = VitConfig::clip(image_size, patch_size, v.width, layers, v.width / v.head_width);
            VisionConfig::Vit(VitConfig { mlp_ratio: v.mlp_ratio, activation, patch_dropout: v.patch_dropout, ..vit })
        }
    })
}

fn normalization(preprocess: Value, image_size: i64) -> Result<Normalization> {
    if preprocess.is_null() {
        return Ok(Normalization::CLIP);
    }
    let p: Preprocess = serde_json::from_value(preprocess).map_err(fail)?;
    for (key, found, supported) in
        [("interpolation", &p.interpolation, "bicubic"), ("resize_mode", &p.resize_mode, "shortest"), ("mode", &p.mode, "RGB")]
    {
        if let Some(value) = found.as_deref().filter(|v| *v != supported) {
            return Err(fail(format!("preprocess_cfg.{key} is {value}: only {supported} is supported")));
        }
    }
    let size = p.size.map(|size| size.square("preprocess_cfg.size")).transpose()?;
    if let Some(size) = size.filter(|size| *size != image_size) {
        return Err(fail(format!("preprocess_cfg.size is {size}, the model's image size {image_size}")));
    }
    Ok(Normalization { mean: p.mean.unwrap_or(Normalization::CLIP.mean), std: p.std.unwrap_or(Normalization::CLIP.std) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vision: Value, text: Value) -> Result<ClipConfig> {
        let mut sections = json!({
            "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 16},
            "text_cfg": {"context_length": 16, "vocab_size": 99, "width": 32, "heads": 4, "layers": 2},
        });
        for (name, keys) in [("vision_cfg", vision), ("text_cfg", text)] {
            if let (Value::Object(all), Value::Object(more)) = (&mut sections[name], keys) {
                all.extend(more);
            }
        }
        sections["embed_dim"] = json!(24);
        ClipConfig::from_open_clip_json(&json!({"model_cfg": sections}).to_string())
    }

    #[test]
    fn keys_that_say_the_default_change_nothing() {
        let plain = read(json!({}), json!({})).unwrap();
        let vision = json!({
            "image_size": [32, 32], "patch_size": [8, 8], "ls_init_value": null, "pool_type": "tok", "attentional_pool": false,
            "attn_pooler_queries": 256, "pos_embed_type": "learnable", "no_ln_pre": false, "output_tokens": true,
            "timm_model_name": null, "timm_pool": "avg", "mlp_ratio": 4, "norm_kwargs": {}, "unheard_of": null,
        });
        let text = json!({
            "pool_type": "argmax", "hf_tokenizer_name": null, "hf_model_name": null, "hf_pooler_type": "mean_pooler",
            "proj_bias": false, "embed_cls": false, "no_causal_mask": false, "pad_id": 0, "output_tokens": true, "act_kwargs": null,
        });
        assert_eq!(read(vision, text).unwrap(), plain);
    }

    #[test]
    fn keys_that_say_another_network_are_named_with_their_value() {
        for (vision, text, says) in [
            (json!({"image_size": [32, 40]}), json!({}), "image_size is [32, 40]"),
            (json!({"ls_init_value": 1e-5}), json!({}), "vision_cfg.ls_init_value is 0.00001"),
            (json!({"pool_type": "avg"}), json!({}), "vision_cfg.pool_type is \"avg\": only \"tok\""),
            (json!({"attentional_pool": true}), json!({}), "vision_cfg.attentional_pool is true"),
            (json!({"timm_model_name": "resnet50"}), json!({}), "vision_cfg.timm_model_name is \"resnet50\""),
            (json!({}), json!({"pool_type": "last"}), "text_cfg.pool_type is \"last\": only \"argmax\""),
            (json!({}), json!({"hf_tokenizer_name": "roberta-base"}), "text_cfg.hf_tokenizer_name is \"roberta-base\""),
            (json!({}), json!({"no_causal_mask": true}), "text_cfg.no_causal_mask is true"),
            (json!({}), json!({"width": "wide"}), "text_cfg"),
        ] {
            let error = read(vision, text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
