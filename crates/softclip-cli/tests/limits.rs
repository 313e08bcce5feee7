//! Limits that the system sets for a process.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::process::Command;

use support::succeeds;

#[allow(dead_code)] // Not all of it is of use here.
mod support;

/// Runs `softclip data inspect PATTERN --json` after the shell command `limits`; returns how many samples are usable.
fn usable(limits: &str, pattern: &str) -> u64 {
    let script = format!("{limits} && exec \"$0\" data inspect \"$1\" --json");
    let output = Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_softclip"), pattern]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["usable"].as_u64().unwrap()
}

#[test]
fn more_shards_than_open_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    succeeds(&["data", "synth", data.to_str().unwrap(), "--train", "2", "--val", "2", "--zeroshot", "1", "--size", "32"]);
    let shard = data.join("shards/val-00000.tar");
    for i in 0..150 {
        fs::copy(&shard, folder.path().join(format!("{i:03}.tar"))).unwrap();
    }
    let pattern = format!("{}/*.tar", folder.path().display());
    // The soft limit is raised to the hard limit; where that is low too, fewer tars are kept open.
    assert_eq!(usable("ulimit -Sn 48", &pattern), 300);
    assert_eq!(usable("ulimit -n 64", &pattern), 300);
}
