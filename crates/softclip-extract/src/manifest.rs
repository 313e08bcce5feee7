//! How a folder of sidecars came about, and which of them are whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use softclip_data::source::SidecarRecord;
use softclip_tensor::file::write_atomic;

use crate::error::{Error, Result};
use crate::job::{ExtractOptions, Origin};

/// The file that tells how a folder's sidecars were made; the same for all processes of a job.
pub const MANIFEST: &str = "manifest.json";

/// What stands beside each sidecar: that it is whole, and what is in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What the loader looks at.
    #[serde(flatten)]
    pub(crate) of: SidecarRecord,
    /// SHA-256 of the manifest.
    pub(crate) job: String,
    /// Objects of all samples.
    pub(crate) objects: usize,
    /// Samples without any.
    pub(crate) without_objects: usize,
    /// Regions with features.
    pub(crate) regions: usize,
    /// Samples that could not be used, by cause.
    pub(crate) skipped: BTreeMap<String, usize>,
    /// Each of these: key, cause, detail.
    pub(crate) skipped_samples: Vec<String>,
}

/// Everything that decides what is in the sidecars. Devices, threads and batches do not.
pub(crate) fn manifest(origin: &Origin, options: &ExtractOptions) -> Result<Value> {
    let from = match origin {
        Origin::Detector(network, thresholds) => json!({
            "detector": name(network.path()),
            "sha256": network.sha256(),
            "thresholds": thresholds,
            "classes": network.names(),
            "anchors": network.anchors(),
            "output": network.output(),
            "bgr": network.is_bgr(),
            "precision": network.precision(),
        }),
        Origin::Given(objects) => {
            let files = objects.paths().into_iter().map(|path| {
                let file = fs::metadata(path).map_err(Error::io(path))?;
                let since = file.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                let modified = since.map(|since| since.as_secs());
                Ok(json!({ "file": name(path), "bytes": file.len(), "modified": modified }))
            });
            json!({ "given": objects.describe(), "files": files.collect::<Result<Vec<Value>>>()? })
        }
    };
    let backbone =
        options.backbone.as_ref().map(|b| json!({ "sha256": b.sha256, "features": b.features(), "precision": b.precision() }));
    Ok(json!({
        "format": 1,
        "source": options.source,
        "origin": from,
        "backbone": backbone,
        "letterbox": options.letterbox,
        "decode": options.decode,
        "regions": options.regions,
        "tags": options.tags,
        "attributes": options.attributes,
        "shard_size": options.shard_size,
        "versions": { "softclip": env!("CARGO_PKG_VERSION"), "libtorch": softclip_torch::LIBTORCH },
    }))
}

/// What a file is called, wherever it lies: the same file may be found under several paths.
fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// SHA-256 of a manifest.
pub(crate) fn hash(manifest: &Value) -> String {
    Sha256::digest(manifest.to_string().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the folder's manifest, or checks that what is there already was made in the same way. A process that is `alone` may replace the
/// manifest of a job that made nothing.
pub(crate) fn settle(out: &Path, manifest: &Value, alone: bool) -> Result<()> {
    let path = out.join(MANIFEST);
    let write = || {
        let text = serde_json::to_vec_pretty(manifest).map_err(|e| Error::format(&path, e.to_string()))?;
        Ok(write_atomic(&path, &text)?)
    };
    let has = |end: &str| -> Result<bool> {
        let names = fs::read_dir(out).map_err(Error::io(out))?.map(|entry| entry.map(|entry| entry.file_name()));
        let names: Vec<_> = names.collect::<std::io::Result<_>>().map_err(Error::io(out))?;
        Ok(names.iter().any(|name| name.to_string_lossy().ends_with(end)))
    };
    let old = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return match has(".tar")? {
                true => {
                    Err(Error::Options(format!("{}: there are tars that are no sidecars: give another folder", out.display())))
                }
                false => write(),
            };
        }
        Err(e) => return Err(Error::io(&path)(e)),
    };
    let old: Value = serde_json::from_slice(&old).map_err(|e| Error::format(&path, format!("not a manifest: {e}")))?;
    match difference("", &old, manifest) {
        None => Ok(()),
        Some(_) if alone && !has(".sidecar.json")? => write(),
        Some(what) => {
            let why = format!("its sidecars were made in another way ({what}): give another folder, or remove this one");
            Err(Error::format(&path, why))
        }
    }
}

/// The first value that differs.
fn difference(key: &str, old: &Value, new: &Value) -> Option<String> {
    if old == new {
        return None;
    }
    if let (Value::Object(a), Value::Object(b)) = (old, new) {
        let names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
        let null = Value::Null;
        let under = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
        return names
            .into_iter()
            .find_map(|name| difference(&under(name), a.get(name).unwrap_or(&null), b.get(name).unwrap_or(&null)));
    }
    let short = |value: &Value| match value.to_string() {
        text if text.chars().count() > 60 => format!("{}…", text.chars().take(60).collect::<String>()),
        text => text,
    };
    Some(format!("{key} was {} and is {} now", short(old), short(new)))
}

/// The record of a sidecar that is whole; none of one that is missing, cut short, or of other samples.
pub(crate) fn finished(sidecar: &Path, job: &str, fingerprint: &str) -> Option<Record> {
    let text = fs::read(SidecarRecord::path(sidecar)).ok()?;
    let record: Record = serde_json::from_slice(&text).ok()?;
    let whole = fs::metadata(sidecar).is_ok_and(|file| file.len() == record.of.bytes);
    (whole && record.job == job && record.of.fingerprint == fingerprint).then_some(record)
}
