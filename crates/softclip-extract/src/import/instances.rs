//! COCO's annotations of instances.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::coco::{Annotation, Document, Id};
use super::keys::{Keys, same, short};
use super::{boxes, images};
use crate::{Error, Fault, Found, Object, Objects};

/// COCO's annotations of instances (`instances_train2017.json`), without crowds.
///
/// An image is found by its file name or, where no name fits, by its id. People give no confidence: it is 1, and the objects with
/// the largest boxes come first, equal ones in the file's order; objects without a box come last. Ids may be numbers or texts.
/// Annotations of an unknown category, of an image that the file does not list, or with a box that is not four numbers are
/// counted ([`Objects::faults`]) and not used. The boxes are kept in memory, 48 bytes each.
pub struct Instances {
    path: PathBuf,
    keys: Keys,
    ids: HashMap<Id, usize>,
    images: Vec<Listed>,
    categories: Vec<String>,
    faults: Vec<Fault>,
}

/// An image with its size, where the file has it, and what is in it.
struct Listed {
    size: Option<(u32, u32)>,
    instances: Vec<Instance>,
}

struct Instance {
    /// Position in the file, from 1, for messages.
    number: u32,
    category: u32,
    /// Left, top, width, height.
    xywh: Option<[f64; 4]>,
}

/// Annotations that cannot be used, by cause: their number, and an example.
#[derive(Default)]
struct Faults(BTreeMap<&'static str, (usize, String)>);

impl Faults {
    fn add(&mut self, cause: &'static str, annotation: impl FnOnce() -> String, why: impl FnOnce() -> String) {
        self.0.entry(cause).or_insert_with(|| (0, format!("{}: {}", annotation(), why()))).0 += 1;
    }
}

impl Instances {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, is not such JSON, or lists no image or one twice.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let Document { images, annotations, categories } = Document::read(path)?;
        let ids: HashMap<Id, usize> = images.iter().enumerate().map(|(i, image)| (image.id.clone(), i)).collect();
        let twice = images.iter().enumerate().find(|(i, image)| ids[&image.id] != *i);
        if let Some((_, image)) = twice {
            return Err(Error::format(path, format!("image id {} comes twice", image.id)));
        }
        if images.is_empty() {
            return Err(Error::format(path, "it lists no images"));
        }
        let number: HashMap<Id, u32> = categories.iter().zip(0..).map(|(category, i)| (category.id.clone(), i)).collect();
        let (names, mut images): (Vec<_>, Vec<_>) = images
            .into_iter()
            .map(|image| (image.file_name, Listed { size: image.width.zip(image.height), instances: Vec::new() }))
            .unzip();
        let mut faults = Faults::default();
        for (place, annotation) in (1u32..).zip(annotations) {
            let Annotation { id, image_id, category_id, bbox, iscrowd: false } = annotation else { continue };
            let name =
                || id.as_ref().map_or_else(|| format!("annotation {place} in the file's order"), |id| format!("annotation {id}"));
            let Some(&category) = category_id.as_ref().and_then(|id| number.get(id)) else {
                let why = || format!("category {} is not listed", category_id.map_or("null".to_owned(), |id| id.to_string()));
                faults.add("unknown_category", name, why);
                continue;
            };
            let Some(&image) = image_id.as_ref().and_then(|id| ids.get(id)) else {
                let why = || format!("image {} is not listed", image_id.map_or("null".to_owned(), |id| id.to_string()));
                faults.add("unknown_image", name, why);
                continue;
            };
            match bbox.four() {
                Ok(xywh) => images[image].instances.push(Instance { number: place, category, xywh }),
                Err(why) => faults.add("bad_box", name, || why),
            }
        }
        let keys =
            Keys::new(names).map_err(|twice| Error::format(path, format!("two images have the file name '{}'", twice.key)))?;
        let categories = categories.into_iter().map(|category| category.name).collect();
        let faults = faults.0.into_iter().map(|(cause, (count, first))| Fault { cause, count, first }).collect();
        Ok(Self { path: path.to_owned(), keys, ids, images, categories, faults })
    }

    /// The image of a key: a file's own name goes before an id, and what is only alike must not contradict one.
    fn number(&self, key: &str) -> Result<Option<usize>, String> {
        let by_name = self.keys.find(key)?;
        let by_id = self.ids.get(&Id::from(short(key))).copied();
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
        for Instance { number, category, xywh } in &image.instances {
            let inside = |[x, y, width, height]: [f64; 4]| {
                let xyxy = [x, y, x + width, y + height].map(|x| x as f32);
                boxes::inside(xyxy, size).map_err(|why| format!("annotation {number} in the file's order: {why}"))
            };
            let xyxy = xywh.map(inside).transpose()?;
            let name = self.categories[*category as usize].clone();
            let area = xywh.map_or(0.0, |[_, _, width, height]| width * height);
            objects.push((area, Object { name, attributes: Vec::new(), confidence: 1.0, xyxy }));
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

    fn faults(&self) -> Vec<Fault> {
        self.faults.clone()
    }

    fn paths(&self) -> Vec<&Path> {
        vec![&self.path]
    }
}
