//! Data sets whose captions lie in one file: COCO's and Karpathy's JSON.
//!
//! What single images, captions and instances lack is a fault of theirs; the rest of the file is used.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::lenient::{self, Field, Id, Item, Items};
use super::list::{Entry, List, Store};
use super::parts::Parts;
use super::{SourceError, SourceFault, SourceFaultKind};

#[derive(Deserialize)]
struct CocoCaptions {
    images: Vec<Item<CocoImage>>,
    annotations: Vec<Item<CocoCaption>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CocoImage {
    id: Field,
    file_name: Field,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CocoCaption {
    image_id: Field,
    caption: Field,
}

#[derive(Deserialize)]
struct CocoInstances {
    annotations: Vec<Item<CocoInstance>>,
    categories: Vec<Item<CocoCategory>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CocoInstance {
    image_id: Field,
    category_id: Field,
    iscrowd: Field,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CocoCategory {
    id: Field,
    name: Field,
}

/// Images of a COCO file by their identifiers, in order.
struct CocoImages {
    listed: Vec<(Id, Entry)>,
    number: HashMap<Id, usize>,
}

pub(super) fn coco(spec: &str, rest: &str) -> Result<List, SourceError> {
    let form =
        "coco:captions.json,IMAGES[,instances=instances.json][,rois=DIR][,sidecars=PATTERN] with a folder or tar of images";
    let parts = Parts::new(spec, rest, 2..=2, &["instances", "rois", "sidecars"], form)?;
    let path = Path::new(parts.plain[0]);
    let mut faults = Vec::new();
    let CocoCaptions { images, annotations } = lenient::read(path, &mut faults)?;
    let mut tags = parts.option("instances").map(|file| coco_tags(Path::new(file), &mut faults)).transpose()?;
    let mut images = coco_images(images, &mut faults);
    add_captions(&mut images, annotations, &mut faults);
    let entries = images.listed.into_iter().map(|(id, entry)| {
        let tags = tags.as_mut().map(|tags| tags.remove(&id).unwrap_or_default());
        Entry { tags, ..entry }
    });
    let entries = entries.collect();
    let store = Store::open(Path::new(parts.plain[1]), &mut faults)?;
    let rois = parts.option("rois").map(PathBuf::from);
    // As MS-COCO's own files are called.
    let own = ["train2014", "val2014", "train2017", "val2017"].map(|part| format!("captions_{part}.json"));
    let published = path.file_name().is_some_and(|name| own.iter().any(|own| **own == *name));
    let name = published.then(|| "mscoco_captions".to_owned());
    List { rois, name, ..List::new("COCO", parts.plain[0], entries, store, faults) }
        .checked(spec)?
        .with_sidecars(spec, parts.option("sidecars"))
}

/// The images that have an identifier and a file's name; the others are faults.
fn coco_images(images: Vec<Item<CocoImage>>, faults: &mut Vec<SourceFault>) -> CocoImages {
    let mut found = CocoImages { listed: Vec::new(), number: HashMap::new() };
    for (i, Item(image)) in images.into_iter().enumerate() {
        let mut fault = |kind, place, detail: String| faults.push(SourceFault::new(kind, place, detail));
        let place = format!("images[{i}]");
        let Some(CocoImage { id, file_name }) = image else {
            fault(SourceFaultKind::MissingImage, place, "skipped: it is not an object".to_owned());
            continue;
        };
        let (id, file) = match (id.id(), file_name.text()) {
            (Some(id), Ok(file)) => (id, file),
            (None, _) => {
                fault(SourceFaultKind::MissingCaption, place, format!("skipped: its id is {id}, and no caption can refer to it"));
                continue;
            }
            (Some(id), Err(other)) => {
                fault(SourceFaultKind::MissingImage, format!("image {id}"), format!("skipped: its file_name is {other}"));
                continue;
            }
        };
        if found.number.contains_key(&id) {
            let detail = format!("skipped: another image has the id {id}, too; the first is used");
            fault(SourceFaultKind::DuplicateKey, file, detail);
            continue;
        }
        found.number.insert(id.clone(), found.listed.len());
        found.listed.push((id, Entry { key: stem(&file), image: file, captions: Vec::new(), tags: None, class: None }));
    }
    found
}

/// Gives the images their captions. An image may have others if one of its captions cannot be used.
fn add_captions(images: &mut CocoImages, annotations: Vec<Item<CocoCaption>>, faults: &mut Vec<SourceFault>) {
    for (i, Item(annotation)) in annotations.into_iter().enumerate() {
        let mut orphan = |place, detail: &str| faults.push(SourceFault::new(SourceFaultKind::Orphan, place, detail));
        let place = || format!("annotations[{i}]");
        let Some(CocoCaption { image_id, caption }) = annotation else {
            orphan(place(), "it is not an object");
            continue;
        };
        let Some(id) = image_id.id() else {
            orphan(place(), &format!("a caption whose image_id is {image_id}"));
            continue;
        };
        match (images.number.get(&id), caption.text()) {
            (Some(&image), Ok(caption)) => images.listed[image].1.captions.push(caption),
            (None, _) => orphan(format!("image {id}"), "a caption of an image that is not listed"),
            (Some(_), Err(other)) => orphan(format!("image {id}"), &format!("a caption that is {other}")),
        }
    }
}

/// Category names of each image's instances, duplicates kept, crowds excluded.
fn coco_tags(path: &Path, faults: &mut Vec<SourceFault>) -> Result<HashMap<Id, Vec<String>>, SourceError> {
    let CocoInstances { annotations, categories } = lenient::read(path, faults)?;
    let mut orphan = |place: String, detail: String| faults.push(SourceFault::new(SourceFaultKind::Orphan, place, detail));
    let mut names: HashMap<Id, String> = HashMap::new();
    for (i, Item(category)) in categories.into_iter().enumerate() {
        let CocoCategory { id, name } = category.unwrap_or_default();
        match (id.id(), name.text()) {
            (Some(id), Ok(name)) => drop(names.insert(id, name)),
            (_, name) => {
                orphan(format!("categories[{i}]"), format!("its id is {id}, its name {}", name.map_or_else(|n| n, Field::Text)))
            }
        }
    }
    let mut tags: HashMap<Id, Vec<String>> = HashMap::new();
    for (i, Item(instance)) in annotations.into_iter().enumerate() {
        let CocoInstance { image_id, category_id, iscrowd } = instance.unwrap_or_default();
        let (Some(image), Some(category)) = (image_id.id(), category_id.id()) else {
            let detail = format!("an instance whose image_id is {image_id} and whose category_id is {category_id}");
            orphan(format!("annotations[{i}]"), detail);
            continue;
        };
        match names.get(&category) {
            _ if iscrowd.is_true() => {}
            Some(name) => tags.entry(image).or_default().push(name.clone()),
            None => orphan(format!("image {image}"), format!("an instance of category {category}, which is not listed")),
        }
    }
    Ok(tags)
}

/// The name without its extension, folders kept.
pub(super) fn stem(name: &str) -> String {
    Path::new(name).with_extension("").to_string_lossy().into_owned()
}

#[derive(Deserialize)]
struct Karpathy {
    images: Vec<Item<KarpathyImage>>,
    #[serde(default)]
    dataset: Field,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct KarpathyImage {
    filename: Field,
    filepath: Field,
    split: Field,
    sentences: Items<Sentence>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Sentence {
    raw: Field,
}

pub(super) fn karpathy(spec: &str, rest: &str) -> Result<List, SourceError> {
    let form = "karpathy:dataset.json,IMAGES,split=test[,sidecars=PATTERN] with a folder or tar of images";
    let parts = Parts::new(spec, rest, 2..=3, &["split", "sidecars"], form)?;
    let path = Path::new(parts.plain[0]);
    let mut faults = Vec::new();
    let store = Store::open(Path::new(parts.plain[1]), &mut faults)?;
    let Karpathy { images, dataset } = lenient::read(path, &mut faults)?;
    let mut by_split: Vec<(String, KarpathyImage)> = Vec::new();
    for (i, Item(image)) in images.into_iter().enumerate() {
        let mut image = image.unwrap_or_default();
        match std::mem::take(&mut image.split).text() {
            Ok(split) => by_split.push((split, image)),
            Err(other) => {
                let detail = format!("skipped: its split is {other}");
                faults.push(SourceFault::new(SourceFaultKind::Orphan, format!("images[{i}]"), detail));
            }
        }
    }
    let known: BTreeSet<String> = by_split.iter().map(|(split, _)| split.clone()).collect();
    let has = format!("(it has {}; split=all takes everything)", known.iter().map(String::as_str).collect::<Vec<_>>().join(", "));
    // Without a split an evaluation would take the images that the model was trained on.
    let Some(split) = parts.option("split").or(parts.plain.get(2).copied()) else {
        return Err(parts.wrong(format!("name a split: split=test or split=train+restval {has}")));
    };
    let wanted: Vec<&str> = if split == "all" { known.iter().map(String::as_str).collect() } else { split.split('+').collect() };
    if let Some(missing) = wanted.iter().find(|&&split| !known.contains(split)) {
        return Err(parts.wrong(format!("{} has no split '{missing}' {has}", path.display())));
    }
    let chosen = by_split.into_iter().filter(|(split, _)| wanted.contains(&split.as_str()));
    let entries = chosen.filter_map(|(_, image)| karpathy_entry(image, &store, &mut faults)).collect();
    let name = dataset.text().ok().map(|name| if name == "coco" { "mscoco_captions".to_owned() } else { name });
    let list = List { name, ..List::new("Karpathy", parts.plain[0], entries, store, faults) };
    list.checked(spec)?.with_sidecars(spec, parts.option("sidecars"))
}

fn karpathy_entry(image: KarpathyImage, store: &Store, faults: &mut Vec<SourceFault>) -> Option<Entry> {
    let KarpathyImage { filename, filepath, sentences: Items(sentences), .. } = image;
    let mut fault = |kind, place: &str, detail: String| faults.push(SourceFault::new(kind, place, detail));
    let file = match filename.text() {
        Ok(file) => file,
        Err(other) => {
            fault(SourceFaultKind::MissingImage, "an image", format!("skipped: its filename is {other}"));
            return None;
        }
    };
    let mut captions = Vec::new();
    for Item(sentence) in sentences {
        match sentence.unwrap_or_default().raw.text() {
            Ok(raw) => captions.push(raw),
            Err(other) => fault(SourceFaultKind::Orphan, &file, format!("a sentence whose raw text is {other}")),
        }
    }
    // COCO's images lie in train2014/ and val2014/; where the images were put into one folder, the name alone serves.
    let nested = filepath.text().ok().map(|folder| format!("{folder}/{file}"));
    let place = nested.filter(|path| store.has(path)).unwrap_or_else(|| file.clone());
    Some(Entry { key: stem(&file), image: place, captions, tags: None, class: None })
}
