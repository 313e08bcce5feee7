//! Lists in text files; what is wrong with one is told with its line.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use softclip_io::read_text;

use super::super::SourceError;

/// A text file.
pub(in crate::source) struct Lines {
    path: PathBuf,
    text: String,
}

impl Lines {
    /// Reads it; `what` it should hold is told where that fails.
    pub(in crate::source) fn read(path: &Path, what: &str) -> Result<Self, SourceError> {
        let text = read_text(path).map_err(|e| SourceError::text(path, e, &format!("expected {what}")))?;
        Ok(Self { path: path.to_owned(), text })
    }

    /// Lines that are not blank, without white space around them, with their numbers from 1.
    pub(in crate::source) fn each(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
        numbered.filter(|(_, line)| !line.is_empty())
    }

    pub(in crate::source) fn wrong(&self, line: usize, reason: impl std::fmt::Display) -> SourceError {
        SourceError::Table { path: self.path.clone(), reason: format!("line {line}: {reason}") }
    }

    /// All lines, of which none comes twice and at least one is there: the keys of classes.
    pub(in crate::source) fn keys(&self) -> Result<Vec<String>, SourceError> {
        let mut seen = HashSet::new();
        for (line, key) in self.each() {
            if !seen.insert(key) {
                return Err(self.wrong(line, format_args!("class '{key}' comes twice")));
            }
        }
        let keys: Vec<String> = self.each().map(|(_, key)| key.to_owned()).collect();
        if keys.is_empty() { Err(self.wrong(1, "no class is named")) } else { Ok(keys) }
    }
}

/// Ids of classes by key.
pub(in crate::source) fn keyed(keys: &[String]) -> HashMap<&str, usize> {
    keys.iter().enumerate().map(|(id, key)| (key.as_str(), id)).collect()
}

/// The images that a list names, none of them twice.
pub(in crate::source) struct ListedImages<'a> {
    lines: &'a Lines,
    seen: HashMap<String, usize>,
    pub(in crate::source) found: Vec<(String, usize)>,
}

impl<'a> ListedImages<'a> {
    pub(in crate::source) fn of(lines: &'a Lines) -> Self {
        Self { lines, seen: HashMap::new(), found: Vec::new() }
    }

    pub(in crate::source) fn push(&mut self, line: usize, image: String, class: usize) -> Result<(), SourceError> {
        if let Some(first) = self.seen.insert(image.clone(), line) {
            return Err(self.lines.wrong(line, format_args!("image '{image}' stands in line {first}, too")));
        }
        self.found.push((image, class));
        Ok(())
    }
}
