//! A folder for each class, or a tar of such folders.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::annotated::stem;
use super::classes;
use super::list::{Entry, List, Store};
use super::tarball::Tarball;
use super::{SourceError, SourceFault, SourceFaultKind};

pub(crate) const IMAGE_EXTENSIONS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "gif", "bmp"];
const CLASS_NAMES: &str = "classnames.tsv";

pub(crate) fn is_image(name: &str) -> bool {
    let extension = Path::new(name).extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    extension.is_some_and(|e| IMAGE_EXTENSIONS.contains(&e.as_str()))
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// What systems and this format leave among the images (`.DS_Store`, the table of names) is no mistake.
pub(super) fn is_passed_over(name: &str) -> bool {
    name.starts_with('.') || name == CLASS_NAMES
}

/// Images by class folder; a folder that is there without any has an empty list.
type Classes = BTreeMap<String, Vec<String>>;

/// `classnames.tsv` (folder, name) in the folder or beside the tar gives readable names.
pub(super) fn folders(spec: &str, rest: &str) -> Result<List, SourceError> {
    let path = Path::new(rest);
    let mut faults = Vec::new();
    let (classes, store, names_file) = if path.is_file() {
        let mut files = Vec::new();
        let mut members = HashMap::new();
        let (tarball, fault) = Tarball::index(path, true, |name, span| {
            if !name.split('/').any(is_passed_over) {
                files.push(name.to_owned());
                members.entry(name.to_owned()).or_insert(span);
            }
        })?;
        faults.extend(fault);
        let classes = by_class(files, None, Classes::new(), &mut faults);
        (classes, Store::Tar { tarball, members }, path.with_file_name(CLASS_NAMES))
    } else {
        let (mut files, mut classes) = (Vec::new(), Classes::new());
        walk(path, "", &mut files, &mut classes)?;
        let classes = by_class(files, Some(1), classes, &mut faults);
        (classes, Store::Folder { root: path.to_owned(), names: None }, path.join(CLASS_NAMES))
    };
    let wrong = |reason| SourceError::Spec { spec: spec.to_owned(), reason };
    let names = checked_names(&classes).map_err(wrong)?;
    let readable = class_names(&names_file)?;
    let entry = |class: usize, image: &str| {
        let (key, image) = (stem(image), image.to_owned());
        Entry { key, image, captions: Vec::new(), tags: None, class: Some(class) }
    };
    let images = names.values().enumerate().flat_map(|(class, &folder)| classes[folder].iter().map(move |image| (class, image)));
    let entries = images.map(|(class, image)| entry(class, image)).collect();
    let keys = names.keys().map(|&name| name.to_owned()).collect();
    let names = names.keys().map(|&name| readable.get(name).cloned().unwrap_or_else(|| name.replace('_', " "))).collect();
    let classes = classes::Classes { keys, names };
    let place = rest.to_owned();
    List { classes: Some(classes), ..List::new("class folders", &place, entries, store, faults) }.checked(spec)
}

/// Adds `files` to their class folders, which lie at `depth`. Without one they are where the images nearest the top are, since a
/// tar may hold the folder that was packed. What is no image of a class is reported.
fn by_class(mut files: Vec<String>, depth: Option<usize>, mut classes: Classes, faults: &mut Vec<SourceFault>) -> Classes {
    files.sort_unstable();
    let depth_of = |file: &str| file.matches('/').count();
    let nearest = || files.iter().filter(|file| is_image(file)).map(|file| depth_of(file)).filter(|&depth| depth > 0).min();
    let depth = depth.or_else(nearest).unwrap_or(1);
    for file in files {
        let end = file.match_indices('/').nth(depth - 1).map(|(end, _)| end);
        let images = end.map(|end| classes.entry(file[..end].to_owned()).or_default());
        let why = match images {
            None => "it lies in no class folder",
            Some(_) if !is_image(&file) => "no image by its name",
            Some(_) if depth_of(&file) > depth => "it lies in a folder within a class folder",
            Some(images) => {
                images.push(file);
                continue;
            }
        };
        faults.push(SourceFault::new(SourceFaultKind::Orphan, file, format!("passed over: {why}")));
    }
    classes
}

/// Class folders by name. Each has an image, and no two have the same name.
fn checked_names(classes: &Classes) -> Result<BTreeMap<&str, &str>, String> {
    let mut names = BTreeMap::new();
    for (folder, images) in classes {
        if images.is_empty() {
            let known = IMAGE_EXTENSIONS.join(", .");
            return Err(format!("class folder '{folder}' holds no image (.{known}): take it away, or put images into it"));
        }
        if let Some(other) = names.insert(last(folder), folder.as_str()) {
            return Err(format!("class folders '{other}' and '{folder}' have the same name, which would mix them: rename one"));
        }
    }
    Ok(names)
}

/// All files below `folder`, with their paths from `root`; the folders right in `root` become classes.
fn walk(root: &Path, folder: &str, files: &mut Vec<String>, classes: &mut Classes) -> Result<(), SourceError> {
    let path = root.join(folder);
    let io = |e| SourceError::io(&path, e, "expected a folder with a folder for each class, or a tar of these");
    for entry in std::fs::read_dir(&path).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_passed_over(&name) {
            continue;
        }
        // A class folder may be a link. Below, links are not followed, for they may lead in a circle.
        let top = folder.is_empty();
        let is_folder = if top { entry.path().is_dir() } else { entry.file_type().map_err(io)?.is_dir() };
        let name = if top { name } else { format!("{folder}/{name}") };
        if !is_folder {
            files.push(name);
            continue;
        }
        walk(root, &name, files, classes)?;
        if top {
            classes.insert(name, Vec::new());
        }
    }
    Ok(())
}

fn class_names(path: &Path) -> Result<HashMap<String, String>, SourceError> {
    if !path.exists() {
        return Ok(HashMap::new());
    }
    let lines = classes::Lines::read(path, "a folder, a tab and the name of its class per line")?;
    let pair = |(line, text): (usize, &str)| {
        let pair = text.split_once('\t').map(|(folder, name)| (folder.trim().to_owned(), name.trim().to_owned()));
        pair.ok_or_else(|| lines.wrong(line, "expected a folder and a name, separated by a tab"))
    };
    lines.each().map(pair).collect()
}
