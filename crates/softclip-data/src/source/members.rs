//! Members of a tar that make samples: what stands before the first dot of their names is the key.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use softclip_io::{decode_text, lenient_json, printable};

use super::tarball::{Event, Span, Special, Tarball};
use super::{SourceError, SourceFault, SourceFaultKind};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Image,
    Text,
    Json,
    Tags,
    Rois,
    /// An image of a format that is not read: its place in [`UNREAD`].
    Unread(u8),
    /// A link, or another member without bytes that can be read, with the name of an image or a text.
    Special(Special),
}

/// Extensions of images that are not read.
const UNREAD: [&str; 17] =
    ["tif", "tiff", "avif", "heic", "heif", "jxl", "jp2", "j2k", "svg", "ico", "tga", "ppm", "pgm", "psd", "dng", "cr2", "nef"];

impl Part {
    fn of(extension: &str) -> Option<Self> {
        let extension = extension.to_ascii_lowercase();
        Some(match extension.as_str() {
            "jpg" | "jpeg" | "jpe" | "jfif" | "png" | "webp" | "gif" | "bmp" => Self::Image,
            "txt" => Self::Text,
            "json" => Self::Json,
            "tags.json" => Self::Tags,
            "rois.npy" => Self::Rois,
            _ => Self::Unread(UNREAD.iter().position(|unread| *unread == extension)? as u8),
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Text => "txt",
            Self::Json => "json",
            Self::Tags => "tags.json",
            Self::Rois => "rois.npy",
            Self::Unread(at) => UNREAD[usize::from(at)],
            Self::Special(_) => "link",
        }
    }

    /// Why a member of this kind is not used, where that is so.
    pub(super) fn why_unread(self) -> Option<String> {
        match self {
            Self::Unread(_) => Some(format!(
                "its .{} is of a format that is not read (JPEG, PNG, WebP, GIF and BMP are): convert it",
                self.name()
            )),
            Self::Special(special) => Some(format!("a member of it is {}", special.describe())),
            _ => None,
        }
    }

    /// A bit of a set of parts.
    fn bit(self) -> u8 {
        match self {
            Self::Image => 1,
            Self::Text => 2,
            Self::Json => 4,
            Self::Tags => 8,
            Self::Rois => 16,
            Self::Unread(_) => 32,
            Self::Special(_) => 64,
        }
    }
}

/// Names of members that an error shows.
const FIRST_MEMBERS: usize = 6;

/// One tar's samples. Names lie in one text and members in one list: a few dozen bytes a sample, for there may be millions.
#[derive(Default)]
pub(super) struct Index {
    names: String,
    samples: Vec<(Range<u32>, Range<u32>)>,
    members: Vec<(Part, Span)>,
    /// The samples before and after each damaged part of the tar, as far as there are any.
    pub(super) breaks: Vec<[Option<usize>; 2]>,
    /// Names of the first members, used or not.
    pub(super) first_members: Vec<String>,
}

impl Index {
    pub(super) fn stem(&self, i: usize) -> &str {
        let name = &self.samples[i].0;
        &self.names[name.start as usize..name.end as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }

    /// All members of a sample.
    pub(super) fn members(&self, i: usize) -> &[(Part, Span)] {
        let range = &self.samples[i].1;
        &self.members[range.start as usize..range.end as usize]
    }

    pub(super) fn member(&self, i: usize, part: Part) -> Option<Span> {
        self.members(i).iter().find(|member| member.0 == part).map(|member| member.1)
    }

    pub(super) fn push(&mut self, stem: &str, members: &[(Part, Span)]) {
        let (name, first) = (self.names.len() as u32, self.members.len() as u32);
        self.names.push_str(stem);
        self.members.extend_from_slice(members);
        self.samples.push((name..self.names.len() as u32, first..self.members.len() as u32));
    }
}

/// Members of one key that follow each other.
struct Run {
    stem: String,
    members: Vec<(Part, Span)>,
}

/// Gathers the members of each key, wherever they are in the tar.
struct Gathering<'a> {
    /// What faults name the tar.
    name: &'a str,
    run: Option<Run>,
    /// The number of each key.
    numbers: HashMap<String, u32>,
    /// Keys in the order of their first members, and which parts each has.
    stems: Vec<(Range<u32>, u8)>,
    names: String,
    members: Vec<(u32, Part, Span)>,
    /// Whether `members` are in the order of their keys.
    ordered: bool,
    /// The first key of this archive, of several joined ones: members of two archives make no sample.
    archive: u32,
    /// The last key that members were added to.
    last: Option<u32>,
    index: Index,
    faults: Vec<SourceFault>,
}

/// All keys of a tar with their members, in the order of the keys' first members.
pub(super) fn samples(path: &Path, keep_open: bool, name: &str) -> Result<(Tarball, Index, Vec<SourceFault>), SourceError> {
    let mut gathering = Gathering {
        name,
        run: None,
        numbers: HashMap::new(),
        stems: Vec::new(),
        names: String::new(),
        members: Vec::new(),
        ordered: true,
        archive: 0,
        last: None,
        index: Index::default(),
        faults: Vec::new(),
    };
    let tarball = Tarball::walk(path, keep_open, |event| match event {
        Event::File(member, span) => gathering.file(member, span),
        Event::Special(member, special) => gathering.special(member, special),
        Event::Fault(fault) => gathering.fault(fault),
    })?;
    let (index, faults) = gathering.finish();
    Ok((tarball, index, faults))
}

impl Gathering<'_> {
    fn see(&mut self, member: &str) {
        if self.index.first_members.len() < FIRST_MEMBERS {
            self.index.first_members.push(printable(member, 80));
        }
    }

    fn file(&mut self, member: &str, span: Span) {
        self.see(member);
        let Some((stem, extension)) = split(member) else { return };
        match Part::of(extension) {
            Some(part) => self.add(stem, part, span),
            None if is_image_by_its_end(extension) && !stem.ends_with('/') && !stem.is_empty() => {
                let place = format!("{}/{member}", self.name);
                self.faults.push(SourceFault::new(SourceFaultKind::Orphan, place, "passed over: a key ends at the first dot"));
            }
            None => {}
        }
    }

    /// A link with the name of an image or a text makes its key incomplete.
    fn special(&mut self, member: &str, special: Special) {
        self.see(member);
        let part = split(member).and_then(|(stem, extension)| Some((stem, Part::of(extension)?)));
        if let Some((stem, Part::Image | Part::Text | Part::Json)) = part {
            self.add(stem, Part::Special(special), Span::default());
        }
        let detail = format!("passed over: {}", special.describe());
        self.faults.push(SourceFault::new(SourceFaultKind::Orphan, format!("{}/{member}", self.name), detail));
    }

    fn add(&mut self, stem: &str, part: Part, span: Span) {
        if self.run.as_ref().is_none_or(|run| run.stem != stem) {
            self.close();
            self.run = Some(Run { stem: stem.to_owned(), members: Vec::new() });
        }
        let Some(run) = &mut self.run else { return };
        match run.members.iter().any(|(other, _)| other.bit() == part.bit()) {
            false => run.members.push((part, span)),
            true if matches!(part, Part::Unread(_) | Part::Special(_)) => {}
            true => {
                let detail = format!("two {} members; the first is used", part.name());
                let place = format!("{}/{stem}", self.name);
                self.faults.push(SourceFault::new(SourceFaultKind::DuplicateKey, place, detail));
            }
        }
    }

    /// Adds the members of the run to their key.
    fn close(&mut self) {
        let Some(Run { stem, members }) = self.run.take() else { return };
        let parts = members.iter().fold(0, |parts, (part, _)| parts | part.bit());
        let number = match self.numbers.get(&stem) {
            None => {
                let (number, name) = (self.stems.len() as u32, self.names.len() as u32);
                self.names.push_str(&stem);
                self.stems.push((name..self.names.len() as u32, parts));
                self.numbers.insert(stem, number);
                number
            }
            // Reading is by position: an image here and its text there make a sample, unless another sample has the same key.
            Some(&number) if self.stems[number as usize].1 & parts == 0 && self.is_joined(number) => {
                self.ordered &= number as usize + 1 == self.stems.len();
                self.stems[number as usize].1 |= parts;
                number
            }
            Some(_) => {
                let detail = "its members come at two places; the first are used";
                let place = format!("{}/{stem}", self.name);
                return self.faults.push(SourceFault::new(SourceFaultKind::DuplicateKey, place, detail));
            }
        };
        self.members.extend(members.into_iter().map(|(part, span)| (number, part, span)));
        self.last = Some(number);
        for after in self.index.breaks.iter_mut().rev().map_while(|[_, after]| after.is_none().then_some(after)) {
            *after = Some(number as usize);
        }
    }

    /// Whether members may be added to a key: it is of the same archive, or the last one of the archive before it. There a block of zeros may
    /// be damage within a sample.
    fn is_joined(&self, number: u32) -> bool {
        number >= self.archive || (number + 1 == self.archive && self.last == Some(number))
    }

    fn fault(&mut self, fault: SourceFault) {
        self.close();
        match fault.kind {
            SourceFaultKind::DamagedShard | SourceFaultKind::TruncatedShard => {
                self.index.breaks.push([self.last.map(|last| last as usize), None]);
            }
            SourceFaultKind::EndMark => self.archive = self.stems.len() as u32,
            _ => {}
        }
        self.faults.push(fault);
    }

    fn finish(mut self) -> (Index, Vec<SourceFault>) {
        self.close();
        if !self.ordered {
            self.members.sort_by_key(|member| member.0);
        }
        let mut first = 0;
        for (number, (name, _)) in self.stems.iter().enumerate() {
            let count = self.members[first..].iter().take_while(|member| member.0 as usize == number).count();
            let range = first as u32..(first + count) as u32;
            self.index.samples.push((name.clone(), range));
            first += count;
        }
        self.index.names = self.names;
        self.index.members = self.members.into_iter().map(|(_, part, span)| (part, span)).collect();
        (self.index, self.faults)
    }
}

/// Reads a JSON member as programs write it: with a byte order mark, or with numbers that are NaN.
pub(super) fn parse_json<T: DeserializeOwned>(file: Vec<u8>) -> Result<T, String> {
    let text = decode_text(file).map_err(|e| e.to_string())?;
    serde_json::from_slice(&lenient_json(text.as_bytes())).map_err(|e| e.to_string())
}

/// A name up to the first dot of its last part, as in webdataset, and the extension after it.
fn split(member: &str) -> Option<(&str, &str)> {
    let base = member.rfind('/').map_or(0, |i| i + 1);
    let dot = base + member[base..].find('.')?;
    Some((&member[..dot], &member[dot + 1..]))
}

fn is_image_by_its_end(extension: &str) -> bool {
    extension.rsplit('.').next().and_then(Part::of) == Some(Part::Image)
}
