//! Samples whose captions lie in memory and whose images lie in a folder or a tar: what COCO, Karpathy, tables, class folders and published
//! sets of classes come to.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::classes::Classes;
use super::members::Part;
use super::sidecar::{Sidecar, Wanted, record};
use super::tarball::{Span, Tarball};
use super::{Rois, Sample, SampleError, SampleErrorKind, Source, SourceError, SourceFault, SourceFaultKind, pattern, rois};

/// Sidecars that are kept open.
const OPEN: usize = 256;

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
    Folder {
        root: PathBuf,
        names: Option<HashSet<String>>,
    },
    Tar {
        tarball: Tarball,
        members: HashMap<String, Span>,
    },
    /// Each member with the number of its tar.
    Tars {
        tarballs: Vec<Tarball>,
        members: HashMap<String, (usize, Span)>,
    },
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
            Self::Tars { members, .. } => members.contains_key(name),
        }
    }

    /// The names of the files right in it, as far as they were listed.
    pub(super) fn names(&self) -> Vec<&str> {
        let names: Vec<&str> = match self {
            Self::Folder { names, .. } => names.iter().flatten().map(String::as_str).collect(),
            Self::Tar { members, .. } => members.keys().map(String::as_str).collect(),
            Self::Tars { members, .. } => members.keys().map(String::as_str).collect(),
        };
        names.into_iter().filter(|name| !name.contains('/')).collect()
    }

    fn len_of(&self, name: &str) -> Option<u64> {
        match self {
            Self::Folder { root, .. } => std::fs::metadata(root.join(name)).ok().map(|file| file.len()),
            Self::Tar { members, .. } => members.get(name).map(|span| span.len()),
            Self::Tars { members, .. } => members.get(name).map(|(_, span)| span.len()),
        }
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        match self {
            Self::Folder { root, .. } => std::fs::read(root.join(name)),
            Self::Tar { tarball, members } => match members.get(name) {
                Some(&span) => tarball.read(span),
                None => Err(io::Error::new(io::ErrorKind::NotFound, format!("not in {}", tarball.path.display()))),
            },
            Self::Tars { tarballs, members } => match members.get(name) {
                Some(&(number, span)) => tarballs[number].read(span),
                None => Err(io::Error::new(io::ErrorKind::NotFound, "not in the tars")),
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
    /// Each with the number of its first entry.
    pub(super) sidecars: Vec<(usize, Sidecar)>,
    pub(super) classes: Option<Classes>,
    /// The data set's name.
    pub(super) name: Option<String>,
    /// Whether its scheme is the published data set's own.
    pub(super) published: bool,
    /// Prompts' templates that come with it.
    pub(super) templates: Option<Vec<String>>,
    pub(super) faults: Vec<SourceFault>,
}

impl List {
    /// Without regions, sidecars and classes.
    pub(super) fn new(layout: &'static str, place: &str, entries: Vec<Entry>, store: Store, faults: Vec<SourceFault>) -> Self {
        let (rois, sidecars, classes, name, templates) = (None, Vec::new(), None, None, None);
        let (place, published) = (place.to_owned(), false);
        List { layout, place, entries, store, rois, sidecars, classes, name, published, templates, faults }
    }

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
                n if self.classes.is_some() => format!("none of its {n} images has a file"),
                n => format!("none of its {n} images has both a file and a caption"),
            };
            return Err(SourceError::Empty { spec: spec.to_owned(), reason });
        }
        Ok(self)
    }

    /// Takes the sidecars that `pattern` names: each is for as many entries as its record says, or as it has keys.
    pub(super) fn with_sidecars(mut self, spec: &str, pattern: Option<&str>) -> Result<Self, SourceError> {
        let Some(pattern) = pattern else { return Ok(self) };
        let place = PathBuf::from(&self.place);
        let lengths: Vec<Option<u64>> = (0..self.len()).into_par_iter().map(|i| self.image_len(i)).collect();
        let mut first = 0;
        for path in pattern::files(pattern)? {
            let rest = self.len() - first;
            let n = match record(&path)? {
                Some(record) => record.samples,
                None => super::members::samples(&path, false, "")?.1.len(),
            };
            if n > rest {
                let reason = format!("it is for {n} samples, {rest} are left; sidecars of another data set, or in another order");
                return Err(SourceError::Sidecar { shard: place, sidecar: path, reason });
            }
            let wanted = |i: usize| Wanted { stem: self.stem(i), image_len: lengths[i], served: true };
            let wanted: Vec<Wanted> = (first..first + n).map(wanted).collect();
            let (sidecar, faults) = Sidecar::open(&path, &place, &wanted, self.sidecars.len() < OPEN, &self.place)?;
            self.sidecars.push((first, sidecar));
            self.faults.extend(faults);
            first += n;
        }
        match self.len() - first {
            0 => Ok(self),
            rest => {
                let reason = format!("its sidecars are for {first} samples, and {rest} more have none: has extraction ended?");
                Err(SourceError::Spec { spec: spec.to_owned(), reason })
            }
        }
    }

    /// A member of the entry's sidecar.
    fn of_sidecar(&self, index: usize, part: Part) -> Result<Option<Vec<u8>>, SampleError> {
        let at = self.sidecars.partition_point(|(first, _)| *first <= index);
        let Some((first, sidecar)) = at.checked_sub(1).and_then(|at| self.sidecars.get(at)) else { return Ok(None) };
        let read = |span| {
            let io = |e| SampleError::new(self.key(index), SampleErrorKind::Io, format!("{}: {e}", part.name()));
            sidecar.tarball.read(span).map_err(io)
        };
        sidecar.member(index - first, part).map(read).transpose()
    }

    /// What was found in the image: of the sidecar, else of what the layout itself has.
    fn found(&self, index: usize) -> Result<(Option<Vec<String>>, Option<Rois>), SampleError> {
        let entry = &self.entries[index];
        let bad = |kind, why: String| SampleError::new(&entry.key, kind, why);
        let tags = match self.of_sidecar(index, Part::Tags)? {
            Some(json) => Some(
                serde_json::from_slice(&json)
                    .map_err(|e| bad(SampleErrorKind::BadJson, format!(".{}: {e}", Part::Tags.name())))?,
            ),
            None => entry.tags.clone(),
        };
        let rois = match self.of_sidecar(index, Part::Rois)? {
            Some(npy) => {
                Some(rois::parse(&npy).map_err(|why| bad(SampleErrorKind::BadRois, format!(".{}: {why}", Part::Rois.name())))?)
            }
            None => self.rois(entry)?,
        };
        Ok((tags, rois))
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
        let (tags, rois) = self.found(index)?;
        Sample { key: entry.key.clone(), image, captions: entry.captions.clone(), tags, rois, class: entry.class }.checked()
    }

    fn image_len(&self, index: usize) -> Option<u64> {
        self.entries.get(index).and_then(|entry| self.store.len_of(&entry.image))
    }

    fn path(&self, index: usize) -> Option<PathBuf> {
        let entry = self.entries.get(index)?;
        Some(match &self.store {
            Store::Folder { root, .. } => root.join(&entry.image),
            Store::Tar { tarball, .. } => tarball.path.clone(),
            Store::Tars { tarballs, members } => tarballs.get(members.get(&entry.image)?.0)?.path.clone(),
        })
    }

    fn describe(&self) -> String {
        format!("{} {}: {} samples", self.layout, self.place, self.len())
    }

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn is_published(&self) -> bool {
        self.published
    }

    fn classes(&self) -> Option<&[String]> {
        self.classes.as_ref().map(|classes| classes.names.as_slice())
    }

    fn class_keys(&self) -> Option<&[String]> {
        self.classes.as_ref().map(|classes| classes.keys.as_slice())
    }

    fn templates(&self) -> Option<&[String]> {
        self.templates.as_deref()
    }

    fn faults(&self) -> &[SourceFault] {
        &self.faults
    }
}
