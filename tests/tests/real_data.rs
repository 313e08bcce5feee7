//! Real photographs, captions and features: run where `SOFTCLIP_DATA` names the folder that has them, skipped elsewhere.
//!
//! The folder has `flickr8k/` (shards of all of Flickr8k) and `flickr8k-features/` (frozen features of the same photographs).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;
use softclip_data::image::{DecodeOptions, Decoder};
use softclip_data::source;
use softclip_eval::retrieval;
use softclip_loss::{BlockOptions, LossConfig, LossInputs, Scales, blockwise, plain};
use softclip_tensor::{Embeddings, npy};
use tch::{Device, Kind, Tensor};

fn folder(name: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("SOFTCLIP_DATA").map(|root| Path::new(&root).join(name)).filter(|f| f.is_dir()) else {
        println!("skipped: SOFTCLIP_DATA names no folder with {name}");
        return None;
    };
    Some(folder)
}

fn meta(features: &Path) -> Value {
    serde_json::from_reader(BufReader::new(File::open(features.join("meta.json")).unwrap())).unwrap()
}

/// Reads rows `from` to `to` of an f16 array as f32.
fn rows(path: &Path, from: usize, to: usize) -> Tensor {
    let mut file = BufReader::new(File::open(path).unwrap());
    let header = npy::read_header(&mut file).unwrap();
    let &[_, width] = &header.shape[..] else { panic!("{:?}", header.shape) };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    let bytes = &bytes[from * width * 2..to * width * 2];
    Tensor::from_data_size(bytes, &[(to - from) as i64, width as i64], header.kind).to_kind(Kind::Float)
}

fn unit(path: &Path, from: usize, to: usize) -> Embeddings {
    Embeddings::normalize(&rows(path, from, to)).unwrap()
}

/// The first of a photograph's five captions, for photographs `0..n`.
fn first_captions(features: &Path, n: usize) -> Embeddings {
    let every = Tensor::arange_start_step(0, n as i64 * 5, 5, (Kind::Int64, Device::Cpu));
    Embeddings::normalize(&rows(&features.join("captions.npy"), 0, n * 5).index_select(0, &every)).unwrap()
}

#[test]
fn all_of_flickr8k_is_usable() {
    let (Some(shards), Some(features)) = (folder("flickr8k"), folder("flickr8k-features")) else { return };
    let meta = meta(&features);
    let keys: Vec<&str> = meta["keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
    let mut decoder = Decoder::new(DecodeOptions::default()).unwrap();
    let mut expected = keys.iter();
    for (split, samples) in [("train/{00000..00005}", 6000), ("val/00000", 1000), ("test/00000", 1000)] {
        let source = source::open(&format!("{}/{split}.tar", shards.display())).unwrap();
        assert_eq!((source.len(), source.faults().len()), (samples, 0), "{split}");
        for i in 0..source.len() {
            let sample = source.read(i).unwrap();
            assert_eq!((source.stem(i).as_str(), sample.captions.len()), (*expected.next().unwrap(), 5));
            assert_eq!(decoder.decode(&sample.image).unwrap().full_size, (96, 96));
        }
    }
    assert!(expected.next().is_none(), "photographs without a sample");
}

/// The caption that a photograph has first finds the other four among 4,000, as a sorted matrix of similarities says.
#[test]
fn recall_of_real_captions_is_that_of_a_sorted_matrix() {
    let Some(features) = folder("flickr8k-features") else { return };
    let n = 1000;
    let all = unit(&features.join("captions.npy"), 7000 * 5, 8000 * 5);
    let index = |keep: fn(i64) -> bool| Tensor::from_slice(&(0..n * 5).filter(|j| keep(j % 5)).collect::<Vec<i64>>());
    let part = |index: &Tensor| Embeddings::checked(all.tensor().index_select(0, index)).unwrap();
    let (queries, others) = (part(&index(|k| k == 0)), part(&index(|k| k != 0)));
    let owner: Vec<i64> = (0..n * 4).map(|j| j / 4).collect();
    let found = retrieval(&queries, &others, &owner).unwrap();

    let similarity = queries.tensor().to_kind(Kind::Double).matmul(&others.tensor().to_kind(Kind::Double).tr());
    let own = Tensor::from_slice(&owner).unsqueeze(0).eq_tensor(&Tensor::arange(n, (Kind::Int64, Device::Cpu)).unsqueeze(1));
    // The rank of the best right caption: those above it, and equal ones (two photographs with one caption) that come before it.
    let (best, at) = similarity.masked_fill(&own.logical_not(), -2.0).max_dim(1, true);
    let (equal, above) = ((&similarity - &best).abs().lt(1e-9), (&similarity - &best).ge(1e-9));
    let before = Tensor::arange(n * 4, (Kind::Int64, Device::Cpu)).unsqueeze(0).lt_tensor(&at);
    let above = above.logical_or(&equal.logical_and(&before)).sum_dim_intlist([1i64].as_slice(), false, Kind::Int64);
    for (k, recall) in [1, 5, 10].into_iter().zip(found.image_to_text.recall) {
        let expected = above.lt(k).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        assert!((recall - expected).abs() < 1e-12, "R@{k}: {recall} and {expected}");
    }
    // Captions of one photograph are close to each other in MiniLM.
    assert!(found.image_to_text.recall[2] > 0.5, "{:?}", found.image_to_text);
}

/// On real features the blockwise and the dense form agree as they do on random ones.
#[test]
fn losses_agree_on_real_tags_and_captions() {
    let Some(features) = folder("flickr8k-features") else { return };
    let n = 512;
    let tags = unit(&features.join("tags-rich.npy"), 0, n);
    let text = first_captions(&features, n);
    let images = unit(&features.join("image.npy"), 0, n);
    // The images' features have another width than the captions': the first 384 of them.
    let image = Embeddings::normalize(&images.tensor().narrow(1, 0, text.dim())).unwrap();
    let regions = Embeddings::normalize(&images.tensor().narrow(1, text.dim(), text.dim())).unwrap();
    let inputs = LossInputs { regions: Some(&regions), tags: Some(&tags), ..LossInputs::new(&image, &text) };
    let log_scale = (1.0f64 / 0.07).ln();
    for name in ["clip", "label_smoothing", "softclip", "siglip"] {
        let config: LossConfig = serde_yaml::from_str(&format!("{{name: {name}}}")).unwrap();
        let scales = Scales { bias: (name == "siglip").then_some(-10.0), ..Scales::new(log_scale) };
        let block = blockwise(&config, &inputs, &scales, &BlockOptions::default()).unwrap();
        let dense = plain::Scales::new(Tensor::from(log_scale));
        let dense = plain::Scales { bias: (name == "siglip").then(|| Tensor::from(-10.0f64)), ..dense };
        let dense = plain::loss(&config, &inputs, &dense).unwrap().value.double_value(&[]);
        let difference = (block.value - dense).abs() / dense.abs();
        println!("{name}: {:.6} and {dense:.6}", block.value);
        assert!(difference < 1e-5, "{name}: {} and {dense}", block.value);
    }
}
