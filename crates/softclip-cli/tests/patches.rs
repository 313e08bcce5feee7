//! `softclip data patches` as a shell sees it, and what its patches are for.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const RUN: &str = "
model:
  image: {kind: vit, image_size: 32, patch_size: 16, width: 32, layers: 1, heads: 2, mlp_ratio: 2}
  text: {context_length: 24, vocab_size: 49408, width: 16, heads: 2, layers: 1}
  embed_dim: 16
loss: {name: clip}
train: {steps: 2, batch_size: 8, lr: 1.0e-3}
";

fn run(folder: &Path, args: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_softclip"));
    command.args(args.split_whitespace()).current_dir(folder).env("OMP_NUM_THREADS", "1").output().unwrap()
}

fn succeeds(folder: &Path, args: &str) -> String {
    let out = run(folder, args);
    assert!(out.status.success(), "{args}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn fails(folder: &Path, args: &str, status: i32) -> String {
    let out = run(folder, args);
    let message = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(status), "{args}: {message}");
    message
}

/// A BMP file of side 64 whose left half has one colour and the right half another.
fn bmp(left: [u8; 3], right: [u8; 3]) -> Vec<u8> {
    let mut file = b"BM".to_vec();
    [54 + 64 * 64 * 3u32, 0, 54, 40, 64, 64, 24 << 16 | 1, 0, 0, 0, 0, 0, 0].iter().for_each(|n| file.extend(n.to_le_bytes()));
    (0..64 * 64).for_each(|i| file.extend(if i % 64 < 32 { left } else { right }.into_iter().rev()));
    file
}

#[test]
fn patches_train_a_model_and_test_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let put = |name: String, bytes: &[u8]| fs::write(folder.join(name), bytes).unwrap();
    ["tiles", "masks"].iter().for_each(|name| fs::create_dir(folder.join(name)).unwrap());
    let map = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/patches/roof-solar.yaml");
    put("map.yaml".to_owned(), &fs::read(map).unwrap());
    put("run.yaml".to_owned(), RUN.as_bytes());
    for i in 0..20u8 {
        put(format!("tiles/{i}.bmp"), &bmp([i, 90, 40], [10 * i, 3, 200]));
        put(format!("masks/{i}.bmp"), &bmp([0; 3], [255, 0, 0]));
    }
    put("tiles/lost.bmp".to_owned(), b"");
    let cut = "data patches --images tiles --masks masks --map map.yaml --size 32";
    let out = run(folder, &format!("{cut} --out classes"));
    let (table, messages) = (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap());
    assert!(table.contains("20 pairs, 1 left out (missing_mask 1)"), "{table}");
    assert!(
        messages.contains("skipped: lost: missing_mask") && messages.contains("test has no patch of the class both"),
        "{messages}"
    );
    let json: Value = serde_json::from_str(&succeeds(folder, &format!("{cut} --out shards --format shards --json"))).unwrap();
    let test = json["classes"][1]["test"].as_u64().unwrap();
    assert_eq!((json["classes"][1]["class"].as_str(), json["pairs"].as_u64()), (Some("roof"), Some(20)));

    let found: Value = serde_json::from_str(&succeeds(folder, "data inspect folder:classes/test --json")).unwrap();
    assert_eq!((found["usable"].as_u64(), found["classes"].as_u64()), (Some(2 * test), Some(2)));
    succeeds(folder, "train run.yaml --run-dir run --set data.train=shards/train/*.tar --device cpu");
    let scores =
        succeeds(folder, "eval run --task zeroshot --data folder:classes/test --prompts classes/prompts.txt --device cpu");
    assert!(scores.contains("acc1"), "{scores}");

    assert!(fails(folder, &format!("{cut} --out classes"), 1).contains("--force"));
    assert!(fails(folder, &format!("{cut} --out new --max-bad-share 0.01"), 1).contains("1 of 21 pairs cannot be used"));
    assert!(fails(folder, &format!("{cut} --out new --split 70,20"), 2).contains("70,20,10"));
    assert!(fails(folder, "data patches --images tiles --map map.yaml --out new", 2).contains("--masks"));
    assert!(!folder.join("new").exists());
}
