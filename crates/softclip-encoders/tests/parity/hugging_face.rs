//! Hugging Face's CLIPModel.

use std::collections::BTreeMap;

use softclip_encoders::hugging_face::{from_hugging_face, read_config, to_clip_config, to_hugging_face};
use softclip_encoders::{Activation, Architecture, Clip, ClipConfig, Mode, TextConfig, load_weights, named_tensors};
use softclip_tensor::Embeddings;
use softclip_tensor::file::read_safetensors_metadata;
use tch::nn::VarStore;
use tch::{Kind, Tensor, no_grad};

use crate::{GOLDENS, check, device, golden};

const NAME: &str = "hf_clip_small";

fn config() -> ClipConfig {
    let json = read_safetensors_metadata(format!("{GOLDENS}/{NAME}.io.safetensors")).unwrap()["config"].clone();
    let json = json.replacen('{', "{\"model_type\": \"clip\", ", 1);
    match read_config(&json).unwrap() {
        Architecture::Clip(config) => config,
        other => panic!("{other:?}"),
    }
}

fn open(config: &ClipConfig) -> (VarStore, Clip) {
    let file = golden(&format!("{NAME}.weights"));
    let ours = from_hugging_face(&Architecture::Clip(config.clone()), file).unwrap();
    let vs = VarStore::new(device());
    let model = Clip::new(&vs.root(), config).unwrap();
    load_weights(&vs, &ours, true).unwrap();
    (vs, model)
}

fn with_eot(config: ClipConfig, id: i64) -> ClipConfig {
    let TextConfig::Clip(mut text) = config.text.clone() else { panic!("not CLIP's text tower") };
    text.eot_token_id = Some(id);
    ClipConfig { text: TextConfig::Clip(text), ..config }
}

#[test]
fn outputs_agree_with_transformers() {
    let io = golden(&format!("{NAME}.io"));
    let images = io["pixel_values"].to_kind(Kind::Float);
    let quick = config();
    assert_eq!(quick, quick.clone().with_activation(Activation::QuickGelu), "hidden_act is taken from the file");
    no_grad(|| {
        for (config, suffix) in [(quick.clone(), ""), (quick.clone().with_activation(Activation::Gelu), ".gelu")] {
            let (_vs, model) = open(&config);
            let v = Embeddings::normalize(&model.encode_image(&images, Mode::Eval).unwrap()).unwrap();
            let t = Embeddings::normalize(&model.encode_text(&io["input_ids"]).unwrap()).unwrap();
            let logits = v.tensor().matmul(&t.tensor().tr()) * model.logit_scale().exp();
            for (row, found) in [("image_embeds", v.tensor()), ("text_embeds", t.tensor()), ("logits_per_image", &logits)] {
                check(NAME, &format!("{row}{suffix}"), found, &io[&format!("{row}{suffix}")], 1e-5);
            }
        }
        let (_vs, model) = open(&quick);
        check(NAME, "image_features", &model.encode_image(&images, Mode::Eval).unwrap(), &io["image_features"], 1e-5);
        check(NAME, "text_features", &model.encode_text(&io["input_ids"]).unwrap(), &io["text_features"], 1e-5);
        // Filled up with end tokens, and read at a given end token.
        for (model, row) in [(model, "text_embeds.eot_pad"), (open(&with_eot(quick, 98)).1, "text_embeds.eos_98")] {
            let t = Embeddings::normalize(&model.encode_text(&io["input_ids.eot_pad"]).unwrap()).unwrap();
            check(NAME, row, t.tensor(), &io[row], 1e-5);
        }
    });
}

#[test]
fn a_model_goes_out_and_comes_back_bit_for_bit() {
    let config = config();
    let (vs, _model) = open(&config);
    let ours: BTreeMap<String, Tensor> = named_tensors(&vs).into_iter().collect();
    let theirs = to_hugging_face(&config, &ours).unwrap();

    let file = golden(&format!("{NAME}.weights"));
    let names = |tensors: &BTreeMap<String, Tensor>| -> Vec<String> {
        tensors.keys().filter(|name| !name.ends_with("position_ids")).cloned().collect()
    };
    assert_eq!(names(&theirs), names(&file), "the names are transformers'");

    let json = to_clip_config(&config, None).unwrap().to_string();
    let again = match read_config(&json).unwrap() {
        Architecture::Clip(again) => again,
        other => panic!("{other:?}"),
    };
    assert_eq!(again, config);
    let back = from_hugging_face(&Architecture::Clip(again), theirs).unwrap();
    assert_eq!(back.len(), ours.len());
    for (name, tensor) in &ours {
        assert!(tensor.equal(&back[name]), "{name}");
    }
}

#[test]
fn what_has_no_form_there_is_refused() {
    let rn50 = to_clip_config(&ClipConfig::rn50(), None).unwrap_err().to_string();
    assert!(rn50.contains("open_clip"), "{rn50}");
    for (json, says) in [
        (r#"{"model_type": "siglip"}"#, "siglip"),
        ("{}", "model_type"),
        ("[", "JSON"),
        (r#"{"model_type": "clip", "vision_config": {"hidden_size": "wide"}}"#, "vision_config"),
        (r#"{"model_type": "clip", "text_config": {"hidden_act": "mish"}}"#, "text_config"),
        (r#"{"model_type": "clip", "vision_config": {"num_channels": 1}}"#, "num_channels"),
        (r#"{"model_type": "vit", "qkv_bias": false}"#, "qkv_bias"),
    ] {
        let error = read_config(json).unwrap_err().to_string();
        assert!(error.contains(says) || says == "JSON", "{error}");
    }
}
