//! Python pickles: how they are known, and the commands that convert them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Keys under which checkpoints hold their weights.
const HOLDERS: [&str; 7] = ["state_dict", "model_state_dict", "model", "module", "network", "net", "weights"];
/// Bytes of a pickle's beginning that are looked at.
const START: u64 = 1 << 20;

/// Whether a file's name is that of a pickle.
pub(crate) fn is_pickle_name(name: &str) -> bool {
    [".bin", ".pt", ".pth", ".ckpt", ".pkl"].iter().any(|e| name.ends_with(e))
}

/// The pickles that most likely hold the weights: one, or the shards of one model.
pub(crate) fn best(names: &BTreeSet<String>) -> Vec<&str> {
    let known = ["pytorch_model.bin", "open_clip_pytorch_model.bin"];
    if let Some(name) = known.into_iter().find(|k| names.contains(*k)) {
        return vec![name];
    }
    let all = || names.iter().map(String::as_str).filter(|n| is_pickle_name(n));
    let shards: Vec<&str> = all().filter(|n| n.contains("-of-")).collect();
    if shards.is_empty() { all().take(1).collect() } else { shards }
}

/// The refusal of the pickles at `paths`, of which there is at least one.
pub(crate) fn refuse(paths: &[PathBuf]) -> Error {
    let first = paths.first().map(PathBuf::as_path).unwrap_or(Path::new(""));
    let name = first.file_name().unwrap_or_default().to_string_lossy();
    let out = first.with_file_name(converted(&name));
    let load = if is_torchscript(first) { Load::Script } else { Load::of(paths.len()) };
    let start = beginning(first);
    let prepare = if contains(&start, b"argparse") {
        "import argparse; torch.serialization.add_safe_globals([argparse.Namespace]); "
    } else {
        ""
    };
    let mut args: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    args.push(out.display().to_string());
    let holder = HOLDERS.iter().find(|key| holds(&start, key));
    let held = holder.map(|key| format!(" with its weights under `{key}`")).unwrap_or_default();
    Error::Pickle {
        what: first.display().to_string(),
        held,
        command: load.command("sys.argv[1]", "sys.argv[-1]", prepare, &args),
    }
}

/// The refusal of `pickles` in the repository `id` of a hub.
pub(crate) fn refuse_on_hub(id: &str, revision: &str, pickles: &[&str]) -> Error {
    let first = pickles.first().copied().unwrap_or_default();
    let folder = id.rsplit('/').next().unwrap_or(id);
    let fetch = "from huggingface_hub import snapshot_download as d; i, r, f, o, n = sys.argv[1:]; \
                 d(i, revision=r, local_dir=o, allow_patterns=['*.json', '*.txt', f]); ";
    let command = match pickles {
        [_] => {
            let args = [id, revision, first, folder, &converted(first)].map(str::to_owned);
            Load::One.command("o + '/' + f", "o + '/' + n", fetch, &args)
        }
        _ => {
            let fetch = "import glob; from huggingface_hub import snapshot_download as d; i, r, o, n = sys.argv[1:]; \
                         d(i, revision=r, local_dir=o, allow_patterns=['*.json', '*.txt', '*.bin']); \
                         sys.argv = ['', *glob.glob(o + '/*-of-*.bin'), '']; ";
            let args = [id, revision, folder, "model.safetensors"].map(str::to_owned);
            Load::Shards.command("", "o + '/' + n", fetch, &args)
        }
    };
    let command = format!("{command}\n\nand give the folder `{folder}` then.");
    Error::Pickle { what: format!("{first} of `{id}`"), held: String::new(), command }
}

/// The name of what a pickle is converted to.
fn converted(pickle: &str) -> String {
    match pickle {
        "pytorch_model.bin" => "model.safetensors".into(),
        "open_clip_pytorch_model.bin" => "open_clip_model.safetensors".into(),
        shard if shard.contains("-of-") => "model.safetensors".into(),
        // A misnamed one: the command must not write what it reads.
        other if other.ends_with(".safetensors") => format!("converted-{other}"),
        other => Path::new(other).with_extension("safetensors").to_string_lossy().into_owned(),
    }
}

/// How Python reads pickles.
#[derive(Clone, Copy)]
enum Load {
    /// A dictionary of tensors, or a checkpoint with one.
    One,
    /// Several dictionaries that make one.
    Shards,
    /// An archive of TorchScript, as OpenAI published CLIP.
    Script,
}

impl Load {
    fn of(count: usize) -> Self {
        if count > 1 { Self::Shards } else { Self::One }
    }

    /// One line for a shell; `from` and `to` are Python expressions.
    fn command(self, from: &str, to: &str, prepare: &str, args: &[String]) -> String {
        let descend = format!("[w := w[k] for k in {HOLDERS:?} * 2 if isinstance(w.get(k), dict)]").replace('"', "'");
        let load = match self {
            Self::One => format!("w = torch.load({from}, map_location='cpu', weights_only=True); {descend}"),
            Self::Shards => {
                "w = {}; [w.update(torch.load(p, map_location='cpu', weights_only=True)) for p in sys.argv[1:-1]]".to_owned()
            }
            // With the three sizes that OpenAI's files carry, by which they are known: their towers have QuickGELU.
            Self::Script => format!("w = torch.jit.load({from}, map_location='cpu').state_dict()"),
        };
        let quoted: Vec<String> = args.iter().map(|a| format!("'{}'", a.replace('\'', r"'\''"))).collect();
        format!(
            "python -c \"import sys, torch, safetensors.torch as s; {prepare}{load}; \
             s.save_file({{k: v.contiguous().clone() for k, v in w.items() if hasattr(v, 'shape')}}, {to}, {{'format': 'pt'}})\" {}",
            quoted.join(" ")
        )
    }
}

/// The beginning of a pickle, also of one in a zip, where its file `data.pkl` comes first.
fn beginning(path: &Path) -> Vec<u8> {
    let mut start = Vec::new();
    // A file that cannot be read has no hints in it; the refusal is the same.
    let _ = File::open(path).and_then(|file| file.take(START).read_to_end(&mut start));
    start
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Whether a pickle has a dictionary under the key `key`: the string, its place in the memo, then a dictionary's beginning.
fn holds(pickle: &[u8], key: &str) -> bool {
    let long = [b"X".as_slice(), &(key.len() as u32).to_le_bytes(), key.as_bytes()].concat();
    let short = [[0x8c, key.len() as u8].as_slice(), key.as_bytes()].concat();
    [long, short].iter().any(|string| {
        let mut ends = pickle.windows(string.len()).enumerate().filter(|(_, w)| w == string).map(|(at, _)| at + string.len());
        ends.any(|end| {
            let rest = &pickle[end..];
            let rest = match rest {
                [b'q', _, rest @ ..] | [b'r', _, _, _, _, rest @ ..] | [0x94, rest @ ..] => rest,
                rest => rest,
            };
            rest.starts_with(b"}") || rest.starts_with(b"ccollections\n") || rest.starts_with(b"\x8c\x0bcollections")
        })
    })
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
    tail().is_ok_and(|t| contains(&t, b"constants.pkl"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_that_holds_the_weights_is_found() {
        // As `torch.save({"epoch": 1, KEY: OrderedDict()})` begins.
        for (key, dict) in [("model", "ccollections\nOrderedDict\n"), ("state_dict", "}q\x03"), ("model_state_dict", "}")] {
            let mut bytes = b"\x80\x02}q\x00(X\x05\x00\x00\x00epochq\x01K\x01X".to_vec();
            bytes.extend((key.len() as u32).to_le_bytes());
            bytes.extend(format!("{key}q\x02{dict}").into_bytes());
            assert_eq!(HOLDERS.into_iter().filter(|holder| holds(&bytes, holder)).collect::<Vec<_>>(), [key]);
        }
        // A key with another value.
        assert!(!holds(b"\x80\x02}q\x00(X\x05\x00\x00\x00modelq\x01K\x01", "model"));
    }

    #[test]
    fn shards_are_converted_together() {
        let names = ["a.json", "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "training_args.bin"];
        let names: BTreeSet<String> = names.into_iter().map(str::to_owned).collect();
        assert_eq!(best(&names), ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]);
        let message = refuse(&best(&names).iter().map(PathBuf::from).collect::<Vec<_>>()).to_string();
        assert!(message.contains("'pytorch_model-00001-of-00002.bin' 'pytorch_model-00002-of-00002.bin' 'model.safetensors'"));
    }
}
