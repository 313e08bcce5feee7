//! Own objects, a JSON object a line.

use std::io::{BufRead, Read, Seek};
use std::path::Path;

use serde::Deserialize;

use super::rows::{Rows, span, wrong};
use super::{boxes, images, said};
use crate::{Error, Found, Object, Objects};

/// Longer lines are none: the file is of another kind.
const LONGEST: u64 = 1 << 26;

/// Own tags or objects, an image a line (JSONL).
///
/// ```text
/// {"key": "000000391895", "tags": ["red car", "dog"]}
/// {"key": "000000000009", "objects": [{"name": "car", "attributes": ["red"], "confidence": 0.9, "box": [10, 20, 110, 90]}]}
/// ```
///
/// `image` may stand for `key`. Tags have confidence 1 and no place. Of an object only the name is needed: without `confidence`
/// it has 1; `box` is left, top, right, bottom in pixels of the upright image. Objects are sorted by confidence, equal ones stay
/// in their order. Other names are refused.
pub struct Lines(Rows);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(alias = "image")]
    key: Box<str>,
    tags: Option<Vec<String>>,
    objects: Option<Vec<Item>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    name: String,
    #[serde(default)]
    attributes: Vec<String>,
    #[serde(default = "certain")]
    confidence: f32,
    #[serde(rename = "box")]
    xyxy: Option<[f32; 4]>,
}

fn certain() -> f32 {
    1.0
}

impl Lines {
    /// Reads and checks all lines, and keeps where they lie.
    ///
    /// # Errors
    /// The file cannot be read, a line is not as it should be, or a key comes twice; the message has the line.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let mut reader = softclip_io::open_text(path).map_err(|e| Error::text(path, e))?;
        let (mut spans, mut names) = (Vec::new(), Vec::new());
        // Behind a byte order mark.
        let (mut offset, mut text) = (reader.stream_position().map_err(Error::io(path))?, Vec::new());
        for number in 1.. {
            text.clear();
            let length = reader.by_ref().take(LONGEST).read_until(b'\n', &mut text).map_err(Error::io(path))?;
            match length as u64 {
                0 => break,
                LONGEST => return Err(wrong(path, number, offset, format!("a line of more than {LONGEST} bytes"))),
                _ => {}
            }
            if !text.trim_ascii().is_empty() {
                let line = parse(&text).map_err(|why| wrong(path, number, offset, why))?;
                spans.push(span(path, number, offset, length)?);
                names.push(line.key);
            }
            offset += length as u64;
        }
        Ok(Self(Rows::new(path, reader.into_inner(), spans, names)?))
    }
}

fn parse(text: &[u8]) -> Result<Line, String> {
    let line: Line = serde_json::from_slice(text.trim_ascii_end()).map_err(|e| said(&e))?;
    if line.key.is_empty() {
        return Err("the key is empty".to_owned());
    }
    match (&line.tags, &line.objects) {
        (Some(tags), None) if tags.iter().any(|tag| tag.trim().is_empty()) => Err("a tag is empty".to_owned()),
        (None, Some(items)) => items.iter().enumerate().try_for_each(|(i, item)| match item {
            _ if item.name.trim().is_empty() => Err(format!("object {}: the name is empty", i + 1)),
            _ if !(0.0..=1.0).contains(&item.confidence) => Err(format!("object {}: confidence is not in [0, 1]", i + 1)),
            _ => Ok(()),
        }),
        (Some(_), None) => Ok(()),
        _ => Err("either `tags` or `objects` is needed".to_owned()),
    }
    .map(|()| line)
}

/// The line's objects, their boxes checked against the image.
fn found(line: Line, size: (u32, u32)) -> Result<Found, String> {
    let tags = line.tags.into_iter().flatten();
    let tags = tags.map(|name| Object { name, attributes: Vec::new(), confidence: 1.0, xyxy: None });
    let items = line.objects.into_iter().flatten().enumerate().map(|(i, Item { name, attributes, confidence, xyxy })| {
        let xyxy = xyxy.map(|xyxy| boxes::inside(xyxy, size)).transpose().map_err(|why| format!("object {}: {why}", i + 1))?;
        Ok(Object { name, attributes, confidence, xyxy })
    });
    let mut objects = tags.map(Ok).chain(items).collect::<Result<Vec<_>, String>>()?;
    objects.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    Ok(Found { objects, ..Found::default() })
}

impl Objects for Lines {
    fn find(&self, key: &str, size: (u32, u32)) -> Result<Option<Found>, String> {
        let Some(row) = self.0.find(key)? else { return Ok(None) };
        let text = self.0.read(row)?;
        parse(&text).and_then(|line| found(line, size)).map(Some).map_err(|why| self.0.fault(row, why))
    }

    fn entries(&self, key: &str, numbers: &mut Vec<Option<usize>>) -> Result<(), String> {
        numbers.push(self.0.find(key)?);
        Ok(())
    }

    fn describe(&self) -> String {
        format!("objects in lines of JSON, {}", images(self.0.len()))
    }

    fn paths(&self) -> Vec<&Path> {
        vec![self.0.path()]
    }
}
