//! Random crops and flips, as functions of a key.

use serde::{Deserialize, Serialize};

use super::resize::{Interpolation, Region};
use crate::rng::{Rng, RngKey, Stream};

/// What a training image goes through: a random crop and perhaps a flip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// Share of the image's area that the crop covers: uniform between the two, in (0, 1]. Default [0.9, 1].
    pub scale: [f64; 2],
    /// Width by height of the crop: its logarithm is uniform between those of the two. Default [3/4, 4/3].
    pub ratio: [f64; 2],
    /// Probability of a horizontal flip. Default 0: captions say "left" and "right".
    pub flip: f64,
    /// The filter that resizes the crop. Default bicubic.
    pub interpolation: Interpolation,
}

impl Default for Augment {
    fn default() -> Self {
        Augment { scale: [0.9, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0], flip: 0.0, interpolation: Interpolation::Bicubic }
    }
}

/// A setting of [`Augment`] that is out of range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("`augment.{key}` is {found}, but must be {expected}")]
pub struct AugmentError {
    key: &'static str,
    found: String,
    expected: &'static str,
}

impl Augment {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The setting that is out of its range.
    pub fn validate(&self) -> Result<(), AugmentError> {
        let check = |ok: bool, key, found: String, expected| if ok { Ok(()) } else { Err(AugmentError { key, found, expected }) };
        let [low, high] = self.scale;
        check(
            0.0 < low && low <= high && high <= 1.0,
            "scale",
            format!("{:?}", self.scale),
            "[low, high] with 0 < low <= high <= 1",
        )?;
        let [low, high] = self.ratio;
        let finite = high.is_finite();
        check(0.0 < low && low <= high && finite, "ratio", format!("{:?}", self.ratio), "[low, high] with 0 < low <= high")?;
        check((0.0..=1.0).contains(&self.flip), "flip", self.flip.to_string(), "a probability between 0 and 1")
    }

    /// The box of this key for an image of `width` × `height` pixels, at least 1 × 1: torchvision's `RandomResizedCrop`.
    pub fn region(&self, width: u32, height: u32, key: RngKey) -> Region {
        let mut rng = key.rng(Stream::Crop);
        // The first of ten boxes that fits.
        let drawn = (0..10).map(|_| self.draw(width, height, &mut rng)).find(|&(w, h)| fits(w, width) && fits(h, height));
        if let Some((w, h)) = drawn {
            let top = rng.below(u64::from(height) - h as u64 + 1) as f64;
            let left = rng.below(u64::from(width) - w as u64 + 1) as f64;
            return Region { left, top, width: w, height: h, cropped_first: true };
        }
        self.centre(f64::from(width), f64::from(height))
    }

    /// Width and height of a box that may be larger than the image.
    fn draw(&self, width: u32, height: u32, rng: &mut Rng) -> (f64, f64) {
        let area = f64::from(width) * f64::from(height) * rng.uniform(self.scale[0], self.scale[1]);
        let ratio = rng.uniform(self.ratio[0].ln(), self.ratio[1].ln()).exp();
        ((area * ratio).sqrt().round_ties_even(), (area / ratio).sqrt().round_ties_even())
    }

    /// The largest centred box whose ratio is allowed.
    fn centre(&self, width: f64, height: f64) -> Region {
        let [least, most] = self.ratio;
        let (w, h) = match width / height {
            ratio if ratio < least => (width, (width / least).round_ties_even().clamp(1.0, height)),
            ratio if ratio > most => ((height * most).round_ties_even().clamp(1.0, width), height),
            _ => (width, height),
        };
        let (left, top) = (((width - w) / 2.0).floor(), ((height - h) / 2.0).floor());
        Region { left, top, width: w, height: h, cropped_first: true }
    }

    /// Whether the image of this key is flipped.
    pub fn flips(&self, key: RngKey) -> bool {
        self.flip > 0.0 && key.rng(Stream::Flip).chance(self.flip)
    }
}

fn fits(side: f64, limit: u32) -> bool {
    0.0 < side && side <= f64::from(limit)
}

/// What remains when the shorter side is resized to `size`, the longer to `int(size · long / short)`, and the centre is cut out.
/// Offsets are rounded half to even, or with `floor` down.
pub(super) fn centre_region(width: u32, height: u32, size: u32, floor: bool) -> Region {
    let (size, width, height) = (f64::from(size), f64::from(width), f64::from(height));
    let short = width.min(height);
    let along = |side: f64| centred(side, (size * side / short).floor(), size, floor);
    let ((left, region_width), (top, region_height)) = (along(width), along(height));
    Region { left, top, width: region_width, height: region_height, cropped_first: false }
}

/// Start and length, in pixels of the `side`, of the middle `size` pixels of `resized` ones.
pub(super) fn centred(side: f64, resized: f64, size: f64, floor: bool) -> (f64, f64) {
    let middle = (resized - size) / 2.0;
    let offset = if floor { middle.floor() } else { middle.round_ties_even() };
    (offset * side / resized, size * side / resized)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_centre_between_two_pixels_is_rounded_as_asked() {
        // 500 × 374 becomes 299 × 224: the offset is 37.5.
        let left = |floor| centre_region(500, 374, 224, floor).left * 299.0 / 500.0;
        assert!((left(false) - 38.0).abs() < 1e-9 && (left(true) - 37.0).abs() < 1e-9);
        assert_eq!(centre_region(374, 374, 224, true), centre_region(374, 374, 224, false));
    }

    #[test]
    fn boxes_lie_in_the_image_and_depend_on_the_key_alone() {
        let augment = Augment { scale: [0.05, 1.0], ..Augment::default() };
        for (width, height) in [(1, 1), (640, 480), (1, 5000), (5000, 1), (3, 2)] {
            for index in 0..200 {
                let key = RngKey::new(1, 2, index);
                let r = augment.region(width, height, key);
                assert_eq!(r, augment.region(width, height, key));
                assert!(r.left >= 0.0 && r.left + r.width <= f64::from(width), "{r:?} of {width} x {height}");
                assert!(r.top >= 0.0 && r.top + r.height <= f64::from(height), "{r:?} of {width} x {height}");
                assert!(r.width >= 1.0 && r.height >= 1.0);
            }
        }
    }

    #[test]
    fn an_image_too_long_for_any_box_gives_its_centre() {
        let r = Augment::default().region(1000, 100, RngKey::new(0, 0, 0));
        assert_eq!((r.left, r.top, r.width, r.height), (433.0, 0.0, 133.0, 100.0));
        let r = Augment::default().region(100, 1000, RngKey::new(0, 0, 0));
        assert_eq!((r.left, r.top, r.width, r.height), (0.0, 433.0, 100.0, 133.0));
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let bad = |change: fn(&mut Augment)| {
            let mut augment = Augment::default();
            change(&mut augment);
            augment.validate().unwrap_err().to_string()
        };
        assert!(bad(|a| a.scale = [0.0, 1.0]).contains("augment.scale"));
        assert!(bad(|a| a.scale = [0.9, 0.5]).contains("augment.scale"));
        assert!(bad(|a| a.ratio = [1.0, f64::NAN]).contains("augment.ratio"));
        assert!(bad(|a| a.flip = 1.5).contains("augment.flip"));
        assert!(Augment::default().validate().is_ok());
    }

    #[test]
    fn flips_come_with_their_probability() {
        let flips = |flip| (0..4000).filter(|&i| Augment { flip, ..Augment::default() }.flips(RngKey::new(0, 0, i))).count();
        assert_eq!(flips(0.0), 0);
        assert_eq!(flips(1.0), 4000);
        assert!((1850..2150).contains(&flips(0.5)), "{}", flips(0.5));
    }

    #[test]
    fn the_centre_is_that_of_the_resized_image() {
        // 300 x 200 → 336 x 224, offset 56.
        let r = centre_region(300, 200, 224, false);
        assert_eq!((r.left, r.top, r.width, r.height), (50.0, 0.0, 200.0, 200.0));
        // 227 x 151 → int(96.21) = 96 x 64, offset 16.
        let r = centre_region(227, 151, 64, false);
        assert!((r.left - 16.0 * 227.0 / 96.0).abs() < 1e-12 && (r.width - 64.0 * 227.0 / 96.0).abs() < 1e-12);
    }
}
