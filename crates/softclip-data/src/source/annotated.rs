//! Data sets whose captions lie in one file: COCO's and Karpathy's JSON, CSV and TSV tables; and folders of classes.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::list::{Entry, List, Store};
use super::tarball::Tarball;
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
    let form = "coco:captions.json,IMAGES[,instances=instances.json][,rois=DIR] with a folder or tar of images";
    let parts = Parts::new(spec, rest, 2..=2, &["instances", "rois"], form)?;
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
    List { layout: "COCO", place: parts.plain[0].to_owned(), entries, store, rois, classes: None, faults }.checked(spec)
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

fn stem(name: &str) -> String {
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
    let form = "karpathy:dataset.json,IMAGES[,split=train+restval] with a folder or tar of images";
    let parts = Parts::new(spec, rest, 2..=3, &["split"], form)?;
    let path = Path::new(parts.plain[0]);
    let mut faults = Vec::new();
    let store = Store::open(Path::new(parts.plain[1]), &mut faults)?;
    let Karpathy { images } = json(path)?;
    let known: BTreeSet<String> = images.iter().map(|image| image.split.clone()).collect();
    let wanted: Option<Vec<&str>> = parts.option("split").or(parts.plain.get(2).copied()).map(|split| split.split('+').collect());
    if let Some(missing) = wanted.iter().flatten().find(|&&split| !known.contains(split)) {
        let known = known.into_iter().collect::<Vec<_>>().join(", ");
        return Err(parts.wrong(format!("{} has no split '{missing}' (it has {known})", path.display())));
    }
    let entries = images
        .into_iter()
        .filter(|image| wanted.as_ref().is_none_or(|wanted| wanted.contains(&image.split.as_str())))
        .map(|image| {
            // COCO's images lie in train2014/ and val2014/; where the images were put into one folder, the name alone serves.
            let nested = image.filepath.as_ref().map(|folder| format!("{folder}/{}", image.filename));
            let place = nested.filter(|path| store.has(path)).unwrap_or_else(|| image.filename.clone());
            let captions = image.sentences.into_iter().map(|sentence| sentence.raw).collect();
            Entry { key: stem(&image.filename), image: place, captions, tags: None, class: None }
        })
        .collect();
    List { layout: "Karpathy", place: parts.plain[0].to_owned(), entries, store, rois: None, classes: None, faults }.checked(spec)
}

const IMAGE_COLUMNS: [&str; 6] = ["filepath", "image", "path", "file_name", "filename", "file"];
const CAPTION_COLUMNS: [&str; 4] = ["caption", "title", "text", "sentence"];

pub(super) fn table(spec: &str, rest: &str, delimiter: u8) -> Result<List, SourceError> {
    let form = "csv:FILE[,image=COLUMN][,caption=COLUMN] (or tsv:), image paths relative to the file";
    let parts = Parts::new(spec, rest, 1..=1, &["image", "caption"], form)?;
    let path = Path::new(parts.plain[0]);
    let wrong = |reason: String| SourceError::Table { path: path.to_owned(), reason };
    let file = File::open(path).map_err(|e| SourceError::io(path, e, "check the path"))?;
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(BufReader::new(file));
    let header: Vec<String> = reader.headers().map_err(|e| wrong(e.to_string()))?.iter().map(str::to_owned).collect();
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
        let line = record.position().map_or(row as u64 + 2, csv::Position::line);
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
    List { layout: "table", place: parts.plain[0].to_owned(), entries, store, rois: None, classes: None, faults }.checked(spec)
}

const IMAGE_EXTENSIONS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "gif", "bmp"];

fn is_image(name: &str) -> bool {
    let extension = Path::new(name).extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    extension.is_some_and(|e| IMAGE_EXTENSIONS.contains(&e.as_str()))
}

/// A folder for each class, or a tar of such folders. `classnames.tsv` (folder, name) in it or beside the tar gives readable names.
pub(super) fn folder(spec: &str, rest: &str) -> Result<List, SourceError> {
    let path = Path::new(rest);
    let mut faults = Vec::new();
    let (names, store, names_file) = if path.is_file() {
        let mut names = Vec::new();
        let mut members = HashMap::new();
        let (tarball, fault) = Tarball::index(path, true, |name, span| {
            names.push(name.to_owned());
            members.entry(name.to_owned()).or_insert(span);
        })?;
        faults.extend(fault);
        (names, Store::Tar { tarball, members }, path.with_file_name("classnames.tsv"))
    } else {
        (walk(path)?, Store::Folder { root: path.to_owned(), names: None }, path.join("classnames.tsv"))
    };
    let mut images: Vec<(&str, &str)> =
        names.iter().filter(|name| is_image(name)).filter_map(|name| Some((name.rsplit('/').nth(1)?, name.as_str()))).collect();
    images.sort_unstable();
    let folders: Vec<String> = images.iter().map(|image| image.0.to_owned()).collect::<BTreeSet<_>>().into_iter().collect();
    let readable = class_names(&names_file)?;
    let classes = folders.iter().map(|name| readable.get(name).cloned().unwrap_or_else(|| name.replace('_', " "))).collect();
    let entries = images
        .iter()
        .map(|&(folder, name)| Entry {
            key: stem(name),
            image: name.to_owned(),
            captions: Vec::new(),
            tags: None,
            class: folders.binary_search_by(|other| other.as_str().cmp(folder)).ok(),
        })
        .collect();
    let place = rest.to_owned();
    List { layout: "class folders", place, entries, store, rois: None, classes: Some(classes), faults }.checked(spec)
}

fn walk(root: &Path) -> Result<Vec<String>, SourceError> {
    let list = |path: &Path| -> Result<Vec<std::fs::DirEntry>, SourceError> {
        let io = |e| SourceError::io(path, e, "expected a folder with a folder for each class, or a tar of these");
        std::fs::read_dir(path).map_err(io)?.map(|entry| entry.map_err(io)).collect()
    };
    let mut names = Vec::new();
    for class in list(root)?.into_iter().filter(|entry| entry.path().is_dir()) {
        let folder = class.file_name().to_string_lossy().into_owned();
        for file in list(&class.path())? {
            names.push(format!("{folder}/{}", file.file_name().to_string_lossy()));
        }
    }
    Ok(names)
}

fn class_names(path: &Path) -> Result<HashMap<String, String>, SourceError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(e) => return Err(SourceError::io(path, e, "it should give a name to each class folder")),
    };
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(i, line)| {
            let reason = || format!("line {}: expected a folder and a name, separated by a tab", i + 1);
            let (folder, name) =
                line.split_once('\t').ok_or_else(|| SourceError::Table { path: path.to_owned(), reason: reason() })?;
            Ok((folder.trim().to_owned(), name.trim().to_owned()))
        })
        .collect()
}
