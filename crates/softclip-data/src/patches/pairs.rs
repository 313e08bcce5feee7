//! Which image and which mask belong together.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::{PatchError, SkipCause, Skipped};
use crate::files::at;
use crate::source::folders::IMAGE_EXTENSIONS;
use crate::table::{TableError, TableOptions, TableReader};

/// Formats of aerial images that are not decoded: their files are no mere bystanders.
const UNREAD_EXTENSIONS: [&str; 6] = ["tif", "tiff", "jp2", "j2k", "ecw", "img"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) name: String,
    pub(super) image: PathBuf,
    pub(super) mask: PathBuf,
}

/// Images and masks that belong together, in the order of their names, and what has no partner.
#[derive(Debug, Clone)]
pub struct Pairs {
    pub(super) pairs: Vec<Pair>,
    pub(super) skipped: Vec<Skipped>,
    pub(super) passed_over: usize,
    /// What was named: folders or a table.
    pub(super) from: Vec<PathBuf>,
}

impl Pairs {
    /// Pairs the files of two folders whose names differ in the extension alone. Hidden files and folders within are not looked at.
    ///
    /// # Errors
    /// A folder cannot be read, both are the same, or no image has a mask.
    pub fn in_folders(images: &Path, masks: &Path) -> Result<Self, PatchError> {
        let canonical = |path: &Path| fs::canonicalize(path).map_err(at(path));
        let fail = |reason: String| Err(PatchError::Pairs { path: images.to_owned(), reason });
        if canonical(images)? == canonical(masks)? {
            return fail("images and masks are in one folder: list them in a table with the columns image and mask".to_owned());
        }
        let (images_by_name, others) = by_stem(images)?;
        let (mut masks_by_name, mask_others) = by_stem(masks)?;
        let mut listed = Vec::new();
        let mut skipped = Vec::new();
        for (stem, files) in images_by_name {
            match (files.as_slice(), masks_by_name.remove(&stem).unwrap_or_default().as_slice()) {
                (_, []) => skipped.push(Skipped::new(stem, SkipCause::MissingMask, show(&files))),
                ([image], [mask]) => listed.push((stem, image.clone(), mask.clone())),
                (_, masks) => {
                    let both = format!("{} and {}", show(&files), show(masks));
                    skipped.push(Skipped::new(
                        stem,
                        SkipCause::DuplicateName,
                        format!("one image and one mask are expected: {both}"),
                    ));
                }
            }
        }
        for (stem, files) in masks_by_name {
            skipped.push(Skipped::new(stem, SkipCause::MissingImage, show(&files)));
        }
        if listed.is_empty() {
            let advice = "names must differ in the extension alone, and folders within are not looked at: a table with the columns \
                          image and mask pairs what is named otherwise";
            return fail(format!("no image has a mask in {} ({advice})", masks.display()));
        }
        Ok(Self::named(listed, skipped, others + mask_others, vec![images.to_owned(), masks.to_owned()]))
    }

    /// Reads pairs from a table (CSV, TSV and the like) with the columns `image` and `mask`: paths relative to the table.
    ///
    /// # Errors
    /// The table cannot be read, lacks a column, has no row, or a row is faulty: the message has its line.
    pub fn from_table(path: &Path) -> Result<Self, PatchError> {
        let fail = |reason: String| PatchError::Pairs { path: path.to_owned(), reason };
        let table = |e: TableError| PatchError::Pairs { path: e.path, reason: e.reason };
        let mut reader = TableReader::open(path, TableOptions::default()).map_err(table)?;
        let column = |name: &str| {
            let found = reader.header().iter().position(|cell| cell == name);
            found.ok_or_else(|| fail(format!("no column `{name}`: there are {}", reader.header().join(", "))))
        };
        let columns = [column("image")?, column("mask")?];
        reader.set_image_column(columns[0]);
        let root = path.parent().unwrap_or(Path::new(""));
        let mut listed = Vec::new();
        while let Some(row) = reader.next_row().map_err(table)? {
            if let Some(fault) = row.fault {
                return Err(fail(format!("line {}: {fault}", row.line)));
            }
            let cell =
                |column| row.cell(column).ok_or_else(|| fail(format!("line {}: not UTF-8: save the file as UTF-8", row.line)));
            let [image, mask] = [cell(columns[0])?, cell(columns[1])?];
            if image.is_empty() || mask.is_empty() {
                return Err(fail(format!("line {}: a cell is empty", row.line)));
            }
            // `a.jpg` and `./a.jpg` are one image.
            let stem: PathBuf = Path::new(image).components().filter(|part| *part != Component::CurDir).collect();
            let stem = stem.with_extension("");
            listed.push((stem.to_string_lossy().into_owned(), root.join(image), root.join(mask)));
        }
        match listed.is_empty() {
            true => Err(fail("the table has no rows".to_owned())),
            false => Ok(Self::named(listed, Vec::new(), 0, vec![path.to_owned()])),
        }
    }

    /// Gives pairs the names that their patches begin with. Those with the same one are all left out: none is the right one.
    fn named(listed: Vec<(String, PathBuf, PathBuf)>, mut skipped: Vec<Skipped>, passed_over: usize, from: Vec<PathBuf>) -> Self {
        let mut by_name = BTreeMap::<String, Vec<Pair>>::new();
        for (stem, image, mask) in listed {
            let name = file_name(&stem);
            by_name.entry(name.clone()).or_default().push(Pair { name, image, mask });
        }
        let mut pairs = Vec::new();
        for (name, mut same) in by_name {
            if let (Some(pair), true) = (same.pop(), same.is_empty()) {
                pairs.push(pair);
                continue;
            }
            let detail = format!("{} images of a table or folder come to this name", same.len() + 1);
            skipped.extend((0..=same.len()).map(|_| Skipped::new(&name, SkipCause::DuplicateName, &detail)));
        }
        Self { pairs, skipped, passed_over, from }
    }

    /// How many there are, those without a partner among them.
    pub fn len(&self) -> usize {
        self.pairs.len() + self.skipped.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A shard's key ends at the first dot and must not name a folder.
fn file_name(stem: &str) -> String {
    stem.chars().map(|c| if matches!(c, '.' | '/' | '\\') || c.is_control() { '_' } else { c }).collect()
}

fn show(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The images of a folder by their names without extension, in order, and the number of other files and folders in it.
fn by_stem(folder: &Path) -> Result<(BTreeMap<String, Vec<PathBuf>>, usize), PatchError> {
    let mut found = BTreeMap::<String, Vec<PathBuf>>::new();
    let mut others = 0;
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        let name = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let (stem, extension) = (name(path.file_stem()), name(path.extension()).to_ascii_lowercase());
        if stem.starts_with('.') {
            continue;
        }
        let is_image = IMAGE_EXTENSIONS.iter().chain(&UNREAD_EXTENSIONS).any(|known| *known == extension);
        if is_image && path.is_file() {
            found.entry(stem).or_default().push(path);
        } else {
            others += 1;
        }
    }
    found.values_mut().for_each(|files| files.sort_unstable());
    Ok((found, others))
}
