//! Full-size models against the Python libraries that they are of. Runs where `SOFTCLIP_ORIGINALS` names a folder that
//! scripts/originals/make_models.py and outputs.py have filled, skipped elsewhere.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use softclip_encoders::hugging_face::from_hugging_face;
use softclip_encoders::{
    Architecture, Bert, Clip, ClipConfig, ClipTextConfig, Mode, ResNet50, ResNet50Config, TextConfig, VisionConfig, VitConfig,
    load_weights,
};
use softclip_pretrained::{HubOptions, Pretrained, read_weights};
use softclip_tensor::Embeddings;
use softclip_tensor::file::{read_safetensors, read_safetensors_metadata};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor, no_grad};

const TOLERANCE: f64 = 1e-4;

fn models() -> Option<PathBuf> {
    let folder = std::env::var("SOFTCLIP_ORIGINALS").ok()?;
    Some(PathBuf::from(folder))
}

fn open(folder: &Path) -> Pretrained {
    let hub = HubOptions { offline: true, ..HubOptions::from_env().unwrap() };
    Pretrained::open(folder.to_str().unwrap(), &hub, &mut |_| {}).unwrap()
}

fn check(model: &str, row: &str, found: &Tensor, expected: &Tensor) {
    let expected = expected.to_kind(Kind::Double);
    let scale = expected.abs().max().double_value(&[]);
    let error = (found.to_kind(Kind::Double) - &expected).abs().max().double_value(&[]) / scale;
    println!("PARITY | full size {model} | {row} | max_rel_err {error:.1e} | tol {TOLERANCE:.0e}");
    assert!(error <= TOLERANCE, "{model} {row}: {error:e}");
}

fn whole(name: &str, pretrained: Pretrained, expected: &BTreeMap<String, Tensor>, captions: &[String]) {
    let loaded = pretrained.into_clip(Device::Cpu).unwrap();
    let clip = &loaded.clip;
    let rows = loaded.tokenizer.encode_batch(captions, clip.config().context_length() as usize, true);
    let (ids, mask) = (&expected["input_ids"].narrow(1, 0, rows.tokens.size()[1]), &expected["attention_mask"]);
    let mask = mask.narrow(1, 0, rows.tokens.size()[1]).to_kind(Kind::Bool);
    let differ = rows.tokens.ne_tensor(ids).logical_and(&mask).any().int64_value(&[]);
    assert_eq!(differ, 0, "{name}: tokens");
    let v = clip.encode_image(&expected["pixel_values"], Mode::Eval).unwrap();
    let t = clip.encode_text(&rows.tokens).unwrap();
    check(name, "image_features", &v, &expected["image_features"]);
    check(name, "text_features", &t, &expected["text_features"]);
    let (v, t) = (Embeddings::normalize(&v).unwrap().into_tensor(), Embeddings::normalize(&t).unwrap().into_tensor());
    check(name, "image_embeds", &v, &expected["image_embeds"]);
    check(name, "text_embeds", &t, &expected["text_embeds"]);
    check(name, "logits_per_image", &(v.matmul(&t.tr()) * clip.logit_scale().exp()), &expected["logits_per_image"]);
}

/// Within a model whose projection changes nothing.
fn image_tower(name: &str, vision: VisionConfig, mut tensors: BTreeMap<String, Tensor>, expected: &Tensor, pixels: &Tensor) {
    let (projection, width) = match &vision {
        VisionConfig::Resnet50(_) => ("visual.head.proj.weight", 2048),
        _ => ("visual.proj", 768),
    };
    tensors.insert(projection.into(), Tensor::eye(width, (Kind::Float, Device::Cpu)));
    let text = ClipTextConfig { layers: 1, vocab_size: 9, ..ClipTextConfig::clip(64) };
    let vs = VarStore::new(Device::Cpu);
    let config = ClipConfig::new(width, vision, TextConfig::Clip(text));
    let (clip, report) = Clip::from_tensors(&vs, &config, tensors, false).unwrap();
    assert!(report.unexpected.is_empty() && !report.missing.iter().any(|n| n.starts_with("visual.")), "{name}: {report:?}");
    check(name, "image tower", &clip.encode_image(pixels, Mode::Eval).unwrap(), expected);
}

fn vit(name: &str, pretrained: Pretrained, expected: &BTreeMap<String, Tensor>) {
    let pixels = &expected["pixel_values"];
    let Some(VisionConfig::Vit(config)) = pretrained.vision().cloned() else { panic!("{name} is no Vision Transformer") };
    let pooling = VisionConfig::Vit(VitConfig { pooler: true, ..config.clone() });
    let file = read_weights(&pretrained.files).unwrap();
    image_tower(name, VisionConfig::Vit(config), pretrained.tensors, &expected["class_token"], pixels);
    let tensors = from_hugging_face(&Architecture::Image(pooling.clone()), file).unwrap();
    image_tower(name, pooling, tensors, &expected["pooler_output"], pixels);
}

fn resnet50(name: &str, pretrained: Pretrained, expected: &BTreeMap<String, Tensor>) {
    let file = read_weights(&pretrained.files).unwrap();
    let vision = pretrained.vision().cloned().unwrap();
    image_tower(name, vision, pretrained.tensors, &expected["pooled"], &expected["pixel_values"]);
    let vs = VarStore::new(Device::Cpu);
    let model = ResNet50::new(&vs.root(), &ResNet50Config::imagenet()).unwrap();
    load_weights(&vs, &file, true).unwrap();
    check(
        name,
        "logits",
        &model.classify(&model.encode(&expected["pixel_values"], Mode::Eval).unwrap()).unwrap(),
        &expected["logits"],
    );
}

fn bert(name: &str, pretrained: Pretrained, expected: &BTreeMap<String, Tensor>, captions: &[String]) {
    let Some(TextConfig::Bert(config)) = pretrained.text().cloned() else { panic!("{name} is no BERT") };
    let rows = pretrained.tokenizer().unwrap().encode_batch(captions, 128, true);
    assert_eq!(rows.tokens, expected["input_ids"], "{name}: tokens");
    let vs = VarStore::new(Device::Cpu);
    let model = Bert::new(&vs.root(), &config).unwrap();
    load_weights(&vs, &model.published_weights(&read_weights(&pretrained.files).unwrap()), true).unwrap();
    let hidden = model.hidden_states(&rows.tokens, &expected["attention_mask"], None).unwrap();
    check(name, "last_hidden_state", &hidden, &expected["last_hidden_state"]);

    let width = config.hidden_size;
    let mut tensors = pretrained.tensors;
    tensors.insert("text.proj.weight".into(), Tensor::eye(width, (Kind::Float, Device::Cpu)));
    let vision = VisionConfig::Vit(VitConfig::clip(32, 32, 64, 1, 1));
    let vs = VarStore::new(Device::Cpu);
    let (clip, report) =
        Clip::from_tensors(&vs, &ClipConfig::new(width, vision, TextConfig::Bert(config)), tensors, false).unwrap();
    assert!(report.unexpected.is_empty(), "{name}: {report:?}");
    check(name, "pooler_output", &clip.encode_text(&rows.tokens).unwrap(), &expected["pooler_output"]);
}

#[test]
fn full_size_models_agree_with_their_originals() {
    let Some(models) = models() else {
        println!("skipped: SOFTCLIP_ORIGINALS does not name a folder of models");
        return;
    };
    let mut folders: Vec<PathBuf> = std::fs::read_dir(&models).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.join("expected.safetensors").is_file());
    folders.sort();
    let mut compared = 0;
    for folder in &folders {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let pickle = folder.join("epoch_1.pt");
        if pickle.is_file() {
            let error = Pretrained::open(pickle.to_str().unwrap(), &HubOptions::from_env().unwrap(), &mut |_| {}).unwrap_err();
            assert!(error.to_string().contains("python"), "{error}");
            continue;
        }
        let file = folder.join("expected.safetensors");
        let expected = read_safetensors(&file).unwrap();
        let captions: Vec<String> = match read_safetensors_metadata(&file).unwrap().get("captions") {
            Some(json) => serde_json::from_str(json).unwrap(),
            None => Vec::new(),
        };
        let pretrained = open(folder);
        no_grad(|| match pretrained.architecture.clone().unwrap() {
            Architecture::Clip(_) => whole(&name, pretrained, &expected, &captions),
            Architecture::Image(VisionConfig::Vit(_)) => vit(&name, pretrained, &expected),
            Architecture::Image(_) => resnet50(&name, pretrained, &expected),
            Architecture::Text(_) => bert(&name, pretrained, &expected, &captions),
        });
        compared += 1;
    }
    assert!(compared > 0, "{}: no model in it", models.display());
}
