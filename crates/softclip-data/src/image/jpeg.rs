//! JPEG through libjpeg-turbo.

use turbojpeg::{Colorspace, DecompressHeader, Decompressor, Image, PixelFormat, ScalingFactor};

use super::decode::{Buffer, DecodeOptions, Decoded};
use super::error::ImageError;
use super::markers::check_scans;
use super::orientation::{self, Orientation};

/// The most scans of a file of any size; see also [`check_scans`].
const MAX_SCANS: u32 = 500;

pub(super) struct Jpeg {
    decompressor: Decompressor,
}

/// Asks for the least scale, given the stored (width, height) and the orientation.
type LeastScale<'a> = &'a mut dyn FnMut((u32, u32), Orientation) -> f64;

impl Jpeg {
    pub(super) fn new() -> Result<Self, ImageError> {
        let start = || {
            let mut decompressor = Decompressor::new()?;
            decompressor.set_scan_limit(MAX_SCANS)?;
            Ok(decompressor)
        };
        let decompressor =
            start().map_err(|e: turbojpeg::Error| ImageError::Corrupt(format!("libjpeg-turbo does not start: {e}")))?;
        Ok(Jpeg { decompressor })
    }

    /// `None` if this library takes offence at something harmless in the header.
    pub(super) fn decode(
        &mut self,
        bytes: &[u8],
        options: &DecodeOptions,
        pixels: &mut Buffer,
        spare: &mut Buffer,
        least_scale: LeastScale<'_>,
    ) -> Result<Option<Decoded>, ImageError> {
        let header = match self.decompressor.read_header(bytes) {
            Ok(header) => header,
            Err(error) => return tolerate(&error, bytes, options).map(|()| None),
        };
        let side = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let full_size = (side(header.width), side(header.height));
        options.check_size(full_size.0, full_size.1)?;
        check_scans(bytes, full_size.0, full_size.1, options)?;
        let orientation = if options.apply_exif { orientation::of_jpeg(bytes) } else { Orientation::NoTransforms };
        let least = least_scale(full_size, orientation);
        let factor = if options.dct_scaling && !header.is_lossless { factor_above(least) } else { ScalingFactor::ONE };
        self.decompressor.set_scaling_factor(factor).map_err(|e| corrupt(&e))?;
        let scaled = header.scaled(factor);
        self.read(bytes, options, &scaled, pixels, spare)?;
        let scale = factor.num() as f64 / factor.denom() as f64;
        Ok(Some(Decoded { width: side(scaled.width), height: side(scaled.height), full_size, scale, orientation }))
    }

    fn read(
        &mut self,
        bytes: &[u8],
        options: &DecodeOptions,
        size: &DecompressHeader,
        pixels: &mut Buffer,
        spare: &mut Buffer,
    ) -> Result<(), ImageError> {
        let DecompressHeader { width, height, .. } = *size;
        let n = width * height;
        let cmyk = matches!(size.colorspace, Colorspace::CMYK | Colorspace::YCCK);
        let (to, channels, format) = match cmyk {
            true => (spare.take(n * 4), 4, PixelFormat::CMYK),
            false => (pixels.take(n * 3), 3, PixelFormat::RGB),
        };
        if options.allow_truncated {
            // The decoder leaves the rows that it does not reach as they are: those of the image before.
            to.fill(128);
        }
        let image = Image { pixels: &mut *to, width, pitch: width * channels, height, format };
        if let Err(error) = self.decompressor.decompress(bytes, image) {
            tolerate(&error, bytes, options)?;
        }
        if cmyk {
            cmyk_to_rgb(spare.take(n * 4), pixels.take(n * 3));
        }
        Ok(())
    }
}

/// The smallest scale not below `least` among those for which libjpeg-turbo has vector code.
fn factor_above(least: f64) -> ScalingFactor {
    match least {
        x if x <= 0.125 => ScalingFactor::ONE_EIGHTH,
        x if x <= 0.25 => ScalingFactor::ONE_QUARTER,
        x if x <= 0.5 => ScalingFactor::ONE_HALF,
        _ => ScalingFactor::ONE,
    }
}

/// Adobe's files store ink inverted, and as Pillow does, every CMYK file is taken for one: 255 is no ink.
fn cmyk_to_rgb(cmyk: &[u8], rgb: &mut [u8]) {
    for (to, from) in rgb.chunks_exact_mut(3).zip(cmyk.chunks_exact(4)) {
        let white = u32::from(from[3]);
        for (to, &ink) in to.iter_mut().zip(from) {
            // white − round((255 − ink)·white / 255), in Pillow's integers.
            let product = (255 - u32::from(ink)) * white + 128;
            *to = (white - (((product >> 8) + product) >> 8)) as u8;
        }
    }
}

fn corrupt(error: &turbojpeg::Error) -> ImageError {
    let message = match error {
        turbojpeg::Error::TurboJpegError(message) => message.clone(),
        other => other.to_string(),
    };
    if message.contains("remature end") || message.contains("Input file read error") {
        return ImageError::Truncated;
    }
    if message.starts_with("Unsupported") {
        return ImageError::Unsupported(format!("this kind of JPEG ({message})"));
    }
    ImageError::Corrupt(message)
}

/// Warnings after which the pixels are whole.
const HARMLESS: [&str; 6] = [
    "extraneous bytes before marker",
    "unknown JFIF revision",
    "Unknown Adobe color transform",
    "Invalid SOS parameters",
    "bad ICC marker",
    "Inconsistent progression",
];

/// libjpeg-turbo tells warnings and errors apart only by a call that its Rust wrapper lacks: so by their texts (jerror.h).
/// After a warning the pixels are there, as far as the data reach.
fn tolerate(error: &turbojpeg::Error, bytes: &[u8], options: &DecodeOptions) -> Result<(), ImageError> {
    let turbojpeg::Error::TurboJpegError(message) = error else { return Err(corrupt(error)) };
    if HARMLESS.iter().any(|part| message.contains(part)) {
        // Only the first warning is told. Did the data also end early?
        let last = |marker: u8| bytes.windows(2).rposition(|pair| pair == [0xff, marker]);
        return if last(0xd9) > last(0xda) || options.allow_truncated { Ok(()) } else { Err(ImageError::Truncated) };
    }
    let cut = ["remature end", "bad Huffman code", "bad arithmetic code", "found marker"];
    if options.allow_truncated && cut.iter().any(|part| message.contains(part)) {
        return Ok(());
    }
    Err(corrupt(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_is_the_nearest_above() {
        let chosen = |least| factor_above(least).num() as f64 / factor_above(least).denom() as f64;
        assert_eq!(
            [0.0, 0.125, 0.126, 0.25, 0.4, 0.5, 0.51, 1.0, 3.0].map(chosen),
            [0.125, 0.125, 0.25, 0.25, 0.5, 0.5, 1.0, 1.0, 1.0]
        );
    }

    #[test]
    fn inverted_ink_becomes_colour() {
        let mut rgb = [9; 9];
        cmyk_to_rgb(&[255, 255, 255, 255, 0, 255, 255, 255, 10, 20, 30, 0], &mut rgb);
        assert_eq!(rgb, [255, 255, 255, 0, 255, 255, 0, 0, 0]);
    }
}
