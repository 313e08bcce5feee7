//! Weights, arrays, tokenizers and configurations.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use softclip_data::tokenizer::Tokenizer;
use softclip_encoders::{
    BertConfig, Clip, ClipConfig, ClipTextConfig, TextConfig, VisionConfig, VitConfig, hugging_face, named_tensors,
};
use softclip_pretrained::{HubOptions, Pretrained, export_hugging_face, export_open_clip};
use softclip_tensor::file::{read_safetensors, write_safetensors};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use super::{Format, Outcome, Reader};

fn text_of(bytes: &[u8]) -> Result<&str, Outcome> {
    std::str::from_utf8(bytes).map_err(|e| Outcome::Refused(e.to_string()))
}

/// A reader of JSON text.
fn json<T: 'static, E: std::fmt::Display + 'static>(read: fn(&str) -> Result<T, E>) -> Reader {
    Box::new(move |_, bytes| match text_of(bytes) {
        Ok(text) => Outcome::of(read(text)),
        Err(refused) => refused,
    })
}

const WORDS: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nred\nbus\n##es\nb\nc\n##b\n";

/// Encodes with the tokenizer of the folder.
fn tokenize(folder: &Path, _: &[u8]) -> Outcome {
    Outcome::of(Tokenizer::from_folder(folder).map(|tokenizer| {
        let rows = tokenizer.encode_batch(&["a red bus", "", "buses \u{1f600} \u{feff}"], 8, true);
        assert_eq!(rows.tokens.size()[0], 3);
    }))
}

/// Opens a model's folder, builds the model and encodes a text.
fn build(folder: &Path, _: &[u8]) -> Outcome {
    let hub = match HubOptions::from_env() {
        Ok(hub) => HubOptions { offline: true, ..hub },
        Err(e) => return Outcome::Refused(e.to_string()),
    };
    let path = folder.to_str().unwrap();
    let made = Pretrained::open(path, &hub, &mut |_| {}).and_then(|model| model.into_clip(Device::Cpu));
    Outcome::of(made)
}

/// A small model as open_clip and as Hugging Face keep it.
fn models(place: &Path) -> (PathBuf, PathBuf) {
    let text = TextConfig::Clip(ClipTextConfig { layers: 1, mlp_ratio: 2.0, context_length: 12, ..ClipTextConfig::clip(64) });
    let config = ClipConfig::new(16, VisionConfig::Vit(VitConfig { mlp_ratio: 2.0, ..VitConfig::clip(16, 8, 64, 1, 1) }), text);
    let vs = VarStore::new(Device::Cpu);
    let _clip = Clip::new(&vs.root(), &config).unwrap();
    let tensors: BTreeMap<String, Tensor> = named_tensors(&vs).into_iter().collect();
    let (open_clip, theirs) = (place.join("open_clip"), place.join("hugging_face"));
    let tokenizer = Tokenizer::clip().unwrap();
    export_open_clip(&config, &tensors, &tokenizer, &open_clip).unwrap();
    export_hugging_face(&config, &tensors, &tokenizer, &theirs).unwrap();
    (open_clip, theirs)
}

const CONFIG: &str = "\
model: {image: {kind: vit, image_size: 32, patch_size: 8, width: 32, layers: 2, heads: 2}, text: {context_length: 77, vocab_size: 49408, width: 32, heads: 2, layers: 1}, embed_dim: 32}
loss: {name: label_smoothing, alpha: 0.2}
data: {train: 'a/*.tar', workers: 2}
train: {steps: 12, batch_size: 16, lr: 1.0e-3, warmup: 4}
eval: [{task: retrieval, every: 6 steps}]
";

const BERT: &str = r#"{"model_type": "bert", "vocab_size": 30522, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
 "intermediate_size": 128, "max_position_embeddings": 64, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu", "pad_token_id": 0}"#;

pub fn formats(place: &Path) -> Vec<Format> {
    let one = |name: &'static str, file: &'static str, bytes: &[u8], inputs, read| {
        let folder = place.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(file), bytes).unwrap();
        Format { name, folder, file, inputs, read }
    };
    let (open_clip, theirs) = models(place);
    let file = |folder: &Path, name: &str| fs::read(folder.join(name)).unwrap();
    let tensors =
        [("a".to_owned(), Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3])), ("b".to_owned(), Tensor::from(7i64))];
    let weights = place.join("small.safetensors");
    write_safetensors(&weights, &tensors, &BTreeMap::from([("format".to_owned(), "pt".to_owned())])).unwrap();
    let mut npy = softclip_tensor::npy::header(Kind::Float, &[3, 2]);
    npy.extend([0u8; 24]);
    let tokenizer = place.join("tokenizer.json");
    fs::create_dir(&tokenizer).unwrap();
    fs::write(tokenizer.join("vocab.txt"), WORDS).unwrap();
    let saved = Tokenizer::from_folder(&tokenizer).unwrap();
    fs::remove_file(tokenizer.join("vocab.txt")).unwrap();
    saved.save(&tokenizer).unwrap();
    let made =
        |name, folder: &PathBuf, file, inputs| Format { name, folder: folder.clone(), file, inputs, read: Box::new(build) };
    vec![
        one(
            "safetensors",
            "w.safetensors",
            &fs::read(weights).unwrap(),
            1.0,
            Box::new(|folder: &Path, _: &[u8]| {
                Outcome::of(read_safetensors(folder.join("w.safetensors")).map(|tensors| {
                    // Every byte is touched: the file is mapped, not read.
                    tensors.values().map(|t| t.to_kind(Kind::Double).sum(Kind::Double).double_value(&[])).sum::<f64>()
                }))
            }),
        ),
        one(
            "npy",
            "a.npy",
            &npy,
            1.0,
            Box::new(|_: &Path, bytes: &[u8]| {
                Outcome::of(softclip_tensor::npy::read_header(&mut &bytes[..]).map(|header| header.data_len()))
            }),
        ),
        one("vocab.txt", "vocab.txt", WORDS.as_bytes(), 1.0, Box::new(tokenize)),
        Format { name: "tokenizer.json", folder: tokenizer, file: "tokenizer.json", inputs: 1.0, read: Box::new(tokenize) },
        one("open_clip config", "c.json", &file(&open_clip, "open_clip_config.json"), 1.0, json(ClipConfig::from_open_clip_json)),
        one("hugging_face config", "c.json", &file(&theirs, "config.json"), 1.0, json(hugging_face::read_config)),
        one("bert config", "c.json", BERT.as_bytes(), 1.0, json(BertConfig::from_hugging_face_json)),
        one(
            "yaml",
            "c.yaml",
            CONFIG.as_bytes(),
            1.0,
            Box::new(|folder: &Path, _: &[u8]| Outcome::of(softclip_train::config::load(&folder.join("c.yaml"), &[]))),
        ),
        made("open_clip model", &open_clip, "open_clip_config.json", 0.25),
        made("hugging_face model", &theirs, "config.json", 0.25),
        made("preprocessor", &theirs, "preprocessor_config.json", 0.15),
    ]
}
