//! From encoded bytes to the pixels of a batch.

use super::augment::{Augment, centre_region};
use super::decode::{Codec, DecodeOptions, Rgb};
use super::error::ImageError;
use super::resize::{Interpolation, Region, Resampler};
use crate::rng::RngKey;

/// Decodes and resizes images, one after another, in the same buffers. One a thread.
///
/// Makes no buffer of an image's size once it has seen the largest image (of up to 64 MiB; larger buffers are given back).
pub struct Decoder {
    pub(super) codec: Codec,
    pub(super) resampler: Resampler,
    /// [`DecodeOptions::max_pixels`].
    pub(super) limit: u64,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

impl Decoder {
    /// # Errors
    /// libjpeg-turbo finds no memory for its state.
    pub fn new(options: DecodeOptions) -> Result<Self, ImageError> {
        Ok(Decoder { codec: Codec::new(options)?, resampler: Resampler::default(), limit: options.max_pixels })
    }

    /// The whole image at its full size, upright if [`DecodeOptions::apply_exif`].
    ///
    /// # Errors
    /// The image cannot be decoded, or is larger than [`DecodeOptions::max_pixels`].
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Rgb<'_>, ImageError> {
        self.codec.decode(bytes, |_, _| 1.0)
    }

    /// The whole image at the smallest scale that is at least what `least_scale` says of its upright (width, height); only JPEGs
    /// have others than 1 ([`DecodeOptions::dct_scaling`]).
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn decode_at_least(&mut self, bytes: &[u8], least_scale: impl FnMut(u32, u32) -> f64) -> Result<Rgb<'_>, ImageError> {
        self.codec.decode(bytes, least_scale)
    }

    /// As [`Decoder::decode`], in a buffer of its own: pixels `[height, width, 3]` and (width, height).
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn into_pixels(mut self, bytes: &[u8]) -> Result<(Vec<u8>, (u32, u32)), ImageError> {
        let size = self.decode(bytes)?.full_size;
        Ok((self.codec.into_pixels(size.0 as usize * size.1 as usize * 3), size))
    }

    /// A part of the image, resized to `width` × `height` by Pillow's bicubic, as `[height, width, 3]`. `choose` tells the part,
    /// given the image's upright (width, height); where it reaches over the edge it is cut.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn resize(
        &mut self,
        bytes: &[u8],
        width: u32,
        height: u32,
        choose: impl Fn(u32, u32) -> Region,
    ) -> Result<&[u8], ImageError> {
        self.resize_by(bytes, (width, height), Interpolation::Bicubic, choose)
    }

    /// As [`Decoder::resize`], to (width, height) by `interpolation`.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn resize_by(
        &mut self,
        bytes: &[u8],
        (width, height): (u32, u32),
        interpolation: Interpolation,
        choose: impl Fn(u32, u32) -> Region,
    ) -> Result<&[u8], ImageError> {
        let mut region = None;
        let image = self.codec.decode(bytes, |w, h| region.insert(choose(w, h)).least_scale(width, height))?;
        let (w, h) = image.full_size;
        let region = region.unwrap_or_else(|| choose(w, h));
        self.resampler.resample(&image, &region, (width, height), interpolation)
    }

    /// The whole image, no larger than it is and its longer side at most `side` (> 0): pixels `[height, width, 3]` and (width, height).
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn shrink(&mut self, bytes: &[u8], side: u32) -> Result<(&[u8], (u32, u32)), ImageError> {
        let small = |w: u32, h: u32| {
            let scale = (f64::from(side) / f64::from(w.max(h))).min(1.0);
            let length = |full: u32| ((f64::from(full) * scale).round() as u32).max(1);
            (length(w), length(h))
        };
        let whole =
            |w: u32, h: u32| Region { left: 0.0, top: 0.0, width: f64::from(w), height: f64::from(h), cropped_first: true };
        let least = |w, h| {
            let (width, height) = small(w, h);
            whole(w, h).least_scale(width, height)
        };
        let image = self.codec.decode(bytes, least)?;
        let (w, h) = image.full_size;
        let (width, height) = small(w, h);
        Ok((self.resampler.resample(&image, &whole(w, h), (width, height), Interpolation::Bicubic)?, (width, height)))
    }
}

/// How an encoded image becomes S × S pixels.
///
/// - [`Transform::eval`]: the shorter side is resized to S, the longer to `int(S · long / short)`, and the centre is cut out, as
///   CLIP and open_clip do;
/// - [`Transform::train`]: a random part of the image is resized to S × S and perhaps flipped, as a function of the key.
///
/// Normalisation is left to the device: [`softclip_tensor::normalize_images`].
#[derive(Debug, Clone, PartialEq)]
pub struct Transform {
    size: u32,
    augment: Option<Augment>,
    floor_crop: bool,
}

impl Transform {
    /// For training. The settings are those that [`Augment::validate`] lets pass.
    pub fn train(size: u32, augment: Augment) -> Self {
        Transform { size, augment: Some(augment), floor_crop: false }
    }

    /// For evaluation.
    pub fn eval(size: u32) -> Self {
        Transform { size, augment: None, floor_crop: false }
    }

    /// Where the centre lies between two pixels, evaluation takes the one before it, as Hugging Face's processors do, and not the even
    /// one, as torchvision and open_clip do.
    #[must_use]
    pub fn with_floor_crop(self, floor_crop: bool) -> Self {
        Transform { floor_crop, ..self }
    }

    /// S.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Bytes of one result: 3·S·S.
    pub fn output_len(&self) -> usize {
        3 * self.size as usize * self.size as usize
    }

    /// Writes the image as planes `[3, S, S]` to `out`, a slot of the batch. Evaluation takes no notice of the key.
    ///
    /// # Errors
    /// The image cannot be decoded, is larger than [`DecodeOptions::max_pixels`], or `out` has not 3·S·S bytes. `out` is as it
    /// was then.
    pub fn apply(&self, bytes: &[u8], key: RngKey, decoder: &mut Decoder, out: &mut [u8]) -> Result<(), ImageError> {
        if out.len() != self.output_len() || out.is_empty() {
            return Err(ImageError::OutputSize { expected: self.output_len(), found: out.len() });
        }
        let choose = |width, height| match &self.augment {
            Some(augment) => augment.region(width, height, key),
            None => centre_region(width, height, self.size, self.floor_crop),
        };
        let interpolation = self.augment.as_ref().map_or(Interpolation::Bicubic, |augment| augment.interpolation);
        let pixels = decoder.resize_by(bytes, (self.size, self.size), interpolation, choose)?;
        let flip = self.augment.as_ref().is_some_and(|augment| augment.flips(key));
        planes(pixels, self.size as usize, flip, out);
        Ok(())
    }
}

/// `[S, S, 3]` to `[3, S, S]`.
fn planes(pixels: &[u8], size: usize, flip: bool, out: &mut [u8]) {
    let (red, rest) = out.split_at_mut(size * size);
    let (green, blue) = rest.split_at_mut(size * size);
    let rows = red.chunks_exact_mut(size).zip(green.chunks_exact_mut(size)).zip(blue.chunks_exact_mut(size));
    for (row, ((red, green), blue)) in pixels.chunks_exact(size * 3).zip(rows) {
        for (((pixel, r), g), b) in row.chunks_exact(3).zip(&mut *red).zip(&mut *green).zip(&mut *blue) {
            (*r, *g, *b) = (pixel[0], pixel[1], pixel[2]);
        }
        if flip {
            red.reverse();
            green.reverse();
            blue.reverse();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_become_planes_and_flip() {
        let pixels = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        let mut out = [0; 12];
        planes(&pixels, 2, false, &mut out);
        assert_eq!(out, [1, 4, 7, 10, 2, 5, 8, 11, 3, 6, 9, 12]);
        planes(&pixels, 2, true, &mut out);
        assert_eq!(out, [4, 1, 10, 7, 5, 2, 11, 8, 6, 3, 12, 9]);
    }

    #[test]
    fn a_buffer_of_the_wrong_size_is_refused() {
        let mut decoder = Decoder::new(DecodeOptions::default()).unwrap();
        let error = Transform::eval(8).apply(b"", RngKey::new(0, 0, 0), &mut decoder, &mut [0; 5]).unwrap_err();
        assert_eq!(error, ImageError::OutputSize { expected: 192, found: 5 });
    }

    #[test]
    fn shrinking_keeps_the_shape_and_never_grows() {
        let mut decoder = Decoder::new(DecodeOptions::default()).unwrap();
        let jpeg = |width: u32, height: u32| {
            let mut file = Vec::new();
            let pixels = vec![200; (width * height * 3) as usize];
            let encoder = image::codecs::jpeg::JpegEncoder::new(&mut file);
            image::ImageEncoder::write_image(encoder, &pixels, width, height, image::ExtendedColorType::Rgb8).unwrap();
            file
        };
        for (full, small) in [((400, 100), (40, 10)), ((30, 900), (1, 40)), ((20, 7), (20, 7)), ((1, 1000), (1, 40))] {
            let (pixels, size) = decoder.shrink(&jpeg(full.0, full.1), 40).unwrap();
            assert_eq!((size, pixels.len()), (small, (small.0 * small.1 * 3) as usize));
            assert!(pixels.iter().all(|x| x.abs_diff(200) <= 2));
        }
    }

    #[test]
    fn bilinear_is_pillows() {
        let pixel = |x: u32, y: u32, c: u32| ((x * x * 13 + y * 53 + c * 41 + x * y * 7) % 256) as u8;
        let pixels: Vec<u8> = (0..7).flat_map(|y| (0..9).flat_map(move |x| (0..3).map(move |c| pixel(x, y, c)))).collect();
        let mut png = Vec::new();
        let encoder = image::codecs::png::PngEncoder::new(&mut png);
        image::ImageEncoder::write_image(encoder, &pixels, 9, 7, image::ExtendedColorType::Rgb8).unwrap();
        let mut decoder = Decoder::new(DecodeOptions::default()).unwrap();
        let mut resized = |left, top, width, height, size| {
            let region = Region { left, top, width, height, cropped_first: true };
            decoder.resize_by(&png, size, Interpolation::Bilinear, |_, _| region).unwrap().to_vec()
        };
        // PIL.Image.resize((4, 3), BILINEAR), and crop((2, 1, 7, 6)).resize((6, 4), BILINEAR).
        let small: [u8; 36] = [
            67, 108, 137, 115, 154, 115, 134, 144, 137, 132, 125, 148, 165, 159, 120, 131, 131, 119, 145, 125, 131, 132, 124,
            116, 106, 124, 126, 138, 126, 123, 137, 123, 115, 141, 122, 107,
        ];
        let large: [u8; 72] = [
            136, 177, 154, 144, 185, 66, 92, 133, 94, 106, 120, 161, 153, 146, 187, 75, 116, 157, 214, 148, 40, 84, 98, 102, 103,
            144, 123, 159, 138, 117, 178, 80, 121, 186, 120, 161, 143, 77, 118, 130, 145, 186, 107, 148, 126, 108, 149, 127, 133,
            147, 188, 147, 81, 122, 114, 155, 196, 188, 85, 126, 136, 97, 138, 144, 104, 145, 211, 108, 101, 151, 192, 41,
        ];
        assert_eq!(resized(0.0, 0.0, 9.0, 7.0, (4, 3)), small);
        // Pillow rounds weights to other fractions where an image grows, hence ±1 as for the bicubic filter.
        let found = resized(2.0, 1.0, 5.0, 5.0, (6, 4));
        let differences: Vec<u8> = found.iter().zip(&large).map(|(a, b)| a.abs_diff(*b)).collect();
        assert!(found.len() == large.len() && differences.iter().all(|d| *d <= 1), "{found:?}");
    }
}
