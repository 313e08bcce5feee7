//! What stands behind the key in a line.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::super::{boxes, said};
use crate::Object;

/// Numbers of appearance of a box.
pub(super) const WIDTH: usize = 2048;
/// With corners divided by the image's size, width and height behind them.
const WITH_PLACE: usize = WIDTH + 6;
/// Attributes with lower scores are noise: VinVL's own threshold.
const ATTRIBUTE: f32 = 0.05;

/// Left, top, right, bottom of each.
pub(super) type Boxes = Vec<[f32; 4]>;

/// What one line tells. Boxes are in pixels within the image.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) objects: Option<Vec<Object>>,
    /// A box for each row of features.
    pub(super) boxes: Option<Boxes>,
    /// `[boxes, WIDTH]`.
    pub(super) appearance: Option<Vec<f32>>,
}

#[derive(Default, Deserialize)]
struct Json {
    num_boxes: Option<usize>,
    features: Option<Value>,
    bbox: Option<Value>,
    objects: Option<Vec<Value>>,
    image_w: Option<f64>,
    image_h: Option<f64>,
}

#[derive(Default, Deserialize)]
struct Item {
    #[serde(alias = "name")]
    class: String,
    #[serde(alias = "confidence")]
    conf: Option<f32>,
    #[serde(alias = "bbox")]
    rect: Option<[f32; 4]>,
    #[serde(alias = "features")]
    feature: Option<String>,
    #[serde(default)]
    attributes: Vec<String>,
    attr_scores: Option<Vec<f32>>,
}

pub(super) fn parse(text: &[u8], size: (u32, u32)) -> Result<Row, String> {
    match text.trim_ascii_start().first() {
        Some(b'{') => whole(serde_json::from_slice(text).map_err(|e| said(&e))?, size),
        Some(b'[') => {
            let objects = serde_json::from_slice(text).map_err(|e| said(&e))?;
            whole(Json { objects: Some(objects), ..Json::default() }, size)
        }
        _ => columns(text, size),
    }
}

/// The number of boxes and base64; or the six columns of bottom-up attention, of which the first is the key.
fn columns(text: &[u8], size: (u32, u32)) -> Result<Row, String> {
    const FORM: &str = "JSON, a number of boxes and base64, or bottom-up attention's image_w, image_h, num_boxes, boxes and \
                        features, separated by tabs, are needed behind the key";
    let text = std::str::from_utf8(text).map_err(|_| FORM)?;
    match text.split('\t').collect::<Vec<_>>()[..] {
        [count, matrix] => {
            let mut features = Features::default();
            features.push(matrix, count.trim().parse().map_err(|_| FORM)?)?;
            let (appearance, boxes) = features.placed(size)?;
            Ok(Row { objects: None, boxes, appearance: Some(appearance) })
        }
        [width, height, count, boxes, matrix] => {
            let side = |text: &str| text.trim().parse::<f64>().map_err(|_| FORM);
            let json = Json {
                num_boxes: Some(count.trim().parse().map_err(|_| FORM)?),
                features: Some(Value::String(matrix.to_owned())),
                bbox: Some(Value::String(boxes.to_owned())),
                image_w: Some(side(width)?),
                image_h: Some(side(height)?),
                objects: None,
            };
            whole(json, size)
        }
        _ => Err(FORM.to_owned()),
    }
}

fn whole(json: Json, size: (u32, u32)) -> Result<Row, String> {
    if let (Some(w), Some(h)) = (json.image_w, json.image_h)
        && (w, h) != (f64::from(size.0), f64::from(size.1))
    {
        return Err(format!("the objects are of an image of {w} x {h} pixels, the upright image has {} x {}", size.0, size.1));
    }
    let mut items =
        json.objects.map(|values| values.into_iter().enumerate().map(item).collect::<Result<Vec<_>, _>>()).transpose()?;
    let given = json.bbox.map(|value| rectangles(value, size)).transpose()?;
    let count = json.num_boxes.or(items.as_ref().map(Vec::len)).or(given.as_ref().map(Vec::len));
    let counts = [("objects", items.as_ref().map(Vec::len)), ("boxes", given.as_ref().map(Vec::len))];
    for (what, found) in counts {
        if let (Some(found), Some(count)) = (found, count.filter(|count| found != Some(*count))) {
            return Err(format!("{found} {what}, but {count} are announced"));
        }
    }
    let features = match (json.features, items.as_mut().map(|items| own(items)).transpose()?.flatten()) {
        (Some(_), Some(_)) => return Err("features of the objects and of the image".to_owned()),
        (None, own) => own,
        (Some(value), None) => Some(of_image(value, count.ok_or("features without `num_boxes`")?)?),
    };
    let (appearance, corners) = features.map(|features| features.placed(size)).transpose()?.unzip();
    let corners = corners.flatten();
    if let (Some(given), Some(corners)) = (&given, &corners) {
        for (&given, &corners) in given.iter().zip(corners) {
            super::agree(given, corners)?;
        }
    }
    let objects = items.map(|items| objects(items, size)).transpose()?;
    Ok(Row { objects, boxes: given.or(corners), appearance })
}

/// An object, or the name of one.
fn item((i, value): (usize, Value)) -> Result<Item, String> {
    let item = match value {
        Value::String(class) => Ok(Item { class, ..Item::default() }),
        value => Item::deserialize(value),
    };
    match item {
        Ok(item) if item.class.trim().is_empty() => Err(format!("object {}: the class is empty", i + 1)),
        item => item.map_err(|e| format!("object {}: {}", i + 1, said(&e))),
    }
}

/// The objects as they are told, in the file's order.
fn objects(items: Vec<Item>, size: (u32, u32)) -> Result<Vec<Object>, String> {
    // Names alone are annotations; where some have a confidence, the others' cannot be known.
    let certain = items.iter().all(|item| item.conf.is_none());
    let object = |(i, item): (usize, Item)| {
        let wrong = |why: String| format!("object {}: {why}", i + 1);
        let confidence = match item.conf {
            Some(conf) if (0.0..=1.0).contains(&conf) => conf,
            Some(conf) => return Err(wrong(format!("confidence {conf} is not in [0, 1]"))),
            None if certain => 1.0,
            None => return Err(wrong("no `conf`".to_owned())),
        };
        let xyxy = item.rect.map(|rect| boxes::inside(rect, size)).transpose().map_err(wrong)?;
        let attributes = attributes(item.attributes, item.attr_scores).map_err(wrong)?;
        Ok(Object { name: item.class, attributes, confidence, xyxy })
    };
    items.into_iter().enumerate().map(object).collect()
}

/// Attributes that score enough, the best first.
fn attributes(names: Vec<String>, scores: Option<Vec<f32>>) -> Result<Vec<String>, String> {
    let Some(scores) = scores else { return Ok(names) };
    if scores.len() != names.len() {
        return Err(format!("{} attributes, but {} scores", names.len(), scores.len()));
    }
    if !scores.iter().all(|score| score.is_finite()) {
        return Err("an attribute's score is not finite".to_owned());
    }
    let mut kept: Vec<(f32, String)> = scores.into_iter().zip(names).filter(|(score, _)| *score > ATTRIBUTE).collect();
    kept.sort_by(|a, b| b.0.total_cmp(&a.0));
    Ok(kept.into_iter().map(|(_, name)| name).collect())
}

/// Boxes as lists of four, or as base64.
fn rectangles(value: Value, size: (u32, u32)) -> Result<Boxes, String> {
    let rectangles = match value {
        Value::String(text) => {
            let (rows, rest) =
                floats(&text).map(|x| (x.as_chunks().0.to_vec(), x.len() % 4)).map_err(|e| format!("bbox: {e}"))?;
            if rest == 0 { Ok(rows) } else { Err("bbox: numbers that do not make fours".to_owned()) }
        }
        value => Vec::deserialize(value).map_err(|e| format!("bbox: {}", said(&e))),
    };
    all_inside(rectangles?.into_iter(), size).map_err(|why| format!("bbox: {why}"))
}

fn all_inside(boxes: impl Iterator<Item = [f32; 4]>, size: (u32, u32)) -> Result<Boxes, String> {
    let inside = |(i, xyxy)| boxes::inside(xyxy, size).map_err(|why| format!("row {}: {why}", i + 1));
    boxes.enumerate().map(inside).collect()
}

/// Features of an image's boxes: one text of all, or a text a box.
fn of_image(value: Value, count: usize) -> Result<Features, String> {
    let mut features = Features::default();
    match value {
        Value::String(matrix) => features.push(&matrix, count)?,
        value => {
            let rows: Vec<String> = Vec::deserialize(value).map_err(|e| format!("features: {}", said(&e)))?;
            if rows.len() != count {
                return Err(format!("{} rows of features, but {count} boxes", rows.len()));
            }
            rows.iter().try_for_each(|row| features.push(row, 1))?;
        }
    }
    Ok(features)
}

/// The objects' own features, which either all have or none.
fn own(items: &mut [Item]) -> Result<Option<Features>, String> {
    let mut features = Features::default();
    for (i, item) in items.iter_mut().enumerate() {
        match item.feature.take() {
            Some(row) if features.rows == i => features.push(&row, 1).map_err(|why| format!("object {}: {why}", i + 1))?,
            None if features.rows == 0 => {}
            _ => return Err(format!("object {}: some objects have a `feature` and some have not", i + 1)),
        }
    }
    Ok((features.rows > 0).then_some(features))
}

/// Appearance, with corners as parts of the image's size where they are known.
#[derive(Default)]
struct Features {
    rows: usize,
    appearance: Vec<f32>,
    corners: Vec<[f32; 4]>,
}

impl Features {
    /// Adds the rows of `count` boxes.
    fn push(&mut self, base64: &str, count: usize) -> Result<(), String> {
        let numbers = floats(base64)?;
        let width = [WIDTH, WITH_PLACE].into_iter().find(|&width| width.checked_mul(count) == Some(numbers.len()));
        let Some(width) = width else {
            let per = format!("neither {WIDTH} nor {WITH_PLACE} a box");
            return Err(format!("features of {} numbers for {count} boxes: that is {per}", numbers.len()));
        };
        for row in numbers.chunks_exact(width) {
            self.appearance.extend_from_slice(&row[..WIDTH]);
            if let Some(&corners) = row[WIDTH..].first_chunk() {
                self.corners.push(corners);
            }
        }
        self.rows += count;
        Ok(())
    }

    /// Appearance, and the boxes where every row has them; a row that alone has none is an error.
    fn placed(self, size: (u32, u32)) -> Result<(Vec<f32>, Option<Boxes>), String> {
        let (width, height) = (size.0 as f32, size.1 as f32);
        let pixels = |[x1, y1, x2, y2]: [f32; 4]| [x1 * width, y1 * height, x2 * width, y2 * height];
        if self.corners.len() == self.rows {
            let corners = all_inside(self.corners.into_iter().map(pixels), size);
            return Ok((self.appearance, Some(corners.map_err(|why| format!("features: {why}"))?)));
        }
        if self.corners.is_empty() { Ok((self.appearance, None)) } else { Err("features of two widths".to_owned()) }
    }
}

/// The numbers of base64, all finite.
fn floats(base64: &str) -> Result<Vec<f32>, String> {
    let bytes = STANDARD.decode(base64.trim_ascii()).map_err(|e| format!("not whole base64 ({e})"))?;
    let (words, rest) = bytes.as_chunks();
    if !rest.is_empty() {
        return Err(format!("base64 of {} bytes, which are no whole numbers of 4", bytes.len()));
    }
    let numbers: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
    match numbers.iter().position(|x| !x.is_finite()) {
        Some(at) => Err(format!("number {at} of the features is not finite")),
        None => Ok(numbers),
    }
}
