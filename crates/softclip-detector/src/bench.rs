//! How fast candidates become detections, beside the usual way.

use std::fmt;
use std::time::{Duration, Instant};

use crate::nms::{Detection, Thresholds, select};

/// Candidates of YOLOv7 at 640 px.
pub const CANDIDATES: usize = 25_200;
/// COCO's classes.
pub const CLASSES: usize = 80;
/// Objects in the made-up image.
pub const OBJECTS: usize = 1_000;

/// Medians of one run each way.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct NmsBench {
    /// Detections of both.
    pub detections: usize,
    /// [`select`]; seconds, as JSON.
    #[serde(serialize_with = "seconds")]
    pub ours: Duration,
    /// Every class sorted and compared pair by pair.
    #[serde(serialize_with = "seconds")]
    pub plain: Duration,
}

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

/// Candidates around [`OBJECTS`] places on a grid, each of one class, so that as many detections stay.
pub fn made_up() -> Vec<f32> {
    let width = 5 + CLASSES;
    let mut out = vec![0.0; CANDIDATES * width];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    for (i, row) in out.chunks_exact_mut(width).enumerate() {
        let object = i % OBJECTS;
        let (x, y) = ((object % 40) as f32 * 16.0 + 8.0, (object / 40) as f32 * 25.0 + 12.0);
        row[..5].copy_from_slice(&[x + random(), y + random(), 14.0 + random(), 22.0 + random(), 0.5 + 0.5 * random()]);
        row[5..].iter_mut().for_each(|score| *score = 0.5 * random());
        row[5 + object % CLASSES] = 0.8 + 0.2 * random();
    }
    out
}

/// Measures on one core.
pub fn nms(runs: usize) -> NmsBench {
    let candidates = made_up();
    let thresholds = Thresholds { most: CANDIDATES, ..Thresholds::default() };
    let median = |f: &dyn Fn() -> usize| {
        let mut times: Vec<(Duration, usize)> = (0..runs.max(1))
            .map(|_| {
                let start = Instant::now();
                let n = f();
                (start.elapsed(), n)
            })
            .collect();
        times.sort_unstable();
        times[times.len() / 2]
    };
    let (ours, detections) = median(&|| select(&candidates, 5 + CLASSES, &thresholds).len());
    let (plain, same) = median(&|| plain(&candidates, 5 + CLASSES, &thresholds).len());
    debug_assert_eq!(detections, same);
    NmsBench { detections, ours, plain }
}

/// As the definition reads: all class scores of all candidates, a list a class, each box against all that follow.
pub fn plain(candidates: &[f32], width: usize, thresholds: &Thresholds) -> Vec<Detection> {
    let mut all: Vec<Detection> = Vec::new();
    for row in candidates.chunks_exact(width) {
        let (class, score) = row[5..].iter().copied().enumerate().fold((0, f32::MIN), |a, b| if b.1 > a.1 { b } else { a });
        let confidence = row[4] * score;
        if confidence >= thresholds.confidence {
            let (w, h) = (row[2] / 2.0, row[3] / 2.0);
            all.push(Detection { xyxy: [row[0] - w, row[1] - h, row[0] + w, row[1] + h], confidence, class });
        }
    }
    all.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    let mut gone = vec![false; all.len()];
    for i in 0..all.len() {
        for j in i + 1..all.len() {
            if !gone[i] && !gone[j] && all[i].class == all[j].class && iou(&all[i].xyxy, &all[j].xyxy) > thresholds.iou {
                gone[j] = true;
            }
        }
    }
    let stay = all.into_iter().zip(gone).filter(|(_, gone)| !gone).map(|(detection, _)| detection);
    stay.take(thresholds.most).collect()
}

fn iou(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let side = |i: usize| (a[i + 2].min(b[i + 2]) - a[i].max(b[i])).max(0.0);
    let both = side(0) * side(1);
    let area = |x: &[f32; 4]| (x[2] - x[0]) * (x[3] - x[1]);
    both / (area(a) + area(b) - both)
}

impl fmt::Display for NmsBench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        writeln!(f, "{CANDIDATES} candidates of {CLASSES} classes, {} detections, one core", self.detections)?;
        writeln!(f, "  {:8.2} ms  softclip", ms(self.ours))?;
        writeln!(f, "  {:8.2} ms  pair by pair", ms(self.plain))?;
        writeln!(f, "  {:8.1}     times as fast", ms(self.plain) / ms(self.ours))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_find_the_same() {
        let candidates = made_up();
        let thresholds = Thresholds { most: CANDIDATES, ..Thresholds::default() };
        let ours = select(&candidates, 5 + CLASSES, &thresholds);
        assert_eq!(ours.len(), OBJECTS);
        assert_eq!(ours, plain(&candidates, 5 + CLASSES, &thresholds));
    }
}
