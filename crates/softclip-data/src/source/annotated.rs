//! Data sets whose captions lie in one file: COCO's and Karpathy's JSON.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::list::{Entry, List, Store};
use super::parts::Parts;
use super::{SourceError, SourceFault, SourceFaultKind};

fn json<T: DeserializeOwned>(path: &Path) -> Result<T, SourceError> {
    let file = File::open(path).map_err(|e| SourceError::io(path, e, "check the path"))?;
    serde_json::from_reader(BufReader::with_capacity(1 << 20, file)).map_err(|e| SourceError::json(path, &e))
}

#[derive(Deserialize)]
struct CocoImage {
    id: u64,
    file_name: String,
}

#[derive(Deserialize)]
struct CocoCaption {
    image_id: u64,
    caption: String,
}

#[derive(Deserialize)]
struct CocoCaptions {
    images: Vec<CocoImage>,
    annotations: Vec<CocoCaption>,
}

#[derive(Deserialize)]
struct CocoInstances {
    annotations: Vec<CocoInstance>,
    categories: Vec<CocoCategory>,
}

#[derive(Deserialize)]
struct CocoInstance {
    image_id: u64,
    category_id: u64,
    #[serde(default)]
    iscrowd: u8,
}

#[derive(Deserialize)]
struct CocoCategory {
    id: u64,
    name: String,
}

pub(super) fn coco(spec: &str, rest: &str) -> Result<List, SourceError> {
    let form =
        "coco:captions.json,IMAGES[,instances=instances.json][,rois=DIR][,sidecars=PATTERN] with a folder or tar of images";
    let parts = Parts::new(spec, rest, 2..=2, &["instances", "rois", "sidecars"], form)?;
    let path = Path::new(parts.plain[0]);
    let CocoCaptions { images, annotations } = json(path)?;
    let mut tags = parts.option("instances").map(|file| coco_tags(Path::new(file))).transpose()?;
    let mut faults = Vec::new();
    let number: HashMap<u64, usize> = images.iter().enumerate().map(|(i, image)| (image.id, i)).collect();
    let mut captions = vec![Vec::new(); images.len()];
    for annotation in annotations {
        match number.get(&annotation.image_id) {
            Some(&i) => captions[i].push(annotation.caption),
            None => {
                let detail = "a caption of an image that is not listed";
                faults.push(SourceFault::new(SourceFaultKind::Orphan, format!("image {}", annotation.image_id), detail));
            }
        }
    }
    let entries = images
        .into_iter()
        .zip(captions)
        .map(|(image, captions)| Entry {
            key: stem(&image.file_name),
            tags: tags.as_mut().map(|tags| tags.remove(&image.id).unwrap_or_default()),
            image: image.file_name,
            captions,
            class: None,
        })
        .collect();
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

/// Category names of each image's instances, duplicates kept, crowds left out.
fn coco_tags(path: &Path) -> Result<HashMap<u64, Vec<String>>, SourceError> {
    let CocoInstances { annotations, categories } = json(path)?;
    let names: HashMap<u64, String> = categories.into_iter().map(|category| (category.id, category.name)).collect();
    let mut tags: HashMap<u64, Vec<String>> = HashMap::new();
    for instance in annotations.iter().filter(|instance| instance.iscrowd == 0) {
        if let Some(name) = names.get(&instance.category_id) {
            tags.entry(instance.image_id).or_default().push(name.clone());
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
    images: Vec<KarpathyImage>,
    #[serde(default)]
    dataset: Option<String>,
}

#[derive(Deserialize)]
struct KarpathyImage {
    filename: String,
    #[serde(default)]
    filepath: Option<String>,
    split: String,
    sentences: Vec<Sentence>,
}

#[derive(Deserialize)]
struct Sentence {
    raw: String,
}

pub(super) fn karpathy(spec: &str, rest: &str) -> Result<List, SourceError> {
    let form = "karpathy:dataset.json,IMAGES,split=test[,sidecars=PATTERN] with a folder or tar of images";
    let parts = Parts::new(spec, rest, 2..=3, &["split", "sidecars"], form)?;
    let path = Path::new(parts.plain[0]);
    let mut faults = Vec::new();
    let store = Store::open(Path::new(parts.plain[1]), &mut faults)?;
    let Karpathy { images, dataset } = json(path)?;
    let known: BTreeSet<String> = images.iter().map(|image| image.split.clone()).collect();
    let has = format!("(it has {}; split=all takes everything)", known.iter().map(String::as_str).collect::<Vec<_>>().join(", "));
    // Without a split an evaluation would take the images that the model was trained on.
    let Some(split) = parts.option("split").or(parts.plain.get(2).copied()) else {
        return Err(parts.wrong(format!("name a split: split=test or split=train+restval {has}")));
    };
    let wanted: Vec<&str> = if split == "all" { known.iter().map(String::as_str).collect() } else { split.split('+').collect() };
    if let Some(missing) = wanted.iter().find(|&&split| !known.contains(split)) {
        return Err(parts.wrong(format!("{} has no split '{missing}' {has}", path.display())));
    }
    let entries = images
        .into_iter()
        .filter(|image| wanted.contains(&image.split.as_str()))
        .map(|image| {
            // COCO's images lie in train2014/ and val2014/; where the images were put into one folder, the name alone serves.
            let nested = image.filepath.as_ref().map(|folder| format!("{folder}/{}", image.filename));
            let place = nested.filter(|path| store.has(path)).unwrap_or_else(|| image.filename.clone());
            let captions = image.sentences.into_iter().map(|sentence| sentence.raw).collect();
            Entry { key: stem(&image.filename), image: place, captions, tags: None, class: None }
        })
        .collect();
    let name = dataset.map(|name| if name == "coco" { "mscoco_captions".to_owned() } else { name });
    let list = List { name, ..List::new("Karpathy", parts.plain[0], entries, store, faults) };
    list.checked(spec)?.with_sidecars(spec, parts.option("sidecars"))
}
