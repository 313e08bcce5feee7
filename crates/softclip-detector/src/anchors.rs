//! Anchors of detection heads, and boxes from their raw maps.

use std::sync::Once;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::error::{Error, Result};

/// Relative difference up to which two anchors are the same: exports round them to fp16.
const TOLERANCE: f64 = 0.01;
/// Anchors are at most this many pixels, or twice the input's side if that is more. Larger ones were in pixels before they
/// were multiplied by the stride.
const MAX_ANCHOR: f64 = 2560.0;

/// Widths and heights of the anchors of each level in pixels of the input, and the levels' strides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchors {
    /// Width and height of each anchor, by level.
    pub sizes: Vec<Vec<[f64; 2]>>,
    /// Stride of each level in pixels.
    pub strides: Vec<f64>,
}

impl Default for Anchors {
    /// Those of `yolov7.yaml`.
    fn default() -> Self {
        let level = |sizes: [[f64; 2]; 3]| sizes.to_vec();
        Anchors {
            sizes: vec![
                level([[12.0, 16.0], [19.0, 36.0], [40.0, 28.0]]),
                level([[36.0, 75.0], [76.0, 55.0], [72.0, 146.0]]),
                level([[142.0, 110.0], [192.0, 243.0], [459.0, 401.0]]),
            ],
            strides: vec![8.0, 16.0, 32.0],
        }
    }
}

impl Anchors {
    /// Checks that each level has a stride, and that sizes and strides are positive.
    ///
    /// # Errors
    /// [`Error::Option`] with the value that is not valid.
    pub fn validate(&self) -> Result<()> {
        let wrong = |why: String| Err(Error::Option { key: "anchors", why });
        if self.sizes.is_empty() || self.sizes.len() != self.strides.len() {
            return wrong(format!("{} levels of sizes and {} strides", self.sizes.len(), self.strides.len()));
        }
        let all = self.sizes.iter().flatten().flatten().chain(&self.strides);
        match all.copied().find(|x| !(x.is_finite() && *x > 0.0)) {
            Some(x) => wrong(format!("{x} is no size in pixels")),
            None if self.sizes.iter().any(Vec::is_empty) => wrong("a level without anchors".to_owned()),
            None => Ok(()),
        }
    }

    /// Whether both describe the same levels, in any order.
    fn agrees(&self, other: &Anchors) -> bool {
        let close = |a: f64, b: f64| (a - b).abs() <= TOLERANCE * b.abs();
        let by_stride = |anchors: &Anchors| {
            let mut levels: Vec<_> = anchors.strides.iter().copied().zip(anchors.sizes.clone()).collect();
            levels.sort_by(|a, b| a.0.total_cmp(&b.0));
            levels
        };
        let (ours, theirs) = (by_stride(self), by_stride(other));
        ours.len() == theirs.len()
            && ours.iter().zip(&theirs).all(|((a, ours), (b, theirs))| {
                let mut sizes = ours.as_flattened().iter().zip(theirs.as_flattened());
                close(*a, *b) && ours.len() == theirs.len() && sizes.all(|(a, b)| close(*a, *b))
            })
    }

    /// The level of this stride.
    fn level(&self, stride: f64) -> Option<&[[f64; 2]]> {
        let number = self.strides.iter().position(|known| (known - stride).abs() < 0.5)?;
        Some(&self.sizes[number])
    }
}

impl std::fmt::Display for Anchors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} with strides {:?}", self.sizes, self.strides)
    }
}

/// Unit of anchors that a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    Pixels,
    /// Divided by the stride of their level.
    Cells,
}

/// Anchors as a TorchScript file holds them. Strides may be missing: the sizes of the raw maps give them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct FileAnchors {
    pub(crate) sizes: Vec<Vec<[f64; 2]>>,
    pub(crate) unit: Unit,
    pub(crate) strides: Option<Vec<f64>>,
}

impl FileAnchors {
    /// The anchors in pixels for maps of these strides of an input whose longer side is `side` pixels.
    fn resolve(&self, map_strides: &[f64], side: f64) -> Anchors {
        let strides = self.strides.clone().unwrap_or_else(|| map_strides.to_vec());
        let scaled = |unit: Unit| Anchors {
            sizes: self
                .sizes
                .iter()
                .zip(&strides)
                .map(|(level, stride)| {
                    let factor = if unit == Unit::Cells { *stride } else { 1.0 };
                    level.iter().map(|size| size.map(|x| x * factor)).collect()
                })
                .collect(),
            strides: strides.clone(),
        };
        let anchors = scaled(self.unit);
        let largest = anchors.sizes.iter().flatten().flatten().fold(0.0, |a: f64, b| a.max(*b));
        // A head that keeps pixels where YOLOv5 keeps cells.
        if self.unit == Unit::Cells && largest > MAX_ANCHOR.max(2.0 * side) { scaled(Unit::Pixels) } else { anchors }
    }
}

/// Where the anchors of raw maps come from.
#[derive(Debug)]
pub(crate) struct AnchorSource {
    /// Those that the settings name.
    pub(crate) settings: Option<Anchors>,
    /// Those in the file.
    pub(crate) file: Option<FileAnchors>,
    warned: Once,
}

impl AnchorSource {
    pub(crate) fn new(settings: Option<Anchors>, file: Option<FileAnchors>) -> Self {
        AnchorSource { settings, file, warned: Once::new() }
    }

    /// Number of levels.
    pub(crate) fn levels(&self) -> usize {
        match (&self.settings, &self.file) {
            (Some(settings), _) => settings.sizes.len(),
            (None, Some(file)) => file.sizes.len(),
            (None, None) => Anchors::default().sizes.len(),
        }
    }

    /// What decides the boxes of raw maps, for records of a job.
    pub(crate) fn describe(&self) -> serde_json::Value {
        let value = match (&self.settings, &self.file) {
            (Some(settings), _) => serde_json::to_value(settings),
            (None, Some(file)) => serde_json::to_value(file),
            (None, None) => serde_json::to_value(Anchors::default()),
        };
        // Numbers and names: this cannot fail.
        value.unwrap_or_default()
    }

    /// The anchors in pixels.
    fn resolve(&self, map_strides: &[f64], side: f64) -> Result<Anchors> {
        let file = self.file.as_ref().filter(|file| file.strides.is_some() || file.sizes.len() == map_strides.len());
        let file = file.map(|file| file.resolve(map_strides, side));
        match (&self.settings, file) {
            (Some(settings), Some(file)) if !settings.agrees(&file) => Err(Error::Contradiction {
                key: "anchors",
                settings: settings.to_string(),
                file: file.to_string(),
                remedy: "remove `anchors` from the settings",
            }),
            (Some(settings), _) => Ok(settings.clone()),
            (None, Some(file)) => Ok(file),
            (None, None) => {
                self.warned.call_once(|| {
                    tracing::warn!(
                        "the detector returns raw maps, and its file holds no anchors: those of yolov7.yaml are assumed; \
                         set `anchors` in the settings (configs/detectors has those of other networks)"
                    );
                });
                Ok(Anchors::default())
            }
        }
    }
}

/// A raw map as `[B, A, H, W, 5 + C]`, before the sigmoid.
struct Level {
    map: Tensor,
    stride: f64,
}

/// The raw maps of an input of (height, width) pixels, if all `tensors` are such.
fn levels(tensors: &[Tensor], batch: i64, width: i64, (height, input_width): (i64, i64)) -> Option<Vec<Level>> {
    let level = |map: &Tensor| {
        let map = match map.size()[..] {
            [b, _, _, _, w] if (b, w) == (batch, width) => map.shallow_clone(),
            [b, channels, h, w] if b == batch && channels > 0 && channels % width == 0 => {
                map.f_view([b, channels / width, width, h, w]).ok()?.f_permute([0, 1, 3, 4, 2]).ok()?
            }
            _ => return None,
        };
        let (h, w) = (map.size()[2], map.size()[3]);
        let stride = height.checked_div(h).filter(|stride| *stride > 0)?;
        (h * stride == height && w * stride == input_width).then_some(Level { map, stride: stride as f64 })
    };
    let levels: Vec<Level> = tensors.iter().map(level).collect::<Option<_>>()?;
    (!levels.is_empty()).then_some(levels)
}

/// Decodes raw maps to candidates `[B, n, 5 + C]`; none if the tensors are not raw maps of this input with the number of
/// levels and anchors that `source` has.
pub(crate) fn decode_maps(
    tensors: &[Tensor],
    batch: i64,
    width: i64,
    input: (i64, i64),
    source: &AnchorSource,
) -> Result<Option<Tensor>> {
    let Some(levels) = levels(tensors, batch, width, input) else { return Ok(None) };
    if levels.len() != source.levels() {
        return Ok(None);
    }
    let strides: Vec<f64> = levels.iter().map(|level| level.stride).collect();
    let anchors = source.resolve(&strides, input.0.max(input.1) as f64)?;
    let mut boxes = Vec::with_capacity(levels.len());
    for Level { map, stride } in &levels {
        let Some(sizes) = anchors.level(*stride) else {
            return Err(Error::Option {
                key: "anchors.strides",
                why: format!("no level has stride {stride}, but a raw map has; the strides are {:?}", anchors.strides),
            });
        };
        if sizes.len() as i64 != map.size()[1] {
            return Ok(None);
        }
        boxes.push(decode(map, sizes, *stride)?);
    }
    Ok(Some(Tensor::f_cat(&boxes, 1)?))
}

/// YOLOv5's and YOLOv7's boxes: centers up to half a cell outside theirs, sides up to four times their anchor's.
fn decode(map: &Tensor, sizes: &[[f64; 2]], stride: f64) -> Result<Tensor> {
    let size = map.size();
    let (h, w, width) = (size[2], size[3], size[4]);
    let on = (Kind::Float, map.device());
    let y = map.f_to_kind(Kind::Float)?.f_sigmoid()?;
    let grid = Tensor::f_meshgrid_indexing(&[Tensor::f_arange(h, on)?, Tensor::f_arange(w, on)?], "ij")?;
    let grid = Tensor::f_stack(&[&grid[1], &grid[0]], -1)?; // [H, W, 2], x before y
    let sizes = Tensor::from_slice(sizes.as_flattened()).f_to_kind(Kind::Float)?.f_to_device(map.device())?;
    let sizes = sizes.f_view([-1, 1, 1, 2])?; // [A, 1, 1, 2]
    let xy = ((y.f_narrow(4, 0, 2)?.f_mul_scalar(2.0)? - 0.5).f_add(&grid)?).f_mul_scalar(stride)?;
    let wh = y.f_narrow(4, 2, 2)?.f_mul_scalar(2.0)?.f_square()?.f_mul(&sizes)?;
    Ok(Tensor::f_cat(&[xy, wh, y.f_narrow(4, 4, width - 4)?], 4)?.f_reshape([size[0], -1, width])?)
}
