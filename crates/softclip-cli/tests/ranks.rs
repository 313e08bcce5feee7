//! Training among ranks, as a shell sees it: what one process trains, however many there are and whatever happens to them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use softclip_tensor::file::read_safetensors;
use support::{run, softclip, succeeds};
use tch::Tensor;
use world::World;

#[allow(dead_code)] // Not all of it is of use here.
mod support;
#[path = "support/world.rs"]
mod world;

const PATIENCE: Duration = Duration::from_secs(120);

fn launched<'a>(ranks: &'a str, more: &[&'a str], train: &'a [String]) -> Vec<&'a str> {
    let head = ["launch", "-n", ranks];
    head.into_iter().chain(more.to_vec()).chain(["--"]).chain(train.iter().map(String::as_str)).collect()
}

fn weights(run: &str, step: u64) -> BTreeMap<String, Tensor> {
    read_safetensors(Path::new(run).join(format!("checkpoints/step-{step:08}/model.safetensors"))).unwrap()
}

/// The losses of a run by step.
fn losses(run: &str) -> BTreeMap<u64, f64> {
    let text = fs::read_to_string(Path::new(run).join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|l| l["kind"] == "train").map(|l| (l["step"].as_u64().unwrap(), l["loss"].as_f64().unwrap())).collect()
}

fn assert_same_run(found: &str, expected: &str, step: u64) {
    let (found_losses, expected_losses) = (losses(found), losses(expected));
    assert_eq!(found_losses.keys().collect::<Vec<_>>(), expected_losses.keys().collect::<Vec<_>>());
    for (step, loss) in &expected_losses {
        assert!((found_losses[step] - loss).abs() < 1e-4 * loss, "step {step}: {} and {loss}", found_losses[step]);
    }
    let (found, expected) = (weights(found, step), weights(expected, step));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, weight) in &expected {
        let off = (&found[name] - weight).abs().max().double_value(&[]);
        assert!(off < 1e-4, "{name}: {off:e}");
    }
}

#[test]
fn ranks_train_what_one_process_trains() {
    let world = World::new();
    let train = |run: &str| world.train_args(run, &["--set", "train.eps=1e-4"]);
    let alone = train("alone");
    succeeds(&alone.iter().map(String::as_str).collect::<Vec<_>>());
    for ranks in ["2", "3"] {
        let name = format!("ranks-{ranks}");
        let train = train(&name);
        let out = run(&launched(ranks, &[], &train));
        let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{stdout}{stderr}");
        assert_eq!(stdout.lines().filter(|line| line.contains("6 steps, loss")).count(), 1, "{stdout}");
        assert!(stderr.contains(&format!("on {ranks} ranks")), "{stderr}");
        assert_same_run(&world.at(&name), &world.at("alone"), 6);
        let metrics = fs::read_to_string(world.at(&format!("{name}/metrics.jsonl"))).unwrap();
        assert_eq!(metrics.lines().filter(|line| line.contains("\"kind\":\"eval\"")).count(), 1, "{metrics}");
    }
}

#[test]
fn a_batch_that_ranks_cannot_share_and_a_folder_in_use_are_refused() {
    let world = World::new();
    let train = world.train_args("few", &["--set", "train.batch_size=2"]);
    let out = run(&launched("3", &[], &train));
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && stderr.contains("2 pairs cannot be shared by 3 ranks"), "{stderr}");
    fs::create_dir_all(world.at("taken")).unwrap();
    let lock = fs::File::create(world.at("taken/.lock")).unwrap();
    lock.lock().unwrap();
    let train = world.train_args("taken", &[]);
    let out = run(&launched("2", &[], &train));
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && stderr.contains("[0] error: run") && stderr.contains("another process trains"), "{stderr}");
}

/// A launch that is watched.
struct Launch(Child);

impl Launch {
    fn start(args: &[&str]) -> Self {
        Self(softclip(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Waits for a checkpoint after that of step `after`; its step.
    fn checkpoint(&mut self, run: &str, after: u64) -> u64 {
        let until = Instant::now() + PATIENCE;
        loop {
            let newest = newest(run);
            if newest > after {
                return newest;
            }
            assert!(self.0.try_wait().unwrap().is_none() && Instant::now() < until, "no checkpoint after step {after}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The ranks: processes whose parent is the launcher.
    fn ranks(&self) -> Vec<i32> {
        let mut ranks = Vec::new();
        for entry in fs::read_dir("/proc").unwrap() {
            let Ok(id) = entry.unwrap().file_name().to_string_lossy().parse::<i32>() else { continue };
            let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat")) else { continue };
            let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
            ranks.extend((parent == Some(self.0.id())).then_some(id));
        }
        ranks
    }

    fn ends(mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "the launch does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The step of the newest checkpoint under its final name, 0 for none.
fn newest(run: &str) -> u64 {
    let Ok(entries) = fs::read_dir(Path::new(run).join("checkpoints")) else { return 0 };
    let steps = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("step-")?.parse().ok());
    steps.max().unwrap_or(0)
}

fn kill(id: i32, signal: &str) {
    let killed = std::process::Command::new("kill").args([signal, &id.to_string()]).status().unwrap();
    assert!(killed.success());
}

/// Two ranks, one of which is killed and which are started anew; then the launcher is killed; then three ranks, interrupted; then one
/// process. The order of samples, the schedule and the moments go on as if nothing had been.
#[test]
fn a_run_goes_on_with_other_ranks_after_kills() {
    const STEPS: u64 = 240;
    let world = World::new();
    let steps = format!("train.steps={STEPS}");
    let sets = [&steps, "train.eps=1e-3", "train.lr=1e-4", "train.checkpoint_every=4", "train.keep_checkpoints=100", "eval=[]"];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
    let train = |run: &str| world.train_args(run, &sets);
    let alone = train("alone");
    succeeds(&alone.iter().map(String::as_str).collect::<Vec<_>>());

    let (run, args) = (world.at("run"), train("run"));
    let mut launch = Launch::start(&launched("2", &["--max-restarts", "1"], &args));
    let step = launch.checkpoint(&run, 0);
    let ranks = launch.ranks();
    assert_eq!(ranks.len(), 2);
    kill(ranks[1], "-KILL");
    let step = launch.checkpoint(&run, step);
    drop(launch); // killed as well
    let until = Instant::now() + PATIENCE;
    while fs::File::open(format!("{run}/.lock")).unwrap().try_lock().is_err() {
        assert!(Instant::now() < until, "ranks outlive their launcher");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut launch = Launch::start(&launched("3", &[], &args));
    let step = launch.checkpoint(&run, step.max(newest(&run)));
    kill(launch.0.id() as i32, "-INT");
    assert!(!launch.ends().success());
    assert!(newest(&run) >= step && newest(&run) < STEPS, "it was not interrupted");
    succeeds(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_same_run(&run, &world.at("alone"), STEPS);
}

/// In each epoch another rank may meet a bad sample, in its own place or as a replacement.
#[test]
fn a_bad_sample_is_counted_once_with_any_number_of_ranks() {
    let world = World::new();
    let images = Path::new(&world.at("data")).join("images/train");
    let mut files: Vec<_> = fs::read_dir(&images).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for (i, file) in files.iter().enumerate().filter(|(i, _)| i % 5 == 0) {
        let bytes = fs::read(file).unwrap();
        fs::write(file, if i % 2 == 0 { &bytes[..bytes.len() / 2] } else { &[] }).unwrap();
    }
    let source = format!("data.train=coco:{}/annotations/captions_train.json,{}/", world.at("data"), images.display());
    let sets = [&source, "loss={name: clip}", "model.regions=null", "train.steps=12", "data.max_bad_share=0.9", "eval=[]"];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
    let told = |ranks: Option<&str>| {
        let train = world.train_args(&format!("bad-{}", ranks.unwrap_or("1")), &sets);
        let args = match ranks {
            Some(ranks) => launched(ranks, &[], &train),
            None => train.iter().map(String::as_str).collect(),
        };
        let out = succeeds(&args);
        let bad = out.split("unreadable samples: ").nth(1).unwrap().lines().next().unwrap().to_owned();
        let run = world.at(&format!("bad-{}", ranks.unwrap_or("1")));
        let metrics = fs::read_to_string(Path::new(&run).join("metrics.jsonl")).unwrap();
        let last: Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
        (bad, last["skipped_samples"].as_f64().unwrap())
    };
    let alone = told(None);
    assert_eq!(alone.1, 13.0, "{alone:?}");
    for ranks in ["2", "3"] {
        assert_eq!(told(Some(ranks)), alone, "{ranks} ranks");
    }
}
