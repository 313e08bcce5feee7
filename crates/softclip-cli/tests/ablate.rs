//! Grids of runs, as a shell sees them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{fails, run, softclip, succeeds};
use world::World;

#[allow(dead_code)] // Not all of it is of use here.
mod support;
#[path = "support/world.rs"]
#[allow(dead_code)]
mod world;

const PLAN: &str = "
title: Losses
metrics: ['retrieval_image_retrieval_recall@5', retrieval_text_retrieval_mean_rank]
seeds: [0, 1]
set: {train: {steps: 4}}
columns: [{name: Tiny, config: tiny.yaml}]
rows:
  - {name: CLIP, set: {loss: {name: clip}}, paper: {Tiny: 16.5}}
  - {name: SoftCLIP, paper: {Tiny: 22.1}}
";

fn world(plan: &str) -> World {
    let world = World::new();
    fs::write(world.at("plan.yaml"), plan).unwrap();
    world
}

fn args(world: &World, more: &[&str]) -> Vec<String> {
    let data = |part: &str| format!("data.{part}={}/shards/{part}-*.tar", world.at("data"));
    let mut args = vec!["ablate".to_owned(), world.at("plan.yaml"), "--out".to_owned(), world.at("out")];
    args.extend(["--set".to_owned(), data("train"), "--set".to_owned(), data("val"), "--device".to_owned(), "cpu".to_owned()]);
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    args
}

fn words(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// The last value of a metric in a run.
fn last(world: &World, dir: &str, metric: &str) -> f64 {
    let text = fs::read_to_string(world.at(&format!("out/{dir}/metrics.jsonl"))).unwrap();
    let mut lines = text.lines().rev().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.find_map(|line| line[metric].as_f64()).unwrap()
}

#[test]
fn a_grid_is_run_told_and_kept() {
    let world = world(PLAN);
    let out = succeeds(&words(&args(&world, &["--jobs", "2", "--threads", "1"])));
    assert!(out.contains("CLIP") && out.contains(" ± ") && out.contains("+5.6"), "{out}");
    let result: Value = serde_json::from_str(&fs::read_to_string(world.at("out/results.json")).unwrap()).unwrap();
    let entry = &result["summaries"][0]["entries"][1][0];
    let values =
        [0, 1].map(|seed| 100.0 * last(&world, &format!("tiny/softclip/seed-{seed}"), "retrieval_image_retrieval_recall@5"));
    let mean = (values[0] + values[1]) / 2.0;
    assert!((entry["last"]["mean"].as_f64().unwrap() - mean).abs() < 1e-9, "{entry}");
    assert_eq!((&entry["last"]["runs"], &entry["paper"]), (&Value::from(2), &Value::from(22.1)));
    let rank = last(&world, "tiny/clip/seed-1", "retrieval_text_retrieval_mean_rank");
    let ranks = &result["summaries"][1]["entries"][0][0]["last"];
    let (mean, deviation) = (ranks["mean"].as_f64().unwrap(), ranks["deviation"].as_f64().unwrap());
    // Of two values the deviation is half their distance times the root of 2.
    assert!(((rank - mean).abs() * 2f64.sqrt() - deviation).abs() < 1e-9, "{ranks} {rank}");
    assert!(fs::read_to_string(world.at("out/tables.md")).unwrap().contains("| CLIP |"));
    assert_eq!(fs::read_to_string(world.at("out/table.csv")).unwrap().lines().count(), 1 + 2 * 2);
    let page = fs::read_to_string(world.at("out/report.html")).unwrap();
    assert!(page.contains("<circle") && page.contains("softclip train"), "{page}");

    let again = run(&words(&args(&world, &["--json"])));
    let stderr = String::from_utf8_lossy(&again.stderr);
    assert!(again.status.success() && stderr.contains("4 of 4 runs are finished already"), "{stderr}");
    assert_eq!(serde_json::from_slice::<Value>(&again.stdout).unwrap(), result);
    // More seeds add to what is there.
    let plan = succeeds(&words(&args(&world, &["--seeds", "0,1,2", "--dry-run"])));
    let begin = |word: &str| plan.lines().filter(|line| line.starts_with(word)).count();
    assert_eq!((begin("finished: softclip train "), begin("to do: softclip train ")), (4, 2), "{plan}");
    let other = fails(&words(&args(&world, &["--set", "train.lr=0.5"])), 1);
    assert!(other.contains("train.lr = 0.001, and the plan says 0.5"), "{other}");
    let metric = run(&words(&args(&world, &["--metric", "acc1", "--metric", "retrieval_text_retrieval_mean_rank"])));
    let (stdout, stderr) = (String::from_utf8_lossy(&metric.stdout), String::from_utf8_lossy(&metric.stderr));
    assert!(stderr.contains("`acc1` is not there") && stderr.contains("retrieval_image_retrieval_recall@1"), "{stderr}");
    // What there is is told, the paper's figures under their own name.
    assert!(
        stdout.contains(&format!("{mean:.2} ±")) && stdout.contains("paper (retrieval_image_retrieval_recall@5)"),
        "{stdout}"
    );
    assert_eq!(metric.status.code(), Some(2));
    let nothing = fails(&words(&args(&world, &["--set", "eval=[]"])), 1);
    assert!(nothing.contains("its `eval` is empty"), "{nothing}");
}

#[test]
fn a_run_that_fails_costs_the_others_nothing() {
    let world = world(
        &PLAN.replace("{name: SoftCLIP, paper", "{name: SoftCLIP, set: {model: {init: nowhere/at/all.safetensors}}, paper"),
    );
    let out = run(&words(&args(&world, &["--seeds", "0"])));
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("nowhere/at/all.safetensors") && stderr.contains("train.log"), "{stderr}");
    let row = stdout.lines().find(|line| line.starts_with("CLIP")).unwrap();
    assert!(row.contains("16.5") && !row.contains("±"), "{stdout}");
    let nothing = fails(&["ablate", &world.at("plan.yaml"), "--out", &world.at("other")], 1);
    assert!(nothing.contains("Tiny / CLIP / seed 0: nothing to train on: --set data.train=SOURCE"), "{nothing}");
    let wrong = fails(&words(&args(&world, &["--set", "train.batchsize=3"])), 2);
    assert!(
        wrong.contains("--set train.batchsize=3: train.batchsize: ") && wrong.contains("did you mean `batch_size`?"),
        "{wrong}"
    );
}

#[test]
fn an_interrupted_grid_goes_on_where_it_was() {
    let world = world(&PLAN.replace("steps: 4", "steps: 400"));
    let args = args(&world, &["--seeds", "0", "--threads", "1"]);
    let mut child = softclip(&words(&args)).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let metrics = world.at("out/tiny/clip/seed-0/metrics.jsonl");
    let start = Instant::now();
    while fs::read_to_string(&metrics).map_or(0, |text| text.lines().count()) < 5 {
        assert!(start.elapsed() < Duration::from_secs(120) && child.try_wait().unwrap().is_none(), "it does not train");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let out = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(130), "{stderr}");
    let mark = fs::read_to_string(world.at("out/tiny/clip/seed-0/ablation.json")).unwrap();
    assert!(mark.contains("\"finished\":false"), "{mark}");
    let with =
        |more: &str| words(&args).into_iter().map(str::to_owned).chain(["--set".to_owned(), more.to_owned()]).collect::<Vec<_>>();
    // What it has learned so far it has learned with the old rate.
    let other = fails(&words(&with("train.lr=0.002")), 1);
    assert!(other.contains("begun with train.lr = 0.001, and the plan says 0.002"), "{other}");
    assert!(!Path::new(&world.at("out/tiny/softclip")).exists(), "the second run was begun");
    let step = |line: &str| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap();
    let reached = fs::read_to_string(&metrics).unwrap().lines().map(step).max().unwrap();
    assert!(reached < 400);
    succeeds(&words(&args));
    let steps: Vec<u64> =
        fs::read_to_string(&metrics).unwrap().lines().filter(|line| line.contains("\"train\"")).map(step).collect();
    assert_eq!(steps, (1..=400).collect::<Vec<_>>(), "every step once");
}
