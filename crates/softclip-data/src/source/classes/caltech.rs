//! Caltech-101: `101_ObjectCategories/CLASS/IMAGE`, of which no split was published.

use std::path::Path;

use super::{Classes, Found, Lines, ListedImages, Place, class_folders, keyed};
use crate::source::SourceError;

/// Training images of each class, as in CLIP's protocol.
const TRAINING: usize = 30;

/// All 102 folders are classes. Of each the first 30 images by name are for training, the rest for testing.
pub(super) fn open(place: &Place) -> Result<Found, SourceError> {
    let folders = ["101_ObjectCategories", "caltech-101/101_ObjectCategories", "."];
    let root = place.first(&folders).unwrap_or_else(|| place.root.to_owned());
    let mut faults = Vec::new();
    let mut folders = class_folders(&root, &mut faults)?;
    folders.retain(|_, images| !images.is_empty());
    let keys: Vec<String> = folders.keys().cloned().collect();
    let images = match place.parts.option("split").unwrap_or("test") {
        "test" => of(&folders, |i| i >= TRAINING),
        "train" => of(&folders, |i| i < TRAINING),
        "all" => of(&folders, |_| true),
        file if Path::new(file).is_file() => listed(Path::new(file), &keys)?,
        other => {
            let why = format!("there is no split '{other}' (there are test, train, all, or a file with a CLASS/IMAGE a line)");
            return Err(place.parts.wrong(why));
        }
    };
    Ok(Found { faults, ..Found::new(Classes::of_keys(keys), images, root) })
}

fn of(folders: &std::collections::BTreeMap<String, Vec<String>>, wanted: impl Fn(usize) -> bool) -> Vec<(String, usize)> {
    let of_class = |(id, (class, images)): (usize, (&String, &Vec<String>))| {
        let chosen = images.iter().enumerate().filter(|(i, _)| wanted(*i));
        chosen.map(|(_, image)| (format!("{class}/{image}"), id)).collect::<Vec<_>>()
    };
    folders.iter().enumerate().flat_map(of_class).collect()
}

fn listed(path: &Path, keys: &[String]) -> Result<Vec<(String, usize)>, SourceError> {
    let lines = Lines::read(path, "a CLASS/IMAGE a line")?;
    let ids = keyed(keys);
    let mut images = ListedImages::of(&lines);
    for (line, text) in lines.each() {
        let Some(&id) = text.split_once('/').and_then(|(class, _)| ids.get(class)) else {
            return Err(lines.wrong(line, format_args!("'{text}' begins with none of the {} classes", keys.len())));
        };
        images.push(line, text.to_owned(), id)?;
    }
    Ok(images.found)
}
