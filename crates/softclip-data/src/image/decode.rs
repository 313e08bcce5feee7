//! From encoded bytes to RGB pixels, in buffers that are used again.

use std::io::Cursor;

use image::codecs::{bmp::BmpDecoder, jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder};
use image::{ImageDecoder, ImageFormat, Limits};
use serde::{Deserialize, Serialize};

use super::error::ImageError;
use super::jpeg::Jpeg;
use super::markers::check_scans;
use super::orientation::{self, Orientation, swaps_sides, turn};
use super::pixels::{Alpha, Layout};
use super::{gif, webp};

/// What a decoder accepts, and how it decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecodeOptions {
    /// The most pixels that a header may promise. Default 89,478,485, where Pillow begins to warn of decompression bombs:
    /// 256 MiB of RGB. Checked before anything is allocated.
    pub max_pixels: u64,
    /// Turn images upright as their Exif or XMP orientation says, as Pillow's `ImageOps.exif_transpose` does. Default true. Pillow's
    /// `open` and most training code do not.
    pub apply_exif: bool,
    /// Decode JPEGs at the smallest of 1/8, 1/4, 1/2 and 1 of their size that is still at least as large as the result.
    /// Default true: two to three times as fast for photographs at 224 px. The result then is not exactly that of decoding all
    /// pixels and resizing once; set to false where it must be.
    pub dct_scaling: bool,
    /// Use what there is of a JPEG that is cut off; the rest is grey. Default false: such a file is an error.
    pub allow_truncated: bool,
    /// What becomes of transparency. Default [`Alpha::Drop`].
    pub alpha: Alpha,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        DecodeOptions {
            max_pixels: (1 << 28) / 3,
            apply_exif: true,
            dct_scaling: true,
            allow_truncated: false,
            alpha: Alpha::Drop,
        }
    }
}

/// Decoded RGB pixels, upright, in the decoder's buffer.
#[derive(Debug, Clone, Copy)]
pub struct Rgb<'a> {
    /// `[height, width, 3]`.
    pub pixels: &'a [u8],
    /// Width of `pixels`.
    pub width: u32,
    /// Height of `pixels`.
    pub height: u32,
    /// (width, height) of the whole image, before any scaling in the DCT.
    pub full_size: (u32, u32),
    /// `pixels` are the image at this scale: 0.125, 0.25, 0.5 or 1.
    pub scale: f64,
}

/// How many bytes a buffer may keep from image to image.
const KEPT: usize = 64 << 20;

/// What a PNG's compressed chunks may take, as by default in the `png` crate.
pub(super) const PNG_CHUNKS: u64 = 64 << 20;

/// A buffer that grows and is not cleared between images.
#[derive(Default)]
pub(super) struct Buffer(Vec<u8>);

impl Buffer {
    /// Its first `n` bytes, with whatever they hold.
    pub(super) fn take(&mut self, n: usize) -> &mut [u8] {
        if self.0.len() < n {
            self.0.resize(n, 0);
        }
        &mut self.0[..n]
    }

    fn give_back(&mut self) {
        if self.0.len() > KEPT {
            self.0 = Vec::new();
        }
    }
}

/// Decodes one image after another. One a thread; at steady state no buffer of an image's size is allocated.
pub(super) struct Codec {
    options: DecodeOptions,
    jpeg: Jpeg,
    pixels: Buffer,
    spare: Buffer,
}

/// What was decoded into `Codec::pixels`, before turning it.
pub(super) struct Decoded {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) full_size: (u32, u32),
    pub(super) scale: f64,
    pub(super) orientation: Orientation,
}

impl Codec {
    pub(super) fn new(options: DecodeOptions) -> Result<Self, ImageError> {
        Ok(Codec { options, jpeg: Jpeg::new()?, pixels: Buffer::default(), spare: Buffer::default() })
    }

    /// Decodes `bytes` so that the scale is at least what `least_scale` returns for the image's upright (width, height); it is
    /// asked once, before a JPEG's pixels are decoded.
    pub(super) fn decode(&mut self, bytes: &[u8], mut least_scale: impl FnMut(u32, u32) -> f64) -> Result<Rgb<'_>, ImageError> {
        self.pixels.give_back();
        self.spare.give_back();
        let mut least = |size: (u32, u32), orientation| match swaps_sides(orientation) {
            true => least_scale(size.1, size.0),
            false => least_scale(size.0, size.1),
        };
        let format = format(bytes)?;
        if format == ImageFormat::Jpeg {
            // None for a header that the other decoder may read.
            let decoded = self.jpeg.decode(bytes, &self.options, &mut self.pixels, &mut self.spare, &mut least)?;
            if let Some(decoded) = decoded {
                return Ok(self.upright(decoded));
            }
        }
        let decoded = self.other(bytes, format)?;
        least(decoded.full_size, decoded.orientation);
        Ok(self.upright(decoded))
    }

    /// The first `n` bytes of what was decoded last.
    pub(super) fn into_pixels(self, n: usize) -> Vec<u8> {
        let mut pixels = self.pixels.0;
        pixels.truncate(n);
        pixels
    }

    fn upright(&mut self, decoded: Decoded) -> Rgb<'_> {
        let Decoded { mut width, mut height, mut full_size, scale, orientation } = decoded;
        let n = width as usize * height as usize * 3;
        if orientation != Orientation::NoTransforms {
            turn(orientation, &self.pixels.0[..n], width as usize, height as usize, self.spare.take(n));
            std::mem::swap(&mut self.pixels, &mut self.spare);
            if swaps_sides(orientation) {
                (width, height, full_size) = (height, width, (full_size.1, full_size.0));
            }
        }
        Rgb { pixels: &self.pixels.0[..n], width, height, full_size, scale }
    }

    /// What libjpeg-turbo does not decode: GIF by the `gif` crate, the rest by the `image` crate.
    fn other(&mut self, bytes: &[u8], format: ImageFormat) -> Result<Decoded, ImageError> {
        let input = Cursor::new(bytes);
        match format {
            ImageFormat::Png => {
                // Before the decoder is asked: it reads on to the first pixel and would call a bare header truncated.
                let mut width = 0;
                if let Some(&[a, b, c, d, e, f, g, h]) = bytes.get(16..24).and_then(|s| s.first_chunk()) {
                    width = u32::from_be_bytes([a, b, c, d]);
                    self.check_size(width, u32::from_be_bytes([e, f, g, h]))?;
                }
                // What the decoder may allocate in addition to the pixels: rows, and chunks such as a compressed color profile.
                let mut limits = Limits::no_limits();
                limits.max_alloc = Some(PNG_CHUNKS + 8 * u64::from(width));
                let decoder = PngDecoder::with_limits(input, limits)?;
                self.read(decoder)
            }
            ImageFormat::WebP => {
                let (width, height) = webp::Header::read(bytes)?.largest;
                if width > 0 {
                    self.check_size(width, height)?;
                }
                // The decoder says only that the bits are wrong; the header tells how many bytes there should be.
                let stated = bytes.get(4..8).and_then(|s| s.first_chunk()).map_or(0, |&n| u64::from(u32::from_le_bytes(n)) + 8);
                let decoded = WebPDecoder::new(input).map_err(ImageError::from).and_then(|decoder| self.read(decoder));
                decoded.map_err(|error| match error {
                    ImageError::Corrupt(_) if stated > bytes.len() as u64 => ImageError::Truncated,
                    error => error,
                })
            }
            ImageFormat::Gif => gif::decode(bytes, &self.options, &mut self.pixels, &mut self.spare),
            ImageFormat::Bmp => self.read(BmpDecoder::new(input)?),
            ImageFormat::Jpeg => {
                let decoder = JpegDecoder::new(input)?;
                let (width, height) = decoder.dimensions();
                self.check_size(width, height)?;
                check_scans(bytes, width, height, &self.options)?;
                self.read(decoder)
            }
            other => Err(ImageError::Unsupported(format!("the format {other:?}"))),
        }
    }

    fn read(&mut self, mut decoder: impl ImageDecoder) -> Result<Decoded, ImageError> {
        let (width, height) = decoder.dimensions();
        self.check_size(width, height)?;
        let orientation = match self.options.apply_exif {
            true => {
                // Metadata that cannot be read turn nothing.
                let exif = decoder.exif_metadata().ok().flatten();
                let xmp = decoder.xmp_metadata().ok().flatten();
                orientation::of_metadata(exif.as_deref(), xmp.as_deref())
            }
            false => Orientation::NoTransforms,
        };
        let n = width as usize * height as usize;
        let layout = Layout::of(decoder.color_type())?;
        if layout.fits_in_place() {
            let raw = self.pixels.take(n * layout.bytes());
            decoder.read_image(raw)?;
            layout.convert_in_place(raw, n, self.options.alpha);
        } else {
            let raw = self.spare.take(n * layout.bytes());
            decoder.read_image(raw)?;
            layout.convert_into(raw, self.pixels.take(n * 3), self.options.alpha);
        }
        Ok(Decoded { width, height, full_size: (width, height), scale: 1.0, orientation })
    }

    fn check_size(&self, width: u32, height: u32) -> Result<(), ImageError> {
        self.options.check_size(width, height)
    }
}

impl DecodeOptions {
    pub(crate) fn check_size(&self, width: u32, height: u32) -> Result<(), ImageError> {
        match u64::from(width) * u64::from(height) {
            0 => Err(ImageError::Corrupt(format!("its header states a size of {width} x {height} pixels"))),
            n if n > self.max_pixels => Err(ImageError::TooLarge { width, height, limit: self.max_pixels }),
            _ => Ok(()),
        }
    }
}

/// The format, from the first bytes.
pub(super) fn format(bytes: &[u8]) -> Result<ImageFormat, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    if bytes.starts_with(&[0xff, 0xd8]) {
        return Ok(ImageFormat::Jpeg); // stray bytes may come before the first segment
    }
    image::guess_format(bytes).map_err(|_| ImageError::unknown(bytes))
}
