//! Samples whose captions lie in memory and whose images lie in a folder or a tar: what COCO, Karpathy, tables, class folders and published
//! sets of classes come to.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use rayon::prelude::*;

use super::classes::Classes;
use super::members::{Part, parse_json};
use super::sidecar::{Sidecar, Wanted, record};
use super::store::Place;
pub(super) use super::store::Store;
use super::{Rois, Sample, SampleError, SampleErrorKind, Source, SourceError, SourceFault, SourceFaultKind, pattern, rois};

/// Faults that an error shows where nothing can be used.
const FIRST_FAULTS: usize = 3;

pub(super) struct Entry {
    pub(super) key: String,
    /// Path within the store.
    pub(super) image: String,
    pub(super) captions: Vec<String>,
    pub(super) tags: Option<Vec<String>>,
    pub(super) class: Option<usize>,
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
        let (found, first_fault) = (self.entries.len(), faults.len());
        self.entries.retain_mut(|entry| {
            // `x.jpg` and `x.png` are two images: the second is known by its full name.
            if served.get(&entry.key).is_some_and(|image| *image != entry.image) {
                entry.key.clone_from(&entry.image);
            }
            let place = store.find(&entry.image);
            let fault = if entry.captions.is_empty() && entry.class.is_none() {
                (SourceFaultKind::MissingCaption, "skipped".to_owned())
            } else if let Place::Nowhere(why) = place {
                (SourceFaultKind::MissingImage, format!("skipped: {why}"))
            } else if served.contains_key(&entry.key) {
                (SourceFaultKind::DuplicateKey, "the first is used".to_owned())
            } else {
                served.insert(entry.key.clone(), entry.image.clone());
                return true;
            };
            faults.push(SourceFault::new(fault.0, &entry.key, fault.1));
            false
        });
        if self.entries.is_empty() {
            let mut reason = match found {
                0 => format!("{} names no image", self.place),
                n if self.classes.is_some() => format!("none of its {n} images has a file"),
                n => format!("none of its {n} images has both a file and a caption"),
            };
            let first = &self.faults[first_fault..];
            if !first.is_empty() {
                let shown: Vec<String> = first.iter().take(FIRST_FAULTS).map(ToString::to_string).collect();
                reason.push_str(&format!("; the first: {}", shown.join("; ")));
            }
            let has = self.store.first_names(FIRST_FAULTS);
            if !has.is_empty() {
                reason.push_str(&format!("; {} has {}", self.store.path().display(), has.join(", ")));
            }
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
            let (sidecar, faults) = Sidecar::open(&path, &place, &wanted, &self.place)?;
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
            Some(json) => {
                Some(parse_json(json).map_err(|why| bad(SampleErrorKind::BadJson, format!(".{}: {why}", Part::Tags.name())))?)
            }
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
        self.store.path_of(&entry.image)
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
