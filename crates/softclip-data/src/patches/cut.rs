//! From pairs to patches, on all threads.

use std::fs;
use std::io::Cursor;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::metadata::Orientation;
use image::{ImageDecoder, ImageReader};
use rayon::prelude::*;
use serde_json::{Map, Value};

use super::error::causes;
use super::mask::{self, Mask};
use super::output::Output;
use super::pairs::{Pair, Pairs};
use super::report::{ClassCounts, Source};
use super::{PatchError, PatchMap, PatchOptions, PatchReport, SkipCause, Skipped};
use crate::image::{DecodeOptions, Decoder};

/// Pixels of the images that are in memory at a time, unless a single one has more.
const GROUP: u64 = 64 << 20;

/// The most bytes of a file's name.
const LONGEST_NAME: usize = 255;

/// Patches that are in memory at a time.
const CHUNK: usize = 256;

/// An image and its mask, of the same size.
struct Loaded<'a> {
    pair: &'a Pair,
    image: Image,
    mask: Mask,
}

struct Image {
    /// `[height, width, 3]`.
    pixels: Vec<u8>,
    /// Width and height.
    size: (u32, u32),
    /// Whether it was turned as its Exif orientation says.
    turned: bool,
}

/// A patch that has a class.
pub(super) struct Patch {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) class: usize,
    pub(super) split: usize,
    /// The share of each label.
    pub(super) shares: Map<String, Value>,
    /// `[size, size, 3]`.
    pub(super) pixels: Vec<u8>,
}

pub(super) struct Cut<'a> {
    pub(super) pairs: &'a Pairs,
    pub(super) map: &'a PatchMap,
    pub(super) options: &'a PatchOptions,
}

impl Cut<'_> {
    /// Cuts all pairs into `output`. None if `progress` says to stop.
    pub(super) fn all(
        &self,
        output: &mut Output,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Option<(PatchReport, Vec<Source>)>, PatchError> {
        let classes = self.map.classes().map(|(class, name)| ClassCounts::new(class, name)).collect();
        let skipped = self.pairs.skipped.clone();
        let passed_over = self.pairs.passed_over;
        let mut report = PatchReport { pairs: 0, turned: 0, passed_over, skipped, left_out: 0, classes };
        let mut sources = Vec::new();
        self.check(&report.skipped)?;
        let mut done = 0;
        for group in groups(&self.pairs.pairs) {
            if progress(done, self.pairs.pairs.len()).is_break() {
                return Ok(None);
            }
            let mut loaded = Vec::new();
            for pair in group.par_iter().map(|pair| self.load(pair)).collect::<Vec<_>>() {
                match pair {
                    Ok(pair) => loaded.push(pair),
                    Err(why) => report.skipped.push(why),
                }
            }
            self.check(&report.skipped)?;
            let first = sources.len();
            sources.extend(loaded.iter().map(|loaded| Source::new(loaded.pair)));
            let mut places = loaded.iter().enumerate().flat_map(|(i, image)| self.grid(image).map(move |at| (i, at)));
            loop {
                let chunk: Vec<_> = places.by_ref().take(CHUNK).collect();
                if chunk.is_empty() {
                    break;
                }
                let cut = |&(image, at): &(usize, (u32, u32))| {
                    let Some(patch) = self.patch(&loaded[image], at) else { return Ok(None) };
                    output.encode(patch).map(|encoded| Some((image, encoded)))
                };
                let patches: Vec<_> = chunk.par_iter().map(cut).collect::<Result<_, PatchError>>()?;
                for patch in patches {
                    let Some((image, patch)) = patch else {
                        report.left_out += 1;
                        continue;
                    };
                    output.append(&patch)?;
                    report.classes[patch.class].counts[patch.split] += 1;
                    sources[first + image].patches[patch.split] += 1;
                }
                if progress(done, self.pairs.pairs.len()).is_break() {
                    return Ok(None);
                }
            }
            report.pairs += loaded.len();
            report.turned += loaded.iter().filter(|loaded| loaded.image.turned).count();
            done += group.len();
        }
        report.skipped.sort_by(|a, b| (&a.name, a.cause).cmp(&(&b.name, b.cause)));
        match report.total() {
            0 => {
                let (bad, causes) = (report.skipped.len(), causes(&report.skipped));
                Err(PatchError::Nothing { left_out: report.left_out, bad, causes })
            }
            _ => Ok(Some((report, sources))),
        }
    }

    fn check(&self, skipped: &[Skipped]) -> Result<(), PatchError> {
        let (of, limit) = (self.pairs.len(), self.options.max_bad_share);
        match skipped.iter().min_by_key(|skipped| &skipped.name) {
            Some(first) if skipped.len() as f64 > limit * of as f64 => {
                let (bad, causes, first) = (skipped.len(), causes(skipped), first.clone());
                Err(PatchError::TooManyBad { bad, of, limit, causes, first })
            }
            _ => Ok(()),
        }
    }

    fn load<'a>(&self, pair: &'a Pair) -> Result<Loaded<'a>, Skipped> {
        let skip = |cause, file: &Path, detail: String| Skipped::new(&pair.name, cause, format!("{}: {detail}", file.display()));
        // The mask first: without it the image is not looked at.
        let mask = guarded(&pair.mask, [SkipCause::MissingMask, SkipCause::BadMask], |file| self.mask(file))
            .map_err(|(cause, detail)| skip(cause, &pair.mask, detail))?;
        let longest = format!("{}_{}_{}.json", pair.name, mask.width, mask.height).len();
        if longest > LONGEST_NAME {
            let detail = format!("its patches' files would have names of up to {longest} bytes: {LONGEST_NAME} are possible");
            return Err(skip(SkipCause::LongName, &pair.image, detail));
        }
        let image = guarded(&pair.image, [SkipCause::MissingImage, SkipCause::BadImage], |file| self.image(file));
        let image = image.map_err(|(cause, detail)| skip(cause, &pair.image, detail))?;
        let show = |(width, height): (u32, u32)| format!("{width} x {height} pixels");
        let size = image.size;
        if (mask.width, mask.height) != size {
            let turned = if image.turned { ", turned upright by Exif (--ignore-exif takes images as stored)" } else { "" };
            let detail = format!("{}{turned}, but the mask has {}", show(size), show((mask.width, mask.height)));
            return Err(skip(SkipCause::SizeMismatch, &pair.image, detail));
        }
        if size.0.min(size.1) < self.options.size {
            return Err(skip(SkipCause::TooSmall, &pair.image, format!("{}, less than one patch", show(size))));
        }
        Ok(Loaded { pair, image, mask })
    }

    fn mask(&self, file: &[u8]) -> Result<Mask, mask::Fault> {
        mask::read(file, self.map, self.options.max_pixels)
    }

    fn image(&self, file: &[u8]) -> Result<Image, mask::Fault> {
        let apply_exif = !self.options.ignore_exif;
        let options = DecodeOptions { max_pixels: self.options.max_pixels, apply_exif, ..DecodeOptions::default() };
        // A decoder of its own, for its buffer is kept.
        let image = Decoder::new(options).and_then(|decoder| decoder.into_pixels(file));
        let (pixels, size) = image.map_err(|e| (SkipCause::BadImage, e.to_string()))?;
        Ok(Image { pixels, size, turned: apply_exif && is_turned(file) })
    }

    /// The places of whole patches, row by row.
    fn grid(&self, image: &Loaded) -> impl Iterator<Item = (u32, u32)> + use<> {
        let PatchOptions { size, stride, .. } = *self.options;
        let along = move |side: u32| (0..=side.saturating_sub(size)).step_by(stride as usize);
        let (width, height) = (image.mask.width, image.mask.height);
        along(height).flat_map(move |y| along(width).map(move |x| (x, y)))
    }

    /// The patch at (x, y), if it has a class.
    fn patch(&self, image: &Loaded, (x, y): (u32, u32)) -> Option<Patch> {
        let PatchOptions { size, ref split, split_by, seed, .. } = *self.options;
        let rows = || (y..y + size).map(|row| (row as usize * image.mask.width as usize + x as usize, size as usize));
        let mut counts = vec![0u32; self.map.codes()];
        for (start, length) in rows() {
            image.mask.codes[start..start + length].iter().for_each(|&code| counts[usize::from(code)] += 1);
        }
        let class = self.map.class(&counts)?;
        let name = &image.pair.name;
        let share = |n: u32| f64::from(n) / (f64::from(size) * f64::from(size));
        Some(Patch {
            name: format!("{name}_{x}_{y}"),
            image: name.clone(),
            x,
            y,
            class,
            split: split.draw(split_by, seed, name, x, y),
            shares: self.map.code_names().zip(&counts).map(|(label, &n)| (label.to_owned(), share(n).into())).collect(),
            pixels: rows().flat_map(|(start, length)| &image.image.pixels[3 * start..3 * (start + length)]).copied().collect(),
        })
    }
}

/// Reads a file and makes something of it. A defect of a decoder costs the pair, not the data set.
fn guarded<T>(
    path: &Path,
    [missing, bad]: [SkipCause; 2],
    make: impl FnOnce(&[u8]) -> Result<T, mask::Fault>,
) -> Result<T, mask::Fault> {
    let file = fs::read(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => (missing, e.to_string()),
        _ => (bad, e.to_string()),
    })?;
    catch_unwind(AssertUnwindSafe(|| make(&file)))
        .unwrap_or_else(|_| Err((bad, "the decoder met a defect of its own".to_owned())))
}

/// Whether the Exif orientation is another than upright.
fn is_turned(file: &[u8]) -> bool {
    let reader = ImageReader::new(Cursor::new(file)).with_guessed_format();
    let decoder = reader.ok().and_then(|reader| reader.into_decoder().ok());
    decoder.and_then(|mut decoder| decoder.orientation().ok()).is_some_and(|turn| turn != Orientation::NoTransforms)
}

/// Pairs that are in memory together: as many as have [`GROUP`] pixels by their headers, at least one.
fn groups(pairs: &[Pair]) -> impl Iterator<Item = &[Pair]> {
    let mut rest = pairs;
    std::iter::from_fn(move || {
        let mut pixels = 0;
        let fits = |pair: &&Pair| {
            pixels += pixels_of(&pair.mask).max(pixels_of(&pair.image));
            pixels <= GROUP
        };
        let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        let (group, others) = rest.split_at(count);
        rest = others;
        (!group.is_empty()).then_some(group)
    })
}

/// What the header promises. A file whose header is not understood may have any number; it is mostly not decoded either.
fn pixels_of(path: &Path) -> u64 {
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format);
    let size = reader.ok().and_then(|reader| reader.into_dimensions().ok());
    size.map_or(GROUP / 64, |(width, height)| u64::from(width) * u64::from(height))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_group_is_bounded_by_images_and_masks_and_by_what_is_unknown() {
        let folder = tempfile::tempdir().unwrap();
        let bmp = |name: &str, side: u32| {
            let mut file = b"BM".to_vec();
            let header = [54, 0, 54, 40, side, side, 24 << 16 | 1, 0, 0, 0, 0, 0, 0];
            header.iter().for_each(|n: &u32| file.extend(n.to_le_bytes()));
            fs::write(folder.path().join(name), file).unwrap();
            folder.path().join(name)
        };
        let (large, small) = (bmp("large.bmp", 5_000), bmp("small.bmp", 1));
        let sizes = |image: PathBuf, mask: PathBuf| -> Vec<usize> {
            let pair = Pair { name: String::new(), image, mask };
            groups(&vec![pair; 150]).map(<[Pair]>::len).collect()
        };
        let gone = folder.path().join("gone.png");
        assert_eq!(sizes(gone.clone(), gone.clone()), [64, 64, 22]);
        assert_eq!(sizes(small.clone(), gone), [64, 64, 22]);
        assert_eq!(sizes(large.clone(), small.clone()), [2; 75]);
        assert_eq!(sizes(small.clone(), large), [2; 75]);
        assert_eq!(sizes(small.clone(), small), [150]);
    }
}
