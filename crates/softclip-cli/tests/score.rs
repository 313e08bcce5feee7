//! `softclip score` as a shell sees it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const CONFIG: &str = "
model:
  image: {kind: vit, image_size: 32, patch_size: 16, width: 32, layers: 1, heads: 2}
  text: {context_length: 40, vocab_size: 49408, width: 16, heads: 2, layers: 1}
  embed_dim: 16
loss: {name: clip}
train: {steps: 1, batch_size: 8, lr: 1.0e-3}
";

fn run(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_softclip")).args(args).current_dir(folder).env("OMP_NUM_THREADS", "1").output().unwrap()
}

/// Standard output and standard error of a command that ends with `status`.
fn ends(folder: &Path, args: &[&str], status: i32) -> (String, String) {
    let out = run(folder, args);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (code, stdout, stderr) = (out.status.code(), text(out.stdout), text(out.stderr));
    assert_eq!(code, Some(status), "{args:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    (stdout, stderr)
}

#[test]
fn a_table_or_an_older_scripts_file_becomes_scores() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let at = |name: &str| folder.join(name);
    ends(folder, &["data", "synth", "data", "--train", "8", "--val", "8", "--zeroshot", "1", "--size", "32"], 0);
    fs::write(at("tiny.yaml"), CONFIG).unwrap();
    let data = "data.train=data/shards/train-*.tar";
    ends(folder, &["train", "tiny.yaml", "--run-dir", "run", "--set", data], 0);
    let images: Vec<_> =
        fs::read_dir(at("data/zeroshot")).unwrap().map(|class| class.unwrap().path()).filter(|p| p.is_dir()).collect();
    let image = fs::read_dir(&images[0]).unwrap().next().unwrap().unwrap().path();
    fs::copy(&image, at("data/x.jpg")).unwrap();
    fs::write(at("pairs.csv"), "image,caption\nx.jpg,a red circle\nx.jpg,\"blue, or green\"\n").unwrap();

    let score = ["score", "pairs.csv", "--model", "run", "--image-root", "data"];
    let (stdout, table) = ends(folder, &score, 0);
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0], "image,caption,cosine,logit,error");
    assert!(
        lines[2].starts_with("x.jpg,\"blue, or green\",0.") || lines[2].starts_with("x.jpg,\"blue, or green\",-0."),
        "{stdout}"
    );
    for stage in ["load the model", "decode and resize", "image tower", "text tower", "2 pairs, 2 with a score"] {
        assert!(table.contains(stage), "{table}");
    }

    let job = "csv_path: pairs.csv\nimage_path: data\nuse_cuda: false\npretrained_model: run\nimg_resize: 64\n";
    fs::write(at("job.yaml"), job).unwrap();
    let (none, warning) = ends(folder, &["score", "job.yaml", "--out", "scores.csv", "--report", "report.json"], 0);
    assert!(none.is_empty() && warning.contains("img_resize is ignored"), "{warning}");
    assert_eq!(fs::read_to_string(at("scores.csv")).unwrap(), stdout);
    let report: serde_json::Value = serde_json::from_slice(&fs::read(at("report.json")).unwrap()).unwrap();
    assert_eq!((report["rows"].as_u64(), report["stages"].as_array().map(Vec::len)), (Some(2), Some(8)));

    // A row that fails: told, status 0; 1 with --strict; 1 where no row has a score.
    fs::write(at("pairs.csv"), "image,caption\nx.jpg,a cat\ny.jpg,a dog\n").unwrap();
    assert!(
        ends(folder, &score, 0).1.contains("1 of 2 rows have no score (column `error`):\n  line 3: data/y.jpg: no such file")
    );
    ends(folder, &[&score[..], &["--strict"]].concat(), 1);
    ends(folder, &["score", "pairs.csv", "--model", "run", "--image-root", "run"], 1);
    let (_, message) = ends(folder, &[&score[..], &["--out", "pairs.csv"]].concat(), 1);
    assert!(message.contains("pairs.csv: it is the table that is read"), "{message}");
    assert!(ends(folder, &["score", "pairs.csv"], 1).1.contains("--model"));
    assert!(ends(folder, &[&score[..], &["--caption-column", "words"]].concat(), 1).1.contains("(columns: image, caption)"));
}
