//! Data sets that come with lists of their splits.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::mat::integers;
use super::{Classes, Found, Lines, ListedImages, Place, keyed};
use crate::source::SourceError;

/// Oxford-IIIT Pets: `annotations/test.txt` has lines of an image's name, its class from 1, species and breed. A class is called as
/// its images are, without their number.
pub(super) fn pets(place: &Place) -> Result<Found, SourceError> {
    let split = place.split(&["test", "trainval"])?;
    let lines = Lines::read(&place.root.join(format!("annotations/{split}.txt")), "the list of the split")?;
    let mut keys: BTreeMap<usize, String> = BTreeMap::new();
    let mut images = ListedImages::of(&lines);
    for (line, text) in lines.each().filter(|(_, text)| !text.starts_with('#')) {
        let mut words = text.split_whitespace();
        let (Some(image), Some(class)) = (words.next(), words.next()) else {
            return Err(lines.wrong(line, "expected an image's name and its class"));
        };
        let Some(class) = class.parse::<usize>().ok().filter(|class| (1..=PETS).contains(class)) else {
            return Err(lines.wrong(line, format_args!("class {class} is not among 1 to {PETS}")));
        };
        let Some((key, _)) = image.rsplit_once('_') else {
            return Err(lines.wrong(line, format_args!("'{image}' is no class and number joined by _")));
        };
        let known = keys.entry(class).or_insert_with(|| key.to_owned());
        if known != key {
            return Err(lines.wrong(line, format_args!("class {class} is {known}, but the image is called {image}")));
        }
        images.push(line, format!("{image}.jpg"), class)?;
    }
    if let Some((a, b)) = keys.values().enumerate().find_map(|(i, a)| keys.values().skip(i + 1).find(|b| *b == a).map(|b| (a, b)))
    {
        return Err(lines.wrong(1, format_args!("two classes are called {a} and {b}")));
    }
    // Numbers of classes that the list does not have are left out.
    let number: BTreeMap<usize, usize> = keys.keys().enumerate().map(|(id, class)| (*class, id)).collect();
    let found = images.found.into_iter().map(|(image, class)| (image, number[&class])).collect();
    Ok(Found::new(Classes::of_keys(keys.into_values().collect()), found, place.root.join("images")))
}

const PETS: usize = 37;

/// Describable Textures: `labels/test1.txt` has lines of CLASS/IMAGE.
pub(super) fn dtd(place: &Place) -> Result<Found, SourceError> {
    let split = place.parts.option("split").unwrap_or("test1");
    let number = ["test", "train", "val"].iter().find_map(|kind| split.strip_prefix(kind));
    if !number.and_then(|n| n.parse::<u8>().ok()).is_some_and(|n| (1..=10).contains(&n)) {
        return Err(place
            .parts
            .wrong(format!("there is no split '{split}' (there are test1 to test10, likewise train and val)")));
    }
    let lines = Lines::read(&place.root.join(format!("labels/{split}.txt")), "the list of the split")?;
    let class = |text: &str| text.split_once('/').map(|(class, _)| class.to_owned());
    let mut keys: Vec<String> = lines.each().filter_map(|(_, text)| class(text)).collect();
    keys.sort_unstable();
    keys.dedup();
    let images = by_folder(&lines, &keys, |text| text.to_owned())?;
    Ok(Found::new(Classes::of_keys(keys), images, place.root.join("images")))
}

/// Images in lines of CLASS/IMAGE.
fn by_folder(lines: &Lines, keys: &[String], file: impl Fn(&str) -> String) -> Result<Vec<(String, usize)>, SourceError> {
    let ids = keyed(keys);
    let mut images = ListedImages::of(lines);
    for (line, text) in lines.each() {
        let text = text.trim_start_matches('/');
        let Some((class, _)) = text.rsplit_once('/') else {
            return Err(lines.wrong(line, format_args!("expected CLASS/IMAGE, found '{text}'")));
        };
        let Some(&id) = ids.get(class) else {
            return Err(lines.wrong(line, format_args!("'{class}' is not among the {} classes", keys.len())));
        };
        images.push(line, file(text), id)?;
    }
    Ok(images.found)
}

/// Food-101: `meta/test.txt` has lines of CLASS/IMAGE without an extension, `meta/classes.txt` the classes and `meta/labels.txt` their
/// names.
pub(super) fn food101(place: &Place) -> Result<Found, SourceError> {
    let split = place.split(&["test", "train"])?;
    let lines = Lines::read(&place.root.join(format!("meta/{split}.txt")), "the list of the split")?;
    let keys = Lines::read(&place.root.join("meta/classes.txt"), "a class a line")?.keys()?;
    let images = by_folder(&lines, &keys, |text| format!("{text}.jpg"))?;
    let mut classes = Classes::of_keys(keys);
    let labels = place.root.join("meta/labels.txt");
    if labels.is_file() {
        let names = Lines::read(&labels, "a class's name a line")?;
        let found: Vec<String> = names.each().map(|(_, name)| name.to_owned()).collect();
        if found.len() != classes.keys.len() {
            let why = format!("{} names, but classes.txt has {} classes", found.len(), classes.keys.len());
            return Err(SourceError::Table { path: labels, reason: why });
        }
        classes.names = found;
    }
    Ok(Found::new(classes, images, place.root.join("images")))
}

/// Oxford Flowers: `imagelabels.mat` has the class of each image from 1, `setid.mat` the images of each split. Classes have no names.
pub(super) fn flowers102(place: &Place) -> Result<Found, SourceError> {
    let split = place.split(&["test", "train", "val"])?;
    let variable = match split {
        "train" => "trnid",
        "val" => "valid",
        _ => "tstid",
    };
    let (labels_file, split_file) = (place.root.join("imagelabels.mat"), place.root.join("setid.mat"));
    let (labels, ids) = (integers(&labels_file, "labels")?, integers(&split_file, variable)?);
    let wrong = |path: &PathBuf, reason: String| SourceError::Table { path: path.clone(), reason };
    if let Some((image, label)) = labels.iter().enumerate().find(|(_, label)| !(1..=FLOWERS).contains(*label)) {
        return Err(wrong(&labels_file, format!("image {} has class {label}, which is not among 1 to {FLOWERS}", image + 1)));
    }
    let mut seen = std::collections::HashSet::new();
    let image = |&id: &usize| {
        let Some(class) = id.checked_sub(1).and_then(|i| labels.get(i)) else {
            return Err(wrong(
                &split_file,
                format!("{variable} has image {id}, but imagelabels.mat has {} labels", labels.len()),
            ));
        };
        match seen.insert(id) {
            true => Ok((format!("image_{id:05}.jpg"), class - 1)),
            false => Err(wrong(&split_file, format!("{variable} has image {id} twice"))),
        }
    };
    let images = ids.iter().map(image).collect::<Result<_, _>>()?;
    let keys = (1..=FLOWERS).map(|class| class.to_string()).collect();
    Ok(Found::new(Classes::of_keys(keys), images, place.root.join("jpg")))
}

const FLOWERS: usize = 102;

/// SUN397: `Testing_01.txt` to `Testing_10.txt` have lines of /LETTER/CLASS/IMAGE, `ClassName.txt` the classes. The lists may lie in
/// `Partitions`.
pub(super) fn sun397(place: &Place) -> Result<Found, SourceError> {
    let split = place.parts.option("split").unwrap_or("1");
    let Some(number) = split.parse::<u8>().ok().filter(|n| (1..=10).contains(n)) else {
        return Err(place.parts.wrong(format!("there is no split '{split}' (there are 1 to 10)")));
    };
    let list = |name: &str| {
        let names = [format!("Partitions/{name}"), format!("SUN397/{name}"), name.to_owned()];
        place.first(&names.each_ref().map(String::as_str)).unwrap_or_else(|| place.root.join(name))
    };
    let lines = Lines::read(&list(&format!("Testing_{number:02}.txt")), "the list of the split")?;
    let names = Lines::read(&list("ClassName.txt"), "a class a line")?;
    let keys: Vec<String> = names.keys()?.into_iter().map(|key| key.trim_start_matches('/').to_owned()).collect();
    let images = by_folder(&lines, &keys, |text| text.to_owned())?;
    let name = |key: &String| key.split_once('/').map_or(key.as_str(), |(_, name)| name).replace(['_', '/'], " ");
    let classes = Classes { names: keys.iter().map(name).collect(), keys };
    let root = place.first(&["SUN397"]).unwrap_or_else(|| place.root.to_owned());
    Ok(Found::new(classes, images, root))
}
