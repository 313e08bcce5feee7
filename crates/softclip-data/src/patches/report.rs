//! What was cut: counts, and the table that is printed.

use std::fmt;
use std::path::Path;

use serde::{Serialize, Serializer};

use super::error::causes;
use super::pairs::Pair;
use super::{SPLITS, Skipped};

/// Patches of one class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClassCounts {
    /// The class's folder.
    pub class: String,
    /// Its readable name.
    pub name: String,
    /// Patches in each of [`SPLITS`].
    #[serde(flatten, serialize_with = "by_split")]
    pub counts: [usize; 3],
}

impl ClassCounts {
    pub(super) fn new(class: &str, name: &str) -> Self {
        Self { class: class.to_owned(), name: name.to_owned(), counts: [0; 3] }
    }
}

/// An image that was cut.
#[derive(Debug, Serialize)]
pub(super) struct Source {
    name: String,
    image: String,
    mask: String,
    #[serde(flatten, serialize_with = "by_split")]
    pub(super) patches: [usize; 3],
}

impl Source {
    pub(super) fn new(pair: &Pair) -> Self {
        Self { name: pair.name.clone(), image: shown(&pair.image), mask: shown(&pair.mask), patches: [0; 3] }
    }
}

/// A path as JSON can hold it: what is not Unicode is replaced.
pub(super) fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn by_split<S: Serializer>(counts: &[usize; 3], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(SPLITS.iter().zip(counts))
}

/// What was cut. As text it is a table with a row a class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PatchReport {
    /// Pairs that were cut.
    pub pairs: usize,
    /// Images among them that were turned upright as their Exif orientation says; their masks were not.
    pub turned: usize,
    /// Files and folders beside the images and masks that are neither.
    pub passed_over: usize,
    /// Pairs that were left out, by name.
    pub skipped: Vec<Skipped>,
    /// Patches that were left out: too little of them is labelled, and the map has no class for these.
    pub left_out: usize,
    /// Patches by class, in the order of the map.
    pub classes: Vec<ClassCounts>,
}

impl PatchReport {
    /// Patches in each of [`SPLITS`].
    pub fn splits(&self) -> [usize; 3] {
        std::array::from_fn(|split| self.classes.iter().map(|class| class.counts[split]).sum())
    }

    /// All patches.
    pub fn total(&self) -> usize {
        self.splits().iter().sum()
    }

    /// Classes without a patch in a split that has others: (split, class). Zero-shot classification does not offer these.
    pub fn absent(&self) -> Vec<(&'static str, &str)> {
        let splits = SPLITS.into_iter().zip(self.splits()).enumerate().filter(|(_, (_, patches))| *patches > 0);
        let absent = |split: usize| self.classes.iter().filter(move |class| class.counts[split] == 0);
        splits.flat_map(|(i, (split, _))| absent(i).map(move |class| (split, class.class.as_str()))).collect()
    }
}

impl fmt::Display for PatchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let splits = self.splits();
        let with_total = |counts: [usize; 3]| [counts[0], counts[1], counts[2], counts.iter().sum()];
        let totals = with_total(splits);
        let wide = self.classes.iter().map(|class| class.class.chars().count()).chain([5]).max().unwrap_or(5);
        let row = |f: &mut fmt::Formatter, name: &str, counts: [usize; 4], of: [usize; 4]| {
            write!(f, "{name:<wide$}")?;
            for (n, of) in counts.into_iter().zip(of) {
                write!(f, " {n:>9} {:>5.1} %", 100.0 * n as f64 / of.max(1) as f64)?;
            }
            writeln!(f)
        };
        let heads: String = SPLITS.iter().chain(&["total"]).map(|split| format!(" {split:>9}        ")).collect();
        writeln!(f, "{:<wide$}{}", "class", heads.trim_end())?;
        for class in &self.classes {
            row(f, &class.class, with_total(class.counts), totals)?;
        }
        row(f, "total", totals, [self.total(); 4])?;
        write!(f, "{} pairs", self.pairs)?;
        if !self.skipped.is_empty() {
            write!(f, ", {} left out ({})", self.skipped.len(), causes(&self.skipped))?;
        }
        if self.turned > 0 {
            write!(f, "; {} images turned upright by Exif", self.turned)?;
        }
        if self.passed_over > 0 {
            write!(f, "; {} other files and folders passed over", self.passed_over)?;
        }
        if self.left_out > 0 {
            write!(f, "; {} patches left out: too little of them is labelled", self.left_out)?;
        }
        writeln!(f)
    }
}
