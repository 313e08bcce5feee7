//! The folder of a data set: drawn beside its place, then moved there in one step.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;
use softclip_io::PartialFolder;

use super::coco::{self, Record};
use super::draw::{FEATURES, paint};
use super::files::{jpeg, npy};
use super::scene::{Object, Scene, category_name, classes};
use super::words::captions;
use super::{SynthError, SynthOptions, SynthReport};
use crate::files::{self, Shard, at};
use crate::rng::{RngKey, Stream};

/// Grows when the same options give other bytes.
const VERSION: u32 = 1;

/// Images that are in memory at a time.
const CHUNK: usize = 256;

const MANIFEST: &str = "synth.json";

/// Streams of scenes, in the place of the epoch.
const TRAIN: u64 = 0;
const VAL: u64 = 1;
const ZEROSHOT: u64 = 2;

#[derive(Serialize, Deserialize, PartialEq)]
struct Manifest {
    version: u32,
    options: SynthOptions,
    counts: SynthReport,
}

/// The report of the folder if it holds this data set already, none if nothing is there.
pub(super) fn present(dir: &Path, options: &SynthOptions) -> Result<Option<SynthReport>, SynthError> {
    match fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
        Ok(false) => {}
        Ok(true) => return Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(dir)(error).into()),
    }
    let occupied = |reason: String| Err(SynthError::Occupied { path: dir.to_owned(), reason });
    let Ok(bytes) = fs::read(dir.join(MANIFEST)) else { return occupied(format!("has no {MANIFEST}")) };
    let Ok(found) = serde_json::from_slice::<Manifest>(&bytes) else {
        return occupied(format!("its {MANIFEST} is of another kind or version"));
    };
    if found.version != VERSION || found.options != *options {
        return occupied(format!("holds the data set of other options ({MANIFEST} lists them)"));
    }
    match expected(options).into_iter().find(|file| !dir.join(file).exists()) {
        Some(missing) => occupied(format!("lacks {}", missing.display())),
        None => Ok(Some(SynthReport { already_there: true, ..found.counts })),
    }
}

/// The files that tell whether something was taken away (all but the single images).
fn expected(options: &SynthOptions) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for (split, count) in [("train", options.images), ("val", options.val_images)] {
        paths.extend(["captions", "instances"].map(|kind| PathBuf::from(format!("annotations/{kind}_{split}.json"))));
        paths.extend((0..count.div_ceil(options.samples_per_shard)).map(|i| PathBuf::from(shard_name(split, i))));
    }
    if options.zeroshot_per_class > 0 {
        paths.push("zeroshot/classnames.tsv".into());
    }
    paths
}

fn shard_name(split: &str, i: usize) -> String {
    format!("shards/{split}-{i:05}.tar")
}

/// Draws the data set beside `dir` and gives it that name at the end.
pub(super) fn create(dir: &Path, options: &SynthOptions, progress: &dyn Fn(usize, usize)) -> Result<SynthReport, SynthError> {
    let parent = match dir.parent() {
        Some(parent) if parent != Path::new("") => files::folder(parent.to_owned())?,
        _ => PathBuf::from("."),
    };
    let temporary = PartialFolder::create(&parent, ".synth-").map_err(at(&parent))?;
    let root = temporary.path();
    let counts = Work { root, options, progress, done: 0, counts: SynthReport::default() }.all()?;
    let manifest = Manifest { version: VERSION, options: options.clone(), counts };
    files::save_json(&root.join(MANIFEST), &manifest)?;
    files::sync_folders(root)?;
    if let Err(error) = temporary.persist(dir) {
        // Another process may have been faster.
        return match present(dir, options) {
            Ok(Some(report)) => Ok(report),
            _ => Err(at(dir)(error).into()),
        };
    }
    Ok(manifest.counts)
}

struct Work<'a> {
    root: &'a Path,
    options: &'a SynthOptions,
    progress: &'a dyn Fn(usize, usize),
    done: usize,
    counts: SynthReport,
}

/// What goes into a shard for one image.
struct Sample {
    key: String,
    jpeg: Vec<u8>,
    rois: Vec<u8>,
    tags: Vec<String>,
    record: Record,
}

impl Work<'_> {
    fn all(mut self) -> Result<SynthReport, SynthError> {
        let options = self.options;
        self.advance(0);
        self.counts.images = options.images;
        self.counts.val_images = options.val_images;
        self.split("train", options.images, TRAIN)?;
        self.split("val", options.val_images, VAL)?;
        if options.zeroshot_per_class > 0 {
            self.zeroshot()?;
        }
        Ok(self.counts)
    }

    fn advance(&mut self, by: usize) {
        let SynthOptions { images, val_images, zeroshot_per_class, .. } = *self.options;
        self.done += by;
        (self.progress)(self.done, images + val_images + zeroshot_per_class * classes().count());
    }

    fn split(&mut self, split: &str, count: usize, stream: u64) -> Result<(), SynthError> {
        let images = files::folder(self.root.join("images").join(split))?;
        let annotations = files::folder(self.root.join("annotations"))?;
        files::folder(self.root.join("shards"))?;
        let per_shard = self.options.samples_per_shard;
        let mut records = Vec::new();
        for number in 0..count.div_ceil(per_shard) {
            let mut shard = Shard::create(self.root.join(shard_name(split, number)))?;
            let end = (number + 1).saturating_mul(per_shard).min(count);
            for start in (number * per_shard..end).step_by(CHUNK) {
                let chunk = start..(start + CHUNK).min(end);
                let samples = chunk.into_par_iter().map(|index| self.options.sample(&images, stream, index));
                let samples: Vec<Sample> = samples.collect::<Result<_, _>>()?;
                self.advance(samples.len());
                for Sample { key, jpeg, rois, tags, record } in samples {
                    let (text, tags) = (json!({ "captions": record.captions }).to_string(), json!(tags).to_string());
                    shard.add(&format!("{key}.jpg"), &jpeg)?;
                    shard.add(&format!("{key}.json"), text.as_bytes())?;
                    shard.add(&format!("{key}.tags.json"), tags.as_bytes())?;
                    shard.add(&format!("{key}.rois.npy"), &rois)?;
                    records.push(record);
                }
            }
            shard.finish()?;
            self.counts.shards += 1;
        }
        self.counts.captions += records.iter().map(|record| record.captions.len()).sum::<usize>();
        self.counts.objects += records.iter().map(|record| record.objects.len()).sum::<usize>();
        Ok(coco::save(&annotations, split, self.options, &records)?)
    }

    fn zeroshot(&mut self) -> Result<(), SynthError> {
        let root = files::folder(self.root.join("zeroshot"))?;
        let mut table = String::new();
        let each = self.options.zeroshot_per_class;
        for (number, category) in classes().enumerate() {
            let name = category_name(category);
            let folder = files::folder(root.join(&name))?;
            (0..each).into_par_iter().try_for_each(|i| {
                let key = RngKey::new(self.options.seed, ZEROSHOT, (number * each + i) as u64);
                let scene = Scene::single(category, &mut key.rng(Stream::Synthetic));
                let canvas = paint(&scene, self.options.size as usize);
                Ok::<_, SynthError>(files::save(&folder.join(format!("{i:05}.jpg")), &jpeg(&canvas)?)?)
            })?;
            table += &format!("{name}\t{name}\n");
            self.counts.classes += 1;
            self.counts.zeroshot_images += each;
            self.advance(each);
        }
        Ok(files::save(&root.join("classnames.tsv"), table.as_bytes())?)
    }
}

impl SynthOptions {
    /// Draws one image, stores it in the folder and returns what else is needed of it.
    fn sample(&self, images: &Path, stream: u64, index: usize) -> Result<Sample, SynthError> {
        let mut rng = RngKey::new(self.seed, stream, index as u64).rng(Stream::Synthetic);
        let scene = Scene::random(&mut rng);
        let canvas = paint(&scene, self.size as usize);
        let jpeg = jpeg(&canvas)?;
        let key = coco::key(index);
        files::save(&images.join(format!("{key}.jpg")), &jpeg)?;
        let rois = npy(&canvas.features(), FEATURES);
        let tags = scene.objects.iter().map(Object::tag).collect();
        let objects = scene.objects.iter().map(Object::category).zip(canvas.areas).collect();
        Ok(Sample { key, jpeg, rois, tags, record: Record { captions: captions(&scene, &mut rng), objects } })
    }
}
