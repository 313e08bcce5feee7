//! COCO's annotations of instances.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::keys::{Keys, same, short};
use super::{boxes, images};
use crate::{Error, Found, Object, Objects};

/// COCO's annotations of instances (`instances_train2017.json`), crowds left out.
///
/// An image is found by its file name or, where no name fits, by its id. People give no confidence: it is 1, and the objects with
/// the largest boxes come first, equal ones in the file's order. Annotations of images that the file does not list are passed
/// over. The boxes are kept in memory, 48 bytes each.
pub struct Instances {
    path: PathBuf,
    keys: Keys,
    ids: HashMap<u64, usize>,
    images: Vec<Listed>,
    categories: Vec<String>,
}

/// An image with its size, where the file tells it, and what is in it.
struct Listed {
    size: Option<(u32, u32)>,
    instances: Vec<Instance>,
}

struct Instance {
    id: u64,
    category: usize,
    /// Left, top, width, height.
    xywh: [f64; 4],
}

#[derive(Deserialize)]
struct Document {
    images: Vec<Image>,
    annotations: Vec<Annotation>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Image {
    id: u64,
    file_name: Box<str>,
    width: Option<u32>,
    height: Option<u32>,
}

#[derive(Deserialize)]
struct Annotation {
    #[serde(default)]
    id: u64,
    image_id: u64,
    category_id: u64,
    bbox: [f64; 4],
    #[serde(default)]
    iscrowd: u8,
}

#[derive(Deserialize)]
struct Category {
    id: u64,
    name: String,
}

impl Instances {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, is no such JSON, lists no image or one twice, or an annotation has a category that is not listed.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let file = File::open(path).map_err(Error::io(path))?;
        let document: Document = serde_json::from_reader(BufReader::with_capacity(1 << 20, file))
            .map_err(|e| Error::format(path, format!("not COCO's instances: {e}")))?;
        let Document { images, annotations, categories } = document;
        let ids: HashMap<u64, usize> = images.iter().enumerate().map(|(i, image)| (image.id, i)).collect();
        let twice = images.iter().enumerate().find(|(i, image)| ids[&image.id] != *i);
        if let Some((_, image)) = twice {
            return Err(Error::format(path, format!("image id {} comes twice", image.id)));
        }
        if images.is_empty() {
            return Err(Error::format(path, "it lists no images"));
        }
        let number: HashMap<u64, usize> = categories.iter().enumerate().map(|(i, category)| (category.id, i)).collect();
        let (names, mut images): (Vec<_>, Vec<_>) = images
            .into_iter()
            .map(|image| (image.file_name, Listed { size: image.width.zip(image.height), instances: Vec::new() }))
            .unzip();
        for Annotation { id, image_id, category_id, bbox, .. } in annotations.into_iter().filter(|a| a.iscrowd == 0) {
            let Some(&category) = number.get(&category_id) else {
                return Err(Error::format(path, format!("annotation {id}: category {category_id} is not listed")));
            };
            if let Some(&image) = ids.get(&image_id) {
                images[image].instances.push(Instance { id, category, xywh: bbox });
            }
        }
        let keys =
            Keys::new(names).map_err(|twice| Error::format(path, format!("two images have the file name '{}'", twice.key)))?;
        let categories = categories.into_iter().map(|category| category.name).collect();
        Ok(Self { path: path.to_owned(), keys, ids, images, categories })
    }

    /// The image of a key: a file's own name goes before an id, and what is only alike must not contradict one.
    fn number(&self, key: &str) -> Result<Option<usize>, String> {
        let by_name = self.keys.find(key)?;
        let by_id = short(key).parse().ok().and_then(|id: u64| self.ids.get(&id).copied());
        match (by_name, by_id) {
            (Some(name), Some(id)) if name != id && !same(self.keys.name(name), key) => {
                let (name, id) = (self.keys.name(name), self.keys.name(id));
                Err(format!("'{key}' is '{name}' by its file name and '{id}' by its id"))
            }
            _ => Ok(by_name.or(by_id)),
        }
    }

    fn objects(&self, image: &Listed, size: (u32, u32)) -> Result<Vec<Object>, String> {
        if let Some((width, height)) = image.size.filter(|known| *known != size) {
            return Err(format!("its boxes are of {width} x {height} pixels, the upright image has {} x {}", size.0, size.1));
        }
        let mut objects = Vec::with_capacity(image.instances.len());
        for &Instance { id, category, xywh: [x, y, width, height] } in &image.instances {
            let xyxy = [x, y, x + width, y + height].map(|x| x as f32);
            let xyxy = boxes::inside(xyxy, size).map_err(|why| format!("annotation {id}: {why}"))?;
            let name = self.categories[category].clone();
            let object = Object { name, attributes: Vec::new(), confidence: 1.0, xyxy: Some(xyxy) };
            objects.push((width * height, object));
        }
        objects.sort_by(|a, b| b.0.total_cmp(&a.0));
        Ok(objects.into_iter().map(|(_, object)| object).collect())
    }
}

impl Objects for Instances {
    fn find(&self, key: &str, size: (u32, u32)) -> Result<Option<Found>, String> {
        let number = self.number(key).map_err(|why| format!("{}: {why}", self.path.display()))?;
        let Some(number) = number else { return Ok(None) };
        let objects = self
            .objects(&self.images[number], size)
            .map_err(|why| format!("{}: image '{}': {why}", self.path.display(), self.keys.name(number)))?;
        Ok(Some(Found { objects, ..Found::default() }))
    }

    fn entries(&self, key: &str, numbers: &mut Vec<Option<usize>>) -> Result<(), String> {
        numbers.push(self.number(key).map_err(|why| format!("{}: {why}", self.path.display()))?);
        Ok(())
    }

    fn describe(&self) -> String {
        let count: usize = self.images.iter().map(|image| image.instances.len()).sum();
        format!("COCO instances, {}, {count} objects of {} categories", images(self.images.len()), self.categories.len())
    }

    fn paths(&self) -> Vec<&Path> {
        vec![&self.path]
    }
}
