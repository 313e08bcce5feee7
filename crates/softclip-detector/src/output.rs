//! What exported networks return, as candidates `[B, n, 5 + C]`.

use std::sync::{Once, OnceLock};

use serde::{Deserialize, Serialize};
use tch::{Device, IValue, Kind, Tensor};

use crate::anchors::{AnchorSource, decode_maps};
use crate::end_to_end::{self, Rows};
use crate::error::{Error, Result};
use crate::nms::Thresholds;

/// What a network returns. Boxes are in pixels of its input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputLayout {
    /// Detects the layout by shape and, where two fit, by values.
    #[default]
    Auto,
    /// `[B, n, 5 + C]`: center, width, height, objectness, C class scores (YOLOv5, YOLOv7).
    Objectness,
    /// `[B, 4 + C, n]`: center, width, height, C class scores (YOLOv8, YOLO11, YOLO12).
    ClassScores,
    /// `[B, n, 6]`: left, top, right, bottom, score, class number, after suppression (YOLOv10, exports with NMS).
    EndToEnd,
    /// `[n, 7]` or `[1, n, 7]`: number of the image in the batch, left, top, right, bottom, class number, score, after
    /// suppression (YOLOv7's end-to-end export).
    EndToEndBatch,
    /// A map per level, before the sigmoid: `[B, A, H, W, 5 + C]` or `[B, A (5 + C), H, W]`.
    RawMaps,
}

impl OutputLayout {
    /// The name in the settings.
    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Objectness => "objectness",
            Self::ClassScores => "class_scores",
            Self::EndToEnd => "end_to_end",
            Self::EndToEndBatch => "end_to_end_batch",
            Self::RawMaps => "raw_maps",
        }
    }

    /// The layouts, other than raw maps, that a tensor of this size may have.
    fn candidates(size: &[i64], batch: i64, classes: i64) -> Vec<Self> {
        let fits = |layout: &Self| match (layout, size) {
            (Self::Objectness, &[b, _, width]) => b == batch && width == 5 + classes,
            (Self::ClassScores, &[b, width, _]) => b == batch && width == 4 + classes,
            (Self::EndToEnd, &[b, _, width]) => b == batch && width == 6,
            (Self::EndToEnd, &[_, width]) => batch == 1 && width == 6,
            (Self::EndToEndBatch, &[1, _, width] | &[_, width]) => width == 7,
            _ => false,
        };
        let all = [Self::Objectness, Self::ClassScores, Self::EndToEnd, Self::EndToEndBatch];
        all.into_iter().filter(fits).collect()
    }
}

/// Candidates of a batch of images.
#[derive(Debug)]
pub struct Candidates {
    /// f32 `[B, n, 5 + C]` on the network's device: center, width and height in pixels of the input, objectness, class
    /// scores. Where a network has no objectness, the best class score takes its place and the class scores are divided
    /// by it, so that their product is the network's score.
    pub rows: Tensor,
    /// Whether the network has suppressed overlapping boxes itself.
    pub suppressed: bool,
}

impl Candidates {
    /// Returns the rows `[k, 5 + C]` of each image whose objectness is at least `floor`, in their order. Of 25,200 mostly
    /// a few dozen remain, and only these leave the device.
    ///
    /// # Errors
    /// The device has no memory left.
    pub fn filter_by_score(&self, floor: f32) -> Result<Vec<Vec<f32>>> {
        let chosen = self.rows.f_select(2, 4)?.f_ge(f64::from(floor))?; // [B, n]
        let counts =
            Vec::<i64>::try_from(chosen.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Int64)?.f_to_device(Device::Cpu)?)?;
        let index = chosen.f_flatten(0, 1)?.f_nonzero()?.f_squeeze_dim(1)?;
        let rows = self.rows.f_flatten(0, 1)?.f_index_select(0, &index)?.f_to_device(Device::Cpu)?;
        let width = self.rows.size()[2];
        let all = Vec::<f32>::try_from(rows.f_contiguous()?.f_view([-1])?)?;
        let mut rest = &all[..];
        let mut take = |n: i64| {
            let (rows, behind) = rest.split_at((n * width) as usize);
            rest = behind;
            rows.to_vec()
        };
        Ok(counts.into_iter().map(&mut take).collect())
    }

    /// Returns the thresholds to select detections with: without suppression where the network has done it.
    pub fn thresholds(&self, thresholds: &Thresholds) -> Thresholds {
        // No overlap is above 1.
        Thresholds { iou: if self.suppressed { 1.0 } else { thresholds.iou }, ..*thresholds }
    }
}

/// Makes candidates of what a network returns.
#[derive(Debug)]
pub(crate) struct OutputDecoder {
    pub(crate) classes: usize,
    pub(crate) layout: OutputLayout,
    pub(crate) anchors: AnchorSource,
    /// Whether the names of the classes are COCO's because nobody has given any.
    pub(crate) names_assumed: bool,
    detected: OnceLock<OutputLayout>,
    warned: Once,
}

impl OutputDecoder {
    pub(crate) fn new(classes: usize, layout: OutputLayout, anchors: AnchorSource, names_assumed: bool) -> Self {
        OutputDecoder { classes, layout, anchors, names_assumed, detected: OnceLock::new(), warned: Once::new() }
    }

    /// Decodes the output of a pass of `batch` images of (height, width) pixels. A tuple or list is taken by its first
    /// tensor, or as raw maps.
    ///
    /// # Errors
    /// [`Error::Output`] if the output has none of the layouts of [`OutputLayout`], or two of them fit.
    pub(crate) fn decode(&self, output: &IValue, batch: i64, input: (i64, i64)) -> Result<Candidates> {
        let tensors = tensors(output);
        let candidates = |rows: Tensor| Ok(Candidates { rows, suppressed: false });
        let unknown = || self.unknown(output, batch);
        let layout = match (self.layout, tensors.first()) {
            (_, None) => return Err(unknown()),
            (OutputLayout::Auto, Some(first)) => self.detect(first, batch)?,
            (OutputLayout::RawMaps, _) => OutputLayout::RawMaps,
            (layout, Some(first)) => {
                let fits = OutputLayout::candidates(&first.size(), batch, self.classes as i64).contains(&layout);
                if fits { layout } else { return Err(unknown()) }
            }
        };
        let first = &tensors[0];
        match layout {
            OutputLayout::Objectness => candidates(first.f_to_kind(Kind::Float)?),
            OutputLayout::ClassScores => candidates(from_class_scores(first)?),
            OutputLayout::EndToEnd | OutputLayout::EndToEndBatch => {
                if self.names_assumed {
                    self.warned.call_once(|| {
                        tracing::warn!(
                            "the detector returns class numbers, and neither its file nor the settings name the classes: \
                             COCO's are assumed; name them with `classes` or --classes"
                        );
                    });
                }
                let rows = Rows::read(first, layout == OutputLayout::EndToEndBatch)?;
                Ok(Candidates { rows: end_to_end::candidates(&rows, batch, self.classes, first.device())?, suppressed: true })
            }
            OutputLayout::RawMaps | OutputLayout::Auto => {
                let maps = decode_maps(&tensors, batch, 5 + self.classes as i64, input, &self.anchors)?;
                candidates(maps.ok_or_else(unknown)?)
            }
        }
    }

    /// The layout of an output whose first tensor is `first`.
    fn detect(&self, first: &Tensor, batch: i64) -> Result<OutputLayout> {
        let fitting = OutputLayout::candidates(&first.size(), batch, self.classes as i64);
        let (objectness, other) = match fitting[..] {
            [] => return Ok(OutputLayout::RawMaps),
            // Any other output may have as many columns.
            [only @ (OutputLayout::EndToEnd | OutputLayout::EndToEndBatch)] => {
                let rows = Rows::read(first, only == OutputLayout::EndToEndBatch)?;
                return Ok(if rows.may_be_end_to_end(batch) { only } else { OutputLayout::RawMaps });
            }
            [only] => return Ok(only),
            [OutputLayout::Objectness, other @ (OutputLayout::EndToEnd | OutputLayout::EndToEndBatch)] => {
                (OutputLayout::Objectness, other)
            }
            _ => return Err(ambiguous(first, &fitting)),
        };
        // What one batch has shown holds for the next, which may have no object.
        if let Some(layout) = self.detected.get().filter(|layout| fitting.contains(layout)) {
            return Ok(*layout);
        }
        let rows = Rows::read(first, other == OutputLayout::EndToEndBatch)?;
        if rows.are_empty() {
            return Ok(other);
        }
        match (rows.may_be_objectness(), rows.may_be_end_to_end(batch)) {
            (true, false) => Ok(*self.detected.get_or_init(|| objectness)),
            (false, true) => Ok(*self.detected.get_or_init(|| other)),
            _ => Err(ambiguous(first, &fitting)),
        }
    }

    fn unknown(&self, output: &IValue, batch: i64) -> Error {
        let (levels, classes, width) = (self.anchors.levels(), self.classes, 5 + self.classes);
        let setting = match self.layout {
            OutputLayout::Auto => String::new(),
            layout => format!("; the settings say `output: {}`", layout.name()),
        };
        let expected = format!(
            "[{batch}, n, {width}] (box, objectness, {classes} class scores per candidate), [{batch}, {}, n] (box, {classes} class \
             scores), [{batch}, n, 6] (corners, score, class), a tuple that begins with one of these, or {levels} raw maps \
             [{batch}, A, H, W, {width}]{setting}",
            width - 1
        );
        let remedy = "name other classes with `classes` or --classes, set other anchors with `anchors`, and run a network that was \
                      traced for one image with --batch-size 1";
        Error::Output { expected, found: describe(output), remedy: remedy.to_owned() }
    }
}

/// `[B, 4 + C, n]` → `[B, n, 5 + C]`.
fn from_class_scores(output: &Tensor) -> Result<Tensor> {
    let rows = output.f_to_kind(Kind::Float)?.f_transpose(1, 2)?;
    let scores = rows.f_slice(2, 4, i64::MAX, 1)?;
    let (best, _) = scores.f_max_dim(2, true)?;
    // A quotient of equal numbers is exactly 1, so that the product is exactly the score.
    let relative = scores.f_div(&best.f_clamp_min(f64::from(f32::MIN_POSITIVE))?)?;
    Ok(Tensor::f_cat(&[rows.f_slice(2, 0, 4, 1)?, best, relative], 2)?)
}

fn tensors(output: &IValue) -> Vec<Tensor> {
    match output {
        IValue::Tensor(t) => vec![t.shallow_clone()],
        IValue::TensorList(list) => list.iter().map(Tensor::shallow_clone).collect(),
        // Some exports have (candidates, [maps]): the first is what counts.
        IValue::Tuple(parts) | IValue::GenericList(parts) => parts
            .iter()
            .enumerate()
            .flat_map(|(i, part)| match part {
                IValue::Tensor(t) => vec![t.shallow_clone()],
                nested if i == 0 => tensors(nested),
                _ => Vec::new(),
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn ambiguous(first: &Tensor, fitting: &[OutputLayout]) -> Error {
    let names: Vec<String> = fitting.iter().map(|layout| format!("`output: {}`", layout.name())).collect();
    Error::Output {
        expected: "an output of one layout".to_owned(),
        found: format!("{:?}, whose shape and values fit {}", first.size(), names.join(" and ")),
        remedy: "set the one that the network has in the settings (--detector-config)".to_owned(),
    }
}

fn describe(value: &IValue) -> String {
    let list = |parts: Vec<String>| match parts.len() {
        n @ 9.. => format!("{}, … ({n} in all)", parts[..8].join(", ")),
        _ => parts.join(", "),
    };
    match value {
        IValue::Tensor(t) => format!("{:?}", t.size()),
        IValue::TensorList(parts) => format!("a list of {}", list(parts.iter().map(|t| format!("{:?}", t.size())).collect())),
        IValue::Tuple(parts) => format!("a tuple of ({})", list(parts.iter().map(describe).collect())),
        IValue::GenericList(parts) => format!("a list of {}", list(parts.iter().map(describe).collect())),
        IValue::GenericDict(_) => "a dictionary".to_owned(),
        IValue::None => "nothing".to_owned(),
        _ => "no tensor".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anchors::Anchors;

    /// Height and width of the input in pixels.
    const INPUT: (i64, i64) = (64, 96);

    fn zeros(size: &[i64]) -> Tensor {
        Tensor::zeros(size, (Kind::Float, Device::Cpu))
    }

    fn decoder() -> OutputDecoder {
        OutputDecoder::new(2, OutputLayout::Auto, AnchorSource::new(Some(Anchors::default()), None), false)
    }

    /// Maps of three levels with numbers that all differ.
    fn maps() -> Vec<Tensor> {
        let map = |stride: i64| {
            let size = [2, 3, INPUT.0 / stride, INPUT.1 / stride, 7];
            let count = size.iter().product::<i64>();
            (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 1.7 + stride).sin().view(size) * 2.0
        };
        [8, 16, 32].map(map).into()
    }

    #[test]
    fn both_layouts_of_raw_maps_become_the_same_boxes() {
        let maps = maps();
        let decode = |output: &IValue| decoder().decode(output, 2, INPUT).unwrap().rows;
        let found = decode(&IValue::TensorList(maps.iter().map(Tensor::shallow_clone).collect()));
        assert_eq!(found.size(), [2, 3 * (8 * 12 + 4 * 6 + 2 * 3), 7]);

        let joined = maps.iter().map(|m| IValue::Tensor(m.permute([0, 1, 4, 2, 3]).contiguous().flatten(1, 2))).collect();
        // Sigmoid rounds otherwise where numbers do not lie side by side.
        let off = (decode(&IValue::Tuple(joined)) - &found).abs().max().double_value(&[]);
        assert!(off < 1e-3, "{off}");

        // By hand: the second anchor of the middle level in its cell of row 1 and column 2.
        let raw = Vec::<f64>::try_from(maps[1].get(0).get(1).get(1).get(2).to_kind(Kind::Double)).unwrap();
        let at = 3 * 8 * 12 + (4 + 1) * 6 + 2;
        let one = Vec::<f64>::try_from(found.get(0).get(at).to_kind(Kind::Double)).unwrap();
        let s: Vec<f64> = raw.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
        let expected = [
            (s[0] * 2.0 - 0.5 + 2.0) * 16.0,
            (s[1] * 2.0 - 0.5 + 1.0) * 16.0,
            (s[2] * 2.0).powi(2) * 76.0,
            (s[3] * 2.0).powi(2) * 55.0,
        ];
        let off = one.iter().zip(expected.iter().chain(&s[4..])).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off < 1e-4, "{one:?} {expected:?}");
    }

    #[test]
    fn raw_maps_need_a_level_of_their_stride() {
        let anchors = Anchors { strides: vec![8.0, 16.0, 64.0], ..Anchors::default() };
        let decoder = OutputDecoder::new(2, OutputLayout::Auto, AnchorSource::new(Some(anchors), None), false);
        let error = decoder.decode(&IValue::TensorList(maps()), 2, INPUT).unwrap_err().to_string();
        assert!(error.contains("anchors.strides") && error.contains("stride 32"), "{error}");
    }

    #[test]
    fn finished_candidates_are_taken_alone_and_as_first_of_a_tuple() {
        let tuple = IValue::Tuple(vec![IValue::Tensor(zeros(&[2, 10, 7])), IValue::TensorList(vec![zeros(&[1])])]);
        for output in [IValue::Tensor(zeros(&[2, 10, 7])), tuple] {
            assert_eq!(decoder().decode(&output, 2, INPUT).unwrap().rows.size(), [2, 10, 7]);
        }
    }

    #[test]
    fn other_outputs_are_told() {
        for (output, found) in [
            (IValue::Tensor(zeros(&[2, 10, 85])), "found [2, 10, 85]"),
            (IValue::Tensor(zeros(&[3, 10, 7])), "found [3, 10, 7]"),
            (IValue::TensorList(vec![zeros(&[2, 3, 4, 4, 7])]), "found a list of [2, 3, 4, 4, 7]"),
            (IValue::Tuple(vec![IValue::Int(3)]), "found a tuple of (no tensor)"),
            (IValue::None, "found nothing"),
        ] {
            let error = decoder().decode(&output, 2, INPUT).unwrap_err().to_string();
            assert!(error.contains(found) && error.contains("expected [2, n, 7]"), "{error}");
        }
        assert!(Anchors { sizes: vec![], strides: vec![] }.validate().is_err());
        let zero = Anchors { strides: vec![8.0, 0.0, 32.0], ..Anchors::default() };
        assert!(zero.validate().unwrap_err().to_string().contains("0 is no size"));
    }
}
