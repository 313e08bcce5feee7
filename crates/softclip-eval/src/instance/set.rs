//! Data sets of instance retrieval and copy detection: files, and what is right.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::ranking::Relevant;
use crate::EvalError;
use crate::run::Task;

/// An image file, or a part of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// The file.
    pub path: PathBuf,
    /// Left, top, right, bottom in the file's pixels.
    pub part: Option<[f64; 4]>,
}

/// Queries, a database, and what is to be found in it.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceSet {
    /// As named.
    pub spec: String,
    /// What is looked for.
    pub queries: Vec<Picture>,
    /// Where.
    pub database: Vec<Picture>,
    /// Images that are right for no query.
    pub distractors: Vec<PathBuf>,
    /// Levels by name, each with what each query is to find; the one of copy detection has no name.
    pub levels: Vec<(&'static str, Vec<Relevant>)>,
}

/// `gnd_roxford5k` and its like as JSON.
#[derive(Deserialize)]
struct GroundTruth {
    imlist: Vec<String>,
    qimlist: Vec<String>,
    gnd: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    bbx: [f64; 4],
    easy: Vec<usize>,
    hard: Vec<usize>,
    junk: Vec<usize>,
}

impl InstanceSet {
    /// The data set of a task that has pictures to find; `None` for tasks with a source of pairs or classes.
    ///
    /// # Errors
    /// As [`InstanceSet::revisited`] and [`InstanceSet::copydays`].
    pub fn of(task: &Task, spec: &str) -> Result<Option<Self>, EvalError> {
        match task {
            Task::Instance(_) => Self::revisited(spec).map(Some),
            Task::Copy(_) => Self::copydays(spec).map(Some),
            _ => Ok(None),
        }
    }

    /// `revisited:GND.json,IMAGES/[,distractors=FOLDER]`: the revisited Oxford and Paris sets. Queries are cut to their boxes.
    ///
    /// # Errors
    /// The spec or the file cannot be understood, or files are missing: they are named.
    pub fn revisited(spec: &str) -> Result<Self, EvalError> {
        let usage = "expected revisited:GND.json,IMAGES/[,distractors=FOLDER]";
        let wrong = |why: &str| EvalError::Input(format!("{spec}: {why}"));
        let (named, mut options) = parts(spec.strip_prefix("revisited:").ok_or_else(|| wrong(usage))?);
        let &[file, folder] = named.as_slice() else { return Err(wrong(usage)) };
        let distractors = options.remove("distractors");
        if let Some(unknown) = options.keys().next() {
            return Err(wrong(&format!("unknown option '{unknown}': {usage}")));
        }
        let bad = |why: String| EvalError::Input(format!("{file}: {why}"));
        let bytes = std::fs::read(file).map_err(|e| bad(e.to_string()))?;
        let hint = "a published .pkl becomes JSON by scripts/revisited-to-json";
        let truth: GroundTruth =
            serde_json::from_slice(&bytes).map_err(|e| bad(format!("not a ground truth in JSON: {e}; {hint}")))?;
        if truth.gnd.len() != truth.qimlist.len() || truth.gnd.is_empty() || truth.imlist.is_empty() {
            let counts = format!("{} queries, {} entries, {} images", truth.qimlist.len(), truth.gnd.len(), truth.imlist.len());
            return Err(bad(format!("{counts}: at least one of each is needed, and an entry a query")));
        }
        check(&truth).map_err(bad)?;
        let path = |name: &String| Path::new(folder).join(format!("{name}.jpg"));
        let query = |(name, entry): (&String, &Entry)| Picture { path: path(name), part: Some(entry.bbx) };
        let level = |choose: fn(&Entry) -> [Vec<usize>; 2]| {
            let relevant = |entry| choose(entry).into();
            truth.gnd.iter().map(relevant).collect::<Vec<Relevant>>()
        };
        let set = Self {
            spec: spec.to_owned(),
            queries: truth.qimlist.iter().zip(&truth.gnd).map(query).collect(),
            database: truth.imlist.iter().map(|name| Picture { path: path(name), part: None }).collect(),
            distractors: distractors.map_or(Ok(Vec::new()), |folder| images(Path::new(folder)))?,
            levels: vec![
                ("easy", level(|e| [e.easy.clone(), [&e.junk[..], &e.hard].concat()])),
                ("medium", level(|e| [[&e.easy[..], &e.hard].concat(), e.junk.clone()])),
                ("hard", level(|e| [e.hard.clone(), [&e.junk[..], &e.easy].concat()])),
            ],
        };
        set.whole()
    }

    /// `copydays:DIR[,subset=strong][,distractors=FOLDER]`: INRIA Copydays. Queries are the copies in `DIR/SUBSET`, the database is
    /// `DIR/original`; the first four characters of a copy's name are its original's.
    ///
    /// # Errors
    /// The spec cannot be understood, a folder is missing or empty, or a copy has no original.
    pub fn copydays(spec: &str) -> Result<Self, EvalError> {
        let usage = "expected copydays:DIR[,subset=strong][,distractors=FOLDER]";
        let wrong = |why: &str| EvalError::Input(format!("{spec}: {why}"));
        let (named, mut options) = parts(spec.strip_prefix("copydays:").ok_or_else(|| wrong(usage))?);
        let &[folder] = named.as_slice() else { return Err(wrong(usage)) };
        let (subset, distractors) = (options.remove("subset").unwrap_or("strong"), options.remove("distractors"));
        if let Some(unknown) = options.keys().next() {
            return Err(wrong(&format!("unknown option '{unknown}': {usage}")));
        }
        let whole = |path: PathBuf| Picture { path, part: None };
        let originals = images(&Path::new(folder).join("original"))?;
        let copies = images(&Path::new(folder).join(subset))?;
        let mut rows: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (row, path) in originals.iter().enumerate() {
            rows.entry(block(path)).or_default().push(row);
        }
        let relevant = |path: &PathBuf| match rows.get(&block(path)) {
            Some(rows) => Ok(Relevant { positives: rows.clone(), junk: Vec::new() }),
            None => {
                let why = format!("no original begins with '{}', as this copy's name does", block(path));
                Err(EvalError::Input(format!("{}: {why}", path.display())))
            }
        };
        Ok(Self {
            spec: spec.to_owned(),
            levels: vec![("", copies.iter().map(relevant).collect::<Result<_, _>>()?)],
            queries: copies.into_iter().map(whole).collect(),
            database: originals.into_iter().map(whole).collect(),
            distractors: distractors.map_or(Ok(Vec::new()), |folder| images(Path::new(folder)))?,
        })
    }

    /// With fewer images the figures would mean something else.
    fn whole(self) -> Result<Self, EvalError> {
        let missing: Vec<&Picture> = self.database.iter().chain(&self.queries).filter(|one| !one.path.is_file()).collect();
        if missing.is_empty() {
            return Ok(self);
        }
        let names: Vec<String> = missing.iter().take(10).map(|one| one.path.display().to_string()).collect();
        let more = if missing.len() > names.len() { ", …" } else { "" };
        let (lost, of) = (missing.len(), self.database.len() + self.queries.len());
        Err(EvalError::Input(format!("{lost} of {of} images are not there: {}{more}", names.join(", "))))
    }
}

impl From<[Vec<usize>; 2]> for Relevant {
    fn from([positives, junk]: [Vec<usize>; 2]) -> Self {
        Self { positives, junk }
    }
}

/// The numbers must be those of images, each of one kind.
fn check(truth: &GroundTruth) -> Result<(), String> {
    for (name, entry) in truth.qimlist.iter().zip(&truth.gnd) {
        let mut seen = vec![false; truth.imlist.len()];
        for &row in entry.easy.iter().chain(&entry.hard).chain(&entry.junk) {
            match seen.get_mut(row) {
                None => return Err(format!("query {name} names image {row}, but there are {}", truth.imlist.len())),
                Some(true) => return Err(format!("query {name} names image {row} twice")),
                Some(seen) => *seen = true,
            }
        }
    }
    Ok(())
}

/// What stands between commas, and `key=value` among it.
fn parts(rest: &str) -> (Vec<&str>, BTreeMap<&str, &str>) {
    let (mut named, mut options) = (Vec::new(), BTreeMap::new());
    for part in rest.split(',').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some((key, value)) if !key.contains('/') => {
                options.insert(key, value);
            }
            _ => named.push(part),
        }
    }
    (named, options)
}

/// The first four characters of a file's name.
fn block(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().chars().take(4).collect()
}

/// All images below a folder, by name.
fn images(folder: &Path) -> Result<Vec<PathBuf>, EvalError> {
    let failed = |path: &Path, e: std::io::Error| EvalError::Input(format!("{}: {e}", path.display()));
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|e| failed(&folder, e))? {
            let path = entry.map_err(|e| failed(&folder, e))?.path();
            let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
            if path.is_dir() {
                folders.push(path);
            } else if extension.is_some_and(|e| ["jpg", "jpeg", "png", "webp"].contains(&e.as_str())) {
                found.push(path);
            }
        }
    }
    if found.is_empty() {
        return Err(EvalError::Input(format!("{}: there is no image in it", folder.display())));
    }
    found.sort();
    Ok(found)
}
