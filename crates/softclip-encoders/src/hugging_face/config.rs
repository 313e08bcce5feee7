//! `config.json` from and to ours.

use serde::Deserialize;
use serde_json::{Value, json};

use super::fail;
use crate::config::{ClipConfig, ClipTextConfig, Normalization, TextConfig, TextPool, VisionConfig, VitConfig};
use crate::error::Result;
use crate::layers::Activation;

/// `text_config` with the library's defaults: a file may leave these out.
#[derive(Deserialize)]
#[serde(default)]
struct Text {
    vocab_size: i64,
    hidden_size: i64,
    intermediate_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    max_position_embeddings: i64,
    hidden_act: Activation,
    layer_norm_eps: f64,
    eos_token_id: Option<i64>,
}

impl Default for Text {
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            eos_token_id: Some(49407),
        }
    }
}

/// `vision_config`, likewise.
#[derive(Deserialize)]
#[serde(default)]
struct Vision {
    hidden_size: i64,
    intermediate_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    image_size: i64,
    patch_size: i64,
    num_channels: i64,
    hidden_act: Activation,
    layer_norm_eps: f64,
}

impl Default for Vision {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 224,
            patch_size: 32,
            num_channels: 3,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
        }
    }
}

/// Reads `CLIPModel`'s configuration.
///
/// # Errors
/// A key is of the wrong type, or the sizes do not fit.
pub fn clip_config(value: &Value) -> Result<ClipConfig> {
    let text: Text = section(value, "text_config")?;
    let vision: Vision = section(value, "vision_config")?;
    let embed_dim = match value.get("projection_dim") {
        None | Some(Value::Null) => 512,
        Some(n) => n.as_i64().ok_or_else(|| fail(format!("config.json: projection_dim: {n} is not a whole number")))?,
    };
    // 2 was written into the first published files and means nothing; both sides then look for the largest id.
    let eot_token_id = text.eos_token_id.filter(|&id| id != 2 && id != text.vocab_size.saturating_sub(1));
    let text = ClipTextConfig {
        context_length: text.max_position_embeddings,
        vocab_size: text.vocab_size,
        width: text.hidden_size,
        heads: text.num_attention_heads,
        layers: text.num_hidden_layers,
        mlp_ratio: ratio(text.intermediate_size, text.hidden_size),
        activation: text.hidden_act,
        layer_norm_eps: text.layer_norm_eps,
        pool: TextPool::Eot,
        eot_token_id,
    };
    let config = ClipConfig {
        embed_dim,
        vision: VisionConfig::Vit(vit(&vision)?),
        text: TextConfig::Clip(text),
        normalization: Normalization::CLIP,
        floor_crop: true,
        regions: None,
    };
    config.validate()?;
    Ok(config)
}

/// A section, with what older files say again under another name.
fn section<T: for<'de> Deserialize<'de> + Default>(value: &Value, name: &str) -> Result<T> {
    let mut keys = value.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
    if let Some(Value::Object(again)) = value.get(format!("{name}_dict")) {
        keys.extend(again.clone());
    }
    serde_json::from_value(Value::Object(keys)).map_err(|e| fail(format!("config.json: {name}: {e}")))
}

fn ratio(intermediate: i64, hidden: i64) -> f64 {
    intermediate as f64 / hidden.max(1) as f64
}

fn vit(c: &Vision) -> Result<VitConfig> {
    if c.num_channels != 3 {
        return Err(fail(format!("config.json: num_channels is {}: only 3 is supported", c.num_channels)));
    }
    let plain = VitConfig::clip(c.image_size, c.patch_size, c.hidden_size, c.num_hidden_layers, c.num_attention_heads);
    let mlp_ratio = ratio(c.intermediate_size, c.hidden_size);
    Ok(VitConfig { mlp_ratio, activation: c.hidden_act, layer_norm_eps: c.layer_norm_eps, ..plain })
}

/// Reads `ViTModel`'s configuration: an image tower read at the class token.
pub(super) fn vit_config(value: &Value) -> Result<VitConfig> {
    // Its library's defaults where they differ from CLIP's.
    let mut keys = json!({"patch_size": 16, "hidden_act": "gelu", "layer_norm_eps": 1e-12});
    if let (Value::Object(all), Value::Object(given)) = (&mut keys, value) {
        all.extend(given.clone());
    }
    if keys.get("qkv_bias") == Some(&json!(false)) {
        return Err(fail("config.json: qkv_bias is false: only true is supported".into()));
    }
    let vision: Vision = serde_json::from_value(keys).map_err(|e| fail(format!("config.json: {e}")))?;
    let config = VitConfig { ln_pre: false, patch_bias: true, ..vit(&vision)? };
    VisionConfig::Vit(config.clone()).validate()?;
    Ok(config)
}

/// `CLIPModel`'s `config.json` of this model; `start_end` are its tokenizer's tokens before and after a text, by default the last two
/// of the vocabulary, as CLIP's are.
///
/// # Errors
/// It has no such form: a ResNet, BERT, or pooling by maximum.
pub fn to_clip_config(config: &ClipConfig, start_end: Option<[i64; 2]>) -> Result<Value> {
    super::names::links(config)?;
    let (VisionConfig::Vit(vision), TextConfig::Clip(text)) = (&config.vision, &config.text) else {
        return Err(fail("its CLIPModel has no such towers".into()));
    };
    if text.pool != TextPool::Eot {
        return Err(fail("its CLIPModel reads a text at its end token, this one takes the maximum".into()));
    }
    let last = text.vocab_size - 1;
    let [start, end] = start_end.unwrap_or([last - 1, last]);
    let end = text.eot_token_id.unwrap_or(end);
    Ok(json!({
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.embed_dim,
        "logit_scale_init_value": 2.6592,
        "initializer_factor": 1.0,
        "torch_dtype": "float32",
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": text.vocab_size,
            "hidden_size": text.width,
            "intermediate_size": text.hidden(),
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "max_position_embeddings": text.context_length,
            "hidden_act": text.activation,
            "layer_norm_eps": text.layer_norm_eps,
            "projection_dim": config.embed_dim,
            "bos_token_id": start,
            "eos_token_id": end,
            "pad_token_id": end,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": vision.width,
            "intermediate_size": vision.hidden(),
            "num_hidden_layers": vision.layers,
            "num_attention_heads": vision.heads,
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "num_channels": 3,
            "hidden_act": vision.activation,
            "layer_norm_eps": vision.layer_norm_eps,
            "projection_dim": config.embed_dim,
        },
    }))
}
