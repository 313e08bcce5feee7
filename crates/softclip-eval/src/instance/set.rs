//! Data sets of instance retrieval and copy detection: files, and what is right.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

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

    /// `revisited:GND.json,IMAGES/[,distractors=FOLDER]`: the revisited Oxford and Paris sets. Queries are cut to their boxes,
    /// distractors all images below their folder.
    ///
    /// # Errors
    /// The spec or the file cannot be understood, or files are missing: they are named.
    pub fn revisited(spec: &str) -> Result<Self, EvalError> {
        let usage = "expected revisited:GND.json,IMAGES/[,distractors=FOLDER]";
        let wrong = |why: &str| EvalError::Input(format!("{spec}: {why}"));
        let rest = spec.strip_prefix("revisited:").ok_or_else(|| wrong(usage))?;
        let (named, options) = parts(rest, &["distractors"]).map_err(|why| wrong(&why))?;
        let &[file, folder] = named.as_slice() else { return Err(wrong(&unexpected(&named, usage))) };
        let bad = |why: String| EvalError::Input(format!("{file}: {why}"));
        let hint = "a published .pkl becomes JSON by scripts/revisited-to-json";
        let text = softclip_io::read_text(file).map_err(|e| bad(format!("{e}; {hint}")))?;
        let truth: GroundTruth =
            serde_json::from_str(&text).map_err(|e| bad(format!("not a ground truth in JSON: {e}; {hint}")))?;
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
            distractors: distractors(&options)?,
            levels: vec![
                ("easy", level(|e| [e.easy.clone(), [&e.junk[..], &e.hard].concat()])),
                ("medium", level(|e| [[&e.easy[..], &e.hard].concat(), e.junk.clone()])),
                ("hard", level(|e| [e.hard.clone(), [&e.junk[..], &e.easy].concat()])),
            ],
        };
        set.whole()
    }

    /// `copydays:DIR[,subset=strong][,distractors=FOLDER]`: INRIA Copydays. Queries are the copies in `DIR/SUBSET`, the database is
    /// `DIR/original`, the images that lie in these folders themselves; the first four characters of a copy's name are its original's.
    ///
    /// # Errors
    /// The spec cannot be understood, a folder is missing or has no images, two originals share their first four characters, or a copy
    /// has no original.
    pub fn copydays(spec: &str) -> Result<Self, EvalError> {
        let usage = "expected copydays:DIR[,subset=strong][,distractors=FOLDER]";
        let wrong = |why: &str| EvalError::Input(format!("{spec}: {why}"));
        let rest = spec.strip_prefix("copydays:").ok_or_else(|| wrong(usage))?;
        let (named, options) = parts(rest, &["subset", "distractors"]).map_err(|why| wrong(&why))?;
        let &[folder] = named.as_slice() else { return Err(wrong(&unexpected(&named, usage))) };
        let subset = Path::new(options.get("subset").copied().unwrap_or("strong"));
        let inside = subset.components().all(|part| matches!(part, Component::Normal(_)));
        if !inside || subset.as_os_str().is_empty() {
            return Err(wrong(&format!("'{}' is no folder in {folder}: {usage}", subset.display())));
        }
        let whole = |path: PathBuf| Picture { path, part: None };
        let originals = images(&Path::new(folder).join("original"), false)?;
        let copies = images(&Path::new(folder).join(subset), false)?;
        let mut rows: BTreeMap<String, usize> = BTreeMap::new();
        for (row, path) in originals.iter().enumerate() {
            if let Some(other) = rows.insert(block(path), row) {
                let (one, other, block) = (originals[other].display(), path.display(), block(path));
                return Err(EvalError::Input(format!(
                    "{one} and {other} both begin with '{block}': whose copies are its copies?"
                )));
            }
        }
        let relevant = |path: &PathBuf| match rows.get(&block(path)) {
            Some(&row) => Ok(Relevant { positives: vec![row], junk: Vec::new() }),
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
            distractors: distractors(&options)?,
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

/// Options by their names.
type Options<'a> = BTreeMap<&'a str, &'a str>;

/// What stands between commas, and `key=value` of the known keys among it; another `=` belongs to a file's name.
fn parts<'a>(rest: &'a str, known: &[&str]) -> Result<(Vec<&'a str>, Options<'a>), String> {
    let (mut named, mut options) = (Vec::new(), BTreeMap::new());
    for part in rest.split(',').filter(|part| !part.is_empty()) {
        match part.split_once('=').filter(|(key, _)| known.contains(key)) {
            Some((key, value)) => {
                if let Some(before) = options.insert(key, value) {
                    return Err(format!("option '{key}' is given twice: '{before}' and '{value}'"));
                }
            }
            None => named.push(part),
        }
    }
    Ok((named, options))
}

fn unexpected(named: &[&str], usage: &str) -> String {
    format!("{usage}, found besides options: {}", if named.is_empty() { "nothing".to_owned() } else { named.join(", ") })
}

fn distractors(options: &Options<'_>) -> Result<Vec<PathBuf>, EvalError> {
    options.get("distractors").map_or(Ok(Vec::new()), |folder| images(Path::new(folder), true))
}

/// The first four characters of a file's name.
fn block(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().chars().take(4).collect()
}

/// All images in a folder, or also in those below it (`deep`), by name. Links to folders are not followed: they may lead back.
fn images(folder: &Path, deep: bool) -> Result<Vec<PathBuf>, EvalError> {
    let failed = |path: &Path, e: std::io::Error| EvalError::Input(format!("{}: {e}", path.display()));
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|e| failed(&folder, e))? {
            let entry = entry.map_err(|e| failed(&folder, e))?;
            let (path, kind) = (entry.path(), entry.file_type());
            let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
            if kind.map_err(|e| failed(&path, e))?.is_dir() {
                folders.extend(deep.then_some(path));
            } else if extension.is_some_and(|e| ["jpg", "jpeg", "png", "webp"].contains(&e.as_str())) {
                found.push(path);
            }
        }
    }
    if found.is_empty() {
        let below = if deep { " or below it" } else { "; those of folders below it do not count" };
        return Err(EvalError::Input(format!("{}: there is no image in it{below}", folder.display())));
    }
    found.sort();
    Ok(found)
}
