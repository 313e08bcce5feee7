//! Damaged files of every format that is read: an error or a count, never a panic, never a loss in silence.
//!
//! Each format starts from a valid file that is damaged in a few hundred seeded ways. `SOFTCLIP_MUTATIONS` multiplies their number.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod models;
mod mutate;
mod sources;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use mutate::{Rng, mutate};

/// Inputs per format.
const INPUTS: usize = 180;

/// Reads a folder with the given content of the damaged file.
pub type Reader = Box<dyn Fn(&Path, &[u8]) -> Outcome>;

/// A format: valid files, which of them is damaged, and what reads them.
pub struct Format {
    /// Name in the report.
    pub name: &'static str,
    /// Folder with valid files.
    pub folder: PathBuf,
    /// The file that is damaged, relative to the folder.
    pub file: &'static str,
    /// Fraction of [`INPUTS`] that is tried: 1 where reading is fast.
    pub inputs: f64,
    /// Reads the folder with the given content of `file`.
    pub read: Reader,
}

/// What came of reading a file.
pub enum Outcome {
    /// Refused, with this message.
    Refused(String),
    /// Read; why the result is wrong, if it is.
    Read(Result<(), String>),
}

impl Outcome {
    /// Of a reader without anything to count.
    pub fn of<T, E: std::fmt::Display>(result: Result<T, E>) -> Self {
        match result {
            Ok(_) => Outcome::Read(Ok(())),
            Err(e) => Outcome::Refused(e.to_string()),
        }
    }
}

/// Why `message` is not fit for a terminal, if it is not.
fn unfit(message: &str) -> Option<String> {
    let raw = message.chars().find(|c| c.is_control() && *c != '\n' && *c != '\t');
    match raw {
        _ if message.trim().is_empty() => Some("an empty message".to_owned()),
        Some(c) => Some(format!("raw character {c:?} in {message:?}")),
        None if message.len() > 4000 => Some(format!("a message of {} bytes", message.len())),
        None => None,
    }
}

#[test]
fn damaged_files_are_refused_or_counted() {
    let place = tempfile::tempdir().unwrap();
    let formats: Vec<Format> = sources::formats(place.path()).into_iter().chain(models::formats(place.path())).collect();
    let more: usize = std::env::var("SOFTCLIP_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let (mut tried, mut problems) = (0, Vec::new());
    // The default hook prints every panic; they are reported below, with the input that caused them.
    std::panic::set_hook(Box::new(|_| {}));
    for (number, format) in formats.iter().enumerate() {
        let path = format.folder.join(format.file);
        let valid = fs::read(&path).unwrap();
        if let Outcome::Refused(why) | Outcome::Read(Err(why)) = (format.read)(&format.folder, &valid) {
            problems.push(format!("{}: the valid file: {why}", format.name));
        }
        let (mut refused, count) = (0, (INPUTS as f64 * format.inputs) as usize * more);
        for seed in 0..count {
            let damaged = mutate(&valid, &mut Rng((number as u64) << 32 | seed as u64));
            fs::write(&path, &damaged).unwrap();
            let problem = match catch_unwind(AssertUnwindSafe(|| (format.read)(&format.folder, &damaged))) {
                Ok(Outcome::Refused(message)) => {
                    refused += 1;
                    unfit(&message)
                }
                Ok(Outcome::Read(result)) => result.err(),
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
                    Some(format!("panic: {}", text.unwrap_or("no message")))
                }
            };
            problems.extend(problem.map(|problem| format!("{}, seed {seed}: {problem}", format.name)));
        }
        fs::write(&path, &valid).unwrap();
        tried += count;
        println!("{}: {count} inputs, {refused} refused, {} read", format.name, count - refused);
    }
    let _ = std::panic::take_hook();
    println!("{tried} inputs");
    assert!(tried >= 2000, "{tried} inputs");
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems[..problems.len().min(40)].join("\n"));
}
