//! A run survives what happens to runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use softclip_train::checkpoint::{self, Checkpoint};
use softclip_train::{Error, Resume, TrainedModel, train};
use support::{configuration, options, shard};
use tch::Device;

const CHILD: &str = "SOFTCLIP_TEST_CHILD_FOLDER";

fn set(data: &Path) -> String {
    format!("data.train={}", data.display())
}

fn last(run: &Path) -> PathBuf {
    checkpoint::list(run).unwrap().pop().unwrap()
}

/// The three files of a checkpoint.
fn bytes(checkpoint: &Path) -> [Vec<u8>; 3] {
    [checkpoint::MODEL, checkpoint::OPTIMIZER, checkpoint::STATE].map(|name| fs::read(checkpoint.join(name)).unwrap())
}

fn steps_logged(run: &Path) -> Vec<u64> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    let step = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?.get("step")?.as_u64();
    text.lines().filter_map(step).collect()
}

/// The process that the next test kills; does nothing by itself.
#[test]
fn child_process_to_be_killed() {
    let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let config = configuration(&folder, &[&set(&folder.join("data.tar"))]);
    train(&config, &options(&folder.join("killed"))).unwrap();
}

#[test]
fn a_run_that_is_killed_and_resumed_ends_as_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let data = shard(folder.path(), 43);
    let config = configuration(folder.path(), &[&set(&data)]);
    let whole = folder.path().join("whole");
    let outcome = train(&config, &options(&whole)).unwrap();
    assert_eq!((outcome.step, outcome.interrupted), (14, false));
    let killed = folder.path().join("killed");
    let mut kills = 0;
    // At steps that differ from run to run, beyond the first checkpoint.
    let chance = u64::from(std::process::id() % 3);
    for at in [4 + chance, 8 + chance] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child_process_to_be_killed", "--exact", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while steps_logged(&killed).last().is_none_or(|&step| step < at) && start.elapsed() < Duration::from_secs(120) {
            if child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap(); // SIGKILL
        let status = child.wait().unwrap();
        kills += usize::from(!status.success());
    }
    assert!(kills >= 1, "the child was done before it could be killed");
    let outcome = train(&config, &options(&killed)).unwrap();
    assert_eq!(outcome.step, 14);
    assert_eq!(bytes(&last(&whole)), bytes(&last(&killed)), "the last checkpoints differ");
    // Each step is logged once.
    assert_eq!(steps_logged(&killed), (1..=14).collect::<Vec<u64>>());
}

#[test]
fn asked_to_stop_it_leaves_a_checkpoint_and_goes_on_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let data = shard(folder.path(), 43);
    let config = configuration(folder.path(), &[&set(&data), "train.checkpoint_every=100"]);
    let whole = folder.path().join("whole");
    train(&config, &options(&whole)).unwrap();
    let stopped = folder.path().join("stopped");
    let asked = options(&stopped);
    let (flag, run) = (asked.stop.clone(), stopped.clone());
    let watch = std::thread::spawn(move || {
        let start = Instant::now();
        while steps_logged(&run).len() < 2 && start.elapsed() < Duration::from_secs(120) {
            std::thread::sleep(Duration::from_millis(1));
        }
        flag.store(true, Ordering::Relaxed);
    });
    let outcome = train(&config, &asked).unwrap();
    watch.join().unwrap();
    assert!(outcome.interrupted && outcome.step < 14, "{outcome:?}");
    assert_eq!(Checkpoint::open(&last(&stopped)).unwrap().state.step, outcome.step);
    train(&config, &options(&stopped)).unwrap();
    assert_eq!(bytes(&last(&whole)), bytes(&last(&stopped)));
}

#[test]
fn a_damaged_checkpoint_is_passed_over_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let data = shard(folder.path(), 43);
    let config = configuration(folder.path(), &[&set(&data)]);
    let run = folder.path().join("run");
    train(&config, &options(&run)).unwrap();
    let all = checkpoint::list(&run).unwrap();
    assert_eq!(all.len(), 2, "keep_checkpoints is 2");
    let (older, newest) = (&all[0], &all[1]);
    let whole = bytes(newest);
    // Cut in half, changed by a bit, gone.
    let model = newest.join(checkpoint::MODEL);
    let mut flipped = whole[0].clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for damaged in [Some(whole[0][..middle].to_vec()), Some(flipped), None] {
        match damaged {
            Some(bytes) => fs::write(&model, bytes).unwrap(),
            None => fs::remove_file(&model).unwrap(),
        }
        let error = Checkpoint::open(newest).unwrap_err().to_string();
        assert!(error.contains("model.safetensors"), "{error}");
        let (found, passed) = Checkpoint::newest(&run).unwrap();
        assert_eq!((found.unwrap().path, passed.len()), (older.clone(), 1));
    }
    // A digit of the state that still is JSON.
    let state = String::from_utf8(whole[2].clone()).unwrap();
    fs::write(newest.join(checkpoint::STATE), state.replace("\"batch\": ", "\"batch\": 1")).unwrap();
    let error = Checkpoint::open(newest).unwrap_err().to_string();
    assert!(error.contains("state.json is damaged"), "{error}");
    // Training goes on from the older one and makes the newest again.
    train(&config, &options(&run)).unwrap();
    assert_eq!(bytes(newest), whole);
    // Where none is whole, it does not silently start anew.
    for path in checkpoint::list(&run).unwrap() {
        fs::write(path.join(checkpoint::STATE), b"{").unwrap();
    }
    let error = train(&config, &options(&run)).unwrap_err();
    assert!(matches!(error, Error::Checkpoint { .. }) && error.to_string().contains("state.json"), "{error}");
}

#[test]
fn going_back_to_a_checkpoint_leaves_the_later_ones_behind() {
    let folder = tempfile::tempdir().unwrap();
    let data = shard(folder.path(), 43);
    let config = configuration(folder.path(), &[&set(&data), "train.keep_checkpoints=9"]);
    let run = folder.path().join("run");
    train(&config, &options(&run)).unwrap();
    let whole = bytes(&last(&run));
    fs::create_dir(run.join("checkpoints/.step-00000099.partial")).unwrap(); // as a killed process leaves it
    let back = softclip_train::RunOptions { resume: Resume::From(run.join("checkpoints/step-00000003")), ..options(&run) };
    let shorter = configuration(folder.path(), &[&set(&data), "train.keep_checkpoints=9", "train.steps=4"]);
    train(&shorter, &back).unwrap();
    let steps = |run: &Path| -> Vec<u64> {
        checkpoint::list(run).unwrap().iter().map(|path| Checkpoint::open(path).unwrap().state.step).collect()
    };
    assert_eq!(steps(&run), [3, 4]);
    let aside = run.join("checkpoints/superseded-step-00000014");
    assert_eq!(bytes(&aside), whole, "nothing is lost");
    assert!(!run.join("checkpoints/.step-00000099.partial").exists());
    // The newest now is that of step 4.
    assert_eq!(TrainedModel::open(&run, Device::Cpu).unwrap().checkpoint.state.step, 4);
}

#[test]
fn an_evaluation_that_fails_costs_no_weights() {
    let folder = tempfile::tempdir().unwrap();
    let data = shard(folder.path(), 43);
    let run = folder.path().join("run");
    // What cannot be opened is known before the first step.
    let config = configuration(folder.path(), &[&set(&data), "eval=[{task: retrieval, data: typo.tar}]"]);
    assert!(train(&config, &options(&run)).unwrap_err().to_string().contains("typo.tar"));
    assert!(checkpoint::list(&run).unwrap().is_empty());
    // What fails later is told at the end.
    let eval = format!("eval=[{{task: retrieval, data: {}}}]", data.display());
    let config = configuration(folder.path(), &[&set(&data), &eval, "train.checkpoint_every=100"]);
    fs::write(run.join("results"), b"not a folder").unwrap();
    let error = train(&config, &options(&run)).unwrap_err().to_string();
    assert!(error.contains("results"), "{error}");
    assert_eq!(Checkpoint::open(&last(&run)).unwrap().state.step, 14);
    // The same command makes up for it.
    fs::remove_file(run.join("results")).unwrap();
    let outcome = train(&config, &options(&run)).unwrap();
    assert_eq!((outcome.step, outcome.results.len()), (14, 1));
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().filter(|line| line.contains("\"eval\"")).count(), 1, "logged once");
}

#[test]
fn a_run_that_does_not_fit_its_checkpoint_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = shard(folder.path(), 43);
    let run = folder.path().join("run");
    train(&configuration(folder.path(), &[&set(&data), "train.steps=3"]), &options(&run)).unwrap();
    for (sets, words) in [
        (vec!["train.batch_size=12"], "train.batch_size was 10 and is 12 now"),
        (vec!["train.seed=4"], "train.seed was 3 and is 4"),
        (vec!["model.embed_dim=12"], "text_projection"),
    ] {
        let all = [vec![set(&data)], sets.iter().map(|s| (*s).to_owned()).collect()].concat();
        let config = configuration(folder.path(), &all.iter().map(String::as_str).collect::<Vec<_>>());
        let error = train(&config, &options(&run)).unwrap_err().to_string();
        assert!(error.contains(words), "{error} / {words}");
    }
    let config = configuration(folder.path(), &[&set(&data)]);
    let never = softclip_train::RunOptions { resume: Resume::Never, ..options(&run) };
    assert!(train(&config, &never).unwrap_err().to_string().contains("has checkpoints"));
    let error = train(&configuration(folder.path(), &[]), &options(&run)).unwrap_err().to_string();
    assert!(error.contains("data.train"), "{error}");
}

#[test]
fn an_exploding_run_stops_with_step_samples_and_advice() {
    let folder = tempfile::tempdir().unwrap();
    let data = shard(folder.path(), 43);
    let config = configuration(folder.path(), &[&set(&data), "train.lr=1e30", "train.warmup=0", "train.weight_decay=0"]);
    let error = train(&config, &options(&folder.path().join("run"))).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::NonFinite { .. }), "{message}");
    assert!(message.contains("step ") && message.contains("data/00") && message.contains("train.grad_clip"), "{message}");
}

#[test]
fn two_processes_cannot_train_in_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    let data = shard(folder.path(), 43);
    let run = folder.path().join("run");
    fs::create_dir_all(&run).unwrap();
    let held = fs::File::create(run.join(".lock")).unwrap();
    held.lock().unwrap();
    let error = train(&configuration(folder.path(), &[&set(&data)]), &options(&run)).unwrap_err().to_string();
    assert!(error.contains("another process trains in this folder"), "{error}");
}

#[test]
fn a_trained_run_is_evaluated_and_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = shard(folder.path(), 43);
    let eval = format!("eval=[{{task: retrieval, data: {}, every: 7 steps}}, {{task: pairing, data: {0}}}]", data.display());
    let config = configuration(folder.path(), &[&set(&data), &eval]);
    let run = folder.path().join("run");
    let outcome = train(&config, &options(&run)).unwrap();
    assert_eq!(outcome.results.len(), 2);
    let recall = outcome.results[0].metric("image_retrieval_recall@10").unwrap();
    assert!((0.0..=1.0).contains(&recall));
    let names: Vec<String> =
        fs::read_dir(run.join("results")).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    let opened = TrainedModel::open(&run, Device::Cpu).unwrap();
    assert_eq!((opened.checkpoint.state.step, opened.config), (14, config));
    assert!(TrainedModel::open(&last(&run), Device::Cpu).is_ok());
    assert!(TrainedModel::open(folder.path(), Device::Cpu).unwrap_err().to_string().contains("no config.yaml"));
}

/// Writing a checkpoint onto a file system of 1 MiB; in a namespace of its own, where such a thing may be mounted.
#[test]
fn a_full_disk_is_an_error_and_leaves_nothing_half_written() {
    if let Some(disk) = std::env::var_os(CHILD).map(PathBuf::from) {
        if disk.file_name().is_some_and(|name| name == "disk") {
            fill(&disk);
        }
        return;
    }
    on_small_disk("disk", "1m", "a_full_disk", "the disk was full");
}

/// Runs the test `name` again as a child, with [`CHILD`] naming a file system of `size`; it must print `expected`. Skipped with a line
/// where none may be mounted.
fn on_small_disk(folder_name: &str, size: &str, name: &str, expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join(folder_name);
    fs::create_dir(&disk).unwrap();
    let exe = std::env::current_exe().unwrap();
    let script = r#"mount -t tmpfs -o size="$3" none "$1" && exec "$2" "$4" --nocapture"#;
    for wrapper in [&["unshare", "--mount"][..], &["unshare", "--user", "--map-root-user", "--mount"][..]] {
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).args(["sh", "-c", script, "sh"]).arg(&disk).arg(&exe).args([size, name]).env(CHILD, &disk);
        let output = match command.output() {
            Ok(output) => output,
            Err(e) => return println!("skipped: unshare is not there ({e})"),
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if text.contains("running 1 test") {
            assert!(output.status.success() && text.contains(expected), "{text}");
            return;
        }
        println!("{}: {text}", wrapper.join(" "));
    }
    println!("skipped: this system lets nobody mount a small file system");
}

/// A run on a file system of 8 MiB, which is full when the run is done and has space again a little later.
#[test]
fn the_last_checkpoint_waits_for_a_full_disk() {
    if let Some(disk) = std::env::var_os(CHILD).map(PathBuf::from) {
        if disk.file_name().is_some_and(|name| name == "small-disk") {
            train_while_full(&disk);
        }
        return;
    }
    on_small_disk("small-disk", "8m", "the_last_checkpoint_waits", "the checkpoint came late");
}

fn train_while_full(disk: &Path) {
    let data = shard(disk, 43);
    let config = configuration(disk, &[&set(&data), "train.checkpoint_every=100", "train.steps=40"]);
    let run = disk.join("run");
    let (filler, metrics) = (disk.join("filler"), run.join("metrics.jsonl"));
    let steps = || fs::read_to_string(&metrics).unwrap_or_default().lines().count();
    let wait_for = |n: usize| {
        let start = Instant::now();
        while steps() < n && start.elapsed() < Duration::from_secs(120) {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_for(1);
            // 256 KiB stay free, which hold the log but no checkpoint.
            let mut file = fs::File::create(&filler).unwrap();
            let block = vec![0; 1 << 16];
            let mut written = 0;
            while std::io::Write::write_all(&mut file, &block).is_ok() {
                written += block.len() as u64;
            }
            file.set_len(written.saturating_sub(1 << 18)).unwrap();
            wait_for(40);
            std::thread::sleep(Duration::from_millis(300));
            fs::remove_file(&filler).unwrap();
        });
        let outcome = train(&config, &options(&run)).unwrap();
        assert_eq!(outcome.step, 40);
    });
    assert_eq!(Checkpoint::open(&last(&run)).unwrap().state.step, 40);
    println!("the checkpoint came late");
}

fn fill(disk: &Path) {
    use tch::{Kind, Tensor};
    let state = || checkpoint::State {
        version: 1,
        step: 1,
        position: Default::default(),
        samples: 1,
        batch_size: 1,
        seed: 0,
        sha256: Default::default(),
    };
    let of = |n: i64| vec![("w".to_owned(), Tensor::ones([n], (Kind::Float, Device::Cpu)))];
    let kept = checkpoint::save(disk, state(), &of(1000), &of(1000), 3).unwrap();
    let next = checkpoint::State { step: 2, ..state() };
    let error = checkpoint::save(disk, next, &of(100_000), &of(200_000), 3).unwrap_err().to_string();
    assert!(error.contains("No space left"), "{error}");
    let names = || -> Vec<PathBuf> { fs::read_dir(disk.join("checkpoints")).unwrap().map(|e| e.unwrap().path()).collect() };
    assert_eq!(names(), std::slice::from_ref(&kept), "the older checkpoint stays, nothing else is there");
    assert!(Checkpoint::open(&kept).is_ok());
    println!("the disk was full");
}
