//! The binary as a shell sees it: output, messages, exit status, signals.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{fails, run, softclip, succeeds};
use world::{CONFIG, World};

mod support;
#[path = "support/world.rs"]
mod world;

fn text(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

#[test]
fn help_teaches_and_wrong_usage_is_status_2() {
    assert!(succeeds(&["--version"]).starts_with("softclip "));
    for command in ["train", "eval", "config", "data", "demo", "bench", "completions", "man"] {
        assert!(succeeds(&["--help"]).contains(command));
        assert!(succeeds(&[command, "--help"]).contains("Usage: softclip"));
    }
    assert!(succeeds(&["eval", "--help"]).contains("webdataset shards"));
    assert!(fails(&[], 2).contains("Usage: softclip"));
    assert!(fails(&["trian"], 2).contains("'train'"));
    assert!(fails(&["eval", "run", "--task", "retrival", "--data", "x"], 2).contains("'retrieval'"));
}

#[test]
fn completions_and_manual_pages_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(succeeds(&["completions", shell]).contains("inspect"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    succeeds(&["man", folder.path().to_str().unwrap()]);
    let page = fs::read_to_string(folder.path().join("softclip-train.1")).unwrap();
    assert!(page.contains("SIGTERM"), "{page}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/clip-rn50.yaml");
    let mut child = softclip(&["config", config]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn wrong_input_is_status_1_with_place_and_advice() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.yaml");
    let path = file.to_str().unwrap();
    fs::write(&file, format!("{CONFIG}data: {{tirm: true}}\n")).unwrap();
    let message = fails(&["config", path], 1);
    assert!(message.contains("x.yaml:10: data.tirm: unknown field `tirm`, expected one of"), "{message}");
    fs::write(&file, CONFIG.replace("16, lr", "many, lr")).unwrap();
    let message = fails(&["config", path], 1);
    assert!(message.contains("x.yaml:8: train.batch_size: invalid type: string \"many\""), "{message}");
    fs::write(&file, CONFIG).unwrap();
    let run_dir = folder.path().join("run");
    let message = fails(&["train", path, "--run-dir", run_dir.to_str().unwrap()], 1);
    assert!(message.contains("nothing to train on: --set data.train=SOURCE"), "{message}");
    let message = fails(&["train", path, "--device", "gpu"], 2);
    assert!(message.contains("gpu") && message.contains("cuda"), "{message}");
    let message = fails(&["data", "inspect", "nowhere/{0..3}.tar"], 1);
    assert!(message.contains("nowhere/0.tar"), "{message}");
    let message = fails(&["eval", folder.path().to_str().unwrap(), "--task", "pairing", "--data", "x.tar"], 1);
    assert!(message.contains("config.yaml"), "{message}");
}

#[test]
fn data_to_model_to_result() {
    let world = World::new();
    let shards = format!("{}/shards/val-*.tar", world.at("data"));
    let found: Value = serde_json::from_str(&succeeds(&["data", "inspect", &shards, "--json"])).unwrap();
    assert_eq!((found["samples"].as_u64(), found["usable"].as_u64()), (Some(20), Some(20)));
    let out = succeeds(&text(&world.train_args("run", &[])));
    assert!(out.contains("6 steps") && out.contains("image_retrieval_recall@10"), "{out}");
    let metrics = fs::read_to_string(Path::new(&world.at("run")).join("metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().filter(|line| line.contains("\"kind\":\"train\"")).count(), 6);
    // Evaluated again by itself: the same numbers as at the end of training.
    let json = succeeds(&["eval", &world.at("run"), "--task", "retrieval", "--data", &shards, "--json", "-"]);
    let again: Value = serde_json::from_str(&json).unwrap();
    let last: Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    for name in ["image_retrieval_recall@10", "text_retrieval_recall@1"] {
        assert_eq!(again["metrics"][name], last[format!("retrieval_{name}")], "{name}");
    }
    let classes = format!("folder:{}/zeroshot", world.at("data"));
    let out = succeeds(&["eval", &world.at("run"), "--task", "zeroshot", "--data", &classes]);
    assert!(out.contains("acc1") && out.contains("chance"), "{out}");
    let wrong = fails(&["eval", &world.at("run"), "--task", "zeroshot", "--data", &shards], 1);
    assert!(wrong.contains("folder:"), "{wrong}");
    // The source's pairing stands under its own name, says what it is, and is the same each time.
    let pairing = ["eval", &world.at("run"), "--task", "pairing", "--data", &shards, "--json", "-", "--compat", "source"];
    let score = || serde_json::from_str::<Value>(&succeeds(&pairing)).unwrap();
    let (first, second) = (score(), score());
    assert_eq!(first["metrics"], second["metrics"]);
    assert!(first["metrics"]["pairing_source"].is_number(), "{first}");
    assert!(first["protocol"].as_str().unwrap().starts_with("source: every caption"), "{first}");
    let corrected: Value = serde_json::from_str(&succeeds(&pairing[..8])).unwrap();
    assert!(corrected["protocol"].as_str().unwrap().starts_with("corrected: "), "{corrected}");
    // A folder that cannot be written costs the place, not the result.
    fs::remove_dir_all(Path::new(&world.at("run")).join("results")).unwrap();
    fs::write(Path::new(&world.at("run")).join("results"), "not a folder").unwrap();
    let out = run(&["eval", &world.at("run"), "--task", "retrieval", "--data", &shards, "--json", &world.at("result.json")]);
    let (table, warning) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && table.contains("image_retrieval_recall@10"), "{table}{warning}");
    let expected = ["warning: the result is not kept in its run, ", "run/results/retrieval-", "--json FILE"];
    assert!(expected.iter().all(|words| warning.contains(words)), "{warning}");
    let kept: Value = serde_json::from_str(&fs::read_to_string(world.at("result.json")).unwrap()).unwrap();
    assert_eq!(kept["metrics"], again["metrics"]);
    let wrong = fails(&["eval", &world.at("run"), "--task", "retrieval", "--data", &shards, "--compat", "source"], 2);
    assert!(wrong.contains("only --task pairing"), "{wrong}");
    // The resolved configuration in the run trains the same again.
    let resolved = succeeds(&["config", &format!("{}/config.yaml", world.at("run"))]);
    let (comment, resolved) = resolved.split_once('\n').unwrap();
    assert!(comment.contains("images of 32 px, 40 tokens, D = 16; β₂ = 0.98, ε = 1e-6, τ = 0.07"), "{comment}");
    assert_eq!(resolved, fs::read_to_string(format!("{}/config.yaml", world.at("run"))).unwrap());
}

/// A run that would take very long, past its first steps.
fn endless(world: &World, run: &str) -> (Child, PathBuf) {
    let args = world.train_args(run, &["--set", "train.steps=1000000", "--set", "train.checkpoint_every=1000000"]);
    let child = softclip(&text(&args)).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let metrics = Path::new(&world.at(run)).join("metrics.jsonl");
    let start = Instant::now();
    while fs::read_to_string(&metrics).map_or(0, |text| text.lines().count()) < 3 {
        assert!(start.elapsed() < Duration::from_secs(120), "no step in two minutes");
        std::thread::sleep(Duration::from_millis(20));
    }
    (child, metrics.with_file_name("checkpoints"))
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_signal_leaves_a_checkpoint_and_status_130() {
    let world = World::new();
    for (run, name) in [("int", "INT"), ("term", "TERM"), ("hup", "HUP")] {
        // Under nohup a closed terminal stops nothing.
        if name == "HUP" && softclip_distributed::is_ignored(1) {
            continue;
        }
        let (child, checkpoints) = endless(&world, run);
        signal(&child, name);
        let out = child.wait_with_output().unwrap();
        let message = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(130), "{message}");
        assert!(message.contains("the same command goes on from there"), "{message}");
        assert_eq!(fs::read_dir(checkpoints).unwrap().count(), 1);
    }
    // The step that the checkpoint has is not made again.
    let step = |text: &str| serde_json::from_str::<Value>(text).unwrap()["step"].as_u64().unwrap();
    let lines = || fs::read_to_string(Path::new(&world.at("int")).join("metrics.jsonl")).unwrap();
    let stopped = step(lines().lines().last().unwrap());
    let until = format!("train.steps={}", stopped + 2);
    let out = run(&text(&world.train_args("int", &["--set", &until])));
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let message = String::from_utf8_lossy(&out.stderr);
    assert!(message.contains(&format!("changed: train.steps from 1000000 to {}: the learning rate", stopped + 2)), "{message}");
    assert!(message.contains("because the schedule is shorter") && !message.contains("data.train"), "{message}");
    let steps: Vec<u64> = lines().lines().filter(|line| line.contains("\"train\"")).map(step).collect();
    assert_eq!(steps, (1..=stopped + 2).collect::<Vec<_>>());
}

/// While weights are fetched, and before any other work, there is nothing to save: a signal ends the process at once.
#[test]
fn a_signal_before_the_first_step_loses_nothing_and_is_status_130() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("tiny.yaml"), CONFIG).unwrap();
    fs::write(at("texts.txt"), "a cat\n").unwrap();
    // A hub that takes connections and never answers.
    let hub = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", hub.local_addr().unwrap());
    let train =
        ["train", &at("tiny.yaml"), "--run-dir", &at("run"), "--set", "model.init=nobody/model", "--set", "data.train=x.tar"];
    let embed = ["embed", &at("texts.txt"), "--what", "texts", "--model", "nobody/model", "--out", &at("out")];
    let eval = ["eval", "nobody/model", "--task", "retrieval", "--data", "x.tar"];
    for (args, name) in [(&train[..], "TERM"), (&embed[..], "INT"), (&eval[..], "TERM")] {
        let mut command = softclip(args);
        command.env("HF_ENDPOINT", &endpoint).env("HF_HOME", at("hf")).env_remove("HF_HUB_OFFLINE").env_remove("HF_HUB_CACHE");
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let _open = hub.accept().unwrap();
        let start = Instant::now();
        signal(&child, name);
        let out = child.wait_with_output().unwrap();
        let message = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(130), "{args:?}: {message}");
        assert!(message.contains(&format!("stopped by SIG{name}: nothing was lost")), "{args:?}: {message}");
        assert!(start.elapsed() < Duration::from_secs(10), "{args:?}: {:?}", start.elapsed());
    }
    assert!(!Path::new(&at("run/checkpoints")).exists());
}

#[test]
fn wrong_usage_says_what_was_meant() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.yaml");
    let path = file.to_str().unwrap();
    fs::write(&file, CONFIG).unwrap();
    for (args, expected) in [
        (vec!["train", path, "--batch-size", "3"], "--set train.batch_size=3"),
        (vec!["train", path, "--lr=1e-3"], "--set train.lr=1e-3"),
        (vec!["config", path, "--train.epochs", "2"], "--set train.epochs=2"),
        (vec!["config", path, "train.epochs=2"], "--set train.epochs=2"),
        (vec!["ablate", path, "--bacth_size"], "--set train.batch_size=VALUE"),
        (vec!["launch", "-n", "2", "--", "train", path, "--batch-size", "3"], "--set train.batch_size=3"),
        (vec!["config", path, "--set", "train.batchsize=3"], "--set train.batchsize=3: train.batchsize: unknown field"),
        (vec!["config", path, "--set", "train.batchsize=3"], "did you mean `batch_size`?"),
        (vec!["config", path, "--set", "train.lr"], "write KEY=VALUE"),
        (vec!["config", path, "--set", "loss.beta=2"], "--set loss.beta=2: loss.beta: 2 is outside of [0, 1]"),
        (vec!["config", path, "--set", "data.workers=9223372036854775807"], "write a number from 0 to 1024"),
        (vec!["train", path, "--device", "cuda:x"], "auto, cpu, cuda or cuda:N"),
        (vec!["eval", "run", "--task", "retrieval", "--data", "x", "--precision", "fp8"], "bf16"),
        (vec!["eval", "run", "--task", "zeroshot", "--data", "x", "--prompts", "imagenet8"], "did you mean `imagenet80`?"),
        (vec!["eval", "run", "--task", "zeroshot", "--data", "x", "--classnames", "imagnet1k"], "did you mean `imagenet1k`?"),
    ] {
        let message = fails(&args, 2);
        assert!(message.contains(expected), "{args:?}: {message}");
    }
    let other = fails(&["train", path, "--momentum", "0.9"], 2);
    assert!(!other.contains("--set momentum"), "{other}");
    // An error in a file is a failure.
    fs::write(&file, "base: nowhere.yaml\n").unwrap();
    let missing = fails(&["config", path], 1);
    assert!(missing.contains("x.yaml:1: base: ") && missing.contains("nowhere.yaml: No such file"), "{missing}");
}

#[test]
fn a_model_that_does_not_fit_into_memory_is_refused_with_both_sizes() {
    let world = World::new();
    let mut args = world.train_args("big", &["--set", "model.image.width=20000", "--threads", "1"]);
    args.insert(0, env!("CARGO_BIN_EXE_softclip").to_owned());
    let mut command = Command::new("sh");
    command.args(["-c", r#"ulimit -v 6000000 && exec "$@""#, "sh"]).args(&args).env("OMP_NUM_THREADS", "1");
    let out = command.output().unwrap();
    let message = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{message}");
    for words in ["parameters need at least", "GiB of memory to train", "are available"] {
        assert!(message.contains(words), "{message}");
    }
}
