//! Images as plain files: a folder of any depth, or a list.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use softclip_data::source::{Sample, SampleError, SampleErrorKind, Source, SourceFault, SourceFaultKind};

use crate::error::{Error, Result};

const EXTENSIONS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "gif", "bmp"];

/// Image files; a path below the root is a key. They have neither captions nor classes.
pub(super) struct Files {
    place: PathBuf,
    root: PathBuf,
    names: Vec<String>,
    faults: Vec<SourceFault>,
}

impl Files {
    /// All images below `root`, sorted by path; hidden files and folders are passed over, links to folders are not followed.
    pub(super) fn folder(root: &Path) -> Result<Self> {
        let (mut names, mut faults) = (Vec::new(), Vec::new());
        walk(root, "", &mut names, &mut faults)?;
        names.sort_unstable();
        Self { place: root.to_owned(), root: root.to_owned(), names, faults }.checked()
    }

    /// The images that a file names, one a line, relative to it. Blank lines and `# comments` are passed over.
    pub(super) fn list(path: &Path) -> Result<Self> {
        let text = softclip_io::read_text(path).map_err(|e| Error::file(path, e))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let root = path.parent().unwrap_or(Path::new("")).to_owned();
        let names = lines.map(str::to_owned).collect();
        Self { place: path.to_owned(), root, names, faults: Vec::new() }.checked()
    }

    fn checked(self) -> Result<Self> {
        match self.names.is_empty() {
            true => Err(Error::file(&self.place, format!("no image in it ({})", EXTENSIONS.map(|e| format!(".{e}")).join(" ")))),
            false => Ok(self),
        }
    }
}

fn walk(folder: &Path, prefix: &str, names: &mut Vec<String>, faults: &mut Vec<SourceFault>) -> Result<()> {
    let io = |source| Error::Io { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        let mut pass_over = |detail: &str| {
            let place = format!("{prefix}{}", name.to_string_lossy());
            faults.push(SourceFault { kind: SourceFaultKind::Orphan, place, detail: format!("passed over: {detail}") });
        };
        let Some(text) = name.to_str() else {
            pass_over("its name is not UTF-8");
            continue;
        };
        let kind = entry.file_type().map_err(io)?;
        if text.starts_with('.') {
        } else if kind.is_dir() {
            walk(&entry.path(), &format!("{prefix}{text}/"), names, faults)?;
        } else if kind.is_symlink() && entry.path().is_dir() {
            pass_over("a link to a folder");
        } else if is_image(text) {
            names.push(format!("{prefix}{text}"));
        } else {
            pass_over("no image by its name");
        }
    }
    Ok(())
}

fn is_image(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, end)| EXTENSIONS.contains(&end.to_ascii_lowercase().as_str()))
}

impl Source for Files {
    fn len(&self) -> usize {
        self.names.len()
    }

    fn key(&self, index: usize) -> String {
        self.names.get(index).cloned().unwrap_or_default()
    }

    fn read(&self, index: usize) -> std::result::Result<Sample, SampleError> {
        let key = self.key(index);
        let image = fs::read(self.root.join(&key)).map_err(|e| {
            let kind = if e.kind() == io::ErrorKind::NotFound { SampleErrorKind::MissingImage } else { SampleErrorKind::Io };
            SampleError::new(&key, kind, e)
        })?;
        Ok(Sample { key, image, captions: Vec::new(), tags: None, rois: None, class: None })
    }

    fn path(&self, index: usize) -> Option<PathBuf> {
        self.names.get(index).map(|name| self.root.join(name))
    }

    fn describe(&self) -> String {
        format!("images {}: {} files", self.place.display(), self.len())
    }

    fn faults(&self) -> &[SourceFault] {
        &self.faults
    }
}

/// A source without its first samples.
pub(super) struct Rest {
    pub(super) source: std::sync::Arc<dyn Source>,
    pub(super) from: usize,
}

impl Source for Rest {
    fn len(&self) -> usize {
        self.source.len().saturating_sub(self.from)
    }

    fn key(&self, index: usize) -> String {
        self.source.key(self.from + index)
    }

    fn read(&self, index: usize) -> std::result::Result<Sample, SampleError> {
        self.source.read(self.from + index)
    }

    fn describe(&self) -> String {
        self.source.describe()
    }
}
