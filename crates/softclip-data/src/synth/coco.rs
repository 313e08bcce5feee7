//! Annotations in the format of COCO.

use std::path::Path;

use serde::Serialize;

use super::SynthOptions;
use super::draw::Area;
use super::scene::{CATEGORIES, category_name};
use crate::files::{FileError, save_json};

/// What is told of one image.
pub(super) struct Record {
    pub(super) captions: Vec<String>,
    /// Category of each object, and where it is.
    pub(super) objects: Vec<(usize, Area)>,
}

#[derive(Serialize)]
struct File<A: Serialize> {
    info: Info,
    images: Vec<Image>,
    annotations: Vec<A>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    categories: Vec<Category>,
}

#[derive(Serialize)]
struct Info {
    description: &'static str,
}

#[derive(Serialize)]
struct Image {
    id: usize,
    file_name: String,
    width: u32,
    height: u32,
}

#[derive(Serialize)]
struct Caption<'a> {
    id: usize,
    image_id: usize,
    caption: &'a str,
}

#[derive(Serialize)]
struct Instance {
    id: usize,
    image_id: usize,
    category_id: usize,
    bbox: [usize; 4],
    area: f64,
    iscrowd: u8,
}

#[derive(Serialize)]
struct Category {
    id: usize,
    name: String,
}

/// Key of the `index`th image of a split: its id, from 1, in twelve digits.
pub(super) fn key(index: usize) -> String {
    format!("{:012}", index + 1)
}

/// Writes both files of a split to the folder.
pub(super) fn save(folder: &Path, split: &str, options: &SynthOptions, records: &[Record]) -> Result<(), FileError> {
    let (width, height) = (options.size, options.size);
    let images =
        || (0..records.len()).map(|i| Image { id: i + 1, file_name: format!("{}.jpg", key(i)), width, height }).collect();
    let info = || Info { description: "drawn scenes" };
    let captions = records.iter().enumerate().flat_map(|(i, record)| record.captions.iter().map(move |caption| (i + 1, caption)));
    let annotations = captions.enumerate().map(|(i, (image_id, caption))| Caption { id: i + 1, image_id, caption }).collect();
    let file = File { info: info(), images: images(), annotations, categories: Vec::new() };
    save_json(&folder.join(format!("captions_{split}.json")), &file)?;

    let objects = records.iter().enumerate().flat_map(|(i, record)| record.objects.iter().map(move |object| (i + 1, object)));
    let annotations = objects
        .enumerate()
        .map(|(i, (image_id, &(category, Area { bbox, area })))| {
            let area = (area * 100.0).round() / 100.0;
            Instance { id: i + 1, image_id, category_id: category + 1, bbox, area, iscrowd: 0 }
        })
        .collect();
    let categories = (0..CATEGORIES).map(|id| Category { id: id + 1, name: category_name(id) }).collect();
    let file = File { info: info(), images: images(), annotations, categories };
    save_json(&folder.join(format!("instances_{split}.json")), &file)
}
