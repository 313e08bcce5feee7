//! Results below folders.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::EvalResult;
use crate::EvalError;

/// Folders of a run that hold no results.
const OTHERS: [&str; 4] = ["checkpoints", "category", "tb", "tokenizer"];

/// Bytes of a JSON file beyond which it is no result: annotations may lie among them.
const LARGEST: u64 = 64 << 20;

/// Results found, and what was passed over.
#[derive(Debug, Default)]
pub struct Collected {
    /// Each with its file, in the order of paths and names.
    pub results: Vec<(PathBuf, EvalResult)>,
    /// JSON files in folders that are no results.
    pub others: Vec<PathBuf>,
    /// Why files in a run's folder of results are none.
    pub damaged: Vec<EvalError>,
}

/// The results that `paths` name: files, and folders with all below them. In a folder what is no result is passed over.
///
/// # Errors
/// A path is not there; a file that is named itself is no result; a folder cannot be read.
pub fn collect(paths: &[PathBuf]) -> Result<Collected, EvalError> {
    let mut found = Collected::default();
    for path in paths {
        match path.is_dir() {
            true => folder(path, &mut found, &mut HashSet::new())?,
            false => found.results.push((path.clone(), EvalResult::read(path)?)),
        }
    }
    Ok(found)
}

fn folder(path: &Path, found: &mut Collected, seen: &mut HashSet<PathBuf>) -> Result<(), EvalError> {
    let wrong = |e: std::io::Error| EvalError::Read { path: path.to_owned(), why: e.to_string() };
    // Links are followed, and may lead in a circle.
    if !seen.insert(path.canonicalize().map_err(wrong)?) {
        return Ok(());
    }
    let of_run = path.file_name().is_some_and(|name| name == "results");
    let entries = std::fs::read_dir(path).map_err(wrong)?.map(|entry| entry.map(|entry| entry.path()));
    let mut entries: Vec<PathBuf> = entries.collect::<Result<_, _>>().map_err(wrong)?;
    entries.sort_unstable();
    for entry in entries {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_folder = entry.is_dir();
        if name.starts_with('.') || (is_folder && OTHERS.contains(&name.as_str())) {
            continue;
        }
        if is_folder {
            folder(&entry, found, seen)?;
        } else if entry.extension().is_some_and(|extension| extension == "json") {
            if std::fs::metadata(&entry).is_ok_and(|file| file.len() > LARGEST) {
                found.others.push(entry);
                continue;
            }
            match EvalResult::read(&entry) {
                Ok(result) => found.results.push((entry, result)),
                Err(e) if of_run => found.damaged.push(e),
                Err(_) => found.others.push(entry),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_hold_results_among_other_files() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let json = r#"{"dataset": "d", "model": "m", "pretrained": "p", "task": "t", "metrics": {"acc1": 0.5}}"#;
        for (name, text) in [
            ("b/results/2.json", json),
            ("b/results/1.json", json),
            ("b/checkpoints/x/state.json", json),
            ("a/theirs.json", json),
            ("a/config.json", "{}"),
            ("a/notes.txt", json),
        ] {
            std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            std::fs::write(at(name), text).unwrap();
        }
        std::fs::write(at("b/results/torn.json"), "{").unwrap();
        std::fs::File::create(at("a/annotations.json")).unwrap().set_len(LARGEST + 1).unwrap();
        #[cfg(unix)]
        {
            let elsewhere = tempfile::tempdir().unwrap();
            std::os::unix::fs::symlink(folder.path(), at("a/circle")).unwrap();
            std::fs::create_dir_all(elsewhere.path().join("results")).unwrap();
            std::fs::write(elsewhere.path().join("results/1.json"), json).unwrap();
            std::os::unix::fs::symlink(elsewhere.path(), at("linked")).unwrap();
            let found = collect(&[folder.path().to_owned()]).unwrap();
            assert_eq!((found.results.len(), found.results[3].0.clone()), (4, at("linked/results/1.json")));
            std::fs::remove_file(at("linked")).unwrap();
        }
        let found = collect(&[folder.path().to_owned(), at("a/theirs.json")]).unwrap();
        let paths: Vec<PathBuf> = found.results.into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["a/theirs.json", "b/results/1.json", "b/results/2.json", "a/theirs.json"].map(at));
        assert_eq!(found.others, ["a/annotations.json", "a/config.json"].map(at));
        assert!(found.damaged.len() == 1 && found.damaged[0].to_string().contains("torn.json"), "{:?}", found.damaged);
        assert!(collect(&[at("a/config.json")]).unwrap_err().to_string().contains("a/config.json: no result"));
        assert!(collect(&[at("none")]).unwrap_err().to_string().contains("none"));
    }
}
