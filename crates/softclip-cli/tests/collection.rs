//! `softclip embed` and `softclip search` as a shell sees them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const CONFIG: &str = "
model:
  image: {kind: vit, image_size: 32, patch_size: 16, width: 32, layers: 1, heads: 2, mlp_ratio: 2}
  text: {context_length: 40, vocab_size: 49408, width: 16, heads: 2, layers: 1}
  embed_dim: 16
loss: {name: clip}
train: {steps: 1, batch_size: 8, lr: 1.0e-3}
";

/// Standard output and error of a command in `folder` that ends with `status`.
fn softclip(folder: &Path, args: &[&str], input: &str, status: i32) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_softclip"));
    command.args(args).env("OMP_NUM_THREADS", "1").current_dir(folder);
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    // A command that fails early does not read it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let Output { status: found, stdout, stderr } = child.wait_with_output().unwrap();
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert_eq!(found.code(), Some(status), "{args:?}: {stderr}");
    (stdout, stderr)
}

#[test]
fn a_collection_is_embedded_and_searched() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    let run = |args: &[&str]| softclip(folder, args, "", 0).0;
    let fails = |args: &[&str]| softclip(folder, args, "", 1).1;
    fs::write(folder.join("tiny.yaml"), CONFIG).unwrap();
    run(&["data", "synth", "data", "--train", "16", "--val", "8", "--zeroshot", "1", "--size", "48"]);
    run(&["train", "tiny.yaml", "--run-dir", "run", "--set", "data.train=data/shards/train-*.tar"]);

    let embed = ["embed", "data/shards/val-*.tar", "--model", "run", "--out", "val.emb", "--batch-size", "4"];
    assert!(run(&embed).contains("8 rows of 16 numbers in embeddings.npy"));
    assert!(run(&embed).contains("nothing was left to do"));
    let other = [&embed[..], &["--dtype", "f16"]].concat();
    assert!(fails(&other).contains("`dtype`"));

    let meta: Value = serde_json::from_str(&fs::read_to_string(folder.join("val.emb/meta.json")).unwrap()).unwrap();
    assert_eq!((meta["rows"].as_u64(), meta["dim"].as_u64(), meta["what"].as_str()), (Some(8), Some(16), Some("images")));
    let json = run(&["search", "val.emb", "--text", "a red car", "--text", "<b>&", "-k", "3", "--format", "json"]);
    let found: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(found["answers"][1]["query"]["text"], "<b>&");
    assert_eq!(found["answers"][0]["hits"].as_array().unwrap().len(), 3);
    assert!(found["answers"][0]["hits"][0]["path"].as_str().unwrap().ends_with(".tar"));
    // Pictures come out of the shards; texts stay texts.
    fs::write(folder.join("queries.txt"), "<script>alert(1)</script>\n\na dog\n").unwrap();
    run(&["search", "val.emb", "--queries", "queries.txt", "-k", "20", "--format", "html", "--out", "found.html"]);
    let html = fs::read_to_string(folder.join("found.html")).unwrap();
    assert_eq!(html.matches("src=\"data:image/jpeg;base64,").count(), 16);
    assert!(html.contains("&lt;script&gt;alert(1)") && !html.contains("<script>alert(1)"), "{html}");
    // Where the data set is gone its keys are listed, and the page says so.
    fs::rename(folder.join("data/shards"), folder.join("moved")).unwrap();
    let html = run(&["search", "val.emb", "--text", "a dog", "-k", "2", "--format", "html"]);
    assert!(html.contains("2 pictures cannot be shown") && html.contains("val-"), "{html}");

    let embed = ["embed", "-", "--model", "run", "--out", "texts.emb", "--format", "safetensors", "--dtype", "f16"];
    softclip(folder, &embed, "a red car\na dog\n", 0);
    let image = fs::read_dir(folder.join("data/zeroshot")).unwrap().flatten().find(|entry| entry.path().is_dir()).unwrap();
    let image = fs::read_dir(image.path()).unwrap().next().unwrap().unwrap().path();
    let text = run(&["search", "texts.emb", "--image", image.to_str().unwrap()]);
    assert_eq!((text.lines().count(), text.contains("a red car"), text.contains("a dog")), (3, true, true), "{text}");
    assert!(softclip(folder, &["search", "texts.emb"], "", 2).1.contains("nothing to search for"));
    // Trained on, the run is another model; the checkpoint that made the rows is still there by its name.
    let train = ["train", "tiny.yaml", "--run-dir", "run", "--set", "data.train=moved/train-*.tar", "--set", "train.steps=2"];
    run(&train);
    let refused = fails(&["search", "texts.emb", "--text", "x", "--model", "run"]);
    assert!(refused.contains("whose weights are not those of"), "{refused}");
    run(&["search", "texts.emb", "--text", "x"]);
}
