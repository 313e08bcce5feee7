//! Webdataset shards: tars whose members `key.jpg`, `key.txt`, `key.json`, `key.tags.json` and `key.rois.npy` make a sample.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Deserialize;
use softclip_io::decode_text;

use super::members::{Index, Part, parse_json, samples};
use super::sidecar::{Sidecar, Wanted};
use super::tarball::Tarball;
use super::{Sample, SampleError, SampleErrorKind, ShardRange, Source, SourceError, SourceFault, SourceFaultKind, pattern, rois};

/// Faults that an error shows where nothing can be used.
const FIRST_FAULTS: usize = 3;

struct Shard {
    tarball: Tarball,
    index: Index,
    /// The tar of the same keys that holds tags and regions.
    sidecar: Option<Sidecar>,
    /// The number of this shard's first sample.
    first: usize,
    /// What its keys begin with.
    name: String,
    /// Whether each line of `.txt` is a caption.
    captions_by_line: bool,
}

pub(super) struct Shards {
    spec: String,
    shards: Vec<Shard>,
    len: usize,
    faults: Vec<SourceFault>,
}

impl Shards {
    /// `a.tar`, patterns of tars, and `main+sidecar` patterns that are zipped by key.
    pub(super) fn open(spec: &str) -> Result<Self, SourceError> {
        let (main, side) = match spec.split_once('+') {
            // A file may have a plus in its name.
            Some((main, side)) if !Path::new(spec).is_file() => (pattern::files(main)?, Some(pattern::files(side)?)),
            _ => (pattern::files(spec)?, None),
        };
        if let Some(side) = &side
            && side.len() != main.len()
        {
            let reason = format!("{} shards, but {} sidecars: each shard needs its own", main.len(), side.len());
            return Err(SourceError::Spec { spec: spec.to_owned(), reason });
        }
        let names = shard_names(&main);
        let opened: Vec<(Shard, Vec<String>, Vec<SourceFault>)> = (0..main.len())
            .into_par_iter()
            .map(|i| shard(&main[i], side.as_ref().map(|side| side[i].as_path()), &names[i]))
            .collect::<Result<_, _>>()?;
        let mut source = Self { spec: spec.to_owned(), shards: Vec::new(), len: 0, faults: Vec::new() };
        let mut first_members = Vec::new();
        for (mut shard, members, faults) in opened {
            if first_members.is_empty() {
                first_members = members;
            }
            shard.first = source.len;
            source.len += shard.index.len();
            source.shards.push(shard);
            source.faults.extend(faults);
        }
        if source.len == 0 {
            let reason = nothing_usable(&first_members, &source.faults);
            return Err(SourceError::Empty { spec: spec.to_owned(), reason });
        }
        Ok(source)
    }

    fn locate(&self, index: usize) -> Option<(&Shard, usize)> {
        let shard = &self.shards[self.shards.partition_point(|shard| shard.first <= index).checked_sub(1)?];
        (index < self.len).then_some((shard, index - shard.first))
    }
}

/// The file's name without `.tar`; with folders before it where names alone are not unique.
fn shard_names(files: &[PathBuf]) -> Vec<String> {
    let short = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.trim_end_matches(".gz").trim_end_matches(".tgz").trim_end_matches(".tar").to_owned()
    };
    let names: Vec<String> = files.iter().map(|path| short(path)).collect();
    if names.iter().collect::<HashSet<_>>().len() == files.len() {
        return names;
    }
    files.iter().map(|path| path.with_file_name(short(path)).to_string_lossy().into_owned()).collect()
}

/// What there is instead of samples: the first members and the first faults.
fn nothing_usable(first_members: &[String], faults: &[SourceFault]) -> String {
    let mut reason = "no key of its tars has an image and a caption (key.jpg with key.txt or key.json)".to_owned();
    match first_members {
        [] => reason.push_str("; it has no members"),
        names => reason.push_str(&format!("; the first members are {}", names.join(", "))),
    }
    if first_members.iter().any(|name| name.ends_with(".cls")) {
        reason.push_str("; .cls members are classes: use wds:FOLDER");
    }
    if !faults.is_empty() {
        let first: Vec<String> = faults.iter().take(FIRST_FAULTS).map(ToString::to_string).collect();
        reason.push_str(&format!("; the first of {} faults: {}", faults.len(), first.join("; ")));
    }
    reason
}

type Opened = (Shard, Vec<String>, Vec<SourceFault>);

fn shard(path: &Path, side: Option<&Path>, name: &str) -> Result<Opened, SourceError> {
    let (tarball, mut all, mut faults) = samples(path, true, name)?;
    let first_members = std::mem::take(&mut all.first_members);
    // A sample is an image with a caption; whatever else there is, is reported.
    let lacks: Vec<Option<(SourceFaultKind, String)>> = (0..all.len()).map(|i| lacks(&all, i)).collect();
    let counted = counted_by_damage(&all.breaks, |i| lacks[i].is_some());
    let mut index = Index::default();
    let mut wanted = Vec::new();
    for (i, lacks) in lacks.into_iter().enumerate() {
        if side.is_some() {
            let image_len = all.member(i, Part::Image).map(|span| span.len());
            wanted.push(Wanted { stem: all.stem(i).to_owned(), image_len, served: lacks.is_none() });
        }
        let place = || format!("{name}/{}", all.stem(i));
        match lacks {
            None => index.push(all.stem(i), all.members(i)),
            Some((_, why)) if counted.contains(&i) => {
                let why = format!("{why}; it is next to the damage of its tar, which counts for it");
                faults.push(SourceFault::new(SourceFaultKind::Orphan, place(), why));
            }
            Some((kind, why)) => faults.push(SourceFault::new(kind, place(), why)),
        }
    }
    let sidecar = side.map(|side| Sidecar::open(side, path, &wanted, name)).transpose()?;
    let sidecar = sidecar.map(|(sidecar, of_sidecar)| {
        faults.extend(of_sidecar);
        sidecar
    });
    let shard = Shard { tarball, index, sidecar, first: 0, name: name.to_owned(), captions_by_line: captions_by_line(path) };
    Ok((shard, first_members, faults))
}

/// What keeps a key of a tar from being a sample.
fn lacks(all: &Index, i: usize) -> Option<(SourceFaultKind, String)> {
    let has = |part| all.member(i, part).is_some();
    let (kind, mut why) = if !has(Part::Image) {
        (SourceFaultKind::MissingImage, "skipped: no image member".to_owned())
    } else if !has(Part::Text) && !has(Part::Json) {
        (SourceFaultKind::MissingCaption, "skipped: neither .txt nor .json".to_owned())
    } else {
        return None;
    };
    if let Some(unread) = all.members(i).iter().find_map(|(part, _)| part.why_unread()) {
        why.push_str("; ");
        why.push_str(&unread);
    }
    Some((kind, why))
}

/// Samples next to damage that it made incomplete. Damage counts as one lost sample: one of them for each.
fn counted_by_damage(breaks: &[[Option<usize>; 2]], is_incomplete: impl Fn(usize) -> bool) -> HashSet<usize> {
    let mut counted = HashSet::new();
    for sides in breaks {
        let found = sides.iter().flatten().find(|i| is_incomplete(**i) && !counted.contains(*i));
        counted.extend(found.copied());
    }
    counted
}

/// CLIP_benchmark's retrieval sets put all captions of an image into its `.txt`. A file in the folder above their splits says so.
fn captions_by_line(shard: &Path) -> bool {
    let folder = shard.parent().unwrap_or(Path::new(""));
    ["dataset_type.txt", "../dataset_type.txt"]
        .iter()
        .any(|name| softclip_io::read_text(folder.join(name)).is_ok_and(|kind| kind.trim() == "retrieval"))
}

/// What `key.json` may say: captions of our own shards, or the caption of img2dataset's. A caption that is missing is null, or NaN.
#[derive(Default, Deserialize)]
struct Annotation {
    captions: Option<Vec<Option<String>>>,
    caption: Option<String>,
}

impl Shard {
    fn read(&self, i: usize) -> Result<Sample, SampleError> {
        let key = format!("{}/{}", self.name, self.index.stem(i));
        let error = |kind, detail: String| SampleError::new(&key, kind, detail);
        let bytes = |part| -> Result<Option<Vec<u8>>, SampleError> {
            let of_sidecar = self.sidecar.as_ref().and_then(|sidecar| Some((&sidecar.tarball, sidecar.member(i, part)?)));
            let (tarball, span) = match of_sidecar.filter(|_| matches!(part, Part::Tags | Part::Rois)) {
                Some((tarball, span)) => (tarball, Some(span)),
                None => (&self.tarball, self.index.member(i, part)),
            };
            let read = |span| tarball.read(span).map_err(|e| error(SampleErrorKind::Io, format!("{}: {e}", part.name())));
            span.map(read).transpose()
        };
        let json = |part: Part, why: String| error(SampleErrorKind::BadJson, format!(".{}: {why}", part.name()));
        let image = bytes(Part::Image)?.unwrap_or_default();
        let text = bytes(Part::Text)?;
        let found = bytes(Part::Json)?.map(|file| parse_json(file).map_err(|why| json(Part::Json, why))).transpose();
        let Annotation { captions, caption } = match found {
            Err(_) if text.is_some() => Annotation::default(),
            found => found?.unwrap_or_default(),
        };
        let captions: Option<Vec<String>> = captions.map(|captions| captions.into_iter().flatten().collect());
        let captions = match (captions, text) {
            (Some(captions), _) if !captions.is_empty() => captions,
            (_, Some(text)) => {
                let text = decode_text(text).map_err(|e| error(SampleErrorKind::InvalidUtf8, format!(".txt: {e}")))?;
                if self.captions_by_line { text.lines().map(str::to_owned).collect() } else { vec![text] }
            }
            (_, None) => caption.into_iter().collect(),
        };
        let tags = bytes(Part::Tags)?.map(|file| parse_json(file).map_err(|why| json(Part::Tags, why))).transpose()?;
        let rois = bytes(Part::Rois)?
            .map(|npy| rois::parse(&npy).map_err(|why| error(SampleErrorKind::BadRois, format!(".rois.npy: {why}"))))
            .transpose()?;
        Sample { key: key.clone(), image, captions, tags, rois, class: None }.checked()
    }
}

impl Source for Shards {
    fn len(&self) -> usize {
        self.len
    }

    fn key(&self, index: usize) -> String {
        self.locate(index).map(|(shard, i)| format!("{}/{}", shard.name, shard.index.stem(i))).unwrap_or_default()
    }

    fn read(&self, index: usize) -> Result<Sample, SampleError> {
        match self.locate(index) {
            Some((shard, i)) => shard.read(i),
            None => Err(SampleError::out_of_range(index, self.len)),
        }
    }

    fn stem(&self, index: usize) -> String {
        self.locate(index).map(|(shard, i)| shard.index.stem(i).to_owned()).unwrap_or_default()
    }

    fn image_len(&self, index: usize) -> Option<u64> {
        self.locate(index).and_then(|(shard, i)| shard.index.member(i, Part::Image)).map(|span| span.len())
    }

    fn path(&self, index: usize) -> Option<PathBuf> {
        self.locate(index).map(|(shard, _)| shard.tarball.path.clone())
    }

    fn shards(&self) -> Vec<ShardRange> {
        let range = |shard: &Shard| shard.first..shard.first + shard.index.len();
        self.shards.iter().map(|shard| ShardRange { path: shard.tarball.path.clone(), samples: range(shard) }).collect()
    }

    fn describe(&self) -> String {
        format!("shards {}: {} tars, {} samples", self.spec, self.shards.len(), self.len)
    }

    fn faults(&self) -> &[SourceFault] {
        &self.faults
    }
}
