//! Images into the network's square and boxes back out of it.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::nms::Detection;

/// The largest side of an input, in pixels. Such an input takes 200 MB as bytes and 800 MB as numbers.
const MAX_SIZE: u32 = 8192;

/// How an image becomes the network's input. YOLOv7's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Letterbox {
    /// Side of the input in pixels, a multiple of `stride`.
    pub size: u32,
    /// The network's largest stride.
    pub stride: u32,
    /// Grey value of the border, 0 to 255.
    pub fill: u8,
    /// Whether images smaller than the input are enlarged.
    pub upscale: bool,
    /// Whether inputs are square; otherwise the border ends at the next multiple of the stride, which is faster. Only for networks whose
    /// export allows other sizes than the one that it was traced with.
    pub square: bool,
    /// Squash the image to the input instead, without a border and without its proportions, as the code of Text-based SoftCLIP's
    /// authors does.
    pub squash: bool,
}

impl Default for Letterbox {
    fn default() -> Self {
        Letterbox { size: 640, stride: 32, fill: 114, upscale: true, square: true, squash: false }
    }
}

/// The settings of a [`Letterbox`]. Size and stride are the network's own where they are not set: what its file says, else
/// YOLOv7's 640 and 32.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LetterboxSettings {
    /// See [`Letterbox::size`].
    pub size: Option<u32>,
    /// See [`Letterbox::stride`].
    pub stride: Option<u32>,
    /// See [`Letterbox::fill`].
    pub fill: u8,
    /// See [`Letterbox::upscale`].
    pub upscale: bool,
    /// See [`Letterbox::square`].
    pub square: bool,
    /// See [`Letterbox::squash`].
    pub squash: bool,
}

impl Default for LetterboxSettings {
    fn default() -> Self {
        let Letterbox { fill, upscale, square, squash, .. } = Letterbox::default();
        LetterboxSettings { size: None, stride: None, fill, upscale, square, squash }
    }
}

impl LetterboxSettings {
    /// Returns the letterbox, with the defaults for what is not set.
    pub fn or_default(&self) -> Letterbox {
        self.resolved(None, None)
    }

    /// Returns the letterbox of a network whose file says its size and stride.
    pub(crate) fn resolved(&self, size: Option<u32>, stride: Option<u32>) -> Letterbox {
        let Self { fill, upscale, square, squash, .. } = *self;
        let default = Letterbox::default();
        let size = self.size.or(size).unwrap_or(default.size);
        let stride = self.stride.or(stride).unwrap_or(default.stride);
        Letterbox { size, stride, fill, upscale, square, squash }
    }
}

/// Where an image lies in its input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placed {
    /// Width and height of the input.
    pub input: (u32, u32),
    /// Width and height of the image in it.
    pub inner: (u32, u32),
    /// Distances of its left and upper edges from the input's.
    pub at: (u32, u32),
    /// Width and height of the image itself.
    pub image: (u32, u32),
}

impl Letterbox {
    /// Checks the sizes: a multiple of the stride, at most 8192 pixels.
    ///
    /// # Errors
    /// The option that makes no sense.
    pub fn validate(&self) -> Result<()> {
        if self.stride == 0 || self.size == 0 || !self.size.is_multiple_of(self.stride) {
            let why = format!("{} is no multiple of the stride, {}", self.size, self.stride);
            return Err(Error::Option { key: "letterbox.size", why });
        }
        if self.size > MAX_SIZE {
            let why = format!(
                "{} is above {MAX_SIZE}: write the side of the network's input in pixels, usually 640 or 1280",
                self.size
            );
            return Err(Error::Option { key: "letterbox.size", why });
        }
        Ok(())
    }

    /// Where an image of (width, height) comes to lie.
    pub fn place(&self, image: (u32, u32)) -> Placed {
        let side = f64::from(self.size);
        if self.squash {
            let input = (self.size, self.size);
            return Placed { input, inner: input, at: (0, 0), image };
        }
        let (w, h) = (f64::from(image.0), f64::from(image.1));
        let scale = (side / w).min(side / h);
        let scale = if self.upscale { scale } else { scale.min(1.0) };
        // At least a pixel of very long images.
        let inner = [w, h].map(|x| ((x * scale).round_ties_even() as u32).clamp(1, self.size));
        let input = inner.map(|x| if self.square { self.size } else { x.next_multiple_of(self.stride) });
        // An odd border has its larger part at the right and at the bottom.
        let at = [0, 1].map(|i| (input[i] - inner[i]) / 2);
        Placed { input: (input[0], input[1]), inner: (inner[0], inner[1]), at: (at[0], at[1]), image }
    }
}

impl Placed {
    /// Bytes of the input.
    pub fn bytes(&self) -> usize {
        self.input.0 as usize * self.input.1 as usize * 3
    }

    /// A box of the input in pixels of the image, cut at its edges.
    pub fn back(&self, [l, t, r, b]: [f32; 4]) -> [f32; 4] {
        let x = |x: f32| ((x - self.at.0 as f32) * self.image.0 as f32 / self.inner.0 as f32).clamp(0.0, self.image.0 as f32);
        let y = |y: f32| ((y - self.at.1 as f32) * self.image.1 as f32 / self.inner.1 as f32).clamp(0.0, self.image.1 as f32);
        [x(l), y(t), x(r), y(b)]
    }

    /// A box of the image in pixels of the input.
    pub fn forth(&self, [l, t, r, b]: [f32; 4]) -> [f32; 4] {
        let x = |x: f32| x * self.inner.0 as f32 / self.image.0 as f32 + self.at.0 as f32;
        let y = |y: f32| y * self.inner.1 as f32 / self.image.1 as f32 + self.at.1 as f32;
        [x(l), y(t), x(r), y(b)]
    }

    /// Detections of the input as those of the image; what lies outside of it altogether is none.
    pub fn detections(&self, found: Vec<Detection>) -> Vec<Detection> {
        let back = found.into_iter().map(|d| Detection { xyxy: self.back(d.xyxy), ..d });
        back.filter(|d| d.xyxy[2] > d.xyxy[0] && d.xyxy[3] > d.xyxy[1]).collect()
    }
}

/// Puts images into inputs, one after another. One a thread.
#[derive(Default)]
pub struct Letterboxer {
    resizer: Resizer,
    inner: Vec<u8>,
}

impl std::fmt::Debug for Letterboxer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Letterboxer").finish_non_exhaustive()
    }
}

impl Letterboxer {
    /// The input `[H, W, 3]` of RGB `pixels` `[height, width, 3]`, bilinear as OpenCV's `INTER_LINEAR`. The pixels may be fewer
    /// than the image's own, as those of a JPEG that was decoded at a part of its size.
    ///
    /// # Errors
    /// The pixels are not `width` × `height`.
    pub fn draw(&mut self, pixels: &[u8], width: u32, height: u32, placed: &Placed, fill: u8) -> Result<Vec<u8>> {
        let expected = width as usize * height as usize * 3;
        if pixels.len() != expected || expected == 0 {
            return Err(Error::Option {
                key: "pixels",
                why: format!("{} bytes are no image of {width} x {height}", pixels.len()),
            });
        }
        let (w, h) = placed.inner;
        let inner = match (width, height) == (w, h) {
            true => pixels,
            false => {
                self.inner.resize(w as usize * h as usize * 3, 0);
                self.resize(pixels, (width, height), (w, h))?;
                &self.inner
            }
        };
        let row = w as usize * 3;
        let of_input = placed.input.0 as usize * 3;
        let mut out = vec![fill; placed.bytes()];
        for (y, from) in inner.chunks_exact(row).enumerate() {
            let at = (placed.at.1 as usize + y) * of_input + placed.at.0 as usize * 3;
            out[at..at + row].copy_from_slice(from);
        }
        Ok(out)
    }

    fn resize(&mut self, pixels: &[u8], from: (u32, u32), to: (u32, u32)) -> Result<()> {
        let failed = |e: &dyn ToString| Error::Option { key: "pixels", why: e.to_string() };
        let source = TypedImageRef::<U8x3>::from_buffer(from.0, from.1, pixels).map_err(|e| failed(&e))?;
        let mut result = TypedImage::<U8x3>::from_buffer(to.0, to.1, &mut self.inner).map_err(|e| failed(&e))?;
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Interpolation(FilterType::Bilinear)).use_alpha(false);
        self.resizer.resize_typed(&source, &mut result, &options).map_err(|e| failed(&e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn images_are_placed_as_yolov7_does() {
        let of = |letterbox: Letterbox, image| {
            let p = letterbox.place(image);
            (p.input, p.inner, p.at)
        };
        let square = Letterbox::default();
        assert_eq!(of(square, (640, 480)), ((640, 640), (640, 480), (0, 80)));
        assert_eq!(of(square, (500, 375)), ((640, 640), (640, 480), (0, 80)));
        // An odd border: 640 - 427 = 213 = 106 + 107.
        assert_eq!(of(square, (640, 427)), ((640, 640), (640, 427), (0, 106)));
        assert_eq!(of(Letterbox { square: false, ..square }, (640, 427)), ((640, 448), (640, 427), (0, 10)));
        assert_eq!(of(Letterbox { upscale: false, ..square }, (100, 50)), ((640, 640), (100, 50), (270, 295)));
        assert_eq!(of(Letterbox { squash: true, ..square }, (500, 100)), ((640, 640), (640, 640), (0, 0)));
        // Halves go to the even number, as in Python: 360.5 rows.
        assert_eq!(of(square, (1280, 721)), ((640, 640), (640, 360), (0, 140)));
        assert_eq!(of(square, (100_000, 3)).1, (640, 1));
        assert!(Letterbox { size: 100, ..square }.validate().is_err());
        assert!(Letterbox { stride: 0, ..square }.validate().is_err());
    }

    #[test]
    fn the_border_is_grey_and_the_image_is_whole() {
        let letterbox = Letterbox { size: 8, stride: 4, ..Letterbox::default() };
        let placed = letterbox.place((4, 2));
        let out = Letterboxer::default().draw(&[200; 4 * 2 * 3], 4, 2, &placed, 114).unwrap();
        let rows: Vec<u8> = out.chunks_exact(8 * 3).map(|row| row[0]).collect();
        assert_eq!(rows, [114, 114, 200, 200, 200, 200, 114, 114]);
        assert!(Letterboxer::default().draw(&[0; 5], 4, 2, &placed, 114).is_err());
    }

    /// OpenCV's pixels: their centres lie at half numbers, and no more than two are mixed however small the result is.
    #[test]
    fn halving_takes_the_mean_of_two_and_doubling_three_parts_of_four() {
        let draw = |pixels: &[u8], width: u32, size: u32| {
            let rgb: Vec<u8> = pixels.iter().flat_map(|&p| [p; 3]).collect();
            let placed = Placed { input: (size, 1), inner: (size, 1), at: (0, 0), image: (width, 1) };
            let out = Letterboxer::default().draw(&rgb, width, 1, &placed, 0).unwrap();
            out.chunks_exact(3).map(|p| p[0]).collect::<Vec<_>>()
        };
        assert_eq!(draw(&[0, 100, 200, 40], 4, 2), [50, 120]);
        assert_eq!(draw(&[0, 100], 2, 4), [0, 25, 75, 100]);
        assert_eq!(draw(&[0, 0, 100, 200, 0, 0, 0, 0], 8, 2), [50, 0]);
    }

    proptest! {
        #[test]
        fn boxes_go_forth_and_back(
            w in 1u32..3000, h in 1u32..3000, square: bool, upscale: bool, squash: bool,
            share in prop::array::uniform4(0.0f32..1.0),
        ) {
            let placed = Letterbox { square, upscale, squash, ..Letterbox::default() }.place((w, h));
            prop_assert!(placed.at.0 + placed.inner.0 <= placed.input.0 && placed.at.1 + placed.inner.1 <= placed.input.1);
            let xyxy = [share[0] * w as f32, share[1] * h as f32, share[2] * w as f32, share[3] * h as f32];
            let again = placed.back(placed.forth(xyxy));
            let off = again.iter().zip(xyxy).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            prop_assert!(off < 0.01 * (1.0 + w.max(h) as f32 / 100.0), "{off}");
        }
    }
}
