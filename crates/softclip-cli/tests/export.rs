//! `softclip export`, and what it makes under `score`, `eval`, `embed` and `search`, as a shell sees them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const TEXT: &str = "text: {context_length: 40, vocab_size: 49408, width: 16, heads: 2, layers: 1}";
const VIT: &str = "image: {kind: vit, image_size: 32, patch_size: 16, width: 32, layers: 1, heads: 2, mlp_ratio: 2}";
const RESNET: &str = "image: {kind: resnet, image_size: 32, layers: [1, 1, 1, 1], width: 8, heads: 4}";

/// Standard output and standard error of a command that ends with `status`. It finds no hub.
fn ends(folder: &Path, args: &[&str], status: i32) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_softclip"));
    command.args(args).current_dir(folder).env("OMP_NUM_THREADS", "1").env("HF_HUB_OFFLINE", "1").env("HF_HOME", folder);
    let out = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (code, stdout, stderr) = (out.status.code(), text(out.stdout), text(out.stderr));
    assert_eq!(code, Some(status), "{args:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    (stdout, stderr)
}

/// A folder with data and a table.
fn world() -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    ends(folder, &["data", "synth", "data", "--train", "8", "--val", "8", "--zeroshot", "1", "--size", "32"], 0);
    let classes = fs::read_dir(folder.join("data/zeroshot")).unwrap().map(|class| class.unwrap().path());
    let class = classes.into_iter().find(|path| path.is_dir()).unwrap();
    let image = fs::read_dir(class).unwrap().next().unwrap().unwrap().path();
    fs::copy(image, folder.join("x.jpg")).unwrap();
    fs::write(folder.join("pairs.csv"), "image,caption\nx.jpg,a red circle\nx.jpg,a blue square\n").unwrap();
    temp
}

fn train(folder: &Path, run: &str, image: &str, loss: &str, seed: &str) {
    let regions = if image == VIT { "regions: {dim: 112, blocks: 1}" } else { "" };
    let config = format!(
        "model:\n  {image}\n  {TEXT}\n  embed_dim: 16\n  {regions}\nloss: {{name: {loss}}}\n\
         train: {{steps: 1, batch_size: 8, lr: 1.0e-3, seed: {seed}}}\n"
    );
    fs::write(folder.join("tiny.yaml"), config).unwrap();
    let data = "data.train=data/shards/train-*.tar";
    ends(folder, &["train", "tiny.yaml", "--run-dir", run, "--set", data], 0);
}

fn cosines(folder: &Path, model: &str) -> Vec<f64> {
    let (table, _) = ends(folder, &["score", "pairs.csv", "--model", model], 0);
    table.lines().skip(1).map(|line| line.split(',').nth(2).unwrap().parse().unwrap()).collect()
}

fn metrics(folder: &Path, model: &str) -> Value {
    let args = ["eval", model, "--task", "retrieval", "--data", "data/shards/val-*.tar", "--json", "-"];
    serde_json::from_str(&ends(folder, &args, 0).0).unwrap()
}

#[test]
fn a_run_goes_out_in_both_layouts_and_is_a_model_again() {
    let world = world();
    let folder = world.path();
    train(folder, "run", VIT, "siglip", "0");
    train(folder, "other", VIT, "siglip", "1");
    let (expected, of_run) = (cosines(folder, "run"), metrics(folder, "run"));
    for layout in ["hugging_face", "open_clip"] {
        let export = ["export", "run", "--to", layout, "--out", layout, "--check", "check.safetensors"];
        let (out, _) = ends(folder, &export, 0);
        assert!(out.contains("tensors equal bit for bit, outputs within"), "{out}");
        assert!(out.contains("left out: the region branch") && out.contains("left out: logit_bias"), "{out}");
        for (ours, theirs) in expected.iter().zip(cosines(folder, layout)) {
            assert!((ours - theirs).abs() < 1e-6, "{layout}: {ours} {theirs}");
        }
        let result = metrics(folder, layout);
        assert_eq!((&result["metrics"], &result["config"]["embed_dim"]), (&of_run["metrics"], &16.into()));
        assert!(!folder.join(layout).join("results").exists());
        assert!(ends(folder, &export, 1).1.contains(&format!("{layout} is not empty")));
    }
    let other = ["export", "run", "--to", "open_clip", "--out", "hugging_face", "--force"];
    assert!(ends(folder, &other, 1).1.contains("another layout"));

    // The same model as a hub's, in the cache; what is made of it keeps the commit.
    let cached = folder.join("hub/models--me--tiny");
    let snapshot = cached.join("snapshots/abc123");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(cached.join("refs")).unwrap();
    fs::write(cached.join("refs/main"), "abc123").unwrap();
    for file in fs::read_dir(folder.join("hugging_face")).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), snapshot.join(file.file_name())).unwrap();
    }
    ends(folder, &["embed", "data/shards/val-*.tar", "--model", "me/tiny", "--out", "hub.emb"], 0);
    let meta: Value = serde_json::from_slice(&fs::read(folder.join("hub.emb/meta.json")).unwrap()).unwrap();
    assert_eq!((&meta["model"]["name"], &meta["precision"]), (&"me/tiny@abc123".into(), &"fp32".into()));
    ends(folder, &["search", "hub.emb", "--text", "a red circle"], 0);

    // Rows are known by the weights that made them.
    ends(folder, &["embed", "data/shards/val-*.tar", "--model", "open_clip", "--out", "val.emb"], 0);
    let search = ["search", "val.emb", "--text", "a red circle"];
    ends(folder, &search, 0);
    ends(folder, &["export", "other", "--to", "open_clip", "--out", "open_clip", "--force"], 0);
    assert!(ends(folder, &search, 1).1.contains("whose weights are not those of"));
    assert_ne!(cosines(folder, "open_clip"), expected);
}

#[test]
fn what_has_no_such_form_leaves_nothing() {
    let world = world();
    let folder = world.path();
    train(folder, "run", RESNET, "clip", "0");
    let (_, error) = ends(folder, &["export", "run", "--to", "hugging_face", "--out", "out"], 1);
    assert!(error.starts_with("error: `run`: "), "{error}");
    assert_eq!(error.matches("use open_clip's layout for a ResNet").count(), 1, "{error}");
    let names = || fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names().all(|name| name != "out" && !name.starts_with(".export")));
    ends(folder, &["export", "run", "--to", "open_clip", "--out", "out"], 0);
    assert_eq!(cosines(folder, "out"), cosines(folder, "run"));
}

#[test]
fn names_that_open_nothing_say_how_they_were_read() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    fs::create_dir(folder.join("runs")).unwrap();
    let refused = |model: &str| ends(folder, &["export", model, "--to", "open_clip", "--out", "out"], 1).1;
    assert!(refused("runs").contains("runs is no run (it has no config.yaml); as a pretrained model: runs: has no weights"));
    let error = refused("runs/softcilp");
    let first = "error: there is no file or folder `runs/softcilp` here; as a model's id on the hub: ";
    assert!(error.starts_with(first) && error.contains("HF_HUB_OFFLINE"), "{error}");
    assert!(refused("openai/clip").contains("here; as a model's id on the hub: `openai/clip`: not whole in the cache"));
    assert!(refused("hf-hub:openai/clip").starts_with("error: `openai/clip`: not whole in the cache"));
    let error = refused("ViT-B/32");
    assert!(
        error.starts_with("error: `ViT-B/32`: there is no such file or folder, and it is the name of an architecture"),
        "{error}"
    );
    assert!(error.contains("ViT-B-32,laion2b_s34b_b79k"), "{error}");
    assert!(refused("./x.safetensors").contains("there is no such file or folder"));
}
