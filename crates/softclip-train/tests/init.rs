//! Runs that start from pretrained models, in any pairing, with towers frozen or scaled.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/pretrained.rs"]
mod pretrained;
#[allow(dead_code)]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pretrained::clip;
use softclip_encoders::{ResNet50, ResNet50Config, TextConfig, named_tensors};
use softclip_tensor::file::{read_safetensors, write_safetensors};
use softclip_train::config::{self, RunConfig};
use softclip_train::{TrainedModel, checkpoint, train};
use support::{options, shard};
use tch::nn::VarStore;
use tch::{Device, Tensor};

const WORDS: [&str; 12] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "green", "blue", "thing", "number", "##e", "7"];

fn bert(folder: &Path) -> PathBuf {
    pretrained::bert(&folder.join("bert"), &WORDS, 20)
}

fn resnet(folder: &Path) -> PathBuf {
    let config = ResNet50Config { layers: [1, 1, 1, 1], width: 4, classes: Some(5) };
    let vs = VarStore::new(Device::Cpu);
    let _resnet = ResNet50::new(&vs.root(), &config).unwrap();
    let path = folder.join("resnet.safetensors");
    write_safetensors(&path, &named_tensors(&vs), &BTreeMap::new()).unwrap();
    path
}

fn configuration(folder: &Path, model: &str, train: &str) -> Result<RunConfig, config::ConfigError> {
    let path = folder.join("run.yaml");
    let data = shard(folder, 24).display().to_string();
    let text = format!(
        "model: {model}\nloss: {{name: clip}}\ndata: {{train: {data}, workers: 1}}\neval: [{{task: pairing, data: {data}}}]\n\
         train: {{steps: 4, batch_size: 8, lr: 0.01, weight_decay: 0.5, checkpoint_every: 2, log_every: 1{train}}}\n"
    );
    fs::write(&path, text).unwrap();
    config::load(&path, &[])
}

fn weights(run: &Path, step: u64) -> BTreeMap<String, Tensor> {
    read_safetensors(run.join(format!("checkpoints/step-{step:08}")).join(checkpoint::MODEL)).unwrap()
}

/// Names of `a` that start so and differ in `b`.
fn changed(a: &BTreeMap<String, Tensor>, b: &BTreeMap<String, Tensor>, prefix: &str) -> Vec<String> {
    a.iter().filter(|(name, t)| name.starts_with(prefix) && !t.equal(&b[*name])).map(|(name, _)| name.clone()).collect()
}

#[test]
fn single_towers_are_joined_one_frozen_always_and_one_after_two_steps() {
    let folder = tempfile::tempdir().unwrap();
    let (clip, bert) = (clip(folder.path()), bert(folder.path()));
    let model = format!("{{init: {{image: {}, text: {}}}, embed_dim: 6, text_pool: mean}}", clip.display(), bert.display());
    let towers = ", image_tower: {freeze_after: 0}, text_tower: {lr_scale: 0.1, freeze_after: 2}";
    let config = configuration(folder.path(), &model, towers).unwrap();
    let run = folder.path().join("run");
    let outcome = train(&config, &options(&run)).unwrap();
    assert_eq!((outcome.step, outcome.results.len()), (4, 1));

    let (second, last) = (weights(&run, 2), weights(&run, 4));
    let file = read_safetensors(clip.join("model.safetensors")).unwrap();
    let patches = &file["vision_model.embeddings.patch_embedding.weight"];
    assert!(last["visual.conv1.weight"].equal(patches), "the frozen tower is the file's");
    assert_eq!(changed(&second, &last, "visual."), ["visual.proj"], "its projection learns");
    assert_eq!(changed(&second, &last, "text."), ["text.proj.weight"], "frozen after two steps");
    let word = "embeddings.word_embeddings.weight";
    let before = &read_safetensors(bert.join("model.safetensors")).unwrap()[word];
    assert!(!second[&format!("text.transformer.{word}")].equal(before), "and not before");
    assert!(!last.keys().any(|name| name.contains("pooler")), "a mean needs no pooler");

    // The run needs its sources no more.
    fs::remove_dir_all(&clip).unwrap();
    fs::remove_dir_all(&bert).unwrap();
    let trained = TrainedModel::open(&run, Device::Cpu).unwrap();
    assert_eq!(trained.tokenizer.encode("a red thing", 20), [2, 4, 5, 8, 3]);
    assert_eq!(trained.model.clip().config().embed_dim, 6);
    trained.model.tensors().into_iter().for_each(|(name, t)| assert!(t.equal(&last[&name]), "{name}"));
}

#[test]
fn a_whole_model_is_taken_at_another_resolution_and_a_run_can_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let clip = clip(folder.path());
    let config = configuration(folder.path(), &format!("{{init: {}, image_size: 32}}", clip.display()), "").unwrap();
    let run = folder.path().join("run");
    let mut first = config.clone();
    first.train.steps = Some(2);
    train(&first, &options(&run)).unwrap();
    assert_eq!(weights(&run, 2)["visual.positional_embedding"].size(), [17, 16]);
    assert_eq!(train(&config, &options(&run)).unwrap().step, 4);
}

#[test]
fn torchvisions_resnet_trains_with_its_norm_frozen() {
    let folder = tempfile::tempdir().unwrap();
    let resnet = resnet(folder.path());
    let text = "{context_length: 12, vocab_size: 49408, width: 8, heads: 2, layers: 1}";
    let model = format!("{{init: {{image: {}}}, text: {text}, image_size: 32, embed_dim: 8}}", resnet.display());
    let config = configuration(folder.path(), &model, ", frozen_norm: true").unwrap();
    let run = folder.path().join("run");
    train(&config, &options(&run)).unwrap();
    let (file, last) = (read_safetensors(&resnet).unwrap(), weights(&run, 4));
    let same = |name: &str| file[name].equal(&last[&format!("visual.trunk.{name}")]);
    assert!(same("bn1.running_mean") && same("bn1.weight") && !same("conv1.weight"));
    let trained = TrainedModel::open(&run, Device::Cpu).unwrap();
    assert_eq!(trained.model.clip().config().normalization, softclip_encoders::Normalization::IMAGENET);
}

#[test]
fn clips_tower_reads_a_text_at_the_end_token_of_another_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let bert = bert(folder.path());
    let vit = "{kind: vit, image_size: 16, patch_size: 8, width: 16, layers: 1, heads: 2}";
    let text = "{context_length: 12, vocab_size: 12, width: 8, heads: 2, layers: 1}";
    let model = format!("{{image: {vit}, text: {text}, embed_dim: 8, tokenizer: {}}}", bert.display());
    let run = folder.path().join("run");
    train(&configuration(folder.path(), &model, "").unwrap(), &options(&run)).unwrap();
    let trained = TrainedModel::open(&run, Device::Cpu).unwrap();
    let TextConfig::Clip(text) = &trained.model.clip().config().text else { panic!("CLIP's tower") };
    assert_eq!(text.eot_token_id, Some(3), "[SEP]");

    // A checkpoint's weights bring their run's configuration and tokenizer along.
    let init = run.join("checkpoints/step-00000004").join(checkpoint::MODEL);
    let again = folder.path().join("again");
    train(&configuration(folder.path(), &format!("{{init: {}}}", init.display()), "").unwrap(), &options(&again)).unwrap();
    let again = TrainedModel::open(&again, Device::Cpu).unwrap();
    assert_eq!(again.model.clip().config(), trained.model.clip().config());
    assert_eq!(again.tokenizer.encode("a red", 12), [2, 4, 5, 3]);
}

#[test]
fn with_everything_frozen_the_temperature_goes_on_learning_in_chunks_too() {
    let folder = tempfile::tempdir().unwrap();
    let clip = clip(folder.path());
    let frozen = "{freeze_after: 2, freeze_projection: true}";
    let towers = format!(", chunk_size: 4, image_tower: {frozen}, text_tower: {frozen}");
    let config = configuration(folder.path(), &format!("{{init: {}}}", clip.display()), &towers).unwrap();
    let run = folder.path().join("run");
    train(&config, &options(&run)).unwrap();
    assert_eq!(changed(&weights(&run, 2), &weights(&run, 4), ""), ["logit_scale"]);
}

#[test]
fn pairings_that_make_no_sense_are_refused_by_their_key() {
    let folder = tempfile::tempdir().unwrap();
    let (clip, bert) = (clip(folder.path()), bert(folder.path()));
    for (model, train_keys, says) in [
        ("{image: vit_b_32, text: bert}".to_owned(), "", "model.tokenizer"),
        ("{image: vit_b_32, text: clip, text_pool: mean}".to_owned(), "", "text_pool"),
        ("{text: clip}".to_owned(), "", "no image tower"),
        ("{image: vit_b_32}".to_owned(), ", frozen_norm: true", "frozen_norm"),
        ("{image: vit_b_32}".to_owned(), ", image_tower: {freeze_projection: true}", "freeze_projection"),
        ("{image: vit_b_32}".to_owned(), ", text_tower: {lr_scale: 0}", "lr_scale"),
        ("{image: vit_b_32, init: {text_tower: x}}".to_owned(), "", "text_tower"),
    ] {
        let error = configuration(folder.path(), &model, train_keys).unwrap_err().to_string();
        assert!(error.contains(says), "{model}: {error}");
    }
    let run = folder.path().join("run");
    for (model, says) in [
        (format!("{{image: rn50, init: {}}}", clip.display()), "clip: `visual.conv1.weight` has shape"),
        (format!("{{init: {}}}", bert.display()), "no image tower"),
        (format!("{{init: {{image: {}}}, text: bert, tokenizer: {}}}", clip.display(), clip.display()), "49408 tokens"),
        ("{init: no/such/folder}".to_owned(), "no/such/folder"),
    ] {
        let config = configuration(folder.path(), &model, "").unwrap();
        let error = train(&config, &options(&run)).unwrap_err().to_string();
        assert!(error.contains(says), "{model}: {error}");
    }
}
