//! What the surroundings do to a run: standard error that cannot be written, file systems without locks, killed predecessors.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::{run, softclip, succeeds};
use world::World;

#[allow(dead_code)] // Not all of it is used here.
mod support;
#[path = "support/world.rs"]
mod world;

fn text(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// A device on which every write fails: "No space left on device".
fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

fn checkpoints(run: &str) -> usize {
    fs::read_dir(Path::new(run).join("checkpoints")).map_or(0, Iterator::count)
}

fn with_full_stderr(args: &[&str]) -> Option<i32> {
    softclip(args).stdout(Stdio::null()).stderr(full()).status().unwrap().code()
}

#[test]
fn training_does_not_need_standard_error() {
    let world = World::new();
    assert_eq!(with_full_stderr(&text(&world.train_args("full", &[]))), Some(0));
    assert!(checkpoints(&world.at("full")) > 0);

    // Its reader ends after two lines.
    let mut child = softclip(&text(&world.train_args("head", &[]))).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    for _ in 0..2 {
        reader.read_line(&mut line).unwrap();
    }
    drop(reader);
    assert_eq!(child.wait().unwrap().code(), Some(0), "{line}");
    assert!(checkpoints(&world.at("head")) > 0);

    // Errors keep their status.
    assert_eq!(with_full_stderr(&["train", &world.at("none.yaml"), "--run-dir", &world.at("none")]), Some(1));
    assert_eq!(with_full_stderr(&["train", "--no-such-flag"]), Some(2));
}

#[test]
fn score_and_data_do_not_need_standard_error() {
    let world = World::new();
    succeeds(&text(&world.train_args("run", &[])));
    let image = fs::read_dir(Path::new(&world.at("data")).join("images/val")).unwrap().next().unwrap().unwrap().path();
    let (table, scores) = (world.at("pairs.csv"), world.at("scores.csv"));
    // A row that cannot be used is reported.
    fs::write(&table, format!("image,caption\n{},a red circle\nmissing.png,a dog\n", image.display())).unwrap();
    let args = ["score", &table, "--model", &world.at("run"), "--device", "cpu", "--out", &scores];
    let status = with_full_stderr(&args);
    assert_eq!(status, run(&args).status.code());
    assert_eq!(fs::read_to_string(&scores).unwrap().lines().count(), 3);

    let at = |name: &str| world.at(name);
    for part in ["tiles", "masks"] {
        fs::create_dir(at(part)).unwrap();
        fs::copy(&image, format!("{}/a.{}", at(part), image.extension().unwrap().to_str().unwrap())).unwrap();
    }
    let map = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/patches/roof-solar.yaml");
    let patches = ["data", "patches", "--images", &at("tiles"), "--masks", &at("masks"), "--map", map, "--out", &at("patches")];
    let status = with_full_stderr(&patches);
    assert!(matches!(status, Some(0 | 1)), "{status:?}");
    assert_eq!(with_full_stderr(&["data", "synth", &at("again"), "--train", "8", "--val", "4", "--size", "32"]), Some(0));
    assert_eq!(with_full_stderr(&["data", "inspect", &format!("{}/shards/val-*.tar", at("data"))]), Some(0));
}

#[test]
fn results_that_cannot_be_written_are_an_error_and_an_ended_reader_is_not() {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/clip-rn50.yaml");
    for args in [&["config", config][..], &["completions", "bash"]] {
        let out = softclip(args).stdout(full()).stderr(Stdio::piped()).output().unwrap();
        let message = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{args:?}: {message}");
        assert!(message.contains("error: standard output: No space left on device"), "{args:?}: {message}");
    }
    for args in [&["--help"][..], &["train", "--help"], &["completions", "bash"], &["config", config], &["--version"]] {
        let mut child = softclip(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let out = child.wait_with_output().unwrap();
        assert_eq!((out.status.code(), String::from_utf8_lossy(&out.stderr).as_ref()), (Some(0), ""), "{args:?}");
    }
}

/// Compiles the library in which calls fail.
fn shim(world: &World) -> String {
    let library = world.at("shim.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../softclip-io/tests/shim.c");
    let status = Command::new("cc").args(["-shared", "-fPIC", source, "-ldl", "-o", &library]).status().unwrap();
    assert!(status.success());
    library
}

#[test]
fn a_file_system_without_locks_and_synced_folders_is_warned_about_once() {
    let world = World::new();
    let library = shim(&world);
    let without = |args: &[&str]| -> Output {
        softclip(args).env("LD_PRELOAD", &library).env("SHIM_FLOCK", "38").env("SHIM_FSYNC_FOLDER", "22").output().unwrap()
    };
    let args = world.train_args("run", &[]);
    let train = || {
        let out = without(&text(&args));
        let message = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{message}");
        assert_eq!(message.matches("does not support locks").count(), 1, "{message}");
        message
    };
    let message = train();
    assert_eq!(message.matches("cannot sync it").count(), 1, "{message}");
    assert!(checkpoints(&world.at("run")) > 0);
    // Resumed, it is done.
    train();

    let (images, emb) = (world.at("data/images/val"), world.at("emb"));
    let out = without(&["embed", &images, "--model", &world.at("run"), "--device", "cpu", "--out", &emb]);
    let message = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && message.matches("does not support locks").count() == 1, "{message}");
    let out = without(&["export", &world.at("run"), "--to", "open_clip", "--out", &world.at("exported")]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(Path::new(&world.at("exported")).join("open_clip_model.safetensors").is_file());
    let out = without(&["data", "synth", &world.at("other"), "--train", "8", "--val", "4", "--size", "32"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// Starts a command and kills it once something in `folder` has a name that starts with `prefix`.
fn kill_while_writing(args: &[&str], folder: &str, prefix: &str) {
    let mut child = softclip(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while !has(folder, prefix) {
        assert!(child.try_wait().unwrap().is_none(), "{args:?}: it ended before it could be killed");
        assert!(start.elapsed() < Duration::from_secs(300), "{args:?}: nothing was written");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(has(folder, prefix), "{args:?}");
}

fn has(folder: &str, prefix: &str) -> bool {
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.into_iter().any(|name| name.to_string_lossy().starts_with(prefix))
}

#[test]
fn what_a_killed_command_left_is_removed_by_the_next() {
    let world = World::new();
    let (root, out) = (world.at(""), world.at("out"));
    let synth = ["data", "synth", &out, "--val", "4", "--size", "64", "--train"];
    kill_while_writing(&[&synth[..], &["20000"]].concat(), &root, ".synth-");
    succeeds(&[&synth[..], &["8"]].concat());
    assert!(!has(&root, ".synth-") && has(&out, "synth.json"));

    succeeds(&text(&world.train_args("run", &[])));
    let image = fs::read_dir(world.at("data/images/val")).unwrap().next().unwrap().unwrap().path();
    let table = world.at("pairs.csv");
    let row = format!("{},a red circle\n", image.display());
    fs::write(&table, format!("image,caption\n{}", row.repeat(20_000))).unwrap();
    let score = |table: &str| {
        ["score", table, "--model", &world.at("run"), "--device", "cpu", "--out", &world.at("scores.csv")].map(str::to_owned)
    };
    kill_while_writing(&text(&score(&table)), &root, "scores.csv.partial-");
    fs::write(&table, format!("image,caption\n{row}")).unwrap();
    succeeds(&text(&score(&table)));
    assert!(!has(&root, "scores.csv.partial-") && has(&root, "scores.csv"));
}
