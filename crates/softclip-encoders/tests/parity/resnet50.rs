//! ResNet-50 against torchvision's.

use std::collections::BTreeMap;

use softclip_encoders::{Mode, ResNet50, ResNet50Config, load_weights};
use tch::nn::VarStore;
use tch::{Kind, Tensor, no_grad};

use crate::{check, device, golden};

const NAME: &str = "resnet50_small";

fn open() -> (VarStore, ResNet50, BTreeMap<String, Tensor>) {
    let vs = VarStore::new(device());
    let config = ResNet50Config { layers: [1, 2, 1, 1], width: 4, classes: Some(10) };
    let model = ResNet50::new(&vs.root(), &config).unwrap();
    let report = load_weights(&vs, &golden(&format!("{NAME}.weights")), true).unwrap();
    assert_eq!(report.loaded, vs.variables().len());
    (vs, model, golden(&format!("{NAME}.io")))
}

#[test]
fn features_maps_and_logits_agree_with_torchvision() {
    let (_vs, model, io) = open();
    let mut seen = BTreeMap::new();
    let mut trace = |module: &str, x: &Tensor| {
        seen.insert(module.to_owned(), x.shallow_clone());
    };
    no_grad(|| {
        let pooled = model.encode_with(&io["image"].to_kind(Kind::Float), Mode::Eval, &mut trace).unwrap();
        check(NAME, "pooled", &pooled, &io["pooled"], 1e-5);
        check(NAME, "logits", &model.classify(&pooled).unwrap(), &io["logits"], 1e-5);
    });
    for (module, golden) in [("maxpool", "stem"), ("layer1", "c2"), ("layer2", "c3"), ("layer3", "c4"), ("layer4", "c5")] {
        let rows = io[golden].size()[0];
        check(NAME, golden, &seen[module].narrow(0, 0, rows), &io[golden], 1e-5);
    }
}

#[test]
fn a_training_step_agrees_with_torchvision() {
    let (vs, model, io) = open();
    let features = model.encode(&io["image"].to_kind(Kind::Float), Mode::Train).unwrap();
    let logits = model.classify(&features).unwrap();
    logits.square().mean(Kind::Float).backward();
    check(NAME, "train.logits", &logits.detach(), &io["train.logits"], 1e-5);
    let variables = vs.variables();
    check(NAME, "grad.conv1.weight", &variables["conv1.weight"].grad(), &io["grad.conv1.weight"], 1e-4);
    for buffer in ["bn1.running_mean", "bn1.running_var"] {
        let golden = format!("train.after.{buffer}");
        check(NAME, &golden, &variables[buffer], &io[&golden], 1e-5);
    }
}
