//! Webdataset shards: tars whose members `key.jpg`, `key.txt`, `key.json`, `key.tags.json` and `key.rois.npy` make a sample.

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Deserialize;

use super::tarball::{Span, Tarball};
use super::{Sample, SampleError, SampleErrorKind, Source, SourceError, SourceFault, SourceFaultKind, pattern, rois};

/// Shards that are kept open; more are opened for each read, since systems limit open files to about a thousand.
const OPEN: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Image,
    Text,
    Json,
    Tags,
    Rois,
}

impl Part {
    fn of(extension: &str) -> Option<Self> {
        Some(match extension.to_ascii_lowercase().as_str() {
            "jpg" | "jpeg" | "png" | "webp" | "gif" | "bmp" => Self::Image,
            "txt" => Self::Text,
            "json" => Self::Json,
            "tags.json" => Self::Tags,
            "rois.npy" => Self::Rois,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Text => "txt",
            Self::Json => "json",
            Self::Tags => "tags.json",
            Self::Rois => "rois.npy",
        }
    }
}

/// One tar's samples. Names lie in one text and members in one list: a few dozen bytes a sample, for there may be millions.
#[derive(Default)]
struct Index {
    names: String,
    samples: Vec<(Range<u32>, Range<u32>)>,
    members: Vec<(Part, Span)>,
}

impl Index {
    fn stem(&self, i: usize) -> &str {
        let name = &self.samples[i].0;
        &self.names[name.start as usize..name.end as usize]
    }

    fn member(&self, i: usize, part: Part) -> Option<Span> {
        let range = &self.samples[i].1;
        let members = &self.members[range.start as usize..range.end as usize];
        members.iter().find(|member| member.0 == part).map(|member| member.1)
    }

    fn push(&mut self, stem: &str, members: &[(Part, Span)]) {
        let (name, first) = (self.names.len() as u32, self.members.len() as u32);
        self.names.push_str(stem);
        self.members.extend_from_slice(members);
        self.samples.push((name..self.names.len() as u32, first..self.members.len() as u32));
    }
}

struct Shard {
    tarball: Tarball,
    index: Index,
    /// The tar of the same keys that holds tags and regions.
    sidecar: Option<(Tarball, Index)>,
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
        let opened: Vec<(Shard, Vec<SourceFault>)> = (0..main.len())
            .into_par_iter()
            .map(|i| shard(&main[i], side.as_ref().map(|side| side[i].as_path()), i < OPEN, &names[i]))
            .collect::<Result<_, _>>()?;
        let mut source = Self { spec: spec.to_owned(), shards: Vec::new(), len: 0, faults: Vec::new() };
        for (mut shard, faults) in opened {
            shard.first = source.len;
            source.len += shard.index.samples.len();
            source.shards.push(shard);
            source.faults.extend(faults);
        }
        if source.len == 0 {
            let reason =
                "no member of its tars is an image with a caption beside it (key.jpg with key.txt or key.json)".to_owned();
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

fn shard(path: &Path, side: Option<&Path>, keep_open: bool, name: &str) -> Result<(Shard, Vec<SourceFault>), SourceError> {
    let (tarball, all, mut faults) = samples(path, keep_open, name)?;
    let sidecar = match side {
        Some(side) => {
            let (side_tarball, side_index, side_faults) = samples(side, keep_open, name)?;
            faults.extend(side_faults);
            zip(path, &all, side, &side_index)?;
            Some((side_tarball, side_index))
        }
        None => None,
    };
    // A sample is an image with a caption; whatever else there is, is reported.
    let mut index = Index::default();
    let mut kept = Vec::new();
    for i in 0..all.samples.len() {
        let has = |part| all.member(i, part).is_some();
        let fault = if !has(Part::Image) {
            (SourceFaultKind::MissingImage, "left out: no image member")
        } else if !has(Part::Text) && !has(Part::Json) {
            (SourceFaultKind::MissingCaption, "left out: neither .txt nor .json")
        } else {
            let members = all.samples[i].1.clone();
            index.push(all.stem(i), &all.members[members.start as usize..members.end as usize]);
            kept.push(i);
            continue;
        };
        faults.push(SourceFault::new(fault.0, format!("{name}/{}", all.stem(i)), fault.1));
    }
    let sidecar = sidecar.map(|(tarball, side)| {
        let mut index = Index::default();
        for &i in &kept {
            let members = side.samples[i].1.clone();
            index.push(side.stem(i), &side.members[members.start as usize..members.end as usize]);
        }
        (tarball, index)
    });
    Ok((Shard { tarball, index, sidecar, first: 0, name: name.to_owned(), captions_by_line: captions_by_line(path) }, faults))
}

/// CLIP_benchmark's retrieval sets put all captions of an image into its `.txt`. A file in the folder above their splits says so.
fn captions_by_line(shard: &Path) -> bool {
    let folder = shard.parent().unwrap_or(Path::new(""));
    ["dataset_type.txt", "../dataset_type.txt"]
        .iter()
        .any(|name| std::fs::read_to_string(folder.join(name)).is_ok_and(|kind| kind.trim() == "retrieval"))
}

/// All keys of a tar with their members, in order.
fn samples(path: &Path, keep_open: bool, name: &str) -> Result<(Tarball, Index, Vec<SourceFault>), SourceError> {
    let mut index = Index::default();
    let mut faults = Vec::new();
    let mut seen: HashSet<String> = HashSet::new();
    let mut current: Option<(String, Vec<(Part, Span)>)> = None;
    let mut close = |current: Option<(String, Vec<(Part, Span)>)>, faults: &mut Vec<SourceFault>| {
        let Some((stem, members)) = current else { return };
        if seen.contains(&stem) {
            let detail = "its members come at two places; the first are used";
            faults.push(SourceFault::new(SourceFaultKind::DuplicateKey, format!("{name}/{stem}"), detail));
        } else {
            index.push(&stem, &members);
            seen.insert(stem);
        }
    };
    let (tarball, fault) = Tarball::index(path, keep_open, |member, span| {
        // The key ends at the first dot of the file's name, as in webdataset.
        let base = member.rfind('/').map_or(0, |i| i + 1);
        let Some(dot) = member[base..].find('.').map(|i| base + i) else { return };
        let (stem, extension) = (&member[..dot], &member[dot + 1..]);
        let Some(part) = Part::of(extension) else {
            let is_image = extension.rsplit('.').next().and_then(Part::of) == Some(Part::Image);
            if is_image && dot > base {
                let detail = "passed over: a key ends at the first dot";
                faults.push(SourceFault::new(SourceFaultKind::Orphan, format!("{name}/{member}"), detail));
            }
            return;
        };
        if current.as_ref().is_none_or(|(key, _)| key != stem) {
            close(current.take(), &mut faults);
            current = Some((stem.to_owned(), Vec::new()));
        }
        if let Some((_, members)) = &mut current {
            if members.iter().any(|(other, _)| *other == part) {
                let detail = format!("two {} members; the first is used", part.name());
                faults.push(SourceFault::new(SourceFaultKind::DuplicateKey, format!("{name}/{stem}"), detail));
            } else {
                members.push((part, span));
            }
        }
    })?;
    close(current.take(), &mut faults);
    faults.extend(fault);
    Ok((tarball, index, faults))
}

fn zip(path: &Path, main: &Index, side_path: &Path, side: &Index) -> Result<(), SourceError> {
    let mismatch = |reason| SourceError::Sidecar { shard: path.to_owned(), sidecar: side_path.to_owned(), reason };
    if main.samples.len() != side.samples.len() {
        return Err(mismatch(format!("{} keys against {}", main.samples.len(), side.samples.len())));
    }
    match (0..main.samples.len()).find(|&i| main.stem(i) != side.stem(i)) {
        Some(i) => Err(mismatch(format!("sample {i} is '{}' in one and '{}' in the other", main.stem(i), side.stem(i)))),
        None => Ok(()),
    }
}

/// What `key.json` may say: captions of our own shards, or the caption of img2dataset's.
#[derive(Default, Deserialize)]
struct Annotation {
    captions: Option<Vec<String>>,
    caption: Option<String>,
}

impl Shard {
    fn read(&self, i: usize) -> Result<Sample, SampleError> {
        let key = format!("{}/{}", self.name, self.index.stem(i));
        let error = |kind, detail: String| SampleError::new(&key, kind, detail);
        let bytes = |part| -> Result<Option<Vec<u8>>, SampleError> {
            let (tarball, span) = match (self.index.member(i, part), &self.sidecar) {
                (Some(span), _) => (&self.tarball, Some(span)),
                (None, Some((tarball, index))) => (tarball, index.member(i, part)),
                (None, None) => (&self.tarball, None),
            };
            let read = |span| tarball.read(span).map_err(|e| error(SampleErrorKind::Io, format!("{}: {e}", part.name())));
            span.map(read).transpose()
        };
        let json = |part: Part, e: serde_json::Error| error(SampleErrorKind::BadJson, format!(".{}: {e}", part.name()));
        let image = bytes(Part::Image)?.unwrap_or_default();
        let text = bytes(Part::Text)?;
        let found = bytes(Part::Json)?.map(|file| serde_json::from_slice(&file).map_err(|e| json(Part::Json, e))).transpose();
        let Annotation { captions, caption } = match found {
            // img2dataset writes numbers that it does not know as NaN, which is no JSON.
            Err(_) if text.is_some() => Annotation::default(),
            found => found?.unwrap_or_default(),
        };
        let captions = match (captions, text) {
            (Some(captions), _) if !captions.is_empty() => captions,
            (_, Some(text)) => {
                let text = String::from_utf8(text).map_err(|e| error(SampleErrorKind::InvalidUtf8, format!(".txt: {e}")))?;
                if self.captions_by_line { text.lines().map(str::to_owned).collect() } else { vec![text] }
            }
            (_, None) => caption.into_iter().collect(),
        };
        let tags = bytes(Part::Tags)?.map(|text| serde_json::from_slice(&text).map_err(|e| json(Part::Tags, e))).transpose()?;
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

    fn path(&self, index: usize) -> Option<PathBuf> {
        self.locate(index).map(|(shard, _)| shard.tarball.path.clone())
    }

    fn describe(&self) -> String {
        format!("shards {}: {} tars, {} samples", self.spec, self.shards.len(), self.len)
    }

    fn faults(&self) -> &[SourceFault] {
        &self.faults
    }
}
