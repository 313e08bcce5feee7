//! Members of a tar that make samples: what stands before the first dot of their names is the key.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

use super::tarball::{Span, Tarball};
use super::{SourceError, SourceFault, SourceFaultKind};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
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

    pub(super) fn name(self) -> &'static str {
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
pub(super) struct Index {
    names: String,
    samples: Vec<(Range<u32>, Range<u32>)>,
    members: Vec<(Part, Span)>,
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

/// All keys of a tar with their members, in order.
pub(super) fn samples(path: &Path, keep_open: bool, name: &str) -> Result<(Tarball, Index, Vec<SourceFault>), SourceError> {
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
