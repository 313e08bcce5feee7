//! What is compared, as a file says it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_yaml::{Mapping, Value};

use crate::config::{self, ConfigError, Place, RunConfig};

/// A grid of runs: every row in every column with every seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Above the table.
    pub title: String,
    /// What is expected and where the figures of the paper come from.
    #[serde(default)]
    pub about: String,
    /// The metrics that are told, as `metrics.jsonl` names them in its `eval` lines; the first is that of the paper's figures.
    pub metrics: Vec<String>,
    /// Which metric the paper's figures are of; the first of `metrics` as the file has them.
    #[serde(default)]
    pub paper_metric: Option<String>,
    /// Values of `train.seed`.
    #[serde(default = "one_seed")]
    pub seeds: Vec<u64>,
    /// Keys of the configuration that all runs change, nested as there.
    #[serde(default)]
    pub set: Mapping,
    /// In what settings: models, data sets.
    pub columns: Vec<Column>,
    /// What is compared. Differences are told from the first.
    pub rows: Vec<Row>,
    /// Where rows are values of one number: its name. The plot has it as its x axis then.
    #[serde(default)]
    pub x: Option<String>,
}

fn one_seed() -> Vec<u64> {
    vec![0]
}

/// A setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Above the column.
    pub name: String,
    /// The configuration file that runs start from, relative to the plan.
    pub config: PathBuf,
    /// Keys that it changes.
    #[serde(default)]
    pub set: Mapping,
    /// Whose figures of the paper stand beside it, where it is not the column of the same name.
    #[serde(default)]
    pub paper: Option<String>,
}

/// Something that is compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Beside the row.
    pub name: String,
    /// Its place on the x axis, where the plan has one.
    #[serde(default)]
    pub x: Option<f64>,
    /// Keys that it changes; they win over the column's.
    #[serde(default)]
    pub set: Mapping,
    /// The paper's figures by column, in the unit in which they are told: percent, or ranks.
    #[serde(default)]
    pub paper: BTreeMap<String, f64>,
}

/// One run of the grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Number of its row.
    pub row: usize,
    /// Number of its column.
    pub column: usize,
    /// Its seed.
    pub seed: u64,
    /// The configuration file that it starts from.
    pub config: PathBuf,
    /// What it changes, as `--set` takes it.
    pub sets: Vec<String>,
    /// Its folder below the grid's.
    pub dir: PathBuf,
}

/// Reads a plan and what its `base:` names (relative to it), and checks it. `metrics` stand for the plan's, if there are any; so do `seeds`.
///
/// # Errors
/// The file, and what is wrong in it.
pub fn load(path: &Path, metrics: &[String], seeds: &[u64]) -> Result<Plan, ConfigError> {
    let yaml = |why: String| ConfigError::Yaml { path: path.to_owned(), why };
    let value = layers(path, None, 0)?;
    let mut plan: Plan = serde_path_to_error::deserialize(value).map_err(|e| {
        let key = e.path().to_string();
        let why = config::with_suggestion(e.inner().to_string(), &key);
        yaml(if key == "." { why } else { format!("{key}: {why}") })
    })?;
    plan.paper_metric = plan.paper_metric.or_else(|| plan.metrics.first().cloned());
    if !metrics.is_empty() {
        plan.metrics = metrics.to_vec();
    }
    if !seeds.is_empty() {
        plan.seeds = seeds.to_vec();
    }
    plan.check().map_err(yaml)?;
    Ok(plan)
}

/// A plan's file merged over its base's, as configurations are; files of columns are named from where one stands from here on.
fn layers(path: &Path, named_by: Option<Place>, depth: usize) -> Result<Value, ConfigError> {
    let yaml = |why: &str| ConfigError::Yaml { path: path.to_owned(), why: why.to_owned() };
    let text = softclip_io::read_text(path).map_err(|e| ConfigError::of_text(path, e, named_by))?;
    let mut value: Value = softclip_io::parse_yaml(&text).map_err(|e| yaml(&e.to_string()))?;
    let named_by = config::line_of(&text, &["base"]).map(|line| Place::File(path.to_owned(), line));
    let Some(map) = value.as_mapping_mut() else {
        return Err(yaml("expected the keys of a plan: title, metrics, columns, rows"));
    };
    let beside = path.with_file_name("");
    for column in map.get_mut("columns").and_then(Value::as_sequence_mut).into_iter().flatten() {
        if let Some(Value::String(config)) = column.get_mut("config") {
            *config = beside.join(&*config).display().to_string();
        }
    }
    match map.remove("base") {
        None => Ok(value),
        Some(Value::String(_)) if depth > 10 => Err(yaml("more than ten files by `base`: does one name itself?")),
        Some(Value::String(base)) => {
            let mut below = layers(&beside.join(base), named_by, depth + 1)?;
            config::merge(&mut below, value);
            Ok(below)
        }
        Some(_) => Err(yaml("`base` must name a file")),
    }
}

impl Plan {
    /// With every column started from `config`; of columns that then are the same, the first stays.
    #[must_use]
    pub fn starting_from(mut self, config: &Path) -> Self {
        let mut kept: Vec<Column> = Vec::new();
        for mut column in self.columns {
            if kept.iter().all(|other| other.set != column.set) {
                column.config = config.to_owned();
                // Its figures stay beside it whatever it is called.
                column.paper.get_or_insert(column.name.clone());
                kept.push(column);
            }
        }
        if let [only] = &mut kept[..]
            && only.set.is_empty()
        {
            only.name = config.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        }
        self.columns = kept;
        self
    }

    fn check(&self) -> Result<(), String> {
        for (what, empty) in [
            ("metrics", self.metrics.is_empty()),
            ("seeds", self.seeds.is_empty()),
            ("columns", self.columns.is_empty()),
            ("rows", self.rows.is_empty()),
        ] {
            if empty {
                return Err(format!("{what}: there must be one at least"));
            }
        }
        once("seeds", self.seeds.iter().map(ToString::to_string))?;
        once("columns", self.columns.iter().map(|column| slug(&column.name)))?;
        once("rows", self.rows.iter().map(|row| slug(&row.name)))?;
        for row in &self.rows {
            if row.x.is_some() != self.x.is_some() {
                return Err(format!(
                    "rows: `{}`: where the plan names an x axis (`x: NAME`) every row has its place on it, and only there",
                    row.name
                ));
            }
        }
        Ok(())
    }

    /// All runs, seed by seed: what a grid that is stopped early has finished can be compared. `sets` go to all runs and have the last
    /// word but for the seed.
    pub fn cells(&self, sets: &[String]) -> Vec<Cell> {
        let mut cells = Vec::new();
        for &seed in &self.seeds {
            for (r, row) in self.rows.iter().enumerate() {
                for (c, column) in self.columns.iter().enumerate() {
                    // As files merge: a row that names another loss takes nothing of the column's.
                    let mut merged = Value::Mapping(self.set.clone());
                    config::merge(&mut merged, Value::Mapping(column.set.clone()));
                    config::merge(&mut merged, Value::Mapping(row.set.clone()));
                    let mut all = merged.as_mapping().map(flat).unwrap_or_default();
                    all.extend(sets.iter().cloned());
                    all.push(format!("train.seed={seed}"));
                    cells.push(Cell {
                        row: r,
                        column: c,
                        seed,
                        config: column.config.clone(),
                        sets: all,
                        dir: [slug(&column.name), slug(&row.name), format!("seed-{seed}")].iter().collect(),
                    });
                }
            }
        }
        cells
    }

    /// The paper's figure of a row in a column.
    pub fn figure(&self, row: usize, column: usize) -> Option<f64> {
        let column = self.columns.get(column)?;
        self.rows.get(row)?.paper.get(column.paper.as_ref().unwrap_or(&column.name)).copied()
    }

    /// Whether the paper has a figure for anything in a column.
    pub fn has_figures(&self, column: usize) -> bool {
        (0..self.rows.len()).any(|row| self.figure(row, column).is_some())
    }
}

impl Cell {
    /// The configuration of its run.
    ///
    /// # Errors
    /// What is wrong in it.
    pub fn resolve(&self) -> Result<RunConfig, ConfigError> {
        config::load(&self.config, &self.sets)
    }
}

fn once(what: &str, names: impl Iterator<Item = String>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for name in names {
        if name.is_empty() {
            return Err(format!("{what}: a name needs letters or digits"));
        }
        if !seen.insert(name.clone()) {
            return Err(format!("{what}: `{name}` is there twice"));
        }
    }
    Ok(())
}

/// The name of a folder: letters, digits and what is in decimals.
fn slug(name: &str) -> String {
    let words = name.split(|c: char| !c.is_alphanumeric() && c != '.').filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join("-")
}

/// Nested keys as `--set` takes them.
fn flat(map: &Mapping) -> Vec<String> {
    let mut sets = Vec::new();
    for (key, value) in map {
        let key = key.as_str().map_or_else(|| text(key), str::to_owned);
        match value {
            Value::Mapping(inner) if !inner.is_empty() => sets.extend(flat(inner).into_iter().map(|set| format!("{key}.{set}"))),
            value => sets.push(format!("{key}={}", text(value))),
        }
    }
    sets
}

/// On one line, as YAML reads it: JSON.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) if softclip_io::parse_yaml::<Value>(text).is_ok_and(|read| read.as_str() == Some(text)) => {
            text.clone()
        }
        value => serde_json::to_string(value).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "title: T\nmetrics: [m]\nset: {train: {epochs: 1, image_tower: {lr_scale: 2}}}\n\
                        columns: [{name: A b, config: x.yaml, set: {loss: {name: label_smoothing, alpha: 0.1}}}]\n\
                        rows: [{name: one, set: {loss: {name: softclip, forms: [RA, AR]}}, paper: {A b: 3.5}}, {name: β = 0.5}]\nseeds: [3, 4]\n";

    fn read(text: &str) -> Result<Plan, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plan.yaml");
        std::fs::write(&path, text).unwrap();
        load(&path, &[], &[]).map_err(|e| e.to_string())
    }

    #[test]
    fn every_row_meets_every_column_with_every_seed() {
        let plan = read(PLAN).unwrap();
        let cells = plan.cells(&["data.train=*.tar".to_owned()]);
        assert_eq!(cells.len(), 4);
        assert_eq!((cells[0].row, cells[0].seed, cells[2].row, cells[2].seed), (0, 3, 0, 4));
        assert!(cells[0].config.ends_with("x.yaml") && cells[0].config.is_absolute());
        assert_eq!(cells[1].dir, Path::new("a-b/β-0.5/seed-3"));
        let expected = [
            "train.epochs=1",
            "train.image_tower.lr_scale=2",
            "loss.name=softclip",
            "loss.forms=[\"RA\",\"AR\"]",
            "data.train=*.tar",
            "train.seed=3",
        ];
        assert_eq!(cells[0].sets, expected);
        assert_eq!((plan.figure(0, 0), plan.figure(1, 0)), (Some(3.5), None));
    }

    #[test]
    fn columns_that_another_configuration_makes_the_same_become_one() {
        let columns = |set: &str| format!("columns: [{{name: A b, config: x.yaml}}, {{name: C, config: y.yaml, set: {set}}}]");
        let with = |set: &str| {
            let text = PLAN.replace(
                "columns: [{name: A b, config: x.yaml, set: {loss: {name: label_smoothing, alpha: 0.1}}}]",
                &columns(set),
            );
            read(&text).unwrap().starting_from(Path::new("/c/small.yaml"))
        };
        let one = with("{}");
        let names = |plan: &Plan| plan.columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
        assert_eq!((names(&one), one.figure(0, 0)), (vec!["small".to_owned()], Some(3.5)));
        assert_eq!(one.cells(&[])[0].config, Path::new("/c/small.yaml"));
        assert_eq!(names(&with("{loss: {lambda: 0}}")), ["A b", "C"]);
    }

    #[test]
    fn a_plan_in_another_folder_takes_columns_from_its_base() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("mine")).unwrap();
        std::fs::write(at("plan.yaml"), PLAN).unwrap();
        std::fs::write(at("mine/p.yaml"), "base: ../plan.yaml\nrows: [{name: only}]\n").unwrap();
        let cells = load(&at("mine/p.yaml"), &[], &[]).unwrap().cells(&[]);
        assert_eq!((cells.len(), cells[0].config.canonicalize().ok()), (2, None));
        std::fs::write(at("x.yaml"), "").unwrap();
        assert_eq!(cells[0].config.canonicalize().unwrap(), at("x.yaml").canonicalize().unwrap());
        std::fs::write(at("mine/p.yaml"), "base: p.yaml\n").unwrap();
        assert!(load(&at("mine/p.yaml"), &[], &[]).unwrap_err().to_string().contains("does one name itself"));
    }

    #[test]
    fn texts_that_look_like_something_else_stay_texts() {
        let map: Mapping = serde_yaml::from_str("{a: '1', b: 'true', c: x y, d: '*.tar', e: null, f: {}}").unwrap();
        assert_eq!(flat(&map), ["a=\"1\"", "b=\"true\"", "c=x y", "d=\"*.tar\"", "e=null", "f={}"]);
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (from, to, why) in [
            ("metrics: [m]", "metrics: []", "metrics: there must be one"),
            ("seeds: [3, 4]", "seeds: [3, 3]", "seeds: `3` is there twice"),
            ("name: β = 0.5", "name: 'One!'", "rows: `one` is there twice"),
            ("name: β = 0.5", "name: β = 0.5, x: 1", "where the plan names an x axis"),
            ("name: β = 0.5", "nam: x", "rows[1]"),
            ("title: T", "titel: T", "titel"),
        ] {
            let message = read(&PLAN.replace(from, to)).unwrap_err();
            assert!(message.contains(why) && message.contains("plan.yaml"), "{message}");
        }
    }

    #[test]
    fn the_plans_that_come_with_the_project_make_sense() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/ablations"));
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let plan = load(&path, &[], &[]).unwrap_or_else(|e| panic!("{e}"));
            for cell in plan.cells(&[]) {
                cell.resolve().unwrap_or_else(|e| panic!("{}: {}: {e}", path.display(), plan.rows[cell.row].name));
            }
            // A figure that stands in no column would be shown nowhere.
            let figures = plan.rows.iter().any(|row| !row.paper.is_empty());
            assert_eq!((0..plan.columns.len()).any(|c| plan.has_figures(c)), figures, "{}", path.display());
            count += 1;
        }
        assert!(count >= 6);
    }
}
