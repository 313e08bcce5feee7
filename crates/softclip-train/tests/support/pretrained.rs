//! Small pretrained models on disk.
#![allow(dead_code)] // each test target uses its own part

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use softclip_data::tokenizer::Tokenizer;
use softclip_encoders::{Bert, BertConfig, Clip, ClipConfig, ClipTextConfig, TextConfig, VisionConfig, VitConfig, named_tensors};
use softclip_pretrained::export_hugging_face;
use softclip_tensor::file::write_safetensors;
use tch::Device;
use tch::nn::VarStore;

/// A CLIP of Hugging Face's with images of 16 pixels.
pub fn clip(folder: &Path) -> PathBuf {
    clip_with(&folder.join("clip"), &Tokenizer::clip().unwrap())
}

/// The same in a folder of this name, with another tokenizer.
pub fn clip_with(path: &Path, tokenizer: &Tokenizer) -> PathBuf {
    let vocab_size = tokenizer.vocab_size() as i64;
    let text = ClipTextConfig { context_length: 12, layers: 1, heads: 2, vocab_size, ..ClipTextConfig::clip(16) };
    let vision = VisionConfig::Vit(VitConfig::clip(16, 8, 16, 2, 2));
    let config = ClipConfig::new(8, vision, TextConfig::Clip(text));
    let vs = VarStore::new(Device::Cpu);
    let _clip = Clip::new(&vs.root(), &config).unwrap();
    let tensors = named_tensors(&vs).into_iter().collect();
    export_hugging_face(&config, &tensors, tokenizer, path).unwrap();
    path.to_owned()
}

/// A BERT of Hugging Face's in a folder of this name, whose vocabulary is `words`.
pub fn bert(path: &Path, words: &[&str], positions: i64) -> PathBuf {
    let config = BertConfig {
        vocab_size: words.len() as i64,
        hidden_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 16,
        max_position_embeddings: positions,
        ..BertConfig::bert_base()
    };
    let vs = VarStore::new(Device::Cpu);
    let _bert = Bert::new(&vs.root(), &config).unwrap();
    fs::create_dir(path).unwrap();
    write_safetensors(path.join("model.safetensors"), &named_tensors(&vs), &BTreeMap::new()).unwrap();
    fs::write(path.join("config.json"), serde_json::to_string(&config).unwrap()).unwrap();
    fs::write(path.join("vocab.txt"), words.join("\n")).unwrap();
    path.to_owned()
}
