//! Data sets whose captions lie in one file: COCO's and Karpathy's JSON, CSV and TSV tables.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::list::{Entry, List, Store};
use super::{SourceError, SourceFault, SourceFaultKind};

fn json<T: DeserializeOwned>(path: &Path) -> Result<T, SourceError> {
    let file = File::open(path).map_err(|e| SourceError::io(path, e, "check the path"))?;
    serde_json::from_reader(BufReader::with_capacity(1 << 20, file)).map_err(|e| SourceError::json(path, &e))
}

/// The parts of a spec behind its scheme: two files or folders, then `name=value` options.
struct Parts<'a> {
    spec: &'a str,
    plain: Vec<&'a str>,
    options: Vec<(&'a str, &'a str)>,
}

impl<'a> Parts<'a> {
    fn new(
        spec: &'a str,
        rest: &'a str,
        plain: std::ops::RangeInclusive<usize>,
        names: &[&str],
        form: &str,
    ) -> Result<Self, SourceError> {
        let mut parts = Parts { spec, plain: Vec::new(), options: Vec::new() };
        for part in rest.split(',').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some((name, value)) if names.contains(&name) => parts.options.push((name, value)),
                Some((name, _)) if !name.contains('/') => {
                    let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                    return Err(parts.wrong(format!("unknown option '{name}' (known: {known}); the form is {form}")));
                }
                _ => parts.plain.push(part),
            }
        }
        if plain.contains(&parts.plain.len()) { Ok(parts) } else { Err(parts.wrong(format!("the form is {form}"))) }
    }

    fn option(&self, name: &str) -> Option<&'a str> {
        self.options.iter().find(|option| option.0 == name).map(|option| option.1)
    }

    fn wrong(&self, reason: String) -> SourceError {
        SourceError::Spec { spec: self.spec.to_owned(), reason }
    }
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
    List { rois, ..List::new("COCO", parts.plain[0], entries, store, faults) }
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
    let Karpathy { images } = json(path)?;
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
    List::new("Karpathy", parts.plain[0], entries, store, faults).checked(spec)?.with_sidecars(spec, parts.option("sidecars"))
}

const IMAGE_COLUMNS: [&str; 6] = ["filepath", "image", "path", "file_name", "filename", "file"];
const CAPTION_COLUMNS: [&str; 4] = ["caption", "title", "text", "sentence"];

/// A row put behind the last one. A quote that nothing closes takes it into its cell, which shows that rows were swallowed.
const END: &str = "\0end of the table";

pub(super) fn table(spec: &str, rest: &str, delimiter: u8) -> Result<List, SourceError> {
    let form = "csv:FILE[,image=COLUMN][,caption=COLUMN][,sidecars=PATTERN] (or tsv:), image paths relative to the file";
    let parts = Parts::new(spec, rest, 1..=1, &["image", "caption", "sidecars"], form)?;
    let path = Path::new(parts.plain[0]);
    let wrong = |reason: String| SourceError::Table { path: path.to_owned(), reason };
    let file = File::open(path).map_err(|e| SourceError::io(path, e, "check the path"))?;
    let end = format!("\n{END}");
    let text = BufReader::new(file).chain(end.as_bytes());
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(text);
    let header: Vec<String> = reader.headers().map_err(|e| wrong(e.to_string()))?.iter().map(str::to_owned).collect();
    if header.last().is_some_and(|cell| cell.ends_with(END)) {
        return Err(wrong("no line with the names of its columns, or a quote in it that is not closed".to_owned()));
    }
    let column = |option: &str, usual: &[&str]| {
        let found = match parts.option(option) {
            Some(name) => header.iter().position(|column| column == name),
            None => usual.iter().find_map(|name| header.iter().position(|column| column.eq_ignore_ascii_case(name))),
        };
        found
            .ok_or_else(|| wrong(format!("no column for the {option}; name it with {option}=… (columns: {})", header.join(", "))))
    };
    let (image_column, caption_column) = (column("image", &IMAGE_COLUMNS)?, column("caption", &CAPTION_COLUMNS)?);
    let mut entries: Vec<Entry> = Vec::new();
    let mut number: HashMap<String, usize> = HashMap::new();
    let mut faults = Vec::new();
    for (row, record) in reader.byte_records().enumerate() {
        let record = record.map_err(|e| wrong(e.to_string()))?;
        if record.len() == 1 && record[0] == *END.as_bytes() {
            break;
        }
        let line = record.position().map_or(row as u64 + 2, csv::Position::line);
        let swallows = |cell: &[u8]| cell.ends_with(END.as_bytes()) || (delimiter == b'\t' && cell.contains(&b'\t'));
        if record.iter().any(swallows) {
            let what = "a quote is not closed in this row and takes the next ones into its cell; double it, or take it out";
            return Err(wrong(format!("line {line}: {what}")));
        }
        if record.len() != header.len() {
            let detail = format!("left out: {} cells, the header has {}", record.len(), header.len());
            faults.push(SourceFault::new(SourceFaultKind::BadRow, format!("line {line}"), detail));
            continue;
        }
        let cell = |column: usize| std::str::from_utf8(record.get(column).unwrap_or_default());
        let (Ok(image), Ok(caption)) = (cell(image_column), cell(caption_column)) else {
            faults.push(SourceFault::new(SourceFaultKind::InvalidUtf8, format!("line {line}"), "left out: not UTF-8"));
            continue;
        };
        // A row a caption: rows of the same image are one sample.
        let i = *number.entry(image.to_owned()).or_insert_with(|| {
            entries.push(Entry { key: image.to_owned(), image: image.to_owned(), captions: Vec::new(), tags: None, class: None });
            entries.len() - 1
        });
        entries[i].captions.push(caption.to_owned());
    }
    let root = path.parent().unwrap_or(Path::new("")).to_owned();
    let store = Store::Folder { root, names: None };
    List::new("table", parts.plain[0], entries, store, faults).checked(spec)?.with_sidecars(spec, parts.option("sidecars"))
}
