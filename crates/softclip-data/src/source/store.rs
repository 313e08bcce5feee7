//! Where the images of a list lie: a folder, a tar, or several tars.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use softclip_io::printable;

use super::tarball::{Span, Tarball};
use super::{SourceError, SourceFault, SourceFaultKind};

/// Characters that a message shows of a member's name.
const NAME: usize = 120;

/// Where images lie.
pub(super) enum Store {
    /// Files below `root`; `names` are those right in it, where they were listed.
    Folder { root: PathBuf, names: Option<HashSet<String>> },
    /// Members by their whole name.
    Tar { tarball: Tarball, members: HashMap<String, Span> },
    /// Members by any end of their path, since lists name images with or without the folders that were packed.
    Packed { tarball: Tarball, members: Packed },
    /// Each member with the number of its tar.
    Tars { tarballs: Vec<Tarball>, members: HashMap<String, (usize, Span)> },
}

/// Members of a tar.
#[derive(Default)]
pub(super) struct Packed {
    members: HashMap<String, Span>,
    /// Members in folders by the last part of their path.
    by_name: HashMap<String, Vec<String>>,
}

/// Whether a store has an image.
pub(super) enum Place {
    /// It has.
    Here,
    /// It does not have it, or not as one: why.
    Nowhere(String),
}

impl Packed {
    /// Adds a member, unless there is one of this name.
    fn add(&mut self, name: &str, span: Span) -> bool {
        if self.members.contains_key(name) {
            return false;
        }
        self.members.insert(name.to_owned(), span);
        if let Some((_, last)) = name.rsplit_once('/') {
            self.by_name.entry(last.to_owned()).or_default().push(name.to_owned());
        }
        true
    }

    /// The member of this whole name, else all whose paths end with it.
    fn find<'a>(&'a self, name: &'a str) -> Vec<&'a str> {
        let name = name.strip_prefix("./").unwrap_or(name);
        if self.members.contains_key(name) {
            return vec![name];
        }
        let last = name.rsplit('/').next().unwrap_or(name);
        let ends = |member: &&str| member.strip_suffix(name).is_some_and(|folder| folder.ends_with('/'));
        self.by_name.get(last).into_iter().flatten().map(String::as_str).filter(ends).collect()
    }

    fn span(&self, name: &str) -> Option<Span> {
        match self.find(name)[..] {
            [only] => self.members.get(only).copied(),
            _ => None,
        }
    }
}

/// What may be wrong with the name of a file that is not there.
fn hint(name: &str) -> &'static str {
    match name {
        _ if name.contains("://") => " (an address: only local files are read)",
        _ if name.contains('\\') => " (folders end in `/`, not in `\\`, here)",
        _ => "",
    }
}

impl Store {
    /// A tar, or a folder whose files are listed at once where they lie flat, so that missing ones are known beforehand.
    pub(super) fn open(path: &Path, faults: &mut Vec<SourceFault>) -> Result<Self, SourceError> {
        if path.is_file() {
            let mut members = Packed::default();
            let mut twice = Vec::new();
            let (tarball, damage) = Tarball::index(path, true, |name, span| {
                if !members.add(name, span) {
                    let detail = "the tar has two members of this name; the first is used";
                    twice.push(SourceFault::new(SourceFaultKind::DuplicateKey, name, detail));
                }
            })?;
            faults.extend(damage);
            faults.extend(twice);
            return Ok(Self::Packed { tarball, members });
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
            Self::Packed { members, .. } => members.span(name).is_some(),
            Self::Tars { members, .. } => members.contains_key(name),
        }
    }

    /// Whether it has one image of this name, and if not, what was looked for.
    pub(super) fn find(&self, name: &str) -> Place {
        if self.has(name) {
            return Place::Here;
        }
        let shown = printable(name, NAME);
        Place::Nowhere(match self {
            Self::Folder { root, .. } => format!("there is no file {}{}", root.join(name).display(), hint(name)),
            Self::Packed { tarball, members } => match members.find(name)[..] {
                [one, other, ..] => {
                    let [one, other] = [one, other].map(|name| printable(name, NAME));
                    let tar = tarball.path.display();
                    format!("'{shown}' fits two members of {tar}, '{one}' and '{other}': name it with its folder")
                }
                _ => format!("{} has no member '{shown}'", tarball.path.display()),
            },
            Self::Tar { tarball, .. } => format!("{} has no member '{shown}'", tarball.path.display()),
            Self::Tars { .. } => format!("no tar has a member '{shown}'"),
        })
    }

    /// The names of the files right in it, as far as they were listed. Of a tar, all names without their folders.
    pub(super) fn names(&self) -> Vec<&str> {
        let names: Vec<&str> = match self {
            Self::Folder { names, .. } => names.iter().flatten().map(String::as_str).collect(),
            Self::Tar { members, .. } => members.keys().map(String::as_str).collect(),
            Self::Packed { members, .. } => members.members.keys().chain(members.by_name.keys()).map(String::as_str).collect(),
            Self::Tars { members, .. } => members.keys().map(String::as_str).collect(),
        };
        names.into_iter().filter(|name| !name.contains('/')).collect()
    }

    /// Up to `n` names of what it has, in alphabetical order, for a message.
    pub(super) fn first_names(&self, n: usize) -> Vec<String> {
        let mut names: Vec<&str> = match self {
            Self::Packed { members, .. } => members.members.keys().map(String::as_str).collect(),
            Self::Tar { members, .. } => members.keys().map(String::as_str).collect(),
            Self::Tars { members, .. } => members.keys().map(String::as_str).collect(),
            Self::Folder { .. } => self.names(),
        };
        names.sort_unstable();
        let rest = names.len().saturating_sub(n);
        let mut shown: Vec<String> = names.into_iter().take(n).map(|name| printable(name, NAME)).collect();
        if rest > 0 {
            shown.push(format!("{rest} more"));
        }
        shown
    }

    /// The folder, or the first tar.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Folder { root, .. } => root,
            Self::Tar { tarball, .. } | Self::Packed { tarball, .. } => &tarball.path,
            Self::Tars { tarballs, .. } => tarballs.first().map_or(Path::new(""), |tarball| &tarball.path),
        }
    }

    /// The file with an image: the image itself or its tar.
    pub(super) fn path_of(&self, name: &str) -> Option<PathBuf> {
        match self {
            Self::Folder { root, .. } => Some(root.join(name)),
            Self::Tars { tarballs, members } => Some(tarballs.get(members.get(name)?.0)?.path.clone()),
            Self::Tar { tarball, .. } | Self::Packed { tarball, .. } => Some(tarball.path.clone()),
        }
    }

    pub(super) fn len_of(&self, name: &str) -> Option<u64> {
        match self {
            Self::Folder { root, .. } => std::fs::metadata(root.join(name)).ok().map(|file| file.len()),
            Self::Tar { members, .. } => members.get(name).map(|span| span.len()),
            Self::Packed { members, .. } => members.span(name).map(|span| span.len()),
            Self::Tars { members, .. } => members.get(name).map(|(_, span)| span.len()),
        }
    }

    pub(super) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let (tarball, span) = match self {
            Self::Folder { root, .. } => return std::fs::read(root.join(name)),
            Self::Tar { tarball, members } => (Some(tarball), members.get(name).copied()),
            Self::Packed { tarball, members } => (Some(tarball), members.span(name)),
            Self::Tars { tarballs, members } => {
                let place = members.get(name);
                (place.and_then(|(number, _)| tarballs.get(*number)), place.map(|(_, span)| *span))
            }
        };
        match (tarball, span) {
            (Some(tarball), Some(span)) => tarball.read(span),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, format!("not in {}", self.path().display()))),
        }
    }
}
