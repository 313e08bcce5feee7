//! A job's parts: the samples of each sidecar.

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use softclip_data::source::Source;

use crate::error::{Error, Result};

/// One sidecar to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Its file.
    pub(crate) path: PathBuf,
    /// Numbers of its samples in the source.
    pub(crate) samples: Range<usize>,
}

/// A sidecar a shard, under the shard's name; for other sources one for each `shard_size` samples.
pub(crate) fn units(source: &dyn Source, out: &Path, shard_size: usize) -> Result<Vec<Unit>> {
    let shards = source.shards();
    if shards.is_empty() {
        let firsts = (0..source.len()).step_by(shard_size.max(1));
        let unit = |(number, first): (usize, usize)| Unit {
            path: out.join(format!("{number:05}.tar")),
            samples: first..source.len().min(first + shard_size.max(1)),
        };
        return Ok(firsts.enumerate().map(unit).collect());
    }
    let mut names = HashSet::new();
    let mut units = Vec::with_capacity(shards.len());
    for shard in shards {
        let name = shard.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stem = name.strip_suffix(".gz").unwrap_or(&name);
        let stem = stem.strip_suffix(".tar").or(stem.strip_suffix(".tgz")).unwrap_or(stem);
        let path = out.join(format!("{stem}.tar"));
        // Also through links, and where one of them is a bare name.
        if path.canonicalize().is_ok_and(|sidecar| shard.path.canonicalize().is_ok_and(|shard| shard == sidecar)) {
            return Err(Error::Options(format!(
                "{}: the sidecars would replace the shards there: another folder",
                out.display()
            )));
        }
        if !names.insert(path.clone()) {
            let why = format!("two shards are called {name}, and so would their sidecars be: extract their folders one by one");
            return Err(Error::Options(why));
        }
        units.push(Unit { path, samples: shard.samples });
    }
    Ok(units)
}
