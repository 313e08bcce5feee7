//! Patch data sets: images cut on a grid, each patch with the class that its part of a mask shows.
//!
//! Aerial images come with masks that say of each pixel what is there. [`write()`] cuts both into squares, gives each a class by
//! the labels that are present, splits them into training, validation and test, and lays them out for evaluation or training:
//!
//! | path | is |
//! | --- | --- |
//! | `test/roof/TILE_448_0.png`, `test/classnames.tsv` | [`Format::Folder`]: a source `folder:OUT/test` of zero-shot classification |
//! | `train/00000.tar` | [`Format::Shards`]: `.png`, `.txt` (the caption), `.json` (captions, class, image, place, shares of labels) |
//! | `prompts.txt` | the template of captions, for prompts |
//! | `patches.json` | options, map, counts, every image with its patches, every pair that was left out and why |
//!
//! The files are a function of the pairs, the map and the options: neither the number of threads nor time is in them. What split a
//! patch goes to is a function of the seed and the names alone, so that further images move no patch.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use std::path::Path;
//! use softclip_data::patches::{self, PatchMap, PatchOptions, Pairs};
//!
//! let map = PatchMap::open(Path::new("configs/patches/roof-solar.yaml"))?;
//! let pairs = Pairs::in_folders(Path::new("tiles"), Path::new("masks"))?;
//! let mut progress = |_done: usize, _of: usize| ControlFlow::Continue(());
//! if let Some(report) = patches::write(Path::new("patches"), &pairs, &map, &PatchOptions::default(), &mut progress)? {
//!     println!("{report}");
//!     let test = softclip_data::source::open("folder:patches/test")?;
//!     assert_eq!(test.len(), report.splits()[2]);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cut;
mod error;
mod map;
mod mask;
mod output;
mod pairs;
mod report;
mod split;
mod yaml;

use std::fs;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::Serialize;
use softclip_io::PartialFolder;

use crate::files::{self, at};
use cut::Cut;
use output::Output;

pub use error::{PatchError, SkipCause, Skipped};
pub use map::PatchMap;
pub use pairs::Pairs;
pub use report::{ClassCounts, PatchReport};
pub use split::{SPLITS, Shares, SplitBy};

/// Grows when the same options give other files.
const VERSION: u32 = 1;

const MANIFEST: &str = "patches.json";
const PROMPTS: &str = "prompts.txt";

/// How patches are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// `SPLIT/CLASS/NAME_X_Y.png`.
    Folder,
    /// `SPLIT/00000.tar` with captions, 1,000 samples each.
    Shards,
}

/// How to cut, split and store.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PatchOptions {
    /// Side of a patch in pixels, from 1 to 65,500. Only whole patches are cut: what is left at the right and lower edge is not used.
    pub size: u32,
    /// Pixels from a patch to the next, at least 1. Below `size` patches overlap.
    pub stride: u32,
    /// Probabilities of the splits.
    pub split: Shares,
    /// What is drawn.
    pub split_by: SplitBy,
    /// Another seed gives other splits.
    pub seed: u64,
    /// How patches are laid out.
    pub format: Format,
    /// Store JPEG of this quality, from 1 to 100; none for PNG, which keeps the pixels.
    pub jpeg: Option<u8>,
    /// The share of pairs that may be unusable, from 0 to 1.
    pub max_bad_share: f64,
    /// The most pixels of an image or mask.
    pub max_pixels: u64,
    /// Take images as they are stored, and not upright as their Exif orientation says: for masks drawn on them as stored.
    pub ignore_exif: bool,
    /// Replace a data set of patches that is there.
    #[serde(skip)]
    pub force: bool,
}

impl Default for PatchOptions {
    fn default() -> Self {
        Self {
            size: 224,
            stride: 224,
            split: Shares::default(),
            split_by: SplitBy::Image,
            seed: 0,
            format: Format::Folder,
            jpeg: None,
            max_bad_share: 0.1,
            max_pixels: 400_000_000,
            ignore_exif: false,
            force: false,
        }
    }
}

impl PatchOptions {
    fn validate(&self) -> Result<(), PatchError> {
        let bad = |option, reason: String| Err(PatchError::Option { option, reason });
        // JPEG's limit; the pixels of a larger patch could not be counted in 32 bits.
        if !(1..=65_500).contains(&self.size) {
            return bad("size", format!("{} pixels: 1 to 65500 are accepted", self.size));
        }
        if self.stride == 0 {
            return bad("stride", "0 pixels: at least 1 is accepted".to_owned());
        }
        if let Some(quality) = self.jpeg.filter(|quality| !(1..=100).contains(quality)) {
            return bad("jpeg", format!("quality {quality}: 1 to 100 are accepted"));
        }
        if !(0.0..=1.0).contains(&self.max_bad_share) {
            return bad("max_bad_share", format!("{} is no share: 0 to 1 is accepted", self.max_bad_share));
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct Manifest<'a> {
    version: u32,
    from: Vec<String>,
    options: &'a PatchOptions,
    map: &'a PatchMap,
    counts: &'a PatchReport,
    sources: &'a [report::Source],
}

/// Cuts the pairs into patches and writes them to the folder `out`, which appears complete or not at all. `progress` is told the
/// numbers of pairs done and to do, on the calling thread; where it says to stop, nothing is written and there is no report.
///
/// In memory are the images of 64 million pixels, or a single larger one: at most about 12 bytes a pixel.
///
/// # Errors
/// An option is out of range, `out` holds something else, more pairs than [`PatchOptions::max_bad_share`] cannot be used, no patch
/// has a class, or the system cannot write. Half of a data set is removed.
pub fn write(
    out: &Path,
    pairs: &Pairs,
    map: &PatchMap,
    options: &PatchOptions,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Option<PatchReport>, PatchError> {
    options.validate()?;
    let replaces = check_place(out, pairs, map, options.force)?;
    let parent = match out.parent() {
        Some(parent) if parent != Path::new("") => files::folder(parent.to_owned())?,
        _ => PathBuf::from("."),
    };
    let temporary = PartialFolder::create(&parent, ".patches-").map_err(at(&parent))?;
    let root = temporary.path();
    let mut output = Output::new(root, map, options.format, options.jpeg);
    let Some((report, sources)) = (Cut { pairs, map, options }).all(&mut output, progress)? else { return Ok(None) };
    output.finish()?;
    let from = pairs.from.iter().map(|path| report::shown(path)).collect();
    let manifest = Manifest { version: VERSION, from, options, map, counts: &report, sources: &sources };
    files::save_json(&root.join(MANIFEST), &manifest)?;
    files::sync_folders(root)?;
    let placed = if replaces { temporary.replace(out) } else { temporary.persist(out) };
    placed.map_err(at(out))?;
    Ok(Some(report))
}

/// Whether there is a data set to replace. What this command did not make is never removed.
fn check_place(out: &Path, pairs: &Pairs, map: &PatchMap, force: bool) -> Result<bool, PatchError> {
    let occupied = |reason: &str| Err(PatchError::Occupied { path: out.to_owned(), reason: reason.to_owned() });
    if out.file_name().is_none() {
        return occupied("has no name that the finished folder could be given: name a folder within it");
    }
    match fs::read_dir(out).map(|mut entries| entries.next().is_none()) {
        Ok(true) => return Ok(false),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(at(out)(error).into()),
        Ok(false) => {}
    }
    if !force {
        return occupied("is not empty: name another folder, or --force to replace a data set of patches");
    }
    if !out.join(MANIFEST).is_file() {
        return occupied("is not empty and holds no patches.json: it is not replaced, name another folder");
    }
    for entry in fs::read_dir(out).map_err(at(out))? {
        let name = entry.map_err(at(out))?.file_name();
        if !SPLITS.iter().chain(&[PROMPTS, MANIFEST]).any(|own| name == **own) {
            return occupied(&format!("holds {}, which is no part of a data set of patches: it is not replaced", name.display()));
        }
    }
    let whole = fs::canonicalize(out).map_err(at(out))?;
    let within = |path: &PathBuf| fs::canonicalize(path).is_ok_and(|path| path.starts_with(&whole));
    let files = pairs.pairs.iter().flat_map(|pair| [&pair.image, &pair.mask]);
    if pairs.from.iter().chain(files).any(within) {
        return occupied("holds the images that are to be cut: name another folder");
    }
    match within(&map.path) {
        true => occupied("holds the map: name another folder"),
        false => Ok(true),
    }
}
