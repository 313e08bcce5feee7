//! VinVL's features and labels.

mod row;

use std::path::Path;

use row::{Boxes, Row, WIDTH};

use super::images;
use super::rows::Rows;
use crate::{Error, Found, Object, Objects};

/// Pixels by which two accounts of one box may differ.
const APART: f32 = 2.0;

/// VinVL's features and labels, an image a line (TSV).
///
/// | line | is |
/// | --- | --- |
/// | key, tab, `{"objects": [{"rect", "class", "conf", "feature", "attributes", "attr_scores"}]}` | what the extractor writes; the last three may be absent |
/// | key, tab, number of boxes, tab, base64 | the downloads' features |
/// | `image_id`, `image_w`, `image_h`, `num_boxes`, `boxes`, `features`, separated by tabs | bottom-up attention's features; the last two in base64 |
/// | key, tab, `{"num_boxes", "features"}` | the same; also with `bbox` and `objects` beside them |
/// | key, tab, `[{"class", "rect", "conf", "attributes"}]` | the downloads' labels, also as `{"objects": […]}` |
///
/// Features are base64 of little-endian f32, 2,048 or 2,054 a box: the last six (corners divided by the image's size, width,
/// height) give the box and are no appearance. `rect` and `bbox` are left, top, right, bottom in pixels of the upright image;
/// where there are corners too, both must agree within two pixels. Objects are sorted by confidence with their features, equal
/// ones stay in their order; where a row has names without confidences they are taken as certain. Attributes with scores above
/// 0.05 are kept, the best first. Features that no labels belong to become finished regions `[boxes, 2,052]` in the file's order.
///
/// `X.lineidx` or `X.tsv.lineidx` beside `X.tsv`, a byte offset a line, saves reading the whole file for the places of its lines.
/// One that does not fit is not used, and `describe` says so.
pub struct Vinvl {
    features: Rows,
    labels: Option<Rows>,
}

impl Vinvl {
    /// Finds the lines of a file of objects or features, and of the labels that belong to the features.
    ///
    /// # Errors
    /// A file cannot be read, is empty, or has a line without key or a key twice; the message has the line.
    pub fn open(features: impl AsRef<Path>, labels: Option<&Path>) -> Result<Self, Error> {
        Ok(Self { features: Rows::open(features.as_ref())?, labels: labels.map(Rows::open).transpose()? })
    }

    /// What the labels say of the image in the row `row` of the features.
    fn labels(&self, row: usize, size: (u32, u32)) -> Result<Option<Vec<Object>>, String> {
        let Some(labels) = &self.labels else { return Ok(None) };
        let name = self.features.name(row);
        let found = labels.find(name)?.ok_or_else(|| {
            let features = self.features.path().display();
            format!("{}: no labels of '{name}', of which {features} has features", labels.path().display())
        })?;
        let objects = parsed(labels, found, size).and_then(|labels| match labels {
            Row { objects: Some(objects), boxes, appearance: None } => placed(objects, boxes),
            _ => Err("a list of objects without features is needed of labels".to_owned()),
        });
        objects.map(Some).map_err(|why| labels.fault(found, why))
    }
}

/// A row's objects and features.
fn parsed(rows: &Rows, row: usize, size: (u32, u32)) -> Result<Row, String> {
    let line = rows.read(row)?;
    let tail = line.strip_prefix(rows.name(row).as_bytes()).and_then(|tail| tail.strip_prefix(b"\t"));
    row::parse(tail.ok_or("the line has changed since the file was opened")?, size)
}

/// Objects with the boxes that stand beside them.
fn placed(mut objects: Vec<Object>, boxes: Option<Boxes>) -> Result<Vec<Object>, String> {
    let Some(boxes) = boxes else { return Ok(objects) };
    if boxes.len() != objects.len() {
        return Err(format!("{} objects, but {} boxes", objects.len(), boxes.len()));
    }
    for (i, (object, xyxy)) in objects.iter_mut().zip(boxes).enumerate() {
        agree(*object.xyxy.get_or_insert(xyxy), xyxy).map_err(|why| format!("object {}: {why}", i + 1))?;
    }
    Ok(objects)
}

/// Objects, boxes and features as one.
fn joined(Row { objects, boxes, appearance }: Row, size: (u32, u32)) -> Result<Found, String> {
    let Some(objects) = objects else { return regions(boxes, appearance, size) };
    let mut objects = placed(objects, boxes)?;
    let count = objects.len();
    if let Some(appearance) = appearance.as_ref().filter(|appearance| appearance.len() != count * WIDTH) {
        return Err(format!("{count} objects, but features of {}", appearance.len() / WIDTH));
    }
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| objects[b].confidence.total_cmp(&objects[a].confidence));
    let sorted = |rows: Vec<f32>| order.iter().flat_map(|&i| &rows[i * WIDTH..(i + 1) * WIDTH]).copied().collect();
    let appearance = appearance.map(sorted);
    objects.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    Ok(Found { objects, appearance, ..Found::default() })
}

/// Whether an object's rectangle is that of the features: else the labels are of others, or the image has another size than then.
fn agree(rect: [f32; 4], features: [f32; 4]) -> Result<(), String> {
    if rect.iter().zip(features).all(|(a, b)| (a - b).abs() <= APART) {
        return Ok(());
    }
    Err(format!("box {rect:?} is {features:?} by its features: they are of other objects, or the image's size has changed"))
}

/// Features without names as finished regions.
fn regions(boxes: Option<Boxes>, appearance: Option<Vec<f32>>, size: (u32, u32)) -> Result<Found, String> {
    let appearance = appearance.ok_or("neither objects nor features")?;
    let boxes = boxes.ok_or("features without boxes: name the labels that belong to them")?;
    if appearance.len() != boxes.len() * WIDTH {
        return Err(format!("{} boxes, but features of {}", boxes.len(), appearance.len() / WIDTH));
    }
    let (width, height) = (size.0 as f32, size.1 as f32);
    let mut rows = Vec::with_capacity(boxes.len() * (WIDTH + 4));
    for (row, [x1, y1, x2, y2]) in appearance.chunks_exact(WIDTH).zip(boxes) {
        rows.extend_from_slice(row);
        rows.extend([x1 / width, y1 / height, x2 / width, y2 / height]);
    }
    Ok(Found { unnamed: true, regions: Some((WIDTH + 4, rows)), ..Found::default() })
}

impl Objects for Vinvl {
    fn find(&self, key: &str, size: (u32, u32)) -> Result<Option<Found>, String> {
        let Some(row) = self.features.find(key)? else { return Ok(None) };
        let labels = self.labels(row, size)?;
        let found = parsed(&self.features, row, size).and_then(|mut parsed| {
            match (&parsed.objects, labels) {
                (Some(_), Some(_)) => return Err("the row names its objects itself: leave the labels out".to_owned()),
                (None, labels) => parsed.objects = labels,
                (Some(_), None) => {}
            }
            joined(parsed, size)
        });
        found.map(Some).map_err(|why| self.features.fault(row, why))
    }

    fn entries(&self, key: &str, numbers: &mut Vec<Option<usize>>) -> Result<(), String> {
        numbers.push(self.features.find(key)?);
        Ok(())
    }

    fn describe(&self) -> String {
        let stale = [Some(&self.features), self.labels.as_ref()].into_iter().flatten().any(|rows| rows.stale);
        let labels = if self.labels.is_some() { " with labels" } else { "" };
        let note = if stale { "; a .lineidx that does not fit is not used" } else { "" };
        format!("VinVL TSV{labels}, {}{note}", images(self.features.len()))
    }

    fn paths(&self) -> Vec<&Path> {
        std::iter::once(&self.features).chain(&self.labels).map(Rows::path).collect()
    }
}
