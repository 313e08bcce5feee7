//! What a run's folder holds, read without its model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use softclip_eval::EvalResult;
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
    /// The data as it was named: splits of one data set have one name.
    pub source: String,
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
        let text = softclip_io::read_text(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let config: Value = softclip_io::parse_yaml(&text).with_context(|| path.display().to_string())?;
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

/// Names of runs: the folders' own. Where two are the same, the paths without what all of them begin and end with.
pub fn names(dirs: &[PathBuf]) -> Vec<String> {
    let parts = |dir: &PathBuf| -> Vec<String> {
        let whole = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        whole.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect()
    };
    let paths: Vec<Vec<String>> = dirs.iter().map(parts).collect();
    let own: Vec<String> = paths.iter().map(|path| path.last().cloned().unwrap_or_default()).collect();
    if own.iter().collect::<BTreeSet<_>>().len() == own.len() {
        return own;
    }
    let (first, shortest) = (&paths[0], paths.iter().map(Vec::len).min().unwrap_or(0));
    // Of each path one part stays at least.
    let most = shortest.saturating_sub(1);
    let start = (0..most).take_while(|&i| paths.iter().all(|path| path[i] == first[i])).count();
    let from_end = |path: &[String], i: usize| path[path.len() - 1 - i].clone();
    let end = (0..most - start).take_while(|&i| paths.iter().all(|path| from_end(path, i) == from_end(first, i))).count();
    let mut names: Vec<String> = Vec::new();
    for path in &paths {
        let name = path[start..path.len() - end].iter().collect::<PathBuf>().display().to_string();
        // Only a folder that is given twice has another's name.
        let again = names.iter().filter(|other| **other == name || other.starts_with(&format!("{name} ("))).count();
        names.push(if again == 0 { name } else { format!("{name} ({})", again + 1) });
    }
    names
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
        match EvalResult::read(&path) {
            Ok(result) => found.push(outcome(&path, result)),
            Err(e) => tracing::warn!("{e}; it is passed over"),
        }
    }
    Ok(found)
}

fn outcome(path: &Path, result: EvalResult) -> Outcome {
    let EvalResult { task, dataset, data, prompts, protocol, metrics, chance, .. } = result;
    let counts = [(data.images, "images"), (data.texts, "captions"), (data.classes, "classes")].into_iter();
    let counts: Vec<String> = counts.filter(|(n, _)| *n > 0).map(|(n, name)| format!("{n} {name}")).collect();
    Outcome {
        task,
        dataset,
        source: data.source,
        how: prompts.into_iter().chain(protocol).collect::<Vec<_>>().join("; "),
        counts: counts.join(", "),
        step: path.file_stem().and_then(|stem| stem.to_str()?.rsplit_once("-step-")?.1.parse().ok()),
        metrics,
        chance,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_those_that_evaluations_write() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"task": "zeroshot_retrieval", "dataset": "val", "model": "m", "data": {"source": "val.tar", "images": 7,
            "texts": 9, "classes": 0, "skipped": {}}, "prompts": "simple", "metrics": {"b": 0.5, "a": 0.25}, "chance": {"a": 0.1}}"#;
        std::fs::write(folder.path().join("retrieval-x-step-00000120.json"), text).unwrap();
        std::fs::write(folder.path().join("note.json"), "{\"note\": 1}").unwrap();
        let found = results(folder.path()).unwrap();
        assert_eq!(found.len(), 1);
        let found = &found[0];
        assert_eq!((found.dataset.as_str(), found.source.as_str(), found.step), ("val", "val.tar", Some(120)));
        assert_eq!((found.counts.as_str(), found.how.as_str()), ("7 images, 9 captions", "simple"));
        assert_eq!((found.metrics[0].0.as_str(), found.metrics[1].1, found.chance["a"]), ("b", 0.25, 0.1));
    }

    #[test]
    fn runs_are_called_by_what_tells_them_apart() {
        let named = |dirs: &[&str]| names(&dirs.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(named(&["out/small/clip/seed-0", "out/small/softclip/seed-0"]), ["clip", "softclip"]);
        assert_eq!(named(&["runs/clip", "runs/softclip"]), ["clip", "softclip"]);
        assert_eq!(named(&["a/run", "b/run", "c/other"]), ["a/run", "b/run", "c/other"]);
        assert_eq!(named(&["out/x", "out/x/x"]), ["x", "x/x"]);
        assert_eq!(named(&["out/x/", "out/x"]), ["x", "x (2)"]);
        assert_eq!((named(&["a/run"]), named(&[])), (vec!["run".to_owned()], Vec::new()));
    }
}
