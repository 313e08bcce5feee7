//! Benches: what they print for people and machines. No figure is judged.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;
use support::{fails, succeeds};

mod support;

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&succeeds(args)).unwrap()
}

#[test]
fn a_step_has_its_parts_its_memory_and_its_arithmetic() {
    let step = ["bench", "step", "--model", "resnet50", "--batch-size", "2", "--steps", "1", "--device", "cpu"];
    let report = json(&[&step[..], &["--json"]].concat());
    assert_eq!((report["device"].as_str(), report["batch_size"].as_u64()), (Some("cpu"), Some(2)));
    let model = &report["models"][0];
    let (trimmed, untrimmed) = (&model["trimmed"], &model["untrimmed"]);
    let of = |case: &Value, key: &str| case[key].as_f64().unwrap_or_else(|| panic!("{key} in {case}"));
    for case in [trimmed, untrimmed] {
        let parts: f64 = ["forward", "loss", "backward", "optimizer"].iter().map(|key| of(case, key)).sum();
        assert!(parts > 0.0 && parts <= of(case, "step") && of(case, "data_wait") == 0.0, "{case}");
        assert!(of(case, "peak_memory") > 1e8 && of(case, "share_of_matmul") > 0.0, "{case}");
        let flops = of(case, "flops_per_second") * of(case, "step");
        // Two pairs through ResNet-50 (4.09 GMACs) and the text tower, three times forward.
        assert!(flops > 12.0 * 4.09e9 && flops < 12.0 * (4.09e9 + 2.99e9), "{flops}");
    }
    assert!(trimmed["tokens"].as_i64() < Some(77) && untrimmed["tokens"] == 77, "{model}");
}

#[test]
fn a_step_on_data_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    succeeds(&["data", "synth", &at("data"), "--train", "8", "--val", "2", "--zeroshot", "1", "--size", "32"]);
    let data = at("data/shards/train-*.tar");
    let step = ["bench", "step", "--model", "resnet50", "--batch-size", "2", "--steps", "1", "--captions", "trimmed", "--tf32"];
    let report = json(&[&step[..], &["--device", "cpu", "--data", &data, "--json"]].concat());
    let model = &report["models"][0];
    assert!(model["trimmed"]["data_wait"].as_f64() > Some(0.0) && model["untrimmed"].is_null(), "{report}");
    assert_eq!((report["data"].as_str(), report["tf32"].as_bool()), (Some(data.as_str()), Some(true)));
}

#[test]
fn the_loss_has_time_and_memory_of_both_forms() {
    let loss = ["bench", "loss", "--n", "64,128", "--seconds", "0", "--device", "cpu"];
    let report = json(&[&loss[..], &["--json"]].concat());
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    for row in rows {
        assert!(row["plain_seconds"].as_f64() > Some(0.0) && row["blockwise_seconds"].as_f64() > Some(0.0), "{row}");
        assert!(row["plain_bytes"].is_u64() && row["blockwise_bytes"].is_u64(), "{row}");
    }
    assert_eq!(succeeds(&loss).lines().count(), 6);
}

#[test]
fn recall_has_time_and_memory_of_both_forms() {
    let recall = ["bench", "recall", "--images", "100", "--texts", "300", "--dim", "16", "--runs", "1", "--device", "cpu"];
    let report = json(&[&recall[..], &["--json"]].concat());
    assert!(report["seconds"].as_f64() > Some(0.0) && report["plain_seconds"].as_f64() > Some(0.0), "{report}");
    assert!(
        report["bytes"].is_u64() && report["plain_bytes"].is_u64() && report["process_bytes"].as_f64() > Some(1e7),
        "{report}"
    );
    assert_eq!((report["texts"].as_u64(), report["plain_agrees"].as_bool()), (Some(300), Some(true)));
    assert!(json(&[&recall[..], &["--json", "--alone"]].concat())["plain_seconds"].is_null());
    assert!(fails(&["bench", "recall", "--images", "9", "--texts", "3"], 1).contains("--images 9"));
    assert!(fails(&["bench", "recall", "--embeddings", "a.npy", "b.npy"], 1).contains("a.npy"));
}

#[test]
fn other_benches_print_json_too() {
    let nms = json(&["bench", "nms", "--runs", "1", "--json"]);
    assert!(nms["ours"].as_f64() > Some(0.0) && nms["plain"].as_f64() > Some(0.0), "{nms}");
    let comm = json(&["launch", "-n", "2", "--", "bench", "comm", "--mib", "0.01", "--repeats", "1", "--json"]);
    assert_eq!((comm[0]["bytes"].as_u64(), comm[0]["milliseconds"].as_array().map(Vec::len)), (Some(10480), Some(4)));
    let data = json(&["bench", "data", "--seconds", "0", "--json"]);
    assert!(data["rows"].as_array().map(Vec::len) == Some(3), "{data}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    assert!(fails(&["bench", "step", "--steps", "0"], 2).contains("--steps"));
    assert!(fails(&["bench", "step", "--model", "vgg"], 2).contains("vit_b_32"));
    assert!(fails(&["bench", "step", "--precision", "fp8"], 2).contains("bf16"));
    assert!(fails(&["bench", "step", "--captions", "long"], 2).contains("untrimmed"));
}
