//! From a network's candidates to detections: confidence, class-aware non-maximum suppression.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What counts as a detection. YOLOv7's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Thresholds {
    /// The least confidence, objectness × class score, in [0, 1].
    pub confidence: f32,
    /// Of two boxes of a class whose intersection over union is above this, the less confident one goes; in [0, 1].
    pub iou: f32,
    /// The most detections of an image; the most confident ones stay.
    pub most: usize,
    /// As many are kept even below `confidence`, if they are above 0.001, as VinVL's detector does (it keeps ten); 0 for none.
    pub least: usize,
    /// Whether boxes of different classes suppress each other too, as in the code of Text-based SoftCLIP's authors.
    pub across_classes: bool,
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds { confidence: 0.25, iou: 0.45, most: 300, least: 0, across_classes: false }
    }
}

impl Thresholds {
    /// The confidence below which no candidate is looked at, nor one whose objectness is below it.
    pub fn floor(&self) -> f32 {
        if self.least > 0 { FLOOR.min(self.confidence) } else { self.confidence }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// The option that is outside of its range.
    pub fn validate(&self) -> Result<()> {
        for (key, value) in [("confidence", self.confidence), ("iou", self.iou)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::Option { key, why: format!("{value} is outside of [0, 1]") });
            }
        }
        match self.most {
            0 => Err(Error::Option { key: "most", why: "0 keeps no detection: at least 1".to_owned() }),
            most if most < self.least => {
                Err(Error::Option { key: "least", why: format!("{} is more than `most`, {most}", self.least) })
            }
            _ => Ok(()),
        }
    }
}

/// One object, in pixels of whatever image its box is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// Left, top, right, bottom.
    pub xyxy: [f32; 4],
    /// Objectness × class score.
    pub confidence: f32,
    /// Number of the class, from 0.
    pub class: usize,
}

/// Below this nothing is looked at, however few detections there are.
const FLOOR: f32 = 1e-3;

/// Candidates `[n, 5 + C]` row by row, each centre x and y, width, height, objectness and C class scores → detections, the most
/// confident first; of equal ones the earlier candidate. Values that are not finite are never detected.
///
/// `width` is 5 + C ≥ 6. Rows beyond whole ones are passed over.
pub fn select(candidates: &[f32], width: usize, thresholds: &Thresholds) -> Vec<Detection> {
    debug_assert!(width >= 6);
    let floor = thresholds.floor();
    // What is compared comes first in the key: sorting plain integers is several times as fast as sorting by two fields.
    let mut keys = Vec::new();
    let mut found = Vec::new();
    for row in candidates.chunks_exact(width) {
        let objectness = row[4];
        // No class score is above 1, so that most rows end here.
        if objectness < floor {
            continue;
        }
        // A network of one class has learned no score of it: YOLOv7 takes objectness alone.
        let (class, score) = if width == 6 { (0, 1.0) } else { largest(&row[5..]) };
        let confidence = objectness * score;
        let [x, y, w, h] = [row[0], row[1], row[2], row[3]];
        let xyxy = [x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0];
        if confidence >= floor && confidence.is_finite() && xyxy.iter().all(|side| side.is_finite()) {
            keys.push(key(confidence, found.len()));
            found.push(Detection { xyxy, confidence, class });
        }
    }
    keys.sort_unstable();
    let ordered = keys.into_iter().map(|key| found[(key & u64::from(u32::MAX)) as usize]);
    suppress(ordered, thresholds)
}

/// Sorts by falling confidence, then by rising number. Positive floats are ordered as their bits are.
fn key(confidence: f32, number: usize) -> u64 {
    (u64::from(!confidence.max(0.0).to_bits()) << 32) | number as u64
}

/// The first of the largest. Lanes are compared side by side, which a plain search does not let the compiler do.
fn largest(scores: &[f32]) -> (usize, f32) {
    const LANES: usize = 8;
    let mut best = [f32::NEG_INFINITY; LANES];
    let mut chunks = scores.chunks_exact(LANES);
    for chunk in chunks.by_ref() {
        for (best, &score) in best.iter_mut().zip(chunk) {
            *best = if score > *best { score } else { *best };
        }
    }
    let most = best.iter().chain(chunks.remainder()).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    (scores.iter().position(|&score| score == most).unwrap_or(0), most)
}

/// Boxes that stay, side by side for the compiler.
#[derive(Default)]
struct Kept {
    left: Vec<f32>,
    top: Vec<f32>,
    right: Vec<f32>,
    bottom: Vec<f32>,
    area: Vec<f32>,
}

impl Kept {
    fn push(&mut self, [left, top, right, bottom]: [f32; 4]) {
        self.left.push(left);
        self.top.push(top);
        self.right.push(right);
        self.bottom.push(bottom);
        self.area.push((right - left) * (bottom - top));
    }

    /// Whether any overlaps by more than `iou`.
    fn overlaps(&self, [left, top, right, bottom]: [f32; 4], iou: f32) -> bool {
        const LANES: usize = 16;
        let area = (right - left) * (bottom - top);
        let one = |l: f32, t: f32, r: f32, b: f32, a: f32| {
            let (w, h) = (r.min(right) - l.max(left), b.min(bottom) - t.max(top));
            let both = w.max(0.0) * h.max(0.0);
            both / (a + area - both) > iou
        };
        let n = self.area.len();
        let whole = n - n % LANES;
        for from in (0..whole).step_by(LANES) {
            let of = from..from + LANES;
            let lanes = (&self.left[of.clone()], &self.top[of.clone()], &self.right[of.clone()]);
            let more = (&self.bottom[of.clone()], &self.area[of]);
            let mut any = false;
            for i in 0..LANES {
                any |= one(lanes.0[i], lanes.1[i], lanes.2[i], more.0[i], more.1[i]);
            }
            if any {
                return true;
            }
        }
        (whole..n).any(|i| one(self.left[i], self.top[i], self.right[i], self.bottom[i], self.area[i]))
    }
}

/// Non-maximum suppression of detections in falling order: each is compared with those that stay, of which there are few, and not
/// with all others.
pub fn suppress(ordered: impl IntoIterator<Item = Detection>, thresholds: &Thresholds) -> Vec<Detection> {
    let mut of_class: Vec<Kept> = Vec::new();
    let mut stay: Vec<Detection> = Vec::new();
    for detection in ordered {
        if stay.len() >= thresholds.most || (detection.confidence < thresholds.confidence && stay.len() >= thresholds.least) {
            break;
        }
        let class = if thresholds.across_classes { 0 } else { detection.class };
        if of_class.len() <= class {
            of_class.resize_with(class + 1, Kept::default);
        }
        if !of_class[class].overlaps(detection.xyxy, thresholds.iou) {
            of_class[class].push(detection.xyxy);
            stay.push(detection);
        }
    }
    stay
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(x: f32, objectness: f32, scores: &[f32]) -> Vec<f32> {
        [&[x, 10.0, 8.0, 8.0, objectness], scores].concat()
    }

    #[test]
    fn classes_suppress_only_their_own_and_ties_keep_the_first() {
        let rows =
            [row(10.0, 0.9, &[0.9, 0.1]), row(11.0, 0.9, &[0.1, 0.8]), row(11.0, 0.9, &[0.9, 0.1]), row(40.0, 0.2, &[0.9, 0.1])];
        let found = select(&rows.concat(), 7, &Thresholds::default());
        assert_eq!(found.iter().map(|d| (d.class, d.xyxy[0])).collect::<Vec<_>>(), [(0, 6.0), (1, 7.0)]);
        let across = select(&rows.concat(), 7, &Thresholds { across_classes: true, ..Thresholds::default() });
        assert_eq!(across.len(), 1);
    }

    #[test]
    fn at_least_so_many_are_kept_and_at_most_so_many() {
        let rows: Vec<f32> = (0..20).flat_map(|i| row(20.0 * i as f32, 0.01 + 0.02 * i as f32, &[1.0])).collect();
        let found = |least, most| select(&rows, 6, &Thresholds { least, most, ..Thresholds::default() }).len();
        assert_eq!((found(0, 300), found(10, 300), found(10, 12), found(0, 3)), (8, 10, 10, 3));
        assert_eq!(found(20, 300), 20);
    }

    #[test]
    fn what_is_not_finite_is_no_detection() {
        let nan = f32::NAN;
        let rows =
            [row(nan, 0.9, &[0.9, 0.0]), row(10.0, nan, &[0.9, 0.0]), row(30.0, 0.9, &[nan, nan]), row(50.0, 0.9, &[0.9, nan])];
        let found = select(&rows.concat(), 7, &Thresholds::default());
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn thresholds_outside_of_their_ranges_are_named() {
        for (thresholds, words) in [
            (Thresholds { confidence: 1.5, ..Thresholds::default() }, "confidence: 1.5"),
            (Thresholds { iou: f32::NAN, ..Thresholds::default() }, "iou: NaN"),
            (Thresholds { most: 0, ..Thresholds::default() }, "most: 0"),
            (Thresholds { least: 11, most: 10, ..Thresholds::default() }, "least: 11"),
        ] {
            let error = thresholds.validate().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    fn iou(a: [f32; 4], b: [f32; 4]) -> f32 {
        let side = |i: usize| (a[i + 2].min(b[i + 2]) - a[i].max(b[i])).max(0.0);
        let both = side(0) * side(1);
        let area = |x: [f32; 4]| (x[2] - x[0]) * (x[3] - x[1]);
        both / (area(a) + area(b) - both)
    }

    proptest! {
        /// Those that stay do not overlap; each that goes overlaps a more confident one of its class that stays.
        #[test]
        fn suppression_is_what_its_definition_says(
            boxes in prop::collection::vec((0.0f32..50.0, 0.0f32..50.0, 1.0f32..30.0, 1.0f32..30.0, 0.3f32..1.0, 0usize..3), 0..120),
        ) {
            let rows: Vec<f32> = boxes.iter().flat_map(|&(x, y, w, h, objectness, class)| {
                let mut row = vec![x, y, w, h, objectness, 0.0, 0.0, 0.0];
                row[5 + class] = 1.0;
                row
            }).collect();
            let thresholds = Thresholds { iou: 0.4, most: 1000, ..Thresholds::default() };
            let stay = select(&rows, 8, &thresholds);
            prop_assert!(stay.is_sorted_by(|a, b| a.confidence >= b.confidence));
            for (i, a) in stay.iter().enumerate() {
                prop_assert!(stay[..i].iter().all(|b| a.class != b.class || iou(a.xyxy, b.xyxy) <= 0.4));
            }
            for row in rows.chunks_exact(8) {
                let one = select(row, 8, &thresholds)[0];
                let covered = stay.iter().any(|s| *s == one || (s.class == one.class && s.confidence >= one.confidence && iou(s.xyxy, one.xyxy) > 0.4));
                prop_assert!(covered);
            }
        }
    }
}
