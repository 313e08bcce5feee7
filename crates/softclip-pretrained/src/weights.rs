//! Reading weights, and refusing what is none.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use serde_json::Value;
use softclip_tensor::file::read_safetensors;
use tch::Tensor;

use crate::error::{Result, file, io};
use crate::locate::{ModelFiles, is_plain};
use crate::pickle;

/// All tensors of a model by name, on the CPU, in the kind in which they are stored.
///
/// # Errors
/// A file is no whole safetensors file; a tensor is in two files, or not in the one that the index names.
pub fn read_weights(files: &ModelFiles) -> Result<BTreeMap<String, Tensor>> {
    let mut all = BTreeMap::new();
    let mut found_in: BTreeMap<String, &Path> = BTreeMap::new();
    for path in &files.weights {
        check_start(path)?;
        for (name, tensor) in read_safetensors(path)? {
            if let Some(other) = found_in.insert(name.clone(), path) {
                return Err(file(path, format!("`{name}` is in {} too", other.display())));
            }
            all.insert(name, tensor);
        }
    }
    if let Some(index) = &files.index {
        for (name, shard) in read_index(index)? {
            let expected = files.root.join(&shard);
            if found_in.get(&name) != Some(&expected.as_path()) {
                return Err(file(&expected, format!("lacks `{name}`, which {} says it has", index.display())));
            }
        }
    }
    Ok(all)
}

/// The file that each tensor is in, as an index (`model.safetensors.index.json`) tells.
pub(crate) fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(path).map_err(io(path))?;
    let json: Value = serde_json::from_str(&text).map_err(|e| file(path, format!("is no JSON ({e})")))?;
    let Some(map) = json["weight_map"].as_object().filter(|m| !m.is_empty()) else {
        return Err(file(path, "has no `weight_map`"));
    };
    let shard = |(name, shard): (&String, &Value)| match shard.as_str() {
        Some(shard) if is_plain(shard) && shard.ends_with(".safetensors") => Ok((name.clone(), shard.to_owned())),
        _ => Err(file(path, format!("`{name}` is said to be in {shard}, which is no safetensors file in the same folder"))),
    };
    map.iter().map(shard).collect()
}

/// Whether a file is safetensors by its contents: eight bytes with the length of a JSON object, then that object.
pub(crate) fn is_safetensors(path: &Path) -> bool {
    let start = || -> std::io::Result<bool> {
        let mut file = File::open(path)?;
        let mut start = [0; 9];
        file.read_exact(&mut start)?;
        let [length @ .., brace] = start;
        let fits = u64::from_le_bytes(length) <= file.metadata()?.len().saturating_sub(8);
        Ok(brace == b'{' && fits)
    };
    start().unwrap_or(false)
}

/// Refuses what is known not to be safetensors by its first bytes, whatever its name is.
pub(crate) fn check_start(path: &Path) -> Result<()> {
    if is_safetensors(path) {
        return Ok(());
    }
    let mut start = Vec::new();
    File::open(path).and_then(|f| f.take(32).read_to_end(&mut start)).map_err(io(path))?;
    // A length beyond the file's end: it was cut. Its reader says how.
    if start.get(8) == Some(&b'{') && !pickle::is_pickle_name(&path.to_string_lossy()) {
        return Ok(());
    }
    if start.starts_with(b"version https://git-lfs") {
        return Err(file(path, "is only Git LFS' pointer to the weights: run `git lfs pull` in its folder"));
    }
    let pickled = matches!(start[..], [0x80, 2..=5, ..]) || start.starts_with(b"PK\x03\x04");
    if pickled || pickle::is_pickle_name(&path.to_string_lossy()) {
        return Err(pickle::refuse(&[path.to_owned()]));
    }
    Err(file(path, "is no safetensors file"))
}
