//! Images and masks become patches that the rest reads.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod layout;
mod map;
mod pairs;

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use image::{ExtendedColorType, ImageEncoder};
use softclip_data::patches::{Pairs, PatchError, PatchMap, PatchOptions, PatchReport, write};
use softclip_data::source;

const MAP: &str = "
labels: {roof: [1, '#ff0000'], solar: [[0, 0, 255], 2]}
background: [0]
ignore: [255]
min_present: 0.1
min_labelled: 0.5
classes: {none: bare land, roof: a roof, solar: panels, both: a roof with panels, unknown: anything}
combinations:
  - {present: [], class: none}
  - {present: [roof], class: roof}
  - {present: [solar], class: solar}
  - {present: [solar, roof], class: both}
unlabelled: unknown
template: an aerial photo of {}
";

fn png(pixels: &[u8], width: u32, colour: ExtendedColorType) -> Vec<u8> {
    let height = pixels.len() as u32 * 8 / u32::from(colour.bits_per_pixel()) / width;
    let mut file = Vec::new();
    image::codecs::png::PngEncoder::new(&mut file).write_image(pixels, width, height, colour).unwrap();
    file
}

fn go_on(_: usize, _: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        ["images", "masks"].iter().for_each(|folder| fs::create_dir(world.at(folder)).unwrap());
        world
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.at(name), bytes).unwrap();
    }

    /// A pair of 10 pixels a patch and so many patches beside each other; `mask` tells the value of each pixel by patch and number.
    fn pair(&self, name: &str, patches: u32, mask: impl Fn(u32, u32) -> u8) {
        let width = 10 * patches;
        let shade = name.bytes().fold(7u8, |shade, byte| shade.wrapping_mul(31).wrapping_add(byte));
        let image: Vec<u8> = (0..width * 10).flat_map(|i| [shade, (i % width) as u8, (i / width) as u8]).collect();
        self.put(&format!("images/{name}.png"), &png(&image, width, ExtendedColorType::Rgb8));
        let value = |i: u32| mask(i % width / 10, i / width * 10 + i % 10);
        let values: Vec<u8> = (0..width * 10).map(value).collect();
        self.put(&format!("masks/{name}.png"), &png(&values, width, ExtendedColorType::L8));
    }

    /// Patch i of n pairs: bare land, a roof, panels, both, unlabelled.
    fn pairs(&self, n: usize) {
        let value = |patch, pixel| match (patch, pixel < 50) {
            (0, _) | (1 | 2, true) => 0,
            (1, false) | (3, true) => 1,
            (2, false) | (3, false) => 2,
            _ => 255,
        };
        (0..n).for_each(|i| self.pair(&format!("tile{i}"), 5, value));
    }

    fn map(&self, text: &str) -> Result<PatchMap, PatchError> {
        self.put("map.yaml", text.as_bytes());
        PatchMap::open(&self.at("map.yaml"))
    }

    fn listed(&self) -> Pairs {
        Pairs::in_folders(&self.at("images"), &self.at("masks")).unwrap()
    }

    fn cut(&self, out: &str, options: &PatchOptions) -> Result<PatchReport, PatchError> {
        write(&self.at(out), &self.listed(), &self.map(MAP).unwrap(), options, &mut go_on).map(|report| report.unwrap())
    }

    fn open(&self, spec: &str) -> std::sync::Arc<dyn source::Source> {
        source::open(&spec.replace('@', self.0.path().to_str().unwrap())).unwrap()
    }
}

fn options() -> PatchOptions {
    PatchOptions { size: 10, stride: 10, ..PatchOptions::default() }
}

/// All files below a folder by their paths in it.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}
