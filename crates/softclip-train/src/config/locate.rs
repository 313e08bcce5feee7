//! Where a key of the configuration got its value: on the command line, or in which line of which file.

use super::error::Place;
use super::load::Layer;

/// The last `--set` that gives `key` its value.
pub(super) fn set(key: &str, sets: &[&String]) -> Option<Place> {
    let given = |set: &&&String| {
        let set_key = set.split('=').next().unwrap_or_default();
        set_key == key || key.strip_prefix(set_key).is_some_and(|rest| rest.starts_with(['.', '[']))
    };
    sets.iter().rev().find(given).map(|set| Place::Set((*set).clone()))
}

/// The line that gives `key` its value, in the most specific file. A missing key is nowhere.
pub(super) fn in_files(key: &str, layers: &[Layer]) -> Place {
    // A list's items have numbers for keys.
    let parts: Vec<&str> = key.split(['.', '[', ']']).filter(|part| !part.is_empty() && part.parse::<usize>().is_err()).collect();
    let found = layers.iter().find_map(|layer| Some(Place::File(layer.path.clone(), line(&layer.text, &parts)?)));
    found.unwrap_or_else(|| Place::Nowhere(layers.first().map(|layer| layer.path.clone()).unwrap_or_default()))
}

/// The line on which the last of `parts` stands, from 1; each part is searched below the one before.
pub(crate) fn line(text: &str, parts: &[&str]) -> Option<usize> {
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
