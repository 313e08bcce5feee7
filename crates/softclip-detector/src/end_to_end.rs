//! Outputs of networks that suppress overlapping boxes themselves: a row per detection.

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// More rows than this are candidates before suppression: exports keep the 100 to 1,000 best.
const MAX_DETECTIONS: usize = 1000;
/// Scores may exceed 1 by this much where they were rounded.
const ROUNDING: f32 = 1e-3;

/// The rows of an output whose layout may be end-to-end, on the host.
#[derive(Debug)]
pub(crate) struct Rows {
    values: Vec<f32>,
    /// Rows per image; all rows where each names its image.
    per_image: usize,
    /// Whether each row begins with the number of its image, and ends with class and score instead of score and class.
    batched: bool,
}

/// One row.
#[derive(Clone, Copy)]
struct Row {
    image: f32,
    xyxy: [f32; 4],
    score: f32,
    class: f32,
}

fn is_score(x: f32) -> bool {
    (0.0..=1.0 + ROUNDING).contains(&x)
}

fn is_number(x: f32, below: f32) -> bool {
    x >= 0.0 && x < below && x.fract() == 0.0
}

impl Row {
    fn is_detection(&self, batch: i64) -> bool {
        let [left, top, right, bottom] = self.xyxy;
        left <= right
            && top <= bottom
            && is_score(self.score)
            && is_number(self.class, f32::MAX)
            && is_number(self.image, batch as f32)
    }
}

impl Rows {
    /// Reads `[B, n, 6]`, or `[n, 7]` or `[1, n, 7]` if `batched`.
    pub(crate) fn read(output: &Tensor, batched: bool) -> Result<Self> {
        let size = output.size();
        let per_image = size[size.len() - 2] as usize;
        let flat = output.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?.f_view([-1])?;
        Ok(Rows { values: Vec::try_from(flat)?, per_image, batched })
    }

    fn raw(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(if self.batched { 7 } else { 6 })
    }

    /// The rows with a score above 0: the others fill up, or are damaged.
    fn detections(&self) -> impl Iterator<Item = (usize, Row)> {
        let row = move |(number, row): (usize, &[f32])| {
            let row = match *row {
                [image, x1, y1, x2, y2, class, score] => Row { image, xyxy: [x1, y1, x2, y2], score, class },
                [x1, y1, x2, y2, score, class] => {
                    let image = (number / self.per_image.max(1)) as f32;
                    Row { image, xyxy: [x1, y1, x2, y2], score, class }
                }
                _ => return None,
            };
            let finite = row.xyxy.iter().chain([&row.score, &row.class]).all(|x| x.is_finite());
            (finite && row.score != 0.0).then_some((number, row))
        };
        self.raw().enumerate().filter_map(row)
    }

    /// Whether there is no detection in either layout: objectness and score are 0 in every row.
    pub(crate) fn are_empty(&self) -> bool {
        let score = if self.batched { 6 } else { 4 };
        self.raw().all(|row| row[4] == 0.0 && row[score] == 0.0)
    }

    /// Whether the rows can be `[B, n, 5 + C]` with objectness: center, width, height, objectness, class scores.
    pub(crate) fn may_be_objectness(&self) -> bool {
        let mut rows = self.raw().filter(|row| row.iter().all(|x| x.is_finite()));
        rows.all(|row| row[2] >= 0.0 && row[3] >= 0.0 && row[4..].iter().all(|x| is_score(*x)))
            // A network whose class scores are all 0 would detect nothing.
            && (self.per_image > MAX_DETECTIONS || self.raw().any(|row| row[5..].iter().any(|x| *x > 0.0)))
    }

    /// Whether all rows can be detections: corners in order, a score, a class number.
    pub(crate) fn may_be_end_to_end(&self, batch: i64) -> bool {
        self.detections().all(|(_, row)| row.is_detection(batch))
    }
}

/// The detections as candidates `[B, n, 5 + classes]`, with rows of zeros for images that have fewer.
///
/// # Errors
/// [`Error::Output`] if a row is not a detection, or its class has no name.
pub(crate) fn candidates(rows: &Rows, batch: i64, classes: usize, device: Device) -> Result<Tensor> {
    let mut images: Vec<Vec<Row>> = vec![Vec::new(); batch as usize];
    for (number, row) in rows.detections() {
        let wrong = |expected: String, remedy: &str| Error::Output {
            expected,
            found: format!("box {:?}, score {}, class {} in row {number}", row.xyxy, row.score, row.class),
            remedy: remedy.to_owned(),
        };
        if !row.is_detection(batch) {
            let expected = "left, top, right, bottom, a score in [0, 1] and a class number in each row".to_owned();
            return Err(wrong(
                expected,
                "name the network's classes with `classes` or --classes, or set its layout with `output`",
            ));
        }
        if row.class as usize >= classes {
            let expected = format!("class numbers below {classes}, the number of classes that have a name");
            return Err(wrong(expected, "name all classes with `classes` or --classes"));
        }
        images[row.image as usize].push(row);
    }
    let most = images.iter().map(Vec::len).max().unwrap_or(0);
    let width = 5 + classes;
    let mut values = vec![0.0; images.len() * most * width];
    for (image, rows) in images.iter().enumerate() {
        for (i, row) in rows.iter().enumerate() {
            let [left, top, right, bottom] = row.xyxy;
            let out = &mut values[(image * most + i) * width..][..width];
            out[..5].copy_from_slice(&[
                f32::midpoint(left, right),
                f32::midpoint(top, bottom),
                right - left,
                bottom - top,
                row.score.min(1.0),
            ]);
            out[5 + row.class as usize] = 1.0;
        }
    }
    Ok(Tensor::from_slice(&values).f_view([batch, most as i64, width as i64])?.f_to_device(device)?)
}
