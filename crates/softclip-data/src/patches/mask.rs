//! The pixels of a mask as codes of a map.

use std::io::Cursor;

use image::{ColorType, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::SkipCause;
use super::map::PatchMap;
use super::yaml::Colour;
use crate::image::{DecodeOptions, ImageError};

/// Codes of the pixels, row by row.
pub(super) struct Mask {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) codes: Vec<u8>,
}

/// Why a mask cannot be used.
pub(super) type Fault = (SkipCause, String);

fn bad(detail: impl ToString) -> Fault {
    (SkipCause::BadMask, detail.to_string())
}

/// Reads a PNG or BMP file as it was drawn: no turning, no blending with alpha, and grey of 1, 2 and 4 bits as numbers from 0 on.
pub(super) fn read(bytes: &[u8], map: &PatchMap, max_pixels: u64) -> Result<Mask, Fault> {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(max_pixels.saturating_mul(8).saturating_add(16 << 20));
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(bad)?;
    match reader.format() {
        Some(ImageFormat::Png | ImageFormat::Bmp) => {}
        Some(ImageFormat::Tiff) => {
            return Err(bad("a TIFF file, which is not read: convert masks to PNG, for example by `gdal_translate -of PNG`"));
        }
        Some(other) => return Err(bad(format!("{other:?} may change values: masks are PNG or BMP"))),
        None => return Err(bad("not an image of a known format: masks are PNG or BMP")),
    }
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|e| bad(ImageError::from(e)))?;
    let ((width, height), colour) = (decoder.dimensions(), decoder.color_type());
    DecodeOptions { max_pixels, ..DecodeOptions::default() }.check_size(width, height).map_err(bad)?;
    // Which of a pixel's bytes are its red, green and blue.
    let [r, g, b] = match colour {
        ColorType::L8 | ColorType::La8 => [0; 3],
        ColorType::Rgb8 | ColorType::Rgba8 => [0, 1, 2],
        other => return Err(bad(format!("pixels of type {other:?}: 8 bits a channel are read"))),
    };
    let pixels = width as usize * height as usize;
    let step = usize::from(colour.bytes_per_pixel());
    let mut raw = vec![0; pixels * step];
    decoder.read_image(&mut raw).map_err(|e| bad(ImageError::from(e)))?;
    let unit = grey_unit(bytes);
    let mut codes = Vec::with_capacity(pixels);
    // Neighbours mostly have the same value.
    let mut last = None;
    for pixel in raw.chunks_exact(step) {
        let value = [pixel[r] / unit, pixel[g] / unit, pixel[b] / unit];
        let code = match last {
            Some((seen, code)) if seen == value => code,
            _ => map.code(value).ok_or_else(|| unlisted(codes.len(), width, value))?,
        };
        last = Some((value, code));
        codes.push(code);
    }
    Ok(Mask { width, height, codes })
}

fn unlisted(pixel: usize, width: u32, value: [u8; 3]) -> Fault {
    let (x, y) = (pixel % width as usize, pixel / width as usize);
    let advice = "list it in the map, or say there what `unlisted` values are: background, ignore or a label";
    (SkipCause::UnlistedValue, format!("pixel ({x}, {y}) has the value {}, which the map does not list: {advice}", Colour(value)))
}

/// Decoding stretches PNG's grey of 1, 2 and 4 bits to 0..=255: by how much.
fn grey_unit(bytes: &[u8]) -> u8 {
    const GREY: u8 = 0;
    match (bytes.starts_with(b"\x89PNG"), bytes.get(24), bytes.get(25)) {
        (true, Some(&depth @ (1 | 2 | 4)), Some(&GREY)) => 255 / ((1 << depth) - 1),
        _ => 1,
    }
}
