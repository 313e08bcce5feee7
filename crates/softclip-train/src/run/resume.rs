//! Whether a folder may be trained in, and where it goes on.

use std::fs::File;
use std::path::Path;

use super::{Resume, RunOptions};
use crate::checkpoint::{self, Checkpoint, State};
use crate::{Error, Result};

/// A lock on a run's folder, so that two processes do not write into one.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub(super) fn take(run: &Path) -> Result<Self> {
        let path = run.join(".lock");
        let file = File::create(&path).map_err(Error::io(&path))?;
        if softclip_io::try_lock(&file, &path).map_err(Error::io(&path))?.is_free() {
            // Killed processes left them: nobody else writes here now.
            checkpoint::remove_partials(run)?;
            ["", "results", "report"].iter().for_each(|part| softclip_io::remove_stale_files(&run.join(part), |_| true));
            return Ok(Self { _file: file });
        }
        let why = "another process trains in this folder: wait for it, or give another --run-dir".to_owned();
        Err(Error::Run { path: run.to_owned(), why })
    }
}

/// The checkpoint to go on from.
pub(super) fn find(options: &RunOptions) -> Result<Option<Checkpoint>> {
    match &options.resume {
        Resume::From(path) => Checkpoint::open(path).map(Some),
        Resume::Auto => {
            let (found, damaged) = Checkpoint::newest(&options.dir)?;
            damaged.iter().for_each(|e| tracing::warn!("{e}; it is passed over"));
            match (&found, damaged.into_iter().next()) {
                // Starting anew would look like success and cost the run.
                (None, Some(first)) => Err(first),
                _ => Ok(found),
            }
        }
        Resume::Never if checkpoint::list(&options.dir)?.is_empty() => Ok(None),
        Resume::Never => {
            let why = "has checkpoints: give another --run-dir, remove the folder, or let it go on with --resume auto".to_owned();
            Err(Error::Run { path: options.dir.clone(), why })
        }
    }
}

/// Whether the same batches follow.
pub(super) fn fits(checkpoint: &Checkpoint, fresh: &State) -> Result<()> {
    let state = &checkpoint.state;
    let differs = [
        ("train.batch_size", state.batch_size as u64, fresh.batch_size as u64),
        ("train.seed", state.seed, fresh.seed),
        ("the number of training samples", state.samples as u64, fresh.samples as u64),
    ];
    match differs.into_iter().find(|(_, then, now)| then != now) {
        None => Ok(()),
        Some((what, then, now)) => {
            let why = format!(
                "{what} was {then} and is {now} now, so that its order of batches cannot go on: start in another --run-dir, \
                 with model.init={} to begin from these weights",
                checkpoint.path.join(checkpoint::MODEL).display()
            );
            Err(Error::Checkpoint { path: checkpoint.path.clone(), why })
        }
    }
}
