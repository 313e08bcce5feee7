//! Pillow's antialiased bicubic and bilinear resize, of a part of an image.
//!
//! A convolution with the cubic kernel of a = −0.5, or with a triangle, as wide as the scale where that shrinks, in two passes: first
//! along the rows, then along the columns, rounded to 8 bits in between. The order and the rounding matter: otherwise pixels differ
//! from Pillow's by up to 7.

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use serde::{Deserialize, Serialize};

use super::decode::{Buffer, Rgb};
use super::error::ImageError;

/// The filter of a resize, as Pillow has it: antialiased where the image shrinks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Keys' cubic kernel with a = −0.5, as CLIP uses it.
    #[default]
    Bicubic,
    /// A triangle, the default of torchvision's `RandomResizedCrop`.
    Bilinear,
}

impl Interpolation {
    fn options(self) -> ResizeOptions {
        let filter = match self {
            Interpolation::Bicubic => FilterType::CatmullRom,
            Interpolation::Bilinear => FilterType::Bilinear,
        };
        ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).use_alpha(false)
    }
}

/// A rectangle in an image, in pixels of the whole image (before any scaling in the DCT), not necessarily whole numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Region {
    /// Distance of the left edge from the image's.
    pub left: f64,
    /// Distance of the upper edge from the image's.
    pub top: f64,
    /// Width, > 0.
    pub width: f64,
    /// Height, > 0.
    pub height: f64,
    /// Whether pixels outside count for nothing, as when the image is cropped first and then resized. Otherwise the filter sees
    /// them, as when the image is resized first and then cropped.
    pub cropped_first: bool,
}

impl Region {
    /// The least scale of the image at which this region has at least `width` × `height` pixels.
    pub fn least_scale(&self, width: u32, height: u32) -> f64 {
        (f64::from(width) / self.width).max(f64::from(height) / self.height)
    }
}

/// Resizes with buffers that are used again. One a thread.
#[derive(Default)]
pub(super) struct Resampler {
    resizer: Resizer,
    rows: Buffer,
    result: Buffer,
}

/// A span along one axis of the decoded pixels.
#[derive(Clone, Copy)]
struct Span {
    /// The pixels that the filter may see: from, count.
    seen: (u32, u32),
    /// Start and length, counted from the first seen pixel.
    start: f64,
    length: f64,
}

impl Span {
    fn new(start: f64, length: f64, size: u32, scale: f64, cropped_first: bool) -> Span {
        // Rounding of the products must not carry the end past the last pixel.
        let start = (start * scale).clamp(0.0, f64::from(size) - 1.0);
        let length = (length * scale).min(f64::from(size) - start);
        if !cropped_first {
            return Span { seen: (0, size), start, length };
        }
        let from = start.floor();
        let to = (start + length).ceil().min(f64::from(size));
        Span { seen: (from as u32, (to - from) as u32), start: start - from, length }
    }

    /// The seen pixels that a filter of `outputs` pixels uses at most (a bicubic one): from, count.
    fn used(&self, outputs: u32) -> (u32, u32) {
        let radius = 2.0 * (self.length / f64::from(outputs)).max(1.0);
        let from = (self.start - radius).floor().max(0.0);
        let to = (self.start + self.length + radius).ceil().min(f64::from(self.seen.1));
        (from as u32, (to - from) as u32)
    }
}

impl Resampler {
    /// `region` of `image` as `[height, width, 3]`.
    pub(super) fn resample(
        &mut self,
        image: &Rgb<'_>,
        region: &Region,
        (width, height): (u32, u32),
        interpolation: Interpolation,
    ) -> Result<&[u8], ImageError> {
        let across = Span::new(region.left, region.width, image.width, image.scale, region.cropped_first);
        let down = Span::new(region.top, region.height, image.height, image.scale, region.cropped_first);
        let (first_row, rows) = down.used(height);
        let pixels = |n: u32| n as usize * width as usize * 3;

        let source = TypedImageRef::<U8x3>::from_buffer(image.width, image.height, image.pixels).map_err(internal)?;
        let source =
            TypedCroppedImage::new(source, across.seen.0, down.seen.0 + first_row, across.seen.1, rows).map_err(internal)?;
        let along_rows = interpolation.options().crop(across.start, 0.0, across.length, f64::from(rows));
        let mut between = TypedImage::<U8x3>::from_buffer(width, rows, self.rows.take(pixels(rows))).map_err(internal)?;
        self.resizer.resize_typed(&source, &mut between, &along_rows).map_err(internal)?;

        let along_columns = interpolation.options().crop(0.0, down.start - f64::from(first_row), f64::from(width), down.length);
        let mut result = TypedImage::<U8x3>::from_buffer(width, height, self.result.take(pixels(height))).map_err(internal)?;
        self.resizer.resize_typed(&between, &mut result, &along_columns).map_err(internal)?;
        Ok(self.result.take(pixels(height)))
    }
}

fn internal(error: impl std::fmt::Display) -> ImageError {
    ImageError::Corrupt(format!("it cannot be resized: {error}"))
}
