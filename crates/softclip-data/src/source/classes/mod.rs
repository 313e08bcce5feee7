//! Published data sets of classified images, each in the layout that it is published in.

mod caltech;
mod imagenet;
mod lines;
mod mat;
mod published;
mod shards;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::folders::{is_image, is_passed_over};
use super::list::{Entry, List, Store};
use super::parts::Parts;
use super::{SourceError, SourceFault, SourceFaultKind};

pub(super) use lines::{Lines, ListedImages, keyed};

/// The classes of a data set, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Classes {
    /// What the data set calls each: a folder, a number.
    pub(super) keys: Vec<String>,
    /// What people call it.
    pub(super) names: Vec<String>,
}

impl Classes {
    /// Names made of keys: the part behind the last slash, underscores as spaces.
    pub(super) fn of_keys(keys: Vec<String>) -> Self {
        let names = keys.iter().map(|key| key.rsplit('/').next().unwrap_or(key).replace('_', " ")).collect();
        Self { keys, names }
    }
}

/// A published data set.
struct Kind {
    scheme: &'static str,
    /// CLIP_benchmark's name; none where that follows from the folder.
    name: Option<&'static str>,
    options: &'static [&'static str],
    form: &'static str,
    open: fn(&Place) -> Result<Found, SourceError>,
}

const KINDS: [Kind; 8] = [
    Kind { scheme: "imagenet", name: Some("imagenet1k"), options: &[], form: "imagenet:DIR", open: imagenet::open },
    Kind { scheme: "pets", name: Some("pets"), options: &["split"], form: "pets:DIR[,split=test]", open: published::pets },
    Kind { scheme: "dtd", name: Some("dtd"), options: &["split"], form: "dtd:DIR[,split=test1]", open: published::dtd },
    Kind {
        scheme: "food101",
        name: Some("food101"),
        options: &["split"],
        form: "food101:DIR[,split=test]",
        open: published::food101,
    },
    Kind {
        scheme: "flowers102",
        name: Some("flowers"),
        options: &["split"],
        form: "flowers102:DIR[,split=test]",
        open: published::flowers102,
    },
    Kind { scheme: "sun397", name: Some("sun397"), options: &["split"], form: "sun397:DIR[,split=1]", open: published::sun397 },
    Kind {
        scheme: "caltech101",
        name: Some("caltech101"),
        options: &["split"],
        form: "caltech101:DIR[,split=test]",
        open: caltech::open,
    },
    Kind { scheme: "wds", name: None, options: &["split"], form: "wds:DIR[,split=test]", open: shards::open },
];

/// The schemes that are known here, joined for a message.
pub(super) fn schemes() -> String {
    KINDS.map(|kind| format!("{}:", kind.scheme)).join(", ")
}

/// The folder that a spec names, and its options.
struct Place<'a> {
    root: &'a Path,
    parts: &'a Parts<'a>,
}

impl<'a> Place<'a> {
    /// The split, which is one of `known`.
    fn split(&self, known: &[&'a str]) -> Result<&'a str, SourceError> {
        let split = self.parts.option("split").or(known.first().copied()).unwrap_or_default();
        match known.contains(&split) {
            true => Ok(split),
            false => Err(self.parts.wrong(format!("there is no split '{split}' (there are {})", known.join(", ")))),
        }
    }

    /// The first of `names` that is there.
    fn first(&self, names: &[&str]) -> Option<PathBuf> {
        names.iter().map(|name| self.root.join(name)).find(|path| path.exists())
    }
}

/// What a layout says.
struct Found {
    classes: Classes,
    /// Each with its class.
    images: Vec<(String, usize)>,
    store: Store,
    faults: Vec<SourceFault>,
    /// Of a data set that follows from its folder.
    name: Option<String>,
    templates: Option<Vec<String>>,
}

impl Found {
    fn new(classes: Classes, images: Vec<(String, usize)>, root: PathBuf) -> Self {
        let store = Store::Folder { root, names: None };
        Self { classes, images, store, faults: Vec::new(), name: None, templates: None }
    }
}

/// Whether `scheme` is one of these.
pub(super) fn is_known(scheme: &str) -> bool {
    KINDS.iter().any(|kind| kind.scheme == scheme)
}

pub(super) fn open(spec: &str, scheme: &str, rest: &str) -> Result<List, SourceError> {
    let Some(kind) = KINDS.iter().find(|kind| kind.scheme == scheme) else {
        return Err(SourceError::Spec { spec: spec.to_owned(), reason: format!("known are {}", schemes()) });
    };
    let parts = Parts::new(spec, rest, 1..=1, kind.options, kind.form)?;
    let root = Path::new(parts.plain[0]);
    if !root.is_dir() {
        return Err(parts.wrong(format!("{} is no folder; the form is {}", root.display(), kind.form)));
    }
    let found = (kind.open)(&Place { root, parts: &parts })?;
    let entry = |(image, class): (String, usize)| {
        let key = super::annotated::stem(&image);
        Entry { key, image, captions: Vec::new(), tags: None, class: Some(class) }
    };
    let entries = found.images.into_iter().map(entry).collect();
    let list = List::new(kind.scheme, parts.plain[0], entries, found.store, found.faults);
    let name = kind.name.map(str::to_owned).or(found.name);
    List { name, published: kind.name.is_some(), templates: found.templates, classes: Some(found.classes), ..list }.checked(spec)
}

/// The images of each folder in `root`, by names; what else is there is reported.
fn class_folders(root: &Path, faults: &mut Vec<SourceFault>) -> Result<BTreeMap<String, Vec<String>>, SourceError> {
    let listed = |path: &Path| -> Result<Vec<String>, SourceError> {
        let io = |e| SourceError::io(path, e, "expected a folder with a folder for each class");
        let names = std::fs::read_dir(path).map_err(io)?.map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()));
        let mut names: Vec<String> = names.collect::<Result<_, _>>().map_err(io)?;
        names.retain(|name| !is_passed_over(name));
        names.sort_unstable();
        Ok(names)
    };
    let mut orphan =
        |place: String, why: &str| faults.push(SourceFault::new(SourceFaultKind::Orphan, place, format!("passed over: {why}")));
    let mut classes = BTreeMap::new();
    for class in listed(root)? {
        if !root.join(&class).is_dir() {
            orphan(class, "it lies in no class folder");
            continue;
        }
        let (images, others): (Vec<String>, Vec<String>) =
            listed(&root.join(&class))?.into_iter().partition(|name| is_image(name));
        others.into_iter().for_each(|name| orphan(format!("{class}/{name}"), "no image by its name"));
        classes.insert(class, images);
    }
    Ok(classes)
}
