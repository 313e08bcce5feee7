//! Models as people bring them: wrapped, exported by other tools, with files that are missing or say too much.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use softclip_data::tokenizer::Tokenizer;
use softclip_encoders::{
    Activation, Clip, ClipConfig, ClipTextConfig, Normalization, TextConfig, VisionConfig, VitConfig, named_tensors,
};
use softclip_pretrained::{HubOptions, Loaded, Pretrained, export_hugging_face, export_open_clip};
use softclip_tensor::file::{read_safetensors, write_safetensors};
use tch::nn::VarStore;
use tch::{Device, Tensor};

type Tensors = BTreeMap<String, Tensor>;

fn open(path: &Path) -> softclip_pretrained::Result<Pretrained> {
    let hub = HubOptions { offline: true, ..HubOptions::from_env().unwrap() };
    Pretrained::open(path.to_str().unwrap(), &hub, &mut |_| {})
}

fn load(path: &Path) -> Result<Loaded, String> {
    open(path).and_then(|found| found.into_clip(Device::Cpu)).map_err(|e| e.to_string())
}

fn config() -> ClipConfig {
    let text = TextConfig::Clip(ClipTextConfig { layers: 1, context_length: 12, ..ClipTextConfig::clip(64) });
    ClipConfig::new(40, VisionConfig::Vit(VitConfig::clip(24, 8, 128, 1, 2)), text)
}

fn build() -> Tensors {
    let vs = VarStore::new(Device::Cpu);
    Clip::new(&vs.root(), &config()).unwrap();
    named_tensors(&vs).into_iter().map(|(name, t)| (name, t.detach())).collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let all: Vec<(String, Tensor)> = tensors.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
    write_safetensors(path, &all, &BTreeMap::new()).unwrap();
}

fn assert_same(loaded: &Loaded, tensors: &Tensors) {
    let found: Tensors = named_tensors(&loaded.vs).into_iter().collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), tensors.keys().collect::<Vec<_>>());
    tensors.iter().for_each(|(name, t)| assert!(t.equal(&found[name].detach()), "{name}"));
}

fn open_clip(folder: &Path, tensors: &Tensors) -> Value {
    export_open_clip(&config(), tensors, &Tokenizer::clip().unwrap(), folder).unwrap();
    serde_json::from_str(&fs::read_to_string(folder.join("open_clip_config.json")).unwrap()).unwrap()
}

fn hugging_face(folder: &Path, tensors: &Tensors) {
    export_hugging_face(&config(), tensors, &Tokenizer::clip().unwrap(), folder).unwrap();
}

#[test]
fn a_wrapped_network_is_the_same_network() {
    let dir = tempfile::tempdir().unwrap();
    let tensors = build();
    for library in [open_clip as fn(&Path, &Tensors) -> Value, |f: &Path, t: &Tensors| {
        hugging_face(f, t);
        Value::Null
    }] {
        for prefix in ["_orig_mod.", "module.", "model.", "clip.", "module._orig_mod.", "model.clip."] {
            let folder = tempfile::tempdir_in(dir.path()).unwrap();
            library(folder.path(), &tensors);
            for name in ["open_clip_model.safetensors", "model.safetensors"] {
                let path = folder.path().join(name);
                if path.is_file() {
                    let wrapped = read_safetensors(&path).unwrap().into_iter().map(|(n, t)| (format!("{prefix}{n}"), t.copy()));
                    write(&path, &wrapped.collect());
                }
            }
            assert_same(&load(folder.path()).unwrap(), &tensors);
        }
    }
}

#[test]
fn open_clips_custom_text_and_scalars_of_one_element_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let tensors = build();
    let mut value = open_clip(dir.path(), &tensors);
    value["model_cfg"]["custom_text"] = json!(true);
    value["model_cfg"]["init_logit_bias"] = json!(-10);
    fs::write(dir.path().join("open_clip_config.json"), value.to_string()).unwrap();
    let mut custom: Tensors = tensors
        .iter()
        .map(|(name, t)| {
            let of_text = !name.starts_with("visual.") && name != "logit_scale";
            (if of_text { format!("text.{name}") } else { name.clone() }, t.shallow_clone())
        })
        .collect();
    let scale = custom["logit_scale"].reshape([1]);
    custom.insert("logit_scale".into(), scale);
    custom.insert("logit_bias".into(), Tensor::from_slice(&[-7.5f32]));
    write(&dir.path().join("open_clip_model.safetensors"), &custom);
    let loaded = load(dir.path()).unwrap();
    let bias = loaded.vs.variables().remove("logit_bias").unwrap();
    assert!(bias.dim() == 0 && bias.double_value(&[]) == -7.5);
    let with_bias: Tensors = tensors.into_iter().chain([("logit_bias".to_owned(), bias.detach())]).collect();
    assert_same(&loaded, &with_bias);
}

#[test]
fn a_tokenizer_beyond_the_embedding_is_refused_with_both_numbers() {
    let dir = tempfile::tempdir().unwrap();
    hugging_face(dir.path(), &build());
    load(dir.path()).unwrap();
    fs::write(dir.path().join("added_tokens.json"), r#"{"<sks>": 49408, "<dog>": 49409}"#).unwrap();
    let error = load(dir.path()).unwrap_err();
    assert!(error.contains("49410 tokens") && error.contains("knows 49408"), "{error}");
}

#[test]
fn image_processors_are_read_where_each_version_of_transformers_writes_them() {
    let dir = tempfile::tempdir().unwrap();
    hugging_face(dir.path(), &build());
    let put = |name: &str, value: Value| fs::write(dir.path().join(name), value.to_string()).unwrap();
    let mean = || load(dir.path()).unwrap().clip.config().normalization.mean[0];
    // An older library's, without the images' part.
    put("processor_config.json", json!({"processor_class": "CLIPProcessor"}));
    assert_eq!(mean(), Normalization::CLIP.mean[0]);
    put("processor_config.json", json!({"image_processor": {"image_mean": [0.25, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}}));
    assert_eq!(mean(), 0.25);
    fs::remove_file(dir.path().join("preprocessor_config.json")).unwrap();
    assert_eq!(mean(), 0.25);
    assert!(open(dir.path()).unwrap().assumptions().is_empty());
    put("processor_config.json", json!({"image_processor": {"do_rescale": false, "image_mean": [51.0, 51.0, 51.0]}}));
    assert!((mean() - 0.2).abs() < 1e-12);

    fs::remove_file(dir.path().join("processor_config.json")).unwrap();
    assert_eq!(mean(), Normalization::CLIP.mean[0]);
    let assumed = open(dir.path()).unwrap().assumptions().join("; ");
    assert!(assumed.contains("CLIP's mean and std") && assumed.contains("24 pixels"), "{assumed}");
}

#[test]
fn weights_alone_say_what_is_assumed_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights.safetensors");
    let mut tensors = build();
    write(&path, &tensors);
    let assumed = open(&path).unwrap().assumptions().join("; ");
    for part in
        ["2 heads of 64 in the image tower", "1 head of 64 in the text", "GELU", "CLIP's mean and std", "CLIP's tokenizer"]
    {
        assert!(assumed.contains(part), "{part}: {assumed}");
    }
    // OpenAI's files are known.
    tensors.extend(["input_resolution", "context_length", "vocab_size"].map(|n| (n.to_owned(), Tensor::from(24i64))));
    write(&path, &tensors);
    let found = open(&path).unwrap();
    assert!(found.assumptions().is_empty());
    assert_eq!(found.into_clip(Device::Cpu).unwrap().clip.config(), &config().with_activation(Activation::QuickGelu));
}

#[test]
fn contents_decide_and_not_names() {
    let dir = tempfile::tempdir().unwrap();
    let tensors = build();
    let weights = dir.path().join("pytorch_model.bin");
    write(&weights, &tensors);
    assert_same(&load(dir.path()).unwrap(), &tensors);
    assert_same(&load(&weights).unwrap(), &tensors);
    // As `torch.save({"epoch": 1, "model": OrderedDict()})` begins.
    let pickle = b"\x80\x02}q\x00(X\x05\x00\x00\x00epochq\x01K\x01X\x05\x00\x00\x00modelq\x02ccollections\nOrderedDict\n";
    fs::write(&weights, pickle).unwrap();
    let error = load(dir.path()).unwrap_err();
    assert!(error.contains("weights under `model`") && error.contains("'model_state_dict', 'model'"), "{error}");
}

#[test]
fn adapters_are_refused_with_the_command_that_merges_them() {
    let dir = tempfile::tempdir().unwrap();
    let lora = "base_model.model.vision_model.encoder.layers.0.self_attn.q_proj.lora_A.weight";
    let adapter = BTreeMap::from([(lora.to_owned(), Tensor::from_slice(&[1f32]))]);
    let weights = dir.path().join("adapter_model.safetensors");
    write(&weights, &adapter);
    fs::write(dir.path().join("adapter_config.json"), r#"{"base_model_name_or_path": "org/base", "peft_type": "LORA"}"#).unwrap();
    let other = dir.path().join("renamed.safetensors");
    write(&other, &adapter);
    for path in [dir.path(), &weights, &other] {
        let error = load(path).unwrap_err();
        assert!(error.contains("PEFT adapter (LORA) of `org/base`") && error.contains("merge_and_unload"), "{error}");
    }
}

#[test]
fn sentence_transformers_clip_is_opened_from_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let tensors = build();
    hugging_face(&dir.path().join("0_CLIPModel"), &tensors);
    let modules = json!([{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}]);
    fs::write(dir.path().join("modules.json"), modules.to_string()).unwrap();
    assert_same(&load(dir.path()).unwrap(), &tensors);
}

#[test]
fn a_downloaded_configuration_with_impossible_sizes_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let plain = open_clip(dir.path(), &build());
    for (key, value, says) in [
        ("/model_cfg/text_cfg/mlp_ratio", json!(1e308), "text.mlp_ratio"),
        ("/model_cfg/embed_dim", json!(2_147_483_648_i64), "embed_dim"),
        ("/model_cfg/text_cfg/layers", json!(100_000_000_000_i64), "text.layers"),
        // Possible, but not these weights'.
        ("/model_cfg/embed_dim", json!(1 << 24), ", 16777216]"),
        ("/model_cfg/vision_cfg/mlp_ratio", json!(100_000), "visual.transformer.resblocks.0.mlp"),
    ] {
        let mut changed = plain.clone();
        *changed.pointer_mut(key).unwrap() = value;
        fs::write(dir.path().join("open_clip_config.json"), changed.to_string()).unwrap();
        let error = load(dir.path()).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}
