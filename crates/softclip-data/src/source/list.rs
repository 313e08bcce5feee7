//! Samples whose captions lie in memory and whose images lie in a folder or a tar: what COCO, Karpathy, tables and class folders come to.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use super::tarball::{Span, Tarball};
use super::{Rois, Sample, SampleError, SampleErrorKind, Source, SourceError, SourceFault, SourceFaultKind, rois};

pub(super) struct Entry {
    pub(super) key: String,
    /// Path within the store.
    pub(super) image: String,
    pub(super) captions: Vec<String>,
    pub(super) tags: Option<Vec<String>>,
    pub(super) class: Option<usize>,
}

/// Where images lie.
pub(super) enum Store {
    Folder { root: PathBuf, names: Option<HashSet<String>> },
    Tar { tarball: Tarball, members: HashMap<String, Span> },
}

impl Store {
    /// A tar, or a folder whose files are listed at once where they lie flat, so that missing ones are known beforehand.
    pub(super) fn open(path: &Path, faults: &mut Vec<SourceFault>) -> Result<Self, SourceError> {
        if path.is_file() {
            let mut members = HashMap::new();
            let (tarball, fault) = Tarball::index(path, true, |name, span| {
                // Names may stand with or without the folder that was packed.
                let base = name.rsplit('/').next().unwrap_or(name);
                members.entry(base.to_owned()).or_insert(span);
                members.entry(name.to_owned()).or_insert(span);
            })?;
            faults.extend(fault);
            return Ok(Self::Tar { tarball, members });
        }
        let io = |source| SourceError::io(path, source, "expected a folder of images or a tar");
        let mut names = HashSet::new();
        for entry in std::fs::read_dir(path).map_err(io)? {
            names.insert(entry.map_err(io)?.file_name().to_string_lossy().into_owned());
        }
        Ok(Self::Folder { root: path.to_owned(), names: Some(names) })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Self::Folder { names: Some(names), .. } if !name.contains('/') => names.contains(name),
            Self::Folder { root, .. } => root.join(name).is_file(),
            Self::Tar { members, .. } => members.contains_key(name),
        }
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        match self {
            Self::Folder { root, .. } => std::fs::read(root.join(name)),
            Self::Tar { tarball, members } => match members.get(name) {
                Some(&span) => tarball.read(span),
                None => Err(io::Error::new(io::ErrorKind::NotFound, format!("not in {}", tarball.path.display()))),
            },
        }
    }
}

pub(super) struct List {
    pub(super) layout: &'static str,
    pub(super) place: String,
    pub(super) entries: Vec<Entry>,
    pub(super) store: Store,
    pub(super) rois: Option<PathBuf>,
    pub(super) classes: Option<Vec<String>>,
    pub(super) faults: Vec<SourceFault>,
}

impl List {
    /// Leaves out entries without an image, without a caption (unless they have a class), or whose image came before.
    pub(super) fn checked(mut self, spec: &str) -> Result<Self, SourceError> {
        // The image of each key that is served: one that is left out takes no key from another.
        let mut served: HashMap<String, String> = HashMap::new();
        let (store, faults) = (&self.store, &mut self.faults);
        let found = self.entries.len();
        self.entries.retain_mut(|entry| {
            // `x.jpg` and `x.png` are two images: the second is known by its full name.
            if served.get(&entry.key).is_some_and(|image| *image != entry.image) {
                entry.key.clone_from(&entry.image);
            }
            let fault = if entry.captions.is_empty() && entry.class.is_none() {
                (SourceFaultKind::MissingCaption, "left out")
            } else if !store.has(&entry.image) {
                (SourceFaultKind::MissingImage, "left out")
            } else if served.contains_key(&entry.key) {
                (SourceFaultKind::DuplicateKey, "the first is used")
            } else {
                served.insert(entry.key.clone(), entry.image.clone());
                return true;
            };
            faults.push(SourceFault::new(fault.0, &entry.key, fault.1));
            false
        });
        if self.entries.is_empty() {
            let reason = match found {
                0 => format!("{} names no image", self.place),
                n => format!("none of its {n} images has both a file and a caption"),
            };
            return Err(SourceError::Empty { spec: spec.to_owned(), reason });
        }
        Ok(self)
    }

    /// `KEY.npy` with the whole key, folders and dots included. Where it is not there, only a loss that needs it is concerned.
    fn rois(&self, entry: &Entry) -> Result<Option<Rois>, SampleError> {
        let Some(folder) = &self.rois else { return Ok(None) };
        let path = folder.join(format!("{}.npy", entry.key));
        let bad = |kind, detail: String| SampleError::new(&entry.key, kind, format!("{}: {detail}", path.display()));
        match std::fs::read(&path) {
            Ok(bytes) => rois::parse(&bytes).map(Some).map_err(|why| bad(SampleErrorKind::BadRois, why)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(bad(SampleErrorKind::Io, e.to_string())),
        }
    }
}

impl Source for List {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn key(&self, index: usize) -> String {
        self.entries.get(index).map(|entry| entry.key.clone()).unwrap_or_default()
    }

    fn read(&self, index: usize) -> Result<Sample, SampleError> {
        let Some(entry) = self.entries.get(index) else {
            return Err(SampleError::out_of_range(index, self.len()));
        };
        let image = self.store.read(&entry.image).map_err(|e| {
            let kind = if e.kind() == io::ErrorKind::NotFound { SampleErrorKind::MissingImage } else { SampleErrorKind::Io };
            SampleError::new(&entry.key, kind, format!("{}: {e}", entry.image))
        })?;
        let sample = Sample {
            key: entry.key.clone(),
            image,
            captions: entry.captions.clone(),
            tags: entry.tags.clone(),
            rois: self.rois(entry)?,
            class: entry.class,
        };
        sample.checked()
    }

    fn path(&self, index: usize) -> Option<PathBuf> {
        let entry = self.entries.get(index)?;
        Some(match &self.store {
            Store::Folder { root, .. } => root.join(&entry.image),
            Store::Tar { tarball, .. } => tarball.path.clone(),
        })
    }

    fn describe(&self) -> String {
        format!("{} {}: {} samples", self.layout, self.place, self.len())
    }

    fn classes(&self) -> Option<&[String]> {
        self.classes.as_deref()
    }

    fn faults(&self) -> &[SourceFault] {
        &self.faults
    }
}
