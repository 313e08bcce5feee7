//! Something to train on.

use std::fs;

use crate::support::succeeds;

pub const CONFIG: &str = "
model:
  image: {kind: vit, image_size: 32, patch_size: 16, width: 32, layers: 2, heads: 2, mlp_ratio: 2}
  text: {context_length: 40, vocab_size: 49408, width: 16, heads: 2, layers: 1}
  embed_dim: 16
  regions: {dim: 112, blocks: 1}
loss: {name: softclip}
train: {steps: 6, batch_size: 16, lr: 1.0e-3, checkpoint_every: 2, log_every: 1}
eval: [{task: retrieval}]
";

/// A small drawn data set and a configuration for it.
pub struct World {
    pub folder: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tiny.yaml"), CONFIG).unwrap();
        let world = Self { folder };
        succeeds(&["data", "synth", &world.at("data"), "--train", "64", "--val", "20", "--zeroshot", "1", "--size", "48"]);
        world
    }

    pub fn at(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn train_args(&self, run: &str, more: &[&str]) -> Vec<String> {
        let data = |part: &str| format!("data.{part}={}/shards/{part}-*.tar", self.at("data"));
        let mut args = vec!["train".to_owned(), self.at("tiny.yaml"), "--run-dir".to_owned(), self.at(run)];
        args.extend(["--set".to_owned(), data("train"), "--set".to_owned(), data("val")]);
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        args
    }
}
