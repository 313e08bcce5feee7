//! Sidecars: tars of the same keys that hold what was found in the images.
//!
//! Extraction writes a record `NAME.sidecar.json` beside each sidecar `NAME.tar`: which samples it was made from. Keys alone say little (all
//! of img2dataset's folders have the same), so that the record has a fingerprint of keys and image sizes.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use softclip_io::{TextError, read_text};

use super::members::{Index, Part, samples};
use super::tarball::{Span, Tarball};
use super::{Source, SourceError, SourceFault};

/// What a record must say; extraction adds more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SidecarRecord {
    /// Samples that it was made from, those among them that could not be used.
    pub samples: usize,
    /// [`fingerprint`] of these.
    pub fingerprint: String,
    /// Bytes of the sidecar.
    pub bytes: u64,
}

impl SidecarRecord {
    /// The record's place beside a sidecar.
    pub fn path(sidecar: &Path) -> PathBuf {
        sidecar.with_extension("sidecar.json")
    }
}

/// SHA-256 of the stems and image sizes of some samples of a source, in their order.
pub fn fingerprint(source: &dyn Source, range: std::ops::Range<usize>) -> String {
    of(range.map(|i| (member_name(&source.stem(i)), source.image_len(i))))
}

fn of(samples: impl Iterator<Item = (String, Option<u64>)>) -> String {
    let mut hash = Sha256::new();
    for (stem, length) in samples {
        hash.update(stem.as_bytes());
        hash.update([0]);
        hash.update(length.unwrap_or(0).to_le_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a sample's members are called in a sidecar, before their first dot. A key ends at a dot, so that dots in its last part are written
/// `%2E`; so are the parts `.` and `..`, and an empty one is `%2F`: paths in tars are relative and have none of these.
///
/// ```
/// use softclip_data::source::member_name;
/// assert_eq!(member_name("v1.5/a.b"), "v1.5/a%2Eb");
/// assert_eq!(member_name("/data/../a"), "%2F/data/%2E%2E/a");
/// ```
pub fn member_name(stem: &str) -> String {
    let last = stem.rfind('/').map_or(0, |i| i + 1);
    let mut at = 0;
    let parts = stem.split('/').map(|part| {
        let is_last = at == last;
        at += part.len() + 1;
        match part {
            "" => "%2F".to_owned(),
            part if is_last || part == "." || part == ".." => part.replace('.', "%2E"),
            part => part.to_owned(),
        }
    });
    parts.collect::<Vec<_>>().join("/")
}

/// A sidecar that fits its samples: its index has an entry for each of them, empty where nothing is known.
pub(super) struct Sidecar {
    pub(super) tarball: Tarball,
    pub(super) index: Index,
}

/// One sample that a sidecar is for.
pub(super) struct Wanted {
    pub(super) stem: String,
    pub(super) image_len: Option<u64>,
    /// Whether it is served; a sidecar may have entries for what is not.
    pub(super) served: bool,
}

impl Sidecar {
    /// The member of a sample, from 0.
    pub(super) fn member(&self, i: usize, part: Part) -> Option<Span> {
        self.index.member(i, part)
    }

    /// Opens the sidecar of `shard`, whose samples are `wanted`.
    pub(super) fn open(
        path: &Path,
        shard: &Path,
        wanted: &[Wanted],
        name: &str,
    ) -> Result<(Self, Vec<SourceFault>), SourceError> {
        let mismatch = |reason| SourceError::Sidecar { shard: shard.to_owned(), sidecar: path.to_owned(), reason };
        let recorded = match record(path)? {
            Some(record) => {
                let served = || wanted.iter().filter(|sample| sample.served);
                let found = of(served().map(|sample| (member_name(&sample.stem), sample.image_len)));
                if record.fingerprint != found {
                    let n = served().count();
                    let same = if n == record.samples { ", as many, but other images" } else { "" };
                    let reason =
                        format!("its record tells of {} samples, the shard has {n}{same}; extract it anew", record.samples);
                    return Err(mismatch(reason));
                }
                let bytes = std::fs::metadata(path).map_err(|e| SourceError::io(path, e, "check the path"))?.len();
                if bytes != record.bytes {
                    return Err(mismatch(format!("it has {bytes} bytes, its record tells of {}: copy it again", record.bytes)));
                }
                true
            }
            None => false,
        };
        let (tarball, found, faults) = samples(path, true, name)?;
        if !recorded && found.len() < wanted.len() {
            return Err(mismatch(format!("{} keys against {}", wanted.len(), found.len())));
        }
        let mut index = Index::default();
        let mut next = 0;
        for (i, sample) in wanted.iter().enumerate() {
            let here = next < found.len() && found.stem(next) == member_name(&sample.stem);
            if sample.served {
                if !here && !recorded {
                    let other = if next < found.len() { found.stem(next) } else { "" };
                    return Err(mismatch(format!("sample {i} is '{}' in one and '{other}' in the other", sample.stem)));
                }
                index.push(&sample.stem, if here { found.members(next) } else { &[] });
            }
            next += usize::from(here);
        }
        match next < found.len() {
            true => Err(mismatch(format!("'{}' of the sidecar is not in the shard, or not at its place", found.stem(next)))),
            false => Ok((Sidecar { tarball, index }, faults)),
        }
    }
}

/// What extraction wrote beside a sidecar; none beside those of other programs.
pub(super) fn record(sidecar: &Path) -> Result<Option<SidecarRecord>, SourceError> {
    let path = SidecarRecord::path(sidecar);
    match read_text(&path) {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|e| SourceError::json(&path, &e)),
        Err(TextError::Io(e)) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(SourceError::text(&path, e, "check its permissions")),
    }
}
