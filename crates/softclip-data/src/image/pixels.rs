//! Pixels of any type to 8-bit RGB.

use image::ColorType;
use serde::{Deserialize, Serialize};

use super::error::ImageError;

/// What becomes of transparency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alpha {
    /// The alpha channel is dropped, as Pillow's `convert("RGB")` does and so open_clip. The color below transparent pixels shows.
    #[default]
    Drop,
    /// The image is composed on white, as the processors of transformers 5 do.
    White,
}

impl Alpha {
    /// The color of a pixel with this alpha, as Pillow's `alpha_composite` computes it.
    pub(super) fn apply(self, rgb: [u8; 3], alpha: u8) -> [u8; 3] {
        match self {
            Alpha::Drop => rgb,
            Alpha::White => rgb.map(|color| {
                let (color, alpha) = (u32::from(color), u32::from(alpha));
                // In 255ths of 128ths, as in Pillow's integers.
                let sum = 128 * (color * alpha + 255 * (255 - alpha)) + (0x80 << 7);
                ((((sum >> 8) + sum) >> 8) >> 7) as u8
            }),
        }
    }
}

/// Where a pixel's red, green, blue and alpha lie among its bytes.
pub(super) struct Layout {
    bytes: usize,
    rgb: [usize; 3],
    alpha: Option<usize>,
}

impl Layout {
    /// Of 16 bits the high byte stays, also of greyscale, which Pillow clips to white instead.
    pub(super) fn of(color: ColorType) -> Result<Self, ImageError> {
        // 16-bit samples are in the machine's byte order.
        let high = usize::from(cfg!(target_endian = "little"));
        let (rgb, alpha) = match color {
            ColorType::L8 => ([0; 3], None),
            ColorType::La8 => ([0; 3], Some(1)),
            ColorType::L16 => ([high; 3], None),
            ColorType::La16 => ([high; 3], Some(2 + high)),
            ColorType::Rgb8 => ([0, 1, 2], None),
            ColorType::Rgba8 => ([0, 1, 2], Some(3)),
            ColorType::Rgb16 => ([high, 2 + high, 4 + high], None),
            ColorType::Rgba16 => ([high, 2 + high, 4 + high], Some(6 + high)),
            other => return Err(ImageError::Unsupported(format!("the pixel type {other:?}"))),
        };
        Ok(Layout { bytes: usize::from(color.bytes_per_pixel()), rgb, alpha })
    }

    /// Bytes per pixel.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a pixel takes at least as many bytes as its RGB, so that no second buffer is needed.
    pub(super) fn fits_in_place(&self) -> bool {
        self.bytes >= 3
    }

    fn convert(&self, pixel: &[u8], alpha: Alpha) -> [u8; 3] {
        let rgb = self.rgb.map(|at| pixel[at]);
        self.alpha.map_or(rgb, |at| alpha.apply(rgb, pixel[at]))
    }

    /// Turns the first `n` pixels of `buffer` into RGB at its beginning.
    pub(super) fn convert_in_place(&self, buffer: &mut [u8], n: usize, alpha: Alpha) {
        if self.bytes == 3 {
            return; // RGB already
        }
        for i in 0..n {
            let rgb = self.convert(&buffer[i * self.bytes..(i + 1) * self.bytes], alpha);
            buffer[3 * i..3 * i + 3].copy_from_slice(&rgb);
        }
    }

    /// Turns the pixels of `raw` into RGB.
    pub(super) fn convert_into(&self, raw: &[u8], rgb: &mut [u8], alpha: Alpha) {
        for (to, from) in rgb.chunks_exact_mut(3).zip(raw.chunks_exact(self.bytes)) {
            to.copy_from_slice(&self.convert(from, alpha));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transparency_is_dropped_or_composed_on_white() {
        assert_eq!(Alpha::Drop.apply([9, 20, 200], 0), [9, 20, 200]);
        assert_eq!(Alpha::White.apply([9, 20, 200], 0), [255; 3]);
        assert_eq!(Alpha::White.apply([9, 20, 200], 255), [9, 20, 200]);
        // Pillow 12: Image.alpha_composite of white and (10, 100, 250, 77).
        assert_eq!(Alpha::White.apply([10, 100, 250], 77), [181, 208, 253]);
    }

    #[test]
    fn both_ways_of_converting_agree() {
        let raw: Vec<u8> = (0..=255).cycle().take(16 * 24).collect();
        for color in [ColorType::La16, ColorType::Rgba8, ColorType::Rgb16, ColorType::Rgba16] {
            let layout = Layout::of(color).unwrap();
            assert!(layout.fits_in_place());
            let n = raw.len() / layout.bytes();
            let (mut rgb, mut buffer) = (vec![0; 3 * n], raw.clone());
            layout.convert_into(&raw, &mut rgb, Alpha::White);
            layout.convert_in_place(&mut buffer, n, Alpha::White);
            assert_eq!(buffer[..3 * n], rgb, "{color:?}");
        }
    }
}
