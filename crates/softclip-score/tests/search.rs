//! Searching: exact, in any block, and only in what can be searched.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use common::{Model, id};
use softclip_score::embed::{EmbedOptions, Input, What, embed};
use softclip_score::search::{Collection, Query, encode, search};
use softclip_tensor::npy::header;
use tch::{Kind, Tensor};

/// Embeddings as NumPy would save them, with numbers for keys.
fn save(folder: &Path, kind: Kind, dim: usize, numbers: &[f32]) {
    let data: Vec<u8> = match kind {
        Kind::Half => numbers.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect(),
        _ => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
    };
    let rows = numbers.len() / dim;
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("embeddings.npy"), [header(kind, &[rows, dim]), data].concat()).unwrap();
    fs::write(folder.join("keys.txt"), (0..rows).map(|i| format!("key {i}\n")).collect::<String>()).unwrap();
}

fn noise(n: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    let norms = dot(a, a).sqrt() * dot(b, b).sqrt();
    if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
}

#[test]
fn the_nearest_rows_are_those_of_brute_force_in_every_block() {
    let dir = tempfile::tempdir().unwrap();
    // More than 16 MiB: several blocks. Equal rows at both ends, and one of zeros.
    let (dim, n) = (32, 150_000);
    let mut numbers = noise(n * dim);
    for row in [140_000, 7, 149_999, 70_000] {
        numbers.copy_within(3 * dim..4 * dim, row * dim);
    }
    numbers[dim..2 * dim].fill(0.0);
    save(dir.path(), Kind::Float, dim, &numbers);
    let queries = [&numbers[3 * dim..4 * dim], &noise(5 * dim)[4 * dim..], &numbers[9 * dim..10 * dim]].concat();
    let collection = Collection::open(dir.path()).unwrap();
    let found = collection.nearest(&Tensor::from_slice(&queries).view([3, dim as i64]), 12).unwrap();
    for (query, found) in queries.chunks_exact(dim).zip(&found) {
        let mut all: Vec<(usize, f64)> = numbers.chunks_exact(dim).map(|row| cosine(query, row)).enumerate().collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        assert_eq!(found.len(), 12);
        for (hit, (row, score)) in found.iter().zip(all) {
            assert!((hit.score - score).abs() < 1e-12);
            assert_eq!(hit.row, row);
        }
    }
    let equal: Vec<usize> = found[0][..5].iter().map(|hit| hit.row).collect();
    assert_eq!(equal, [3, 7, 70_000, 140_000, 149_999]);
}

#[test]
fn halves_are_searched_and_k_may_be_more_than_there_are() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), Kind::Half, 2, &[0.0, 2.0, 2.0, 1.5, -1.0, 0.0]);
    let collection = Collection::open(dir.path()).unwrap();
    let query = Tensor::from_slice(&[3.0f32, 0.0]).view([1, 2]);
    let found = &collection.nearest(&query, 10).unwrap()[0];
    let rows: Vec<(usize, f64)> = found.iter().map(|hit| (hit.row, (hit.score * 1e3).round() / 1e3)).collect();
    assert_eq!(rows, [(1, 0.8), (0, 0.0), (2, -1.0)]);
    let keys = collection.entries([2, 0]).unwrap();
    assert_eq!((keys[&0].key.as_str(), keys[&2].key.as_str(), keys.len()), ("key 0", "key 2", 2));
}

#[test]
fn what_cannot_be_searched_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let query = |dim: i64| Tensor::ones([1, dim], (Kind::Float, tch::Device::Cpu));
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    save(&a, Kind::Float, 2, &[1.0, 0.0, f32::NAN, 0.0, 0.0, f32::INFINITY]);
    let error = Collection::open(&a).unwrap().nearest(&query(2), 1).unwrap_err().to_string();
    assert!(error.contains("row 1,") && error.contains("not finite"), "{error}");
    let error = Collection::open(&a).unwrap().nearest(&query(3), 1).unwrap_err().to_string();
    assert!(error.contains("2 numbers") && error.contains("[1, 3]"), "{error}");
    save(&b, Kind::Float, 2, &[1.0, 0.0, 0.0, 1.0]);
    fs::write(b.join("keys.txt"), "one\n").unwrap();
    let error = Collection::open(&b).unwrap().entries([0]).unwrap_err().to_string();
    assert!(error.contains("1 lines") && error.contains("2 rows"), "{error}");
    let bytes = fs::read(b.join("embeddings.npy")).unwrap();
    fs::write(b.join("embeddings.npy"), &bytes[..bytes.len() - 1]).unwrap();
    assert!(Collection::open(&b).unwrap_err().to_string().contains("cut"));
    assert!(Collection::open(dir.path()).unwrap_err().to_string().contains("softclip embed"));
}

#[test]
fn texts_find_themselves_and_another_model_is_refused() {
    let (model, dir) = (Model::new(), tempfile::tempdir().unwrap());
    let (encoder, out, texts) = (model.encoder(), dir.path().join("out"), dir.path().join("t.txt"));
    fs::write(&texts, "a red car\na <b>bold</b> dog\nthree green birds\n").unwrap();
    let input = Input::open(texts.to_str().unwrap(), What::Texts).unwrap();
    embed(&encoder, &id("w"), &input, &out, &EmbedOptions::default(), &mut |_, _| ControlFlow::Continue(())).unwrap();
    let collection = Collection::open(&out).unwrap();
    let queries = ["three green birds", "a red car"].map(|text| Query::Text(text.to_owned()));
    assert_eq!(encode(&encoder, &queries).unwrap().size(), [2, 24]);
    let answers = search(&encoder, &collection, queries.to_vec(), 2).unwrap();
    let best: Vec<&str> = answers.answers.iter().map(|answer| answer.hits[0].entry.key.as_str()).collect();
    assert_eq!(best, ["3", "1"]);
    let shown = answers.to_string();
    assert!(shown.starts_with("\"three green birds\"\n    1   1.0000  3  three green birds\n"), "{shown}");
    let json = serde_json::to_value(&answers).unwrap();
    assert_eq!(json["answers"][1]["query"]["text"], "a red car");
    assert_eq!(json["answers"][1]["hits"][0]["text"], "a red car");
    collection.suits(&id("w")).unwrap();
    let error = collection.suits(&id("v")).unwrap_err().to_string();
    assert!(error.contains("tiny"), "{error}");
}
