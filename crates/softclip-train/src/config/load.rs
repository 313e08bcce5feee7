//! From YAML files, with what they inherit, and the command line to a checked configuration.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_yaml::{Mapping, Value};

use super::RunConfig;

/// Why a configuration cannot be used: where, what, and what to write.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not YAML.
    #[error("{}: {why}", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Place and reason.
        why: String,
    },
    /// A key that does not exist, or a value of the wrong type.
    #[error("{place}: {key}: {why}")]
    Key {
        /// File and line, or the option of the command line.
        place: Place,
        /// `train.batch_size`.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// A value that makes no sense.
    #[error("{key}: {why}")]
    Value {
        /// `train.batch_size`.
        key: String,
        /// What is wrong and what to write.
        why: String,
    },
    /// `--set` without `=`, or through something that is no section.
    #[error("--set {text}: {why}")]
    Set {
        /// As typed.
        text: String,
        /// What is wrong.
        why: String,
    },
}

impl ConfigError {
    /// The error of a file that is not usable as text.
    pub(crate) fn of_text(path: &Path, error: softclip_io::TextError) -> Self {
        let path = path.to_owned();
        match error {
            softclip_io::TextError::Io(source) => Self::Io { path, source },
            other => Self::Yaml { path, why: other.to_string() },
        }
    }
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A line of a file, from 1.
    File(PathBuf, usize),
    /// `--set`, as typed.
    Set(String),
    /// In no file: a key that is missing.
    Nowhere(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(path, line) => write!(f, "{}:{line}", path.display()),
            Place::Set(text) => write!(f, "--set {text}"),
            Place::Nowhere(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A file as read, for finding lines.
struct Layer {
    path: PathBuf,
    text: String,
}

/// Reads `path`, what its `base:` names (relative to the file that names it), and applies `sets` (`key.path=value`) on top.
///
/// # Errors
/// File, line and key of what is wrong.
pub fn load(path: &Path, sets: &[String]) -> Result<RunConfig, ConfigError> {
    let mut layers = Vec::new();
    let mut value = read(path, &mut layers)?;
    // A new variant (`loss.name`) takes nothing of the old one: its own keys come after it, in whatever order they were typed.
    let names = |set: &&String| set.split('=').next().is_some_and(|key| key.ends_with(".name") || key.ends_with(".kind"));
    let (first, then): (Vec<_>, Vec<_>) = sets.iter().partition(names);
    for set in first.into_iter().chain(then) {
        apply(&mut value, set)?;
    }
    let located = |error: serde_path_to_error::Error<serde_yaml::Error>| {
        let why = error.inner().to_string();
        let mut key = error.path().to_string();
        // An unknown key is reported at the section it stands in.
        if let Some(name) = why.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next())
            && !key.ends_with(name)
        {
            key = if key == "." { name.to_owned() } else { format!("{key}.{name}") };
        }
        ConfigError::Key { place: locate(&key, sets, &layers), key, why }
    };
    let config: RunConfig = serde_path_to_error::deserialize(value).map_err(located)?;
    match config.validate() {
        Err(ConfigError::Value { key, why }) => Err(match locate(&key, sets, &layers) {
            Place::Nowhere(_) => ConfigError::Value { key, why },
            place => ConfigError::Key { place, key, why },
        }),
        Err(other) => Err(other),
        Ok(()) => Ok(config),
    }
}

/// The file's content merged over its base's. `layers` grows from the file to its last base.
fn read(path: &Path, layers: &mut Vec<Layer>) -> Result<Value, ConfigError> {
    let yaml = |why: String| ConfigError::Yaml { path: path.to_owned(), why };
    let text = softclip_io::read_text(path).map_err(|e| ConfigError::of_text(path, e))?;
    let mut value: Value = softclip_io::parse_yaml(&text).map_err(|e| yaml(e.to_string()))?;
    layers.push(Layer { path: path.to_owned(), text });
    if layers.len() > 10 {
        return Err(yaml("more than ten files by `base`: does one name itself?".to_owned()));
    }
    let Some(map) = value.as_mapping_mut() else {
        return Err(yaml("expected keys with values, such as `train: {epochs: 8}`".to_owned()));
    };
    match map.remove("base") {
        None => Ok(value),
        Some(Value::String(base)) => {
            let mut below = read(&path.with_file_name("").join(base), layers)?;
            merge(&mut below, value);
            Ok(below)
        }
        Some(_) => Err(yaml("`base` must name a file".to_owned())),
    }
}

/// Maps merge key by key, everything else is replaced. A map that names another variant (`loss.name`, `model.image.kind`) replaces
/// the one below: its keys would belong to nothing.
pub(crate) fn merge(below: &mut Value, above: Value) {
    match (below, above) {
        (Value::Mapping(below), Value::Mapping(above)) => {
            let differs = |tag: &str| above.get(tag).is_some_and(|tag_above| below.get(tag).is_some_and(|b| b != tag_above));
            if differs("name") || differs("kind") {
                *below = above;
                return;
            }
            for (key, value) in above {
                match below.get_mut(&key) {
                    Some(slot) => merge(slot, value),
                    None => {
                        below.insert(key, value);
                    }
                }
            }
        }
        (below, above) => *below = above,
    }
}

fn apply(value: &mut Value, set: &str) -> Result<(), ConfigError> {
    let wrong = |why: String| ConfigError::Set { text: set.to_owned(), why };
    let (key, text) = set.split_once('=').ok_or_else(|| wrong("write KEY=VALUE, for example train.lr=1e-3".to_owned()))?;
    // Patterns of files (`*.tar`, `{0..3}.tar`) look like YAML and are none.
    let mut above: Value = softclip_io::parse_yaml(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    for part in key.split('.').rev() {
        if part.is_empty() {
            return Err(wrong("the key has an empty part".to_owned()));
        }
        let mut map = Mapping::new();
        map.insert(part.into(), above);
        above = Value::Mapping(map);
    }
    merge(value, above);
    Ok(())
}

/// The place that gave `key` its value: the command line, then files from the most specific on. A missing key's place is its section.
fn locate(key: &str, sets: &[String], layers: &[Layer]) -> Place {
    let given = |set: &&String| {
        let set_key = set.split('=').next().unwrap_or_default();
        set_key == key || key.strip_prefix(set_key).is_some_and(|rest| rest.starts_with('.'))
    };
    if let Some(set) = sets.iter().rev().find(given) {
        return Place::Set(set.clone());
    }
    // A list's items have numbers for keys.
    let parts: Vec<&str> = key.split(['.', '[', ']']).filter(|part| !part.is_empty() && part.parse::<usize>().is_err()).collect();
    let found = layers.iter().find_map(|layer| Some(Place::File(layer.path.clone(), line(&layer.text, &parts)?)));
    found.unwrap_or_else(|| Place::Nowhere(layers.first().map(|layer| layer.path.clone()).unwrap_or_default()))
}

/// The line on which the last of `parts` stands, each searched below the one before.
fn line(text: &str, parts: &[&str]) -> Option<usize> {
    let lines: Vec<&str> = text.lines().map(|line| line.split(" #").next().unwrap_or_default()).collect();
    let mut at = 0;
    let mut column = 0;
    for part in parts {
        let has = |line: &str, from: usize| -> Option<usize> {
            let rest = line.get(from..)?;
            let found = rest.match_indices(part).find(|(i, _)| {
                let before = rest[..*i].chars().last().is_none_or(|c| " {,-\"'".contains(c));
                before && rest[i + part.len()..].trim_start_matches(['"', '\'']).trim_start().starts_with(':')
            })?;
            Some(from + found.0 + part.len())
        };
        let first = has(lines.get(at)?, column).map(|column| (at, column));
        let (line, end) = first.or_else(|| (at + 1..lines.len()).find_map(|i| Some((i, has(lines[i], 0)?))))?;
        (at, column) = (line, end);
    }
    (!parts.is_empty()).then_some(at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "model: {image: rn50}\nloss: {name: clip}\n";

    fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn message(text: &str, sets: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), "x.yaml", text);
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        let message = load(&path, &sets).unwrap_err().to_string();
        message.replace(&format!("{}/", folder.path().display()), "")
    }

    #[test]
    fn defaults_are_the_papers() {
        let folder = tempfile::tempdir().unwrap();
        let config = load(&write(folder.path(), "x.yaml", MINIMAL), &[]).unwrap();
        assert_eq!((config.train.lr, config.train.weight_decay, config.train.warmup), (5e-4, 0.2, 0.1));
        assert_eq!((config.train.batch_size, config.train.epochs, config.tau()), (2048, 8.0, 0.07));
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let text = "model: {image: vit_b_32, regions: {dim: 112}}\nloss: {name: softclip, beta: 0.2}\ndata: {val: x.tar}\n\
                    eval: [{task: retrieval, every: 2 epochs}]\n";
        let config = load(&write(folder.path(), "x.yaml", text), &[]).unwrap();
        let printed = serde_yaml::to_string(&config).unwrap();
        assert_eq!(load(&write(folder.path(), "y.yaml", &printed), &[]).unwrap(), config);
    }

    #[test]
    fn a_file_inherits_and_the_command_line_has_the_last_word() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a.yaml", &format!("{MINIMAL}train: {{lr: 1.0e-3, batch_size: 64}}\n"));
        let path =
            write(folder.path(), "b.yaml", "base: a.yaml\nloss: {name: softclip, beta: 0.1}\nmodel: {regions: {dim: 8}}\n");
        let config = load(&path, &["train.batch_size=32".to_owned(), "data.train=x/{0..3}.tar".to_owned()]).unwrap();
        assert_eq!((config.loss.name(), config.train.lr, config.train.batch_size), ("softclip", 1e-3, 32));
        assert_eq!(config.data.train.as_deref(), Some("x/{0..3}.tar"));
        // Another loss takes nothing of the one below.
        let config = load(&path, &["loss.name=label_smoothing".to_owned()]).unwrap();
        assert_eq!(config.loss.name(), "label_smoothing");
        // Its keys may be typed before its name, and patterns need no quotes of their own.
        let a = folder.path().join("a.yaml");
        let sets = ["loss.alpha=0.1", "loss.name=label_smoothing", "data.train={00..11}.tar", "data.val=*.tar"];
        let config = load(&a, &sets.map(str::to_owned)).unwrap();
        assert_eq!(config.loss, serde_yaml::from_str("{name: label_smoothing, alpha: 0.1}").unwrap());
        assert_eq!((config.data.train.as_deref(), config.data.val.as_deref()), (Some("{00..11}.tar"), Some("*.tar")));
    }

    #[test]
    fn errors_name_file_line_and_key() {
        let unknown = message("model: {image: rn50}\nloss: {name: clip}\ntrain:\n  lr: 1.0e-3\n  batchsize: 8\n", &[]);
        assert!(unknown.starts_with("x.yaml:5: train.batchsize: unknown field `batchsize`, expected one of"), "{unknown}");
        let kind = message("model: {image: rn50}\nloss: {name: clip}\ntrain:\n  batch_size: many\n", &[]);
        assert!(kind.starts_with("x.yaml:4: train.batch_size: invalid type: string \"many\", expected"), "{kind}");
        let flow = message("model: {image: rn50, heads: 3}\nloss: {name: clip}\n", &[]);
        assert!(flow.starts_with("x.yaml:1: model.heads: unknown field"), "{flow}");
        let top = message(&format!("{MINIMAL}optimizer: {{}}\n"), &[]);
        assert!(top.starts_with("x.yaml:3: optimizer: unknown field"), "{top}");
        let missing = message("model: {image: rn50}\n", &[]);
        assert!(missing.contains("missing field `loss`"), "{missing}");
        let yaml = message("model: {image: rn50\nloss: [\n", &[]);
        assert!(yaml.starts_with("x.yaml: ") && yaml.contains("line"), "{yaml}");
        let set = message(MINIMAL, &["train.lr=fast"]);
        assert!(set.starts_with("--set train.lr=fast: train.lr: invalid type"), "{set}");
        let form = message(MINIMAL, &["train.lr"]);
        assert!(form.contains("write KEY=VALUE"), "{form}");
    }

    #[test]
    fn values_that_make_no_sense_are_refused_with_advice() {
        for (extra, words) in [
            ("train: {batch_size: 1}", "x.yaml:3: train.batch_size: 1 pairs cannot be contrasted"),
            ("train: {lr: -1}", "x.yaml:3: train.lr: -1 is not a positive number"),
            ("train: {beta2: 1.5}", "train.beta2: 1.5 is not in [0, 1)"),
            ("train: {warmup: -1}", "x.yaml:3: train.warmup: -1 is not a number from 0 on"),
            ("train: {recompute: 1}", "x.yaml:3: train.recompute: invalid type"),
            ("train: {chunk_size: 0}", "train.chunk_size: 0: at least 1"),
            ("data: {max_regions: 0}", "data.max_regions: 0: at least 1"),
            ("train: {tau: 0.005}", "train.tau: 0.005 is a scale of 200, more than train.max_logit_scale"),
            ("eval: [{task: retrieval, data: x, every: often}]", "`often` is no interval"),
        ] {
            let found = message(&format!("{MINIMAL}{extra}\n"), &[]);
            assert!(found.contains(words), "{found} / {words}");
        }
        let regions = message("model: {image: rn50}\nloss: {name: softclip}\n", &[]);
        assert!(regions.contains("give the model a region branch"), "{regions}");
        let text = "{context_length: 77, vocab_size: 1000, width: 64, heads: 2, layers: 1}";
        let tokens = message(&format!("model: {{image: rn50, text: {text}}}\nloss: {{name: clip}}\n"), &[]);
        assert!(tokens.contains("x.yaml:1: model.text.vocab_size: 1000 tokens, but CLIP's tokenizer has 49408"), "{tokens}");
        let preset = message("model: {image: rn51}\nloss: {name: clip}\n", &[]);
        assert!(preset.contains("`rn51` is not a preset"), "{preset}");
    }

    #[test]
    fn files_may_begin_with_a_mark_and_are_parsed_within_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), "x.yaml", &format!("\u{feff}{MINIMAL}"));
        assert_eq!(load(&path, &[]).unwrap(), load(&write(folder.path(), "y.yaml", MINIMAL), &[]).unwrap());
        let deep = message(&format!("model: {}", "[".repeat(100_000)), &[]);
        assert!(deep.starts_with("x.yaml: more than 256 brackets are open at line 1"), "{deep}");
        let nul = message("model: {image: rn50}\nloss: \0\n", &[]);
        assert!(nul.starts_with("x.yaml: line 2: a NUL byte"), "{nul}");
    }
}
