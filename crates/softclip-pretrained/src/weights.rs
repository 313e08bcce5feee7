//! Reading weights, and refusing what is none.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde_json::Value;
use softclip_tensor::file::read_safetensors;
use tch::Tensor;

use crate::error::{Error, Result, file, io};
use crate::locate::{ModelFiles, is_plain};

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

/// Refuses what is known not to be safetensors by its first bytes, whatever its name is.
pub(crate) fn check_start(path: &Path) -> Result<()> {
    let mut start = Vec::new();
    File::open(path).and_then(|f| f.take(32).read_to_end(&mut start)).map_err(io(path))?;
    // Eight bytes of length, then JSON. The length may look like anything, hence first.
    if start.get(8) == Some(&b'{') && !is_pickle_name(&path.to_string_lossy()) {
        return Ok(());
    }
    if start.starts_with(b"version https://git-lfs") {
        return Err(file(path, "is only Git LFS' pointer to the weights: run `git lfs pull` in its folder"));
    }
    let pickled = matches!(start[..], [0x80, 2..=5, ..]) || start.starts_with(b"PK\x03\x04");
    if pickled || is_pickle_name(&path.to_string_lossy()) {
        return Err(pickle(path));
    }
    Err(file(path, "is no safetensors file"))
}

/// Whether a file's name is that of a pickle.
pub(crate) fn is_pickle_name(name: &str) -> bool {
    [".bin", ".pt", ".pth", ".ckpt", ".pkl"].iter().any(|e| name.ends_with(e))
}

/// The refusal of the pickle at `path`.
pub(crate) fn pickle(path: &Path) -> Error {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let out = path.with_file_name(Pickled::converted(&name));
    let load = if is_torchscript(path) { Pickled::Script } else { Pickled::Plain };
    let command = load.command("sys.argv[1]", "sys.argv[2]", "", &[&path.to_string_lossy(), &out.to_string_lossy()]);
    Error::Pickle { what: path.display().to_string(), command }
}

/// The refusal of `pickle` in the repository `id` of a hub.
pub(crate) fn pickle_on_hub(id: &str, revision: &str, pickle: &str) -> Error {
    let folder = id.rsplit('/').next().unwrap_or(id);
    let fetch = "from huggingface_hub import snapshot_download as d; i, r, f, o, n = sys.argv[1:]; \
                 d(i, revision=r, local_dir=o, allow_patterns=['*.json', '*.txt', f]); ";
    let args = [id, revision, pickle, folder, &Pickled::converted(pickle)];
    let command = Pickled::Plain.command("o + '/' + f", "o + '/' + n", fetch, &args);
    Error::Pickle { what: format!("{pickle} of `{id}`"), command: format!("{command}\n\nand give the folder `{folder}` then.") }
}

/// How Python reads a pickle.
#[derive(Clone, Copy)]
pub(crate) enum Pickled {
    /// A dictionary of tensors, or a checkpoint with one named `state_dict`.
    Plain,
    /// An archive of TorchScript, as OpenAI published CLIP.
    Script,
}

impl Pickled {
    /// The pickle that most likely holds the weights.
    pub(crate) fn best(names: &BTreeSet<String>) -> Option<&str> {
        let known = ["pytorch_model.bin", "open_clip_pytorch_model.bin"];
        let other = || names.iter().map(String::as_str).find(|n| is_pickle_name(n));
        known.into_iter().find(|k| names.contains(*k)).or_else(other)
    }

    fn converted(pickle: &str) -> String {
        match pickle {
            "pytorch_model.bin" => "model.safetensors".into(),
            "open_clip_pytorch_model.bin" => "open_clip_model.safetensors".into(),
            // A misnamed one: the command must not write what it reads.
            other if other.ends_with(".safetensors") => format!("converted-{other}"),
            other => Path::new(other).with_extension("safetensors").to_string_lossy().into_owned(),
        }
    }

    /// One line for a shell; `from` and `to` are Python expressions over `args`.
    fn command(self, from: &str, to: &str, prepare: &str, args: &[&str]) -> String {
        let load = match self {
            Self::Plain => {
                format!("w = torch.load({from}, map_location='cpu', weights_only=True); w = w.get('state_dict', w)")
            }
            // With the three sizes that OpenAI's files carry, by which they are known: their towers have QuickGELU.
            Self::Script => format!("w = torch.jit.load({from}, map_location='cpu').state_dict()"),
        };
        let quoted: Vec<String> = args.iter().map(|a| format!("'{}'", a.replace('\'', r"'\''"))).collect();
        format!(
            "python -c \"import sys, torch, safetensors.torch as s; {prepare}{load}; \
             s.save_file({{k.removeprefix('module.'): v.contiguous().clone() for k, v in w.items() if hasattr(v, 'shape')}}, {to}, {{'format': 'pt'}})\" {}",
            quoted.join(" ")
        )
    }
}

/// Whether a zip holds TorchScript. Its list of files is at its end.
fn is_torchscript(path: &Path) -> bool {
    let tail = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(1 << 20)))?;
        let mut tail = Vec::new();
        file.take(1 << 20).read_to_end(&mut tail)?;
        Ok(tail)
    };
    tail().is_ok_and(|t| t.windows(13).any(|w| w == b"constants.pkl"))
}
