//! Checkpoints: written beside, synced, checksummed, renamed; read only when they verify.

mod writer;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use softclip_data::loader::Position;
use softclip_tensor::file::{write_atomic, write_safetensors};
use tch::Tensor;

pub use self::writer::{Snapshot, Writer};
use crate::{Error, Result};
pub(crate) use softclip_io::sha256_file as sha256;

/// Weights, with open_clip's names.
pub const MODEL: &str = "model.safetensors";
/// The optimizer's state.
pub const OPTIMIZER: &str = "optimizer.safetensors";
/// Everything else.
pub const STATE: &str = "state.json";

/// What a run needs beside tensors to go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Of this file's form: 1.
    pub version: u32,
    /// Optimizer steps done.
    pub step: u64,
    /// The next batch.
    pub position: Position,
    /// Samples that the training source listed.
    pub samples: usize,
    /// Pairs a batch.
    pub batch_size: usize,
    /// Seed of order and augmentation.
    pub seed: u64,
    /// SHA-256 of the other files, and of this one without its own.
    pub sha256: BTreeMap<String, String>,
}

impl State {
    /// SHA-256 of everything but the sum itself.
    fn sum(&self) -> serde_json::Result<String> {
        let mut bare = self.clone();
        bare.sha256.remove(STATE);
        Ok(hex(&Sha256::digest(serde_json::to_vec(&bare)?)))
    }
}

/// A checkpoint that verified.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// Its state.
    pub state: State,
}

impl Checkpoint {
    /// Reads the state of a checkpoint's folder and checks the other files against it.
    ///
    /// # Errors
    /// A file is missing, cut or changed; what and where is said.
    pub fn open(path: &Path) -> Result<Self> {
        let bad = |why: String| Error::Checkpoint { path: path.to_owned(), why };
        let text = fs::read(path.join(STATE)).map_err(|e| bad(format!("{STATE}: {e}")))?;
        let state: State = serde_json::from_slice(&text).map_err(|e| bad(format!("{STATE}: {e}")))?;
        if state.version != 1 {
            return Err(bad(format!("{STATE} is of version {}; this program reads 1", state.version)));
        }
        let found = state.sum().map_err(|e| bad(format!("{STATE}: {e}")))?;
        if state.sha256.get(STATE) != Some(&found) {
            return Err(bad(format!("{STATE} is damaged: it is not what its own SHA-256 says")));
        }
        for name in [MODEL, OPTIMIZER] {
            let expected = state.sha256.get(name).ok_or_else(|| bad(format!("{STATE} has no checksum of {name}")))?;
            let found = sha256(&path.join(name)).map_err(|e| bad(format!("{name}: {e}")))?;
            if found != *expected {
                return Err(bad(format!("{name} is damaged: its SHA-256 is {found}, {STATE} says {expected}")));
            }
        }
        Ok(Self { path: path.to_owned(), state })
    }

    /// The newest checkpoint of a run that verifies, and those newer ones that do not, with reasons.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn newest(run: &Path) -> Result<(Option<Self>, Vec<Error>)> {
        let mut damaged = Vec::new();
        for path in list(run)?.into_iter().rev() {
            match Self::open(&path) {
                Ok(checkpoint) => return Ok((Some(checkpoint), damaged)),
                Err(e) => damaged.push(e),
            }
        }
        Ok((None, damaged))
    }
}

/// Writes a checkpoint of `run` and removes all but the `keep` newest. The folder is complete under its name or not there.
///
/// # Errors
/// The disk is full or not writable; older checkpoints are as they were.
pub fn save(
    run: &Path,
    mut state: State,
    model: &[(String, Tensor)],
    optimizer: &[(String, Tensor)],
    keep: usize,
) -> Result<PathBuf> {
    let folder = run.join("checkpoints");
    fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    let name = format!("step-{:08}", state.step);
    let (path, beside) = (folder.join(&name), folder.join(format!(".{name}.partial")));
    remove(&beside)?;
    let written = (|| {
        fs::create_dir(&beside).map_err(Error::io(&beside))?;
        for (file, tensors) in [(MODEL, model), (OPTIMIZER, optimizer)] {
            let file_path = beside.join(file);
            write_safetensors(&file_path, tensors, &BTreeMap::new())?;
            state.sha256.insert(file.to_owned(), sha256(&file_path).map_err(Error::io(&file_path))?);
        }
        let sum = state.sum().map_err(|e| Error::io(&beside)(e.into()))?;
        state.sha256.insert(STATE.to_owned(), sum);
        let json = serde_json::to_vec_pretty(&state).map_err(|e| Error::io(&beside)(e.into()))?;
        write_atomic(beside.join(STATE), &json)?;
        // One of the same step is replaced.
        remove(&path)?;
        fs::rename(&beside, &path).map_err(Error::io(&path))?;
        softclip_io::sync_folder(&folder).map_err(Error::io(&folder))
    })();
    if written.is_err() {
        let _ = remove(&beside);
    }
    written?;
    let all = list(run)?;
    for old in all.iter().take(all.len().saturating_sub(keep.max(1))) {
        remove(old)?;
    }
    Ok(path)
}

/// Makes room for a run that goes on after `step`: checkpoints of later steps, damaged or of a way that it leaves, are renamed to
/// `superseded-…`, so that they are neither taken for its newest nor counted; what a killed process left half written is removed.
/// Returns the new names.
///
/// # Errors
/// The folder is not writable.
pub fn tidy(run: &Path, step: u64) -> Result<Vec<PathBuf>> {
    let mut moved = Vec::new();
    for path in list(run)?.into_iter().filter(|path| step_of(path).is_some_and(|other| other > step)) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let aside = path.with_file_name(format!("superseded-{name}"));
        remove(&aside)?;
        fs::rename(&path, &aside).map_err(Error::io(&path))?;
        moved.push(aside);
    }
    remove_partials(run)?;
    Ok(moved)
}

/// Removes the checkpoints that killed processes left half-written. The caller must be the only process that writes to `run`.
///
/// # Errors
/// The folder is not writable.
pub fn remove_partials(run: &Path) -> Result<()> {
    let folder = run.join("checkpoints");
    let entries = match fs::read_dir(&folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io(&folder))?,
    };
    for entry in entries {
        let path = entry.map_err(Error::io(&folder))?.path();
        if path.extension().is_some_and(|extension| extension == "partial") {
            remove(&path)?;
        }
    }
    Ok(())
}

fn step_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()
}

/// Folders of a run's checkpoints, oldest first.
///
/// # Errors
/// The folder cannot be listed.
pub fn list(run: &Path) -> Result<Vec<PathBuf>> {
    let folder = run.join("checkpoints");
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::Io { path: folder, source: e }),
    };
    let mut steps = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io(&folder))?.path();
        steps.extend(step_of(&path).map(|step| (step, path)));
    }
    steps.sort();
    Ok(steps.into_iter().map(|(_, path)| path).collect())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::Io { path: path.to_owned(), source: e }),
        _ => Ok(()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
