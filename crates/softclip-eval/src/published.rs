//! Class names and templates of the data sets that CLIP's zero-shot tables have, as CLIP's authors published them.

use std::path::{Path, PathBuf};

use softclip_data::source::Source;

use crate::EvalError;

/// A published data set: what its classes are called, in which sentences, and which metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedSet {
    /// CLIP_benchmark's name.
    pub name: &'static str,
    /// A class a line: the data set's own key, a tab, CLIP's name.
    pub classnames: &'static str,
    /// A template a line, `{}` for the class.
    pub templates: &'static str,
    /// The metric of CLIP's tables.
    pub main_metric: &'static str,
}

macro_rules! set {
    ($name:literal, $metric:literal) => {
        PublishedSet {
            name: $name,
            classnames: include_str!(concat!("../assets/zeroshot/", $name, "/classnames.txt")),
            templates: include_str!(concat!("../assets/zeroshot/", $name, "/templates.txt")),
            main_metric: $metric,
        }
    };
}

/// All of them.
pub const PUBLISHED: [PublishedSet; 7] = [
    set!("imagenet1k", "acc1"),
    set!("pets", "mean_per_class_recall"),
    set!("caltech101", "mean_per_class_recall"),
    set!("dtd", "acc1"),
    set!("food101", "acc1"),
    set!("flowers", "mean_per_class_recall"),
    set!("sun397", "acc1"),
];

/// The set of that name.
pub fn published(name: &str) -> Option<&'static PublishedSet> {
    PUBLISHED.iter().find(|set| set.name == name)
}

/// The published set that `source` is. A folder that is only called like one is none.
pub(crate) fn published_source(source: &dyn Source) -> Option<&'static PublishedSet> {
    source.name().filter(|_| source.is_published()).and_then(published)
}

impl PublishedSet {
    /// Writes `classnames.txt` and `templates.txt` into `folder`, to be changed and named with `--classnames` and `--prompts`.
    ///
    /// # Errors
    /// The folder is not writable, or a file is there.
    pub fn write(&self, folder: &Path) -> Result<[PathBuf; 2], EvalError> {
        let files = [("classnames.txt", self.classnames), ("templates.txt", self.templates)];
        let paths = files.map(|(name, _)| folder.join(name));
        let wrong = |path: &Path, why: String| EvalError::Write { path: path.to_owned(), why };
        std::fs::create_dir_all(folder).map_err(|e| wrong(folder, e.to_string()))?;
        if let Some(there) = paths.iter().find(|path| path.exists()) {
            return Err(wrong(there, "it is there already; name another folder, or take it away".to_owned()));
        }
        for (path, (_, text)) in paths.iter().zip(files) {
            std::fs::write(path, text).map_err(|e| wrong(path, e.to_string()))?;
        }
        Ok(paths)
    }
}
