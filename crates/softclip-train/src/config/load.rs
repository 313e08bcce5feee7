//! From YAML files, with what they inherit, and the command line to a checked configuration.

use std::path::{Path, PathBuf};

use serde_yaml::{Mapping, Value};

use super::error::{ConfigError, Place};
use super::keys::with_suggestion;
use super::{RunConfig, locate};

/// A file as read, for finding lines.
pub(super) struct Layer {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// Reads `path`, what its `base:` names (relative to the file that names it), and applies `sets` (`key.path=value`) on top.
///
/// # Errors
/// File, line and key of a fault, or the `--set` that causes it.
pub fn load(path: &Path, sets: &[String]) -> Result<RunConfig, ConfigError> {
    let mut layers = Vec::new();
    let below = read(path, None, &mut layers)?;
    let sets: Vec<&String> = sets.iter().collect();
    let wrong = match build(&below, &sets) {
        Err(ConfigError::Value { key, why }) => (key, why),
        result => return result,
    };
    let without = |i: usize| build(&below, &[&sets[..i], &sets[i + 1..]].concat());
    let differs = |i: &usize| !matches!(without(*i), Err(ConfigError::Value { key, why }) if key == wrong.0 && why == wrong.1);
    let fixes = |i: &usize| without(*i).is_ok();
    let place_of = |i: usize| Place::Set(sets[i].clone());
    // What a `--set` brings about may show at another key than its own: without it there is no such error. Where there is another one,
    // the `--set` may only have uncovered what the file says.
    let place = locate::set(&wrong.0, &sets)
        .or_else(|| (0..sets.len()).rev().find(fixes).map(place_of))
        .or_else(|| Some(locate::in_files(&wrong.0, &layers)).filter(|place| matches!(place, Place::File(..))))
        .or_else(|| (0..sets.len()).rev().find(differs).map(place_of))
        .unwrap_or_else(|| Place::Nowhere(path.to_owned()));
    let (key, why) = wrong;
    Err(match place {
        Place::Nowhere(path) if key == "." => ConfigError::Yaml { path, why },
        place => ConfigError::Key { place, key, why },
    })
}

/// The configuration of `below` with `sets` applied.
///
/// # Errors
/// [`ConfigError::Value`] without a place where a value is wrong, [`ConfigError::Set`] where a `--set` cannot be applied.
fn build(below: &Value, sets: &[&String]) -> Result<RunConfig, ConfigError> {
    let mut value = below.clone();
    // A new variant (`loss.name`) takes nothing of the old one: its own keys come after it, in whatever order they were typed.
    let names = |set: &&&String| set.split('=').next().is_some_and(|key| key.ends_with(".name") || key.ends_with(".kind"));
    let (first, then): (Vec<&String>, Vec<&String>) = sets.iter().partition(names);
    for set in first.into_iter().chain(then) {
        apply(&mut value, set)?;
    }
    let config: RunConfig = serde_path_to_error::deserialize(value).map_err(|error| {
        let why = error.inner().to_string();
        let mut key = error.path().to_string();
        // An unknown key is reported at the section it stands in.
        if let Some(name) = why.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next())
            && !key.ends_with(name)
        {
            key = if key == "." { name.to_owned() } else { format!("{key}.{name}") };
        }
        ConfigError::Value { why: with_suggestion(why, &key), key }
    })?;
    config.validate()?;
    Ok(config)
}

/// The file's content merged over its base's. `layers` grows from the file to its last base; `named_by` is the line that names this one.
fn read(path: &Path, named_by: Option<Place>, layers: &mut Vec<Layer>) -> Result<Value, ConfigError> {
    let yaml = |why: String| ConfigError::Yaml { path: path.to_owned(), why };
    let text = softclip_io::read_text(path).map_err(|e| ConfigError::of_text(path, e, named_by))?;
    let mut value: Value = softclip_io::parse_yaml(&text).map_err(|e| yaml(e.to_string()))?;
    let named_by = locate::line(&text, &["base"]).map(|line| Place::File(path.to_owned(), line));
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
            let mut below = read(&path.with_file_name("").join(base), named_by, layers)?;
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const MINIMAL: &str = "model: {image: rn50}\nloss: {name: clip}\n";

    fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The error of a file with this text, without the folder's name.
    pub(in crate::config) fn message(text: &str, sets: &[&str]) -> String {
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
            ("train: {batch_size: 1}", "x.yaml:3: train.batch_size: 1 is out of range, write a number from 2 to 16777216"),
            ("train: {lr: -1}", "x.yaml:3: train.lr: -1 is out of range, write a number above 0"),
            ("train: {beta2: 1.5}", "train.beta2: 1.5 is out of range, write a number from 0 to below 1"),
            ("train: {warmup: -1}", "x.yaml:3: train.warmup: -1 is out of range, write a number from 0 to"),
            ("train: {recompute: 1}", "x.yaml:3: train.recompute: invalid type"),
            ("train: {chunk_size: 0}", "train.chunk_size: 0 is out of range, write a number from 1 to"),
            ("data: {max_regions: 0}", "data.max_regions: 0 is out of range, write a number from 1 to"),
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

    #[test]
    fn misspelled_names_are_corrected() {
        for (text, sets, expected) in [
            ("train: {batchsize: 8}", vec![], "x.yaml:3: train.batchsize: unknown field `batchsize`, expected one of"),
            ("train: {batchsize: 8}", vec![], "; did you mean `batch_size`?"),
            ("batch-size: 8", vec![], "x.yaml:3: batch-size: unknown field `batch-size`"),
            ("batch-size: 8", vec![], "; did you mean `train.batch_size`?"),
            ("trian: {}", vec![], "; did you mean `train`?"),
            ("train: {schedule: cosin}", vec![], "unknown variant `cosin`, expected `cosine` or `const`; did you mean `cosine`?"),
            ("eval: [{task: retreival, data: x}]", vec![], "; did you mean `retrieval`?"),
            ("", vec!["loss.name=softklip"], "--set loss.name=softklip: loss.name: unknown variant `softklip`"),
            ("", vec!["loss.name=softklip"], "; did you mean `softclip`?"),
            ("", vec!["loss.name=label_smoothing", "loss.alhpa=0.1"], "--set loss.alhpa=0.1: loss.alhpa: unknown field"),
            ("", vec!["loss.name=label_smoothing", "loss.alhpa=0.1"], "; did you mean `alpha`?"),
            ("", vec!["model.image=vit_b32"], "--set model.image=vit_b32: model.image: `vit_b32` is not a preset"),
            ("", vec!["model.image=vit_b32"], "; did you mean `vit_b_32`?"),
            ("", vec!["model.text=robertta"], "; did you mean `roberta`?"),
        ] {
            let found = message(&format!("{MINIMAL}{text}\n"), &sets);
            assert!(found.contains(expected), "{found} / {expected}");
        }
        let far = message(&format!("{MINIMAL}train: {{momentum: 0.9}}\n"), &[]);
        assert!(!far.contains("did you mean"), "{far}");
    }

    #[test]
    fn what_a_set_brings_about_is_not_blamed_on_the_file() {
        let text =
            "model: {image: rn50, regions: {dim: 8}}\nloss:\n  name: softclip\n  beta: 0.3\neval: [{task: retrieval, data: x}]\n";
        for (sets, expected) in [
            (vec!["loss.beta=2"], "--set loss.beta=2: loss.beta: "),
            (vec!["train.lr=1e-3", "loss.beta=0", "train.epochs=1"], "--set loss.beta=0: loss.beta: "),
            (vec!["model.regions=null", "train.epochs=1"], "--set model.regions=null: model.regions: the loss needs region"),
            (vec!["eval=[{task: retrieval, scales: [0.5]}]"], "--set eval=[{task: retrieval, scales: [0.5]}]: eval.0.scales: "),
            (vec!["eval=[{tsk: retrieval}]"], "--set eval=[{tsk: retrieval}]: eval[0].tsk: unknown field `tsk`"),
            (vec!["train.image_tower={freeze_projection: true}"], "--set train.image_tower={freeze_projection: true}: train"),
            (vec!["train=3"], "--set train=3: train: invalid type"),
        ] {
            let found = message(text, &sets);
            assert!(found.starts_with(expected), "{found} / {expected}");
        }
        let two = message(&format!("{MINIMAL}train:\n  lr: -1\n  schedule: cosin\n"), &["train.schedule=cosine"]);
        assert!(two.starts_with("x.yaml:4: train.lr: "), "{two}");
        // A fault in the file is reported there, also with an unrelated `--set`.
        let found = message(&text.replace("0.3", "3"), &["train.lr=1e-3"]);
        assert!(found.starts_with("x.yaml:4: loss.beta: "), "{found}");
    }

    #[test]
    fn a_missing_base_is_reported_where_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), "x.yaml", "train: {epochs: 1}\nbase: ../nowhere/a.yaml\n");
        let found = load(&path, &[]).unwrap_err().to_string();
        assert!(found.starts_with(&format!("{}:2: base: ", path.display())), "{found}");
        assert!(found.contains("/../nowhere/a.yaml: No such file"), "{found}");
        assert!(matches!(load(&folder.path().join("y.yaml"), &[]).unwrap_err(), ConfigError::Io { .. }));
    }
}
