//! What a TorchScript file says about the network in it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::anchors::{FileAnchors, Unit};
use crate::torchscript::{Archive, Attribute, Numbers};

/// Largest number of classes that names are read of.
const MAX_CLASSES: usize = 100_000;

/// What the attributes and extra files of a TorchScript file say. Everything may be missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Metadata {
    /// Anchors of the detection head.
    pub(crate) anchors: Option<FileAnchors>,
    /// Names of the classes by number.
    pub(crate) names: Option<Vec<String>>,
    /// Height and width of the input that the network was exported for.
    pub(crate) input: Option<(u32, u32)>,
    /// Largest stride of the network.
    pub(crate) stride: Option<u32>,
    /// Whether it takes inputs of other sizes too.
    pub(crate) dynamic: bool,
    /// Shape of the example that it was traced with.
    pub(crate) traced: Option<Vec<usize>>,
    /// Whether its weights are fp16.
    pub(crate) fp16: bool,
}

impl Metadata {
    /// Reads the bytes of the file at `path` without running it. What cannot be read is reported as a warning.
    pub(crate) fn read(bytes: &[u8], path: &Path) -> Self {
        // A file that is not an archive is refused when it is loaded.
        let Ok(mut archive) = Archive::open(bytes) else { return Self::default() };
        let warn = |what: &str, why: String| tracing::warn!("{}: {what}: {why}", path.display());
        let mut metadata = Self { traced: archive.traced_input(), fp16: archive.has_fp16(), ..Self::default() };
        match archive.attributes(&["anchors", "anchor_grid", "stride", "strides", "names"]) {
            Ok(attributes) => metadata.add_attributes(&attributes, |why| warn("its anchors are not used", why)),
            Err(why) => warn("its anchors and class names cannot be read", why),
        }
        if let Some(text) = archive.extra_file("config.txt") {
            match serde_json::from_slice(&softclip_io::lenient_json(&text)) {
                Ok(config) => metadata.add_config(&config),
                Err(e) => warn("its extra file config.txt is not used", format!("not JSON: {e}")),
            }
        }
        metadata
    }

    /// Adds what the modules' attributes say.
    fn add_attributes(&mut self, attributes: &[(String, Attribute)], warn: impl Fn(String)) {
        let mut modules: BTreeMap<&str, BTreeMap<&str, &Attribute>> = BTreeMap::new();
        for (name, value) in attributes {
            let (module, name) = name.rsplit_once('.').unwrap_or(("", name.as_str()));
            modules.entry(module).or_default().insert(name, value);
        }
        let mut heads: Vec<(&str, FileAnchors)> = Vec::new();
        for (module, attributes) in &modules {
            let Some(anchors) = head(attributes) else { continue };
            if heads.iter().all(|(_, known)| *known != anchors) {
                heads.push((*module, anchors));
            }
        }
        // The names of a whole model; a part may have names of anything.
        self.names = ["", "model"]
            .into_iter()
            .chain(heads.iter().map(|(module, _)| *module))
            .find_map(|module| modules.get(module)?.get("names").and_then(|value| names_of(value)));
        match heads.len() {
            0 | 1 => self.anchors = heads.pop().map(|(_, anchors)| anchors),
            n => {
                let modules: Vec<&str> = heads.iter().map(|(module, _)| *module).collect();
                warn(format!("{n} modules have different ones ({})", modules.join(", ")));
            }
        }
    }

    /// Adds what YOLOv5's and Ultralytics' exporters write into `config.txt`.
    fn add_config(&mut self, config: &Value) {
        let pixels = |value: &Value| value.as_f64().filter(|x| x.fract() == 0.0 && (1.0..1e5).contains(x)).map(|x| x as u32);
        let pair = |value: &Value| match value.as_array().map(Vec::as_slice) {
            Some([.., height, width]) => Some((pixels(height)?, pixels(width)?)),
            Some([side]) => pixels(side).map(|side| (side, side)),
            Some([]) => None,
            None => pixels(value).map(|side| (side, side)),
        };
        self.input = ["shape", "imgsz"].iter().find_map(|key| pair(config.get(key)?));
        self.stride = config.get("stride").and_then(|stride| match stride {
            Value::Array(all) => all.iter().filter_map(pixels).max(),
            one => pixels(one),
        });
        self.dynamic = [config.get("dynamic"), config.get("args").and_then(|args| args.get("dynamic"))]
            .into_iter()
            .any(|dynamic| dynamic == Some(&Value::Bool(true)));
        if let Some(names) = config.get("names").and_then(names_of_json) {
            self.names = Some(names);
        }
    }

    /// Whether the names only number the classes, as exporters write where they know none: `class0`, or `0`.
    pub(crate) fn has_placeholder_names(&self) -> bool {
        let is_placeholder = |(number, name): (usize, &String)| *name == number.to_string() || *name == format!("class{number}");
        self.names.as_ref().is_some_and(|names| names.iter().enumerate().all(is_placeholder))
    }
}

/// The anchors of a detection head.
///
/// YOLOv5 up to 5.0 and YOLOv7 have `anchors` divided by the stride and `anchor_grid` in pixels; later YOLOv5 has
/// `anchors` and `stride`, and `anchor_grid` per level as its first pass left it.
fn head(attributes: &BTreeMap<&str, &Attribute>) -> Option<FileAnchors> {
    let levels = |name| attributes.get(name).and_then(|value| levels_of(value));
    let (cells, pixels) = (levels("anchors"), levels("anchor_grid"));
    let count = cells.as_ref().or(pixels.as_ref())?.len();
    let known = ["stride", "strides"].iter().find_map(|name| attributes.get(name)).and_then(|value| flat(value));
    let known = known.filter(|strides| strides.len() == count && strides.iter().all(|x| *x >= 1.0));
    match (cells, pixels) {
        (cells, Some(pixels)) if cells.as_ref().is_none_or(|cells| cells.len() == pixels.len()) => {
            let strides = known.or_else(|| ratios(&cells?, &pixels));
            Some(FileAnchors { sizes: pixels, unit: Unit::Pixels, strides })
        }
        (Some(cells), _) => Some(FileAnchors { sizes: cells, unit: Unit::Cells, strides: known }),
        _ => None,
    }
}

/// Strides as the ratios of anchors in pixels to anchors in cells.
fn ratios(cells: &[Vec<[f64; 2]>], pixels: &[Vec<[f64; 2]>]) -> Option<Vec<f64>> {
    let of_level = |(cells, pixels): (&Vec<[f64; 2]>, &Vec<[f64; 2]>)| {
        let ratios: Vec<f64> = cells.as_flattened().iter().zip(pixels.as_flattened()).map(|(cell, pixel)| pixel / cell).collect();
        let stride = ratios.first()?.round();
        let is_stride =
            cells.len() == pixels.len() && stride > 1.0 && ratios.iter().all(|ratio| (ratio / stride - 1.0).abs() < 0.02);
        is_stride.then_some(stride)
    };
    cells.iter().zip(pixels).map(of_level).collect()
}

/// Widths and heights by level.
fn levels_of(value: &Attribute) -> Option<Vec<Vec<[f64; 2]>>> {
    let pairs = |values: &[f64]| values.as_chunks::<2>().0.to_vec();
    let levels: Vec<Vec<[f64; 2]>> = match value {
        // [levels, A, 2], [levels, 2 A] or [levels, 1, A, 1, 1, 2].
        Attribute::Tensor(Numbers { size, values }) => {
            let (&count, &last) = (size.first()?, size.last()?);
            if size.len() < 2 || count == 0 || last == 0 || last % 2 != 0 || values.is_empty() {
                return None;
            }
            values.chunks(values.len() / count).map(pairs).collect()
        }
        Attribute::List(levels) => levels.iter().map(level_of).collect::<Option<_>>()?,
        _ => return None,
    };
    let usable = |level: &Vec<[f64; 2]>| !level.is_empty() && level.as_flattened().iter().all(|x| x.is_finite() && *x > 0.0);
    (!levels.is_empty() && levels.iter().all(usable)).then_some(levels)
}

/// Widths and heights of one level: numbers, or `[1, A, H, W, 2]` or `[A, 2]`.
fn level_of(value: &Attribute) -> Option<Vec<[f64; 2]>> {
    match value {
        Attribute::Tensor(Numbers { values, .. }) if values.is_empty() => None,
        Attribute::Tensor(Numbers { size, values }) => match size[..] {
            [_, 2] => Some(values.as_chunks().0.to_vec()),
            // Expanded to the map: the same pair in each cell.
            [1, anchors, h, w, 2] => Some((0..anchors).map(|i| [values[i * h * w * 2], values[i * h * w * 2 + 1]]).collect()),
            _ => None,
        },
        Attribute::List(_) => flat(value).filter(|all| all.len() % 2 == 0).map(|all| all.as_chunks().0.to_vec()),
        _ => None,
    }
}

/// All numbers of nested lists or of a tensor, in order.
fn flat(value: &Attribute) -> Option<Vec<f64>> {
    match value {
        Attribute::Number(x) => Some(vec![*x]),
        Attribute::Tensor(numbers) => Some(numbers.values.clone()),
        Attribute::List(parts) => Some(parts.iter().map(flat).collect::<Option<Vec<_>>>()?.concat()),
        _ => None,
    }
}

/// Names as a list, or as a dictionary by number.
fn names_of(value: &Attribute) -> Option<Vec<String>> {
    let text = |value: &Attribute| match value {
        Attribute::Text(text) => Some(text.clone()),
        _ => None,
    };
    match value {
        Attribute::List(names) => usable(names.iter().map(text).collect::<Option<_>>()?),
        Attribute::Dict(names) => {
            let entry = |(number, name): &(Attribute, Attribute)| match number {
                Attribute::Number(number) => Some((*number as usize, text(name)?)),
                _ => None,
            };
            by_number(names.iter().map(entry).collect::<Option<_>>()?)
        }
        _ => None,
    }
}

fn names_of_json(value: &Value) -> Option<Vec<String>> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match value {
        Value::Array(names) => usable(names.iter().map(text).collect::<Option<_>>()?),
        Value::Object(names) => {
            by_number(names.iter().map(|(number, name)| Some((number.parse().ok()?, text(name)?))).collect::<Option<_>>()?)
        }
        _ => None,
    }
}

/// The names in the order of their numbers; none unless these are 0, 1, 2, ….
fn by_number(mut names: Vec<(usize, String)>) -> Option<Vec<String>> {
    names.sort();
    let complete = names.iter().enumerate().all(|(i, (number, _))| i == *number);
    if complete { usable(names.into_iter().map(|(_, name)| name).collect()) } else { None }
}

fn usable(names: Vec<String>) -> Option<Vec<String>> {
    ((1..=MAX_CLASSES).contains(&names.len())).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Damage that libtorch would not survive must not be met here: the file is read before it is loaded.
    #[test]
    fn damaged_files_are_read_without_a_panic() {
        let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/detectors/raw.pt")).unwrap();
        assert_eq!(Metadata::read(&bytes, Path::new("raw.pt")), Metadata::default());
        let mut state = 1u64;
        for _ in 0..2000 {
            let mut damaged = bytes.clone();
            for _ in 0..3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (state >> 33) as usize % damaged.len();
                damaged[at] = (state >> 24) as u8;
            }
            damaged.truncate(if state & 7 == 0 { damaged.len() / 2 } else { damaged.len() });
            Metadata::read(&damaged, Path::new("raw.pt"));
        }
    }
}
