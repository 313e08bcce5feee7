//! The binary, run.

#[path = "../../../softclip-distributed/tests/ranks/launchers.rs"]
mod launchers;

use std::process::{Command, Output};

use self::launchers::LAUNCHERS;

/// On one thread, outside of any launcher.
pub fn softclip(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_softclip"));
    command.args(args).env("OMP_NUM_THREADS", "1");
    for name in LAUNCHERS {
        command.env_remove(name);
    }
    command
}

pub fn run(args: &[&str]) -> Output {
    softclip(args).output().unwrap()
}

/// Standard output of a command that must succeed.
pub fn succeeds(args: &[&str]) -> String {
    let out = run(args);
    assert!(out.status.success(), "{args:?}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Standard error of a command that must fail with `status`.
pub fn fails(args: &[&str], status: i32) -> String {
    let out = run(args);
    let message = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(status), "{args:?}: {message}");
    assert!(!message.contains("panicked"), "{args:?}: {message}");
    message
}
