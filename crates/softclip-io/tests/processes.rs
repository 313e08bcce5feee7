//! What needs several processes: killed and living writers, file systems without locks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use softclip_io::{LockState, PartialFile, PartialFolder, lock_shared, sync_folder, try_lock, write_atomic};

const NAME: &str = "scores.csv";
const PREFIX: &str = ".make-";

/// Runs as a child of the tests below, with its job in the environment.
#[test]
fn child() {
    let Ok(folder) = std::env::var("CHILD_FOLDER").map(PathBuf::from) else { return };
    match std::env::var("CHILD_JOB").unwrap().as_str() {
        "hang" => {
            let mut file = PartialFile::create(&folder.join(NAME)).unwrap();
            file.write_all(b"half").unwrap();
            let made = PartialFolder::create(&folder, PREFIX).unwrap();
            fs::write(made.path().join("half"), "").unwrap();
            println!("\nready");
            loop {
                std::thread::park();
            }
        }
        "write" => {
            write_atomic(folder.join(NAME), b"whole").unwrap();
            drop(PartialFolder::create(&folder, PREFIX).unwrap());
        }
        "lock" => {
            let path = folder.join(".lock");
            let [first, second] = [(); 2].map(|()| File::create(&path).unwrap());
            assert_eq!(try_lock(&first, &path).unwrap(), LockState::Unsupported);
            assert_eq!(try_lock(&second, &path).unwrap(), LockState::Unsupported);
            assert_eq!(lock_shared(&second, &path).unwrap(), LockState::Unsupported);
            sync_folder(&folder).unwrap();
            write_atomic(folder.join(NAME), b"whole").unwrap();
        }
        "fail" => assert!(write_atomic(folder.join(NAME), b"whole").is_err()),
        other => panic!("no job {other}"),
    }
}

fn command(folder: &Path, job: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]);
    command.env("CHILD_FOLDER", folder).env("CHILD_JOB", job).stdout(Stdio::piped());
    command
}

fn finishes(command: &mut Command) {
    let out = command.stderr(Stdio::piped()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// A process that is in the middle of its writes.
fn hanging(folder: &Path) -> Child {
    let mut child = command(folder, "hang").spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "ready"));
    child
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The number of a process that has ended.
fn dead() -> u32 {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    child.id()
}

/// Preloads a library in which calls fail with these codes.
fn without_support<'a>(command: &'a mut Command, library: &Path, codes: &[(&str, i32)]) -> &'a mut Command {
    command.env("LD_PRELOAD", library);
    command.envs(codes.iter().map(|(name, code)| (name, code.to_string())))
}

fn shim(folder: &Path) -> PathBuf {
    let library = folder.join("shim.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shim.c");
    let status = Command::new("cc").args(["-shared", "-fPIC", source, "-ldl", "-o"]).arg(&library).status().unwrap();
    assert!(status.success());
    library
}

#[test]
fn what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = hanging(dir.path());
    let temporaries = names(dir.path());
    assert_eq!(temporaries.len(), 2, "{temporaries:?}");
    assert!(temporaries[0].starts_with(&format!("{PREFIX}{}-", child.id())), "{temporaries:?}");
    assert!(temporaries[1].starts_with(&format!("{NAME}.partial-{}-", child.id())), "{temporaries:?}");

    finishes(&mut command(dir.path(), "write"));
    assert_eq!(names(dir.path()), [temporaries[0].as_str(), NAME, &temporaries[1]]);
    child.kill().unwrap();
    child.wait().unwrap();
    finishes(&mut command(dir.path(), "write"));
    assert_eq!(names(dir.path()), [NAME]);
    assert_eq!(fs::read(dir.path().join(NAME)).unwrap(), b"whole");
}

#[test]
fn a_zombie_is_dead() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = hanging(dir.path());
    child.kill().unwrap();
    // Nobody waits for it: it keeps its number, and may not yet have let go of its locks.
    while names(dir.path()) != [NAME] {
        finishes(&mut command(dir.path(), "write"));
    }
    child.wait().unwrap();
}

#[test]
fn other_files_stay_and_so_does_what_another_machine_has_locked() {
    let dir = tempfile::tempdir().unwrap();
    let others = [".make-abc", ".make-", "other.csv.partial-1-x", "scores.csv.partial-", "scores.csv.partial-notes"];
    for name in others {
        fs::write(dir.path().join(name), "").unwrap();
    }
    // Its process number means nothing here.
    let [locked, free] = ["a", "b"].map(|end| format!("{NAME}.partial-{}-{end}", dead()));
    let file = File::create(dir.path().join(&locked)).unwrap();
    file.lock().unwrap();
    fs::write(dir.path().join(&free), "").unwrap();
    finishes(&mut command(dir.path(), "write"));
    let found = names(dir.path());
    assert!(others.iter().all(|name| found.iter().any(|found| found == name)), "{found:?}");
    assert!(found.contains(&locked) && !found.contains(&free), "{found:?}");
    drop(file);
    finishes(&mut command(dir.path(), "write"));
    assert_eq!(names(dir.path()).len(), others.len() + 1);
}

#[test]
fn a_folder_that_was_to_be_replaced_is_never_removed() {
    let dir = tempfile::tempdir().unwrap();
    let left = dir.path().join(format!("{PREFIX}{}-x", dead()));
    fs::create_dir_all(left.join("old")).unwrap();
    fs::write(left.join("lock"), "").unwrap();
    finishes(&mut command(dir.path(), "write"));
    assert!(left.join("old").is_dir());
    fs::remove_dir(left.join("old")).unwrap();
    finishes(&mut command(dir.path(), "write"));
    assert!(!left.exists());
}

#[test]
fn without_locks_and_synced_folders_work_continues() {
    let dir = tempfile::tempdir().unwrap();
    let library = shim(dir.path());
    // ENOSYS, ENOLCK, EOPNOTSUPP, EINVAL; EINVAL, EOPNOTSUPP, EROFS, ENOSYS.
    for (flock, fsync) in [(38, 22), (37, 95), (95, 30), (22, 38)] {
        let codes = [("SHIM_FLOCK", flock), ("SHIM_FSYNC_FOLDER", fsync)];
        finishes(without_support(&mut command(dir.path(), "lock"), &library, &codes));
        assert_eq!(fs::read(dir.path().join(NAME)).unwrap(), b"whole");
        fs::remove_file(dir.path().join(NAME)).unwrap();
    }
    // A full or broken disk is a failure: ENOSPC, EIO.
    for codes in [("SHIM_FSYNC_FILE", 28), ("SHIM_FSYNC_FILE", 5)] {
        finishes(without_support(&mut command(dir.path(), "fail"), &library, &[codes]));
        assert!(!dir.path().join(NAME).exists());
    }
}

#[test]
fn without_locks_only_old_leftovers_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let library = shim(dir.path());
    let left = dir.path().join(format!("{NAME}.partial-{}-x", dead()));
    let file = File::create(&left).unwrap();
    finishes(without_support(&mut command(dir.path(), "write"), &library, &[("SHIM_FLOCK", 38)]));
    assert!(left.exists(), "another machine may be writing it");
    file.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
    finishes(without_support(&mut command(dir.path(), "write"), &library, &[("SHIM_FLOCK", 38)]));
    assert!(!left.exists());
}
