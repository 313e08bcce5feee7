//! `softclip detect` and `softclip extract` as a shell sees them, and training on what they make.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{fails, softclip, succeeds};

mod support;

fn golden(name: &str) -> String {
    format!("{}/../../tests/goldens/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A drawn data set, and the names of the detector's classes.
fn world() -> (tempfile::TempDir, impl Fn(&str) -> String) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    let at = move |name: &str| root.join(name).to_str().unwrap().to_owned();
    succeeds(&["data", "synth", &at("data"), "--train", "24", "--val", "4", "--zeroshot", "1", "--size", "48"]);
    fs::write(at("names.txt"), "red\ngreen\n").unwrap();
    (folder, at)
}

fn first_image(dir: &str) -> String {
    let entry = fs::read_dir(dir).unwrap().next().unwrap().unwrap();
    entry.path().to_str().unwrap().to_owned()
}

#[test]
fn a_detector_runs_only_where_it_is_trusted_and_draws_what_it_finds() {
    let (_folder, at) = world();
    let (detector, image) = (golden("detectors/cells.pt"), first_image(&at("data/images/train")));
    let untrusted = fails(&["detect", &image, "--detector", &detector, "--out", &at("boxes")], 1);
    let sha256 = untrusted.split(['(', ')']).find(|part| part.len() == 64).expect("a hash").to_owned();
    assert!(untrusted.contains("is a program"), "{untrusted}");

    let trusted =
        ["detect", &image, "--detector", &detector, "--sha256", &sha256, "--classes", &at("names.txt"), "--confidence", "0.3"];
    let told = succeeds(&[&trusted[..], &["--out", &at("boxes"), "--json"]].concat());
    let told: Value = serde_json::from_str(&told).unwrap();
    assert!(!told["objects"].as_array().unwrap().is_empty() && told["width"] == 48, "{told}");
    let stem = Path::new(&image).file_stem().unwrap().to_str().unwrap();
    let drawn = fs::read_dir(at("boxes")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>();
    assert!(drawn.len() == 1 && drawn[0].starts_with(&format!("{stem}.boxes.")), "{drawn:?}");

    let wrong = fails(&["detect", &image, "--detector", &detector, "--trust", "--no-pictures"], 1);
    assert!(wrong.contains("expected [1, n, 85]"), "{wrong}");
    fs::create_dir(at("more")).unwrap();
    let copy = format!("{}/{}", at("more"), Path::new(&image).file_name().unwrap().to_str().unwrap());
    fs::copy(&image, &copy).unwrap();
    let twice = fails(&["detect", &image, &copy, "--detector", &detector, "--trust", "--out", &at("two")], 1);
    assert!(twice.contains("would have one name"), "{twice}");
}

const CONFIG: &str = "
model:
  image: {kind: vit, image_size: 32, patch_size: 16, width: 32, layers: 2, heads: 2, mlp_ratio: 2}
  text: {context_length: 40, vocab_size: 49408, width: 16, heads: 2, layers: 1}
  embed_dim: 16
  regions: {dim: 132, blocks: 1}
loss: {name: softclip}
train: {steps: 2, batch_size: 8, lr: 1.0e-3, log_every: 1}
";

#[test]
fn what_is_extracted_is_trained_on_and_what_belongs_to_other_images_is_not() {
    let (_folder, at) = world();
    let (shards, detector) = (at("data/shards/train-*.tar"), golden("detectors/cells.pt"));
    let backbone = golden("resnet50_small.weights.safetensors");
    let out = at("soft");
    let extract = ["extract", &shards, "--out", &out, "--detector", &detector, "--trust", "--classes", &at("names.txt")];
    let extract = [&extract[..], &["--confidence", "0.3", "--backbone", &backbone, "--json"]].concat();
    let outcome: Value = serde_json::from_str(&succeeds(&extract)).unwrap();
    assert_eq!((&outcome["samples"], &outcome["images"]), (&Value::from(24), &Value::from(24)), "{outcome}");
    assert!(outcome["regions"].as_u64().unwrap() > 24 && outcome["stages"]["forward"].as_f64().unwrap() > 0.0, "{outcome}");
    let again: Value = serde_json::from_str(&succeeds(&extract)).unwrap();
    assert_eq!(again["images"], 0);
    // Two processes, told by a launcher's variables alone.
    let shared = at("shared");
    let shared = [&extract[..3], &[&shared], &extract[4..]].concat();
    for (rank, sidecars) in [("0", 1), ("1", 0)] {
        let out =
            softclip(&shared).env("SLURM_PROCID", rank).env("SLURM_NTASKS", "2").env("SLURM_LOCALID", rank).output().unwrap();
        let outcome: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(outcome["sidecars"], sidecars, "{}", String::from_utf8_lossy(&out.stderr));
    }
    let other = fails(&[&extract[..], &["--iou", "0.9"]].concat(), 1);
    assert!(other.contains("origin.thresholds.iou was"), "{other}");

    fs::write(at("tiny.yaml"), CONFIG).unwrap();
    let data = |soft: &str| format!("data.train={shards}+{soft}/train-*.tar");
    let train = |soft: &str, run: &str| {
        ["train", &at("tiny.yaml"), "--run-dir", &at(run), "--set", &data(soft)].map(str::to_owned).to_vec()
    };
    let args = train(&out, "run");
    succeeds(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let metrics = fs::read_to_string(at("run/metrics.jsonl")).unwrap();
    assert!(metrics.lines().count() >= 2 && metrics.contains("\"loss_relation\""), "{metrics}");

    // Scenes of another seed under the same names.
    succeeds(&["data", "synth", &at("other"), "--train", "24", "--val", "4", "--zeroshot", "1", "--size", "48", "--seed", "5"]);
    let swapped = train(&out, "run2").into_iter().map(|arg| arg.replace("/data/shards", "/other/shards")).collect::<Vec<_>>();
    let refused = fails(&swapped.iter().map(String::as_str).collect::<Vec<_>>(), 1);
    assert!(refused.contains("do not belong together") && refused.contains("other images"), "{refused}");
}

#[test]
fn usage_is_checked_before_anything_runs() {
    let both = fails(&["extract", "x.tar", "--out", "y", "--detector", "d.pt", "--objects", "lines:o.jsonl"], 2);
    assert!(both.contains("cannot be used with"), "{both}");
    assert!(fails(&["extract", "x.tar", "--out", "y"], 2).contains("--objects"));
    assert!(fails(&["extract", "x.tar", "--out", "y", "--objects", "lines:o.jsonl", "--iou", "0.3"], 2).contains("--detector"));
    let folder = tempfile::tempdir().unwrap();
    let csv = folder.path().join("t.csv");
    fs::copy(golden("images/rgb.png"), folder.path().join("x.png")).unwrap();
    fs::write(&csv, "image,caption\nx.png,y\n").unwrap();
    let spec = format!("csv:{}", csv.display());
    let kinds = fails(&["extract", &spec, "--out", "y", "--objects", "boxes.json"], 1);
    assert!(kinds.contains("vinvl:") && kinds.contains("instances:"), "{kinds}");
}
