//! How much memory a file takes to decode, from its header.

use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::{ImageDecoder, ImageFormat};

use super::decode::{DecodeOptions, PNG_CHUNKS, format};
use super::error::ImageError;
use super::markers::{Frame, check_scans};
use super::{orientation, webp};

/// What every decoder takes in addition to its pixels.
const FIXED: u64 = 2 << 20;

impl DecodeOptions {
    /// An upper bound on the bytes that decoding this file allocates, from its header: nothing is decoded and nothing of the image's
    /// size is allocated. A server bounds by it what it decodes at a time.
    ///
    /// # Errors
    /// The file is of no known format, its header is damaged, or it states more than [`DecodeOptions::max_pixels`].
    pub fn memory_needed(&self, bytes: &[u8]) -> Result<u64, ImageError> {
        let (width, height, bytes_per_pixel) = match format(bytes)? {
            ImageFormat::Jpeg => self.jpeg(bytes)?,
            ImageFormat::Png => self.png(bytes)?,
            // Two planes of bytes at worst: the indices of a frame, and RGB.
            ImageFormat::Gif => {
                let (width, height) = super::gif::size(bytes)?;
                (width, height, 4)
            }
            ImageFormat::WebP => {
                let webp::Header { largest: (width, height), animated } = webp::Header::read(bytes)?;
                // Lossy with alpha: luma and chroma 2, alpha 6, RGBA 4; lossless takes less. A frame of an animation is composed with a
                // canvas.
                (width, height, if animated { 19 } else { 12 })
            }
            ImageFormat::Bmp => {
                let decoder = BmpDecoder::new(Cursor::new(bytes))?;
                let (width, height) = decoder.dimensions();
                (width, height, u64::from(decoder.color_type().bytes_per_pixel()) + 3)
            }
            other => return Err(ImageError::Unsupported(format!("the format {other:?}"))),
        };
        self.check_size(width, height)?;
        let pixels = u64::from(width) * u64::from(height);
        // A PNG decoder holds two rows as they are stored, which for one long row is the image again.
        let rows = 2 * 8 * u64::from(width);
        let profile = if bytes.windows(4).any(|name| name == b"iCCP") { PNG_CHUNKS } else { 0 };
        let other = rows + profile + bytes.len() as u64 + FIXED;
        Ok(pixels.saturating_mul(bytes_per_pixel).saturating_add(other))
    }

    fn jpeg(&self, bytes: &[u8]) -> Result<(u32, u32, u64), ImageError> {
        let frame = Frame::read(bytes);
        self.check_size(frame.width, frame.height)?;
        check_scans(bytes, frame.width, frame.height, self)?;
        // With several scans the coefficients of the whole image are kept, 16 bits each.
        let coefficients = if frame.scans > 1 { 2 * frame.components } else { 0 };
        let ink = if frame.components > 3 { 4 } else { 0 };
        let upright = match self.apply_exif && orientation::of_jpeg(bytes) != orientation::Orientation::NoTransforms {
            true => 3,
            false => 0,
        };
        Ok((frame.width, frame.height, 3 + coefficients + ink + upright))
    }

    /// Width, height and bytes per pixel. Interlaced images take no more than others.
    fn png(&self, bytes: &[u8]) -> Result<(u32, u32, u64), ImageError> {
        let header = bytes.get(16..26).ok_or(ImageError::Truncated)?;
        let side = |at: usize| header[at..].first_chunk().map_or(0, |&side| u32::from_be_bytes(side));
        // Any may have a transparent color, which becomes an alpha channel.
        let samples = match header[9] {
            0 | 4 => 2,
            _ => 4,
        };
        let raw = samples * if header[8] == 16 { 2 } else { 1 };
        // Grey pixels are expanded into a second buffer, and so are those that metadata may turn.
        let has = |chunk: &[u8; 4]| bytes.windows(4).any(|name| name == chunk);
        let second = raw < 3 || self.apply_exif && (has(b"eXIf") || has(b"iTXt"));
        Ok((side(0), side(4), if second { raw + 3 } else { raw }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png_header(color: u8, depth: u8) -> Vec<u8> {
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x03\xe8\0\0\x03\xe8".to_vec();
        bytes.extend([depth, color, 0, 0, 1]);
        bytes
    }

    #[test]
    fn deep_and_transparent_images_need_more() {
        let needed = |bytes: &[u8]| DecodeOptions::default().memory_needed(bytes).unwrap();
        let (rgba, deep, palette) = (needed(&png_header(6, 8)), needed(&png_header(6, 16)), needed(&png_header(3, 8)));
        assert!((4_000_000..12_000_000).contains(&rgba) && (8_000_000..16_000_000).contains(&deep) && palette <= rgba);
        assert!(needed(&[&png_header(6, 8)[..], b"iCCP"].concat()) > rgba + (32 << 20), "its profile may be compressed");
        let progressive = include_bytes!("../../../../tests/goldens/images/odd_422_progressive.jpg");
        let frame = Frame::read(progressive);
        let pixels = u64::from(frame.width * frame.height);
        assert!(frame.scans > 1 && needed(progressive) >= 9 * pixels);
    }

    #[test]
    fn what_has_too_many_pixels_or_no_header_is_refused() {
        let small = DecodeOptions { max_pixels: 999_999, ..DecodeOptions::default() };
        assert_eq!(small.memory_needed(&png_header(6, 8)).unwrap_err().cause(), "too_large");
        for bytes in [&b""[..], b"text", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"BM"] {
            assert!(DecodeOptions::default().memory_needed(bytes).is_err(), "{bytes:?}");
        }
    }
}
