//! Detections.

use tch::{Kind, Tensor};

use crate::error::{Error, Result};

/// Boxes of one image, in absolute pixels, with scores and classes.
#[derive(Debug)]
pub struct Boxes {
    xyxy: Tensor,
    scores: Tensor,
    classes: Tensor,
}

impl Boxes {
    /// `xyxy` f32 [n, 4] (left, top, right, bottom in pixels), `scores` f32 `[n]`, `classes` i64 `[n]`.
    ///
    /// # Errors
    /// The shapes or kinds do not fit each other.
    pub fn new(xyxy: Tensor, scores: Tensor, classes: Tensor) -> Result<Self> {
        if xyxy.dim() != 2 || xyxy.size()[1] != 4 || xyxy.kind() != Kind::Float {
            return Err(Error::Shape { what: "boxes", expected: "f32 [n, 4]", found: xyxy.size() });
        }
        let n = xyxy.size()[0];
        if scores.size() != [n] || scores.kind() != Kind::Float {
            return Err(Error::Shape { what: "scores of boxes", expected: "f32 [n]", found: scores.size() });
        }
        if classes.size() != [n] || classes.kind() != Kind::Int64 {
            return Err(Error::Shape { what: "classes of boxes", expected: "i64 [n]", found: classes.size() });
        }
        Ok(Boxes { xyxy, scores, classes })
    }

    /// f32 [n, 4]: left, top, right, bottom in pixels.
    pub fn xyxy(&self) -> &Tensor {
        &self.xyxy
    }

    /// f32 `[n]`, from 0 to 1.
    pub fn scores(&self) -> &Tensor {
        &self.scores
    }

    /// i64 `[n]`.
    pub fn classes(&self) -> &Tensor {
        &self.classes
    }

    /// n.
    pub fn len(&self) -> usize {
        self.xyxy.size()[0] as usize
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The boxes divided by the image's size, f32 [n, 4] in [0, 1]: the position part of a region's features.
    pub fn relative(&self, width: f64, height: f64) -> Tensor {
        &self.xyxy / Tensor::from_slice(&[width as f32, height as f32, width as f32, height as f32]).to_device(self.xyxy.device())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let f = |s: &[i64]| Tensor::zeros(s, (Kind::Float, Device::Cpu));
        let i = |s: &[i64]| Tensor::zeros(s, (Kind::Int64, Device::Cpu));
        assert!(Boxes::new(f(&[2, 4]), f(&[2]), i(&[2])).is_ok());
        assert!(Boxes::new(f(&[2, 5]), f(&[2]), i(&[2])).is_err());
        assert!(Boxes::new(f(&[2, 4]), f(&[3]), i(&[2])).is_err());
        assert!(Boxes::new(f(&[2, 4]), f(&[2]), f(&[2])).is_err());
    }

    #[test]
    fn relative_boxes_are_fractions_of_the_image() {
        let b = Boxes::new(
            Tensor::from_slice(&[10f32, 20.0, 50.0, 40.0]).view([1, 4]),
            Tensor::zeros([1], (Kind::Float, Device::Cpu)),
            Tensor::zeros([1], (Kind::Int64, Device::Cpu)),
        )
        .unwrap();
        assert_eq!(Vec::<f32>::try_from(b.relative(100.0, 80.0).view([4])).unwrap(), [0.1, 0.25, 0.5, 0.5]);
    }
}
