//! What a run's folder holds, read without its model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use softclip_report::{Cell, Metrics, read_metrics_jsonl};

/// A run, and how it is called and coloured in the whole page.
pub struct Run {
    pub name: String,
    pub dir: PathBuf,
    pub colour: usize,
    /// The resolved configuration's values by their dotted keys.
    pub config: BTreeMap<String, Value>,
    pub metrics: Metrics,
    pub results: Vec<Outcome>,
}

/// One file of results.
pub struct Outcome {
    pub task: String,
    pub dataset: String,
    /// How it was measured, where there is more than one way.
    pub how: String,
    /// Images, captions and classes, as far as they are told.
    pub counts: String,
    pub step: Option<u64>,
    pub metrics: Vec<(String, f64)>,
    pub chance: BTreeMap<String, f64>,
}

impl Run {
    /// Reads configuration, metrics and results. A damaged result is told of and passed over.
    pub fn read(dir: &Path, name: String, colour: usize) -> Result<Self> {
        let path = dir.join("config.yaml");
        if !path.is_file() {
            bail!("{} is no run: it has no config.yaml", dir.display());
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let config: Value = serde_yaml::from_str(&text).with_context(|| path.display().to_string())?;
        let mut flat = BTreeMap::new();
        flatten("", config, &mut flat);
        let metrics = dir.join("metrics.jsonl");
        let metrics = if metrics.is_file() { read_metrics_jsonl(&metrics)? } else { Metrics::default() };
        Ok(Run { results: results(&dir.join("results"))?, name, dir: dir.to_owned(), colour, config: flat, metrics })
    }

    /// A text of the configuration.
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.config.get(key).and_then(Value::as_str)
    }

    /// A number of the configuration.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.config.get(key).and_then(Value::as_f64)
    }

    /// The run's name in its colour.
    pub fn cell(&self) -> Cell {
        Cell::keyed(&*self.name, self.colour)
    }
}

/// Names of runs: the folders' own, or whole paths where two are the same.
pub fn names(dirs: &[PathBuf]) -> Vec<String> {
    let own = |dir: &PathBuf| {
        let whole = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        whole.file_name().map_or_else(|| dir.display().to_string(), |name| name.to_string_lossy().into_owned())
    };
    let short: Vec<String> = dirs.iter().map(own).collect();
    let unique = |name: &String| short.iter().filter(|other| *other == name).count() == 1;
    short.iter().zip(dirs).map(|(name, dir)| if unique(name) { name.clone() } else { dir.display().to_string() }).collect()
}

fn flatten(key: &str, value: Value, out: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(inner) => {
            for (name, value) in inner {
                flatten(&if key.is_empty() { name } else { format!("{key}.{name}") }, value, out);
            }
        }
        value => drop(out.insert(key.to_owned(), value)),
    }
}

fn results(folder: &Path) -> Result<Vec<Outcome>> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| Ok(entry.with_context(|| format!("cannot read {}", folder.display()))?.path()))
        .collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|end| end == "json"));
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        match std::fs::read_to_string(&path).map_err(anyhow::Error::from).and_then(|text| Ok(serde_json::from_str(&text)?)) {
            Ok(value) => found.extend(outcome(&path, &value)),
            Err(e) => eprintln!("warning: {}: {e}; it is passed over", path.display()),
        }
    }
    Ok(found)
}

/// `None` for JSON that has no metrics: no evaluation.
fn outcome(path: &Path, value: &Value) -> Option<Outcome> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut metrics = Vec::new();
    numbers("", value.get("metrics")?, &mut metrics);
    let details = if value["dataset"].is_object() { &value["dataset"] } else { &value["data"] };
    let dataset = value["dataset"].as_str().map_or_else(|| text(&details["source"]), str::to_owned);
    let counts = [("images", "images"), ("texts", "captions"), ("classes", "classes")].into_iter();
    let counts = counts.filter_map(|(key, name)| Some((details[key].as_u64().filter(|n| *n > 0)?, name)));
    let counts: Vec<String> = counts.map(|(n, name)| format!("{n} {name}")).collect();
    let how: Vec<String> = ["prompts", "protocol"].iter().map(|key| text(&value[*key])).filter(|how| !how.is_empty()).collect();
    let mut chance = Vec::new();
    numbers("", &value["chance"], &mut chance);
    Some(Outcome {
        task: text(&value["task"]),
        dataset,
        how: how.join("; "),
        counts: counts.join(", "),
        step: path.file_stem()?.to_str()?.rsplit_once("-step-").and_then(|(_, step)| step.parse().ok()),
        metrics,
        chance: chance.into_iter().collect(),
    })
}

/// Numbers by their dotted names; a list of pairs of name and number is as good as an object.
fn numbers(name: &str, value: &Value, out: &mut Vec<(String, f64)>) {
    let below = |inner: &str| if name.is_empty() { inner.to_owned() } else { format!("{name}.{inner}") };
    match value {
        Value::Number(n) => out.extend(n.as_f64().map(|n| (name.to_owned(), n))),
        Value::Object(inner) => inner.iter().for_each(|(key, value)| numbers(&below(key), value, out)),
        Value::Array(pairs) => {
            for pair in pairs {
                if let Some((key, value)) = pair[0].as_str().zip(pair.get(1)) {
                    numbers(&below(key), value, out);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_whatever_their_shape() {
        let path = Path::new("results/retrieval-x-step-00000120.json");
        let old = r#"{"task": "retrieval", "dataset": {"source": "val.tar", "images": 7, "texts": 9, "classes": 0},
            "metrics": {"recall@1": 0.5, "by": {"class": 0.25}}, "chance": {"recall@1": 0.1}}"#;
        let new = r#"{"task": "retrieval", "dataset": "val.tar", "data": {"images": 7, "texts": 9}, "prompts": "simple",
            "metrics": [["recall@1", 0.5], ["by.class", 0.25]]}"#;
        let [old, new] = [old, new].map(|text| outcome(path, &serde_json::from_str(text).unwrap()).unwrap());
        for found in [&old, &new] {
            assert_eq!(
                (found.dataset.as_str(), found.counts.as_str(), found.step),
                ("val.tar", "7 images, 9 captions", Some(120))
            );
            let mut metrics = found.metrics.clone();
            metrics.sort_by(|a, b| b.1.total_cmp(&a.1));
            assert_eq!(metrics, [("recall@1".to_owned(), 0.5), ("by.class".to_owned(), 0.25)]);
        }
        assert_eq!((old.how.as_str(), new.how.as_str(), old.chance["recall@1"]), ("", "simple", 0.1));
        assert!(outcome(path, &serde_json::json!({"note": 1})).is_none());
    }

    #[test]
    fn runs_of_one_name_are_called_by_their_paths() {
        let dirs = ["a/run", "b/run", "c/other"].map(PathBuf::from);
        assert_eq!(names(&dirs), ["a/run", "b/run", "other"]);
    }
}
