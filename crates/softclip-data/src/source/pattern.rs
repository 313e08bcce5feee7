//! From the text that names shards to a list of files.

use std::path::{Path, PathBuf};

use super::SourceError;

/// Files that `text` names: the one of just this name, or parts joined by `::`, each a path with braces (`{00000..00004}`,
/// `{a,b}`), a glob, or a `.txt` list of such lines, relative to the list. The order is that of the text; a glob's files are
/// sorted by name.
pub(super) fn files(text: &str) -> Result<Vec<PathBuf>, SourceError> {
    if !text.ends_with(".txt") && Path::new(text).is_file() {
        return Ok(vec![PathBuf::from(text)]);
    }
    let mut found = Vec::new();
    for part in text.split("::") {
        for pattern in braces(part).map_err(|reason| SourceError::Spec { spec: text.to_owned(), reason })? {
            if pattern.ends_with(".txt") {
                found.extend(list(Path::new(&pattern))?);
            } else {
                found.extend(globbed(&pattern)?);
            }
        }
    }
    Ok(found)
}

fn globbed(pattern: &str) -> Result<Vec<PathBuf>, SourceError> {
    if Path::new(pattern).is_file() {
        return Ok(vec![PathBuf::from(pattern)]);
    }
    let spec = |reason: String| SourceError::Spec { spec: pattern.to_owned(), reason };
    let paths = glob::glob(pattern).map_err(|e| spec(format!("not a pattern: {e}")))?;
    let files: Vec<PathBuf> = paths.collect::<Result<_, _>>().map_err(|e| SourceError::Io {
        path: e.path().to_owned(),
        source: e.into(),
        hint: "check the folder's permissions".to_owned(),
    })?;
    if files.is_empty() { Err(SourceError::NoMatch { pattern: pattern.to_owned() }) } else { Ok(files) }
}

fn list(path: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let text = softclip_io::read_text(path).map_err(|e| SourceError::text(path, e, "check the path of the list"))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut found = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let line = folder.join(line);
        for pattern in braces(&line.to_string_lossy()).map_err(|reason| SourceError::Table { path: path.to_owned(), reason })? {
            found.extend(globbed(&pattern)?);
        }
    }
    Ok(found)
}

/// All texts that a text with braces stands for, the first brace changing slowest.
fn braces(text: &str) -> Result<Vec<String>, String> {
    let Some(open) = text.find('{') else {
        return Ok(vec![text.to_owned()]);
    };
    let Some(close) = text[open..].find('}').map(|i| open + i) else {
        return Err(format!("'{{' without '}}' in '{text}'"));
    };
    let (before, inside, after) = (&text[..open], &text[open + 1..close], &text[close + 1..]);
    let choices = match inside.split_once("..") {
        Some((first, last)) => {
            range(first, last).ok_or_else(|| format!("'{{{inside}}}' is no range such as {{00000..00009}}"))?
        }
        None => inside.split(',').map(str::to_owned).collect(),
    };
    let rest = braces(after)?;
    Ok(choices.iter().flat_map(|choice| rest.iter().map(move |rest| format!("{before}{choice}{rest}"))).collect())
}

fn range(first: &str, last: &str) -> Option<Vec<String>> {
    let (from, to) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
    let width = if first.starts_with('0') || last.starts_with('0') { first.len().max(last.len()) } else { 0 };
    (from <= to && to - from < 10_000_000).then(|| (from..=to).map(|n| format!("{n:0width$}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_stand_for_ranges_and_choices() {
        assert_eq!(braces("a/{008..011}.tar").unwrap(), ["a/008.tar", "a/009.tar", "a/010.tar", "a/011.tar"]);
        assert_eq!(braces("{8..10}").unwrap(), ["8", "9", "10"]);
        assert_eq!(braces("{a,b}-{1..2}").unwrap(), ["a-1", "a-2", "b-1", "b-2"]);
        assert_eq!(braces("plain").unwrap(), ["plain"]);
        for wrong in ["{1..", "{1..x}", "{3..1}"] {
            assert!(braces(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lists_globs_and_joined_patterns_name_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["b.tar", "a.tar", "c.tar"] {
            std::fs::write(path(name), b"").unwrap();
        }
        std::fs::write(path("list.txt"), "\u{feff}c.tar\r\n# two\r\n\r\n{a,b}.tar\r\n").unwrap();
        let names = |text: &str| -> Vec<String> {
            let text = text.replace("@", &folder.path().to_string_lossy());
            files(&text).unwrap().iter().map(|f| f.file_name().unwrap().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(names("@/*.tar"), ["a.tar", "b.tar", "c.tar"]);
        assert_eq!(names("@/list.txt"), ["c.tar", "a.tar", "b.tar"]);
        assert_eq!(names("@/c.tar::@/a.tar"), ["c.tar", "a.tar"]);
        let missing = files(&format!("{}/{{a..d}}.tar", folder.path().display()));
        assert!(missing.is_err());
        let error = files(&format!("{}/x*.tar", folder.path().display())).unwrap_err();
        assert!(matches!(error, SourceError::NoMatch { .. }), "{error}");
    }
}
