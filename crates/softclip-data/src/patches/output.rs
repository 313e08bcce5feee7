//! Patches as files: a folder a class, or shards.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use image::ImageEncoder;
use serde_json::json;

use super::cut::Patch;
use super::{Format, PROMPTS, PatchError, PatchMap, SPLITS};
use crate::files::{self, Shard};

/// Samples in a shard.
const SHARD: usize = 1_000;

pub(super) struct Output<'a> {
    root: PathBuf,
    map: &'a PatchMap,
    format: Format,
    quality: Option<u8>,
    /// The folders of classes.
    classes: Vec<String>,
    /// The open shard of each split, and the samples in all of its shards.
    shards: [(Option<Shard>, usize); 3],
}

/// A patch as it is counted and stored.
pub(super) struct Encoded {
    pub(super) class: usize,
    pub(super) split: usize,
    /// Members of a shard; none where the patch has its file already.
    members: Vec<(String, Vec<u8>)>,
}

impl<'a> Output<'a> {
    pub(super) fn new(root: &Path, map: &'a PatchMap, format: Format, quality: Option<u8>) -> Self {
        let classes = map.classes().map(|(class, _)| class.to_owned()).collect();
        Self { root: root.to_owned(), map, format, quality, classes, shards: [const { (None, 0) }; 3] }
    }

    /// Compresses a patch, on any thread; in a folder of classes it gets its file.
    pub(super) fn encode(&self, patch: Patch) -> Result<Encoded, PatchError> {
        let Patch { name, class, split, .. } = &patch;
        let side = patch.side();
        let (image, extension) = match self.quality {
            Some(quality) => (jpeg(&patch.pixels, side, quality), "jpg"),
            None => (png(&patch.pixels, side), "png"),
        };
        let image = image.map_err(|reason| PatchError::Compress { name: name.clone(), reason })?;
        let file = format!("{name}.{extension}");
        let members = match self.format {
            Format::Folder => {
                let folder = self.root.join(SPLITS[*split]).join(&self.classes[*class]);
                match files::save(&folder.join(&file), &image) {
                    // The first of its class and split.
                    Err(e) if e.source.kind() == ErrorKind::NotFound => {
                        files::save(&files::folder(folder)?.join(&file), &image)?;
                    }
                    written => written?,
                }
                Vec::new()
            }
            Format::Shards => {
                let caption = self.map.caption(*class);
                let Patch { image: of, x, y, shares, .. } = &patch;
                let about = json!({
                    "captions": [&caption], "class": self.classes[*class], "image": of, "x": x, "y": y, "shares": shares,
                });
                let text = |extension: &str, text: String| (format!("{name}.{extension}"), text.into_bytes());
                vec![(file, image), text("txt", caption), text("json", about.to_string())]
            }
        };
        Ok(Encoded { class: *class, split: *split, members })
    }

    /// Adds a patch to its split's shard, in the order of calls.
    pub(super) fn append(&mut self, patch: &Encoded) -> Result<(), PatchError> {
        if patch.members.is_empty() {
            return Ok(());
        }
        let (open, samples) = &mut self.shards[patch.split];
        let mut shard = match open.take() {
            Some(shard) => shard,
            None => {
                Shard::create(files::folder(self.root.join(SPLITS[patch.split]))?.join(format!("{:05}.tar", *samples / SHARD)))?
            }
        };
        for (name, bytes) in &patch.members {
            shard.add(name, bytes)?;
        }
        *samples += 1;
        match *samples % SHARD {
            0 => shard.finish()?,
            _ => *open = Some(shard),
        }
        Ok(())
    }

    /// Ends the shards; gives folders of classes the classes' readable names.
    pub(super) fn finish(self) -> Result<(), PatchError> {
        for (shard, _) in self.shards {
            shard.map(Shard::finish).transpose()?;
        }
        let template = format!("{}\n", self.map.template());
        files::save(&self.root.join(PROMPTS), template.as_bytes())?;
        let table: String = self.map.classes().map(|(class, name)| format!("{class}\t{name}\n")).collect();
        let splits = SPLITS.map(|split| self.root.join(split));
        for split in splits.iter().filter(|split| self.format == Format::Folder && split.is_dir()) {
            files::save(&split.join("classnames.tsv"), table.as_bytes())?;
        }
        Ok(())
    }
}

impl Patch {
    fn side(&self) -> usize {
        (self.pixels.len() / 3).isqrt()
    }
}

fn png(pixels: &[u8], side: usize) -> Result<Vec<u8>, String> {
    let mut file = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut file);
    let written = encoder.write_image(pixels, side as u32, side as u32, image::ExtendedColorType::Rgb8);
    written.map(|()| file).map_err(|e| e.to_string())
}

fn jpeg(pixels: &[u8], side: usize, quality: u8) -> Result<Vec<u8>, String> {
    let image = turbojpeg::Image { pixels, width: side, pitch: 3 * side, height: side, format: turbojpeg::PixelFormat::RGB };
    let file = turbojpeg::compress(image, i32::from(quality), turbojpeg::Subsamp::None);
    file.map(|bytes| bytes.to_vec()).map_err(|e| e.to_string())
}
