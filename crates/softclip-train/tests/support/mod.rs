//! A small data set and a small model.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use softclip_train::config::{self, RunConfig};
use softclip_train::{Resume, RunOptions};
use tch::Device;

/// A shard of `n` images of 24 × 20 pixels with two captions each.
pub fn shard(folder: &Path, n: usize) -> PathBuf {
    let mut builder = tar::Builder::new(Vec::new());
    let mut put = |name: String, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    for i in 0..n {
        let pixels: Vec<u8> = (0..24 * 20 * 3).map(|p| (p * (i % 7 + 1) + i * 37) as u8).collect();
        let mut image = Vec::new();
        let encoder = image::codecs::png::PngEncoder::new(&mut image);
        image::ImageEncoder::write_image(encoder, &pixels, 24, 20, image::ExtendedColorType::Rgb8).unwrap();
        put(format!("{i:04}.png"), &image);
        let words = ["red", "green", "blue", "grey"];
        let captions = format!(r#"{{"captions": ["a {} thing {}", "number {i}"]}}"#, words[i % 4], i % 7);
        put(format!("{i:04}.json"), captions.as_bytes());
    }
    let path = folder.join("data.tar");
    std::fs::write(&path, builder.into_inner().unwrap()).unwrap();
    path
}

pub const CONFIG: &str = "
model:
  image: {kind: vit, image_size: 16, patch_size: 8, width: 16, layers: 1, heads: 2, mlp_ratio: 2}
  text: {context_length: 12, vocab_size: 49408, width: 8, heads: 2, layers: 1}
  embed_dim: 8
loss: {name: clip}
data: {workers: 2, augment: {flip: 0.5}}
train: {steps: 14, batch_size: 10, lr: 1.0e-3, checkpoint_every: 3, keep_checkpoints: 2, log_every: 1, seed: 3}
";

pub fn configuration(folder: &Path, sets: &[&str]) -> RunConfig {
    let path = folder.join("tiny.yaml");
    std::fs::write(&path, CONFIG).unwrap();
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    config::load(&path, &sets).unwrap()
}

pub fn options(dir: &Path) -> RunOptions {
    let stop = Arc::new(AtomicBool::new(false));
    RunOptions { dir: dir.to_owned(), resume: Resume::Auto, device: Device::Cpu, quiet: true, stop }
}
