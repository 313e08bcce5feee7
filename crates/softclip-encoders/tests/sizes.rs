//! Impossible sizes in configurations of every kind are errors: no panic, no overflow, no attempt to allocate them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use softclip_encoders::hugging_face::read_config;
use softclip_encoders::{BertConfig, Clip, ClipConfig, ClipTextConfig, Error, TextConfig, VisionConfig, VitConfig};
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// `value` with another value at each key that holds a number, and the key.
fn with_each_number(value: &Value, replacement: &Value) -> Vec<(String, Value)> {
    fn paths(value: &Value, path: &str, found: &mut Vec<String>) {
        match value {
            Value::Number(_) => found.push(path.to_owned()),
            Value::Object(keys) => keys.iter().for_each(|(key, inner)| paths(inner, &format!("{path}/{key}"), found)),
            Value::Array(items) => items.iter().enumerate().for_each(|(i, inner)| paths(inner, &format!("{path}/{i}"), found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    paths(value, "", &mut found);
    let replaced = |path: String| {
        let mut other = value.clone();
        *other.pointer_mut(&path).unwrap() = replacement.clone();
        (path, other)
    };
    found.into_iter().map(replaced).collect()
}

fn impossible() -> Vec<Value> {
    let whole = [0, -1, i64::MIN, i64::MAX, i64::MAX / 2, 2_147_483_648, 4_294_967_297, 100_000_000_000, 1 << 40];
    let mut values: Vec<Value> = whole.map(|n| json!(n)).to_vec();
    values.extend([json!(1e308), json!(-1e308), json!(-0.5), json!(1e-320), json!(1e19)]);
    values
}

/// Makes each number of `config` impossible, one at a time. `harmless` says which changes may be accepted.
fn assert_refused<T: std::fmt::Debug, E: std::fmt::Display>(
    config: &Value,
    harmless: impl Fn(&str, &Value) -> bool,
    read: impl Fn(&str) -> Result<T, E>,
) {
    if let Err(e) = read(&config.to_string()) {
        panic!("{e}");
    }
    for replacement in impossible() {
        for (path, changed) in with_each_number(config, &replacement) {
            match read(&changed.to_string()) {
                Ok(found) => assert!(harmless(&path, &replacement), "{path} = {replacement}: {found:?}"),
                Err(e) => assert!(!e.to_string().is_empty()),
            }
        }
    }
}

#[test]
fn impossible_sizes_in_open_clips_configuration_are_refused() {
    let text = json!({"context_length": 16, "vocab_size": 99, "width": 32, "heads": 4, "layers": 2, "mlp_ratio": 4.0});
    let vit = json!({"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 16, "mlp_ratio": 4.0});
    let resnet = json!({"image_size": 64, "layers": [1, 2, 1, 1], "width": 64, "head_width": 64});
    for vision in [vit, resnet] {
        let config = json!({
            "model_cfg": {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text},
            "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
        });
        // Of means any number that is finite in f32 has a meaning, of deviations any normal one.
        let harmless = |path: &str, value: &Value| {
            let pixel = value.as_f64().unwrap() as f32;
            path.contains("/mean/") && pixel.is_finite() || path.contains("/std/") && pixel.is_normal() && pixel > 0.0
        };
        assert_refused(&config, harmless, ClipConfig::from_open_clip_json);
    }
}

#[test]
fn impossible_sizes_in_hugging_faces_configurations_are_refused() {
    let section = |kind: &str, of: Value| {
        let mut all = json!({
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "layer_norm_eps": 1e-5,
        });
        all["model_type"] = kind.into();
        all.as_object_mut().unwrap().extend(of.as_object().unwrap().clone());
        all
    };
    let image = json!({"image_size": 32, "patch_size": 8, "num_channels": 3});
    let clip = json!({
        "model_type": "clip",
        "projection_dim": 24,
        "text_config": section("clip_text_model", json!({"vocab_size": 99, "max_position_embeddings": 16, "eos_token_id": 98})),
        "vision_config": section("clip_vision_model", image.clone()),
    });
    let never = |_: &str, _: &Value| false;
    let of_end = |path: &str, value: &Value| path.ends_with("/eos_token_id") && *value == json!(0);
    assert_refused(&clip, of_end, read_config);
    assert_refused(&section("vit", image), never, read_config);
    for kind in ["bert", "roberta"] {
        let sizes = json!({"vocab_size": 99, "max_position_embeddings": 16, "type_vocab_size": 2, "pad_token_id": 1});
        let of_padding = |path: &str, value: &Value| path == "/pad_token_id" && *value == json!(0);
        assert_refused(&section(kind, sizes), of_padding, BertConfig::from_hugging_face_json);
    }
}

#[test]
fn impossible_sizes_in_a_configuration_of_ours_are_refused() {
    for preset in ["vit_b_32", "rn50", "resnet50"] {
        for text in ["clip", "bert", "roberta"] {
            let config = ClipConfig { text: ClipConfig::text_preset(text, 512).unwrap(), ..ClipConfig::preset(preset).unwrap() };
            let mut value = serde_json::to_value(&config).unwrap();
            let keys = value.as_object_mut().unwrap();
            keys.remove("normalization");
            let valid = |text: &str| {
                let config: ClipConfig = serde_json::from_str(text).map_err(|e| e.to_string())?;
                config.validate().map_err(|e| e.to_string())
            };
            let harmless = |path: &str, value: &Value| {
                let zero = *value == json!(0);
                zero && (path == "/vision/patch_dropout" || path == "/text/pad_token_id")
                    || path == "/vision/patch_dropout" && value.as_f64() == Some(1e-320)
            };
            assert_refused(&value, harmless, valid);
        }
    }
    for ratio in [f64::NAN, f64::INFINITY, -f64::INFINITY] {
        let text = TextConfig::Clip(ClipTextConfig { mlp_ratio: ratio, ..ClipTextConfig::clip(512) });
        let error = ClipConfig { text, ..ClipConfig::vit_b_32() }.validate().unwrap_err().to_string();
        assert!(error.contains("text.mlp_ratio"), "{error}");
    }
}

fn small() -> ClipConfig {
    let text = TextConfig::Clip(ClipTextConfig { layers: 1, vocab_size: 30, context_length: 8, ..ClipTextConfig::clip(64) });
    ClipConfig::new(8, VisionConfig::Vit(VitConfig::clip(16, 8, 64, 1, 1)), text)
}

/// 2^22 wide: 64 TiB for one matrix of a block.
#[test]
fn a_model_beyond_memory_says_what_it_needs_and_what_there_is() {
    let vision = VisionConfig::Vit(VitConfig::clip(16, 8, 1 << 22, 2, 1));
    let config = ClipConfig { vision, ..small() };
    config.validate().unwrap();
    let vs = VarStore::new(Device::Cpu);
    let error = Clip::new(&vs.root(), &config).unwrap_err();
    assert!(matches!(error, Error::Memory { needed, .. } if needed == config.memory_bytes()), "{error}");
    assert!(error.to_string().contains("GiB"), "{error}");
    assert!(vs.is_empty(), "nothing is allocated");
}

#[test]
fn weights_of_another_size_are_compared_before_memory_is_taken() {
    let vs = VarStore::new(Device::Cpu);
    let _small = Clip::new(&vs.root(), &small()).unwrap();
    let tensors = || -> BTreeMap<String, Tensor> { vs.variables().into_iter().map(|(name, t)| (name, t.detach())).collect() };
    let wide = ClipConfig { embed_dim: 1 << 24, ..small() };
    let deep = ClipConfig {
        text: TextConfig::Clip(ClipTextConfig {
            layers: 5000,
            vocab_size: 30,
            context_length: 8,
            mlp_ratio: 260_000.0,
            ..ClipTextConfig::clip(64)
        }),
        ..small()
    };
    for (config, says) in [(&wide, "the model's has [64, 16777216]"), (&deep, "the model's has [16640000")] {
        let target = VarStore::new(Device::Cpu);
        let error = Clip::from_tensors(&target, config, tensors(), true).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    // Where missing tensors are drawn, they must fit.
    let target = VarStore::new(Device::Cpu);
    let error = Clip::from_tensors(&target, &deep, tensors(), false).unwrap_err();
    assert!(matches!(error, Error::Memory { .. }), "{error}");
}
