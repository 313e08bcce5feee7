//! ImageNet's validation images (ILSVRC 2012): a folder a synset, or flat with the development kit.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use super::mat::{self, Value};
use super::{Classes, Found, Lines, ListedImages, Place, class_folders};
use crate::source::list::Store;
use crate::source::{SourceError, SourceFault, SourceFaultKind};

const GROUND_TRUTH: &str = "ILSVRC2012_validation_ground_truth.txt";
const TAR: &str = "ILSVRC2012_img_val.tar";
const SOLUTION: &str = "LOC_val_solution.csv";

pub(super) fn open(place: &Place) -> Result<Found, SourceError> {
    let val = place.root.join("val");
    for root in [&val, place.root] {
        if root.is_dir() && any(root, is_synset)? {
            return tree(root);
        }
    }
    flat(place)
}

fn any(root: &Path, wanted: impl Fn(&str) -> bool) -> Result<bool, SourceError> {
    let io = |e| SourceError::io(root, e, "expected ImageNet's images");
    for entry in std::fs::read_dir(root).map_err(io)? {
        if wanted(&entry.map_err(io)?.file_name().to_string_lossy()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// WordNet's id of a noun: n and eight digits.
fn is_synset(name: &str) -> bool {
    name.len() == 9 && name.strip_prefix('n').is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
}

fn is_val_image(name: &str) -> bool {
    name.starts_with("ILSVRC2012_val_")
}

/// `n01440764/ILSVRC2012_val_00000293.JPEG`, the images named in any way.
fn tree(root: &Path) -> Result<Found, SourceError> {
    let mut faults = Vec::new();
    let mut folders = class_folders(root, &mut faults)?;
    folders.retain(|folder, _| {
        if !is_synset(folder) {
            let why = "passed over: its name is no synset's";
            faults.push(SourceFault::new(SourceFaultKind::Orphan, folder.as_str(), why));
        }
        is_synset(folder)
    });
    let of = |(id, (folder, images)): (usize, (&String, &Vec<String>))| {
        images.iter().map(|image| (format!("{folder}/{image}"), id)).collect::<Vec<_>>()
    };
    let images = folders.iter().enumerate().flat_map(of).collect();
    Ok(Found { faults, ..Found::new(Classes::of_keys(folders.into_keys().collect()), images, root.to_owned()) })
}

/// `ILSVRC2012_val_00000001.JPEG` and so on in a tar or in one folder.
fn flat(place: &Place) -> Result<Found, SourceError> {
    let (tar, val) = (place.root.join(TAR), place.root.join("val"));
    let mut faults = Vec::new();
    let store = if tar.is_file() {
        Store::open(&tar, &mut faults)?
    } else if val.is_dir() && any(&val, is_val_image)? {
        Store::open(&val, &mut faults)?
    } else if any(place.root, is_val_image)? {
        Store::open(place.root, &mut faults)?
    } else {
        let why =
            format!("expected val/ or the folder itself with a folder a synset (n01440764), {TAR}, or ILSVRC2012_val_….JPEG");
        return Err(place.parts.wrong(format!("{}: {why}", place.root.display())));
    };
    let labels = match place.first(&[SOLUTION]) {
        Some(path) => solution(&path)?,
        None => devkit(place)?,
    };
    let named: HashSet<&str> = labels.images.iter().map(|(image, _)| image.as_str()).collect();
    let mut bare: Vec<&str> = store.names().into_iter().filter(|name| is_val_image(name) && !named.contains(name)).collect();
    bare.sort_unstable();
    faults.extend(bare.iter().map(|&name| SourceFault::new(SourceFaultKind::Orphan, name, "passed over: no label names it")));
    let mut keys: Vec<String> = labels.synsets;
    keys.sort_unstable();
    keys.dedup();
    let ids: HashMap<&str, usize> = super::keyed(&keys);
    let images = labels.images.into_iter().filter_map(|(image, synset)| Some((image, *ids.get(synset.as_str())?))).collect();
    let root = place.root.to_owned();
    Ok(Found { store, faults, ..Found::new(Classes::of_keys(keys.clone()), images, root) })
}

/// Images with their synsets, and all synsets there are.
struct Labels {
    images: Vec<(String, String)>,
    synsets: Vec<String>,
}

/// Kaggle's table: `ILSVRC2012_val_00048981,n03995372 85 1 499 272 …`, boxes of one synset.
fn solution(path: &Path) -> Result<Labels, SourceError> {
    let lines = Lines::read(path, "Kaggle's table of ImageId and PredictionString")?;
    let mut images = ListedImages::of(&lines);
    let mut synsets = Vec::new();
    for (line, text) in lines.each().filter(|(line, text)| *line > 1 || !text.starts_with("ImageId")) {
        let found = text.split_once(',').and_then(|(image, boxes)| Some((image, boxes.split_whitespace().next()?)));
        match found {
            Some((image, synset)) if is_synset(synset) => {
                images.push(line, format!("{image}.JPEG"), synsets.len())?;
                synsets.push(synset.to_owned());
            }
            _ => return Err(lines.wrong(line, "expected an image's name, a comma and its synset (n01440764)")),
        }
    }
    let images = images.found.into_iter().map(|(image, at)| (image, synsets[at].clone())).collect();
    Ok(Labels { images, synsets })
}

/// The ground truth, a number a line, and what synset each number is.
fn devkit(place: &Place) -> Result<Labels, SourceError> {
    let folders = ["", "data/", "ILSVRC2012_devkit_t12/data/", "devkit/data/"];
    let first = |name: &str| {
        let names = folders.map(|folder| format!("{folder}{name}"));
        place.first(&names.each_ref().map(String::as_str))
    };
    let missing = |what: &str| {
        let why = format!("{} has no {what}: unpack ILSVRC2012_devkit_t12.tar.gz there, or add {SOLUTION}", place.root.display());
        place.parts.wrong(why)
    };
    let truth = Lines::read(&first(GROUND_TRUTH).ok_or_else(|| missing(GROUND_TRUTH))?, "a number a line")?;
    let synsets = match (first("meta.mat"), first("synsets.txt")) {
        (Some(meta), _) => of_meta(&meta)?,
        (None, Some(list)) => of_list(&list)?,
        (None, None) => return Err(missing("meta.mat or synsets.txt")),
    };
    // The line says which image it is: a blank one is passed over, and shifts none.
    let image = |(line, text): (usize, &str)| {
        let synset = text.parse::<usize>().ok().and_then(|id| synsets.get(&id));
        let wrong = || truth.wrong(line, format_args!("'{text}' is not among the {} numbers of synsets", synsets.len()));
        Ok((format!("ILSVRC2012_val_{line:08}.JPEG"), synset.ok_or_else(wrong)?.clone()))
    };
    let images = truth.each().map(image).collect::<Result<_, SourceError>>()?;
    Ok(Labels { images, synsets: synsets.into_values().collect() })
}

/// The synsets without children of the development kit's `meta.mat`, by ILSVRC2012_ID.
fn of_meta(path: &Path) -> Result<BTreeMap<usize, String>, SourceError> {
    let wrong =
        |reason: &str| SourceError::Table { path: path.to_owned(), reason: format!("not the development kit's: {reason}") };
    let Some(Value::Structs(fields)) = mat::read(path)?.remove("synsets") else { return Err(wrong("no struct 'synsets'")) };
    let field = |name: &str| fields.get(name).ok_or_else(|| wrong(&format!("no field {name}")));
    let number = |value: &Value| match value {
        Value::Numbers(one) if one.len() == 1 => mat::whole(one).ok().map(|one| one[0]),
        _ => None,
    };
    let mut synsets = BTreeMap::new();
    for ((id, wnid), children) in field("ILSVRC2012_ID")?.iter().zip(field("WNID")?).zip(field("num_children")?) {
        let (Some(id), Value::Text(wnid), Some(children)) = (number(id), wnid, number(children)) else {
            return Err(wrong("ILSVRC2012_ID and num_children must be numbers, WNID a text"));
        };
        if children == 0 && (!is_synset(wnid) || synsets.insert(id, wnid.clone()).is_some()) {
            return Err(wrong(&format!("synset {id} comes twice, or '{wnid}' is none")));
        }
    }
    Ok(synsets)
}

/// Lines of ILSVRC2012_ID and synset. Lists of synsets alone are sorted by synset, which is another order.
fn of_list(path: &Path) -> Result<BTreeMap<usize, String>, SourceError> {
    let lines = Lines::read(path, "an ILSVRC2012_ID and its synset a line")?;
    let mut synsets = BTreeMap::new();
    for (line, text) in lines.each() {
        let pair = text.split_once(char::is_whitespace).and_then(|(id, synset)| Some((id.parse::<usize>().ok()?, synset.trim())));
        match pair {
            Some((id, synset)) if is_synset(synset) => {
                if synsets.values().any(|other| other == synset) || synsets.insert(id, synset.to_owned()).is_some() {
                    return Err(lines.wrong(line, format_args!("{id} or {synset} comes twice")));
                }
            }
            _ => return Err(lines.wrong(line, "expected a number (ILSVRC2012_ID) and its synset, such as '1 n02119789'")),
        }
    }
    Ok(synsets)
}
