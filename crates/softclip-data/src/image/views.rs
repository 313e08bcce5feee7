//! An image, or a part of it, as a model of a fixed size sees it at several scales.

use super::augment::centred;
use super::decode::Rgb;
use super::error::ImageError;
use super::resize::{Interpolation, Region};
use super::transform::Decoder;

/// What stands beyond the edge of an image: CLIP's mean colour, which is near zero once normalised.
const BEYOND: [u8; 3] = [123, 117, 104];

/// What a model of S × S pixels sees of an image at several scales.
///
/// At scale s the image is resized so that its shorter side is `round(S·s)`, and the S × S pixels at its centre are cut out; where they
/// reach beyond the image they have CLIP's mean colour. Scale 1 is the square in the middle, as [`Transform::eval`](super::Transform::eval)
/// has it, bit for bit where JPEGs are not scaled while they are decoded (`dct_scaling`); where they are, the largest scale decides by how
/// much, and a part is cut from the whole. Below 1 all things look smaller and more of the longer side is seen; above 1 they look larger and the rim is lost.
#[derive(Debug, Clone, PartialEq)]
pub struct Views {
    size: u32,
    scales: Vec<f64>,
    floor_crop: bool,
}

/// Where one scale's pixels come from, and where they go.
struct View {
    region: Region,
    size: (u32, u32),
    at: (u32, u32),
}

impl Views {
    /// `None` unless there is a scale and all are in [0.05, 8]. `floor_crop`: see [`Transform`](super::Transform::with_floor_crop).
    pub fn new(size: u32, scales: &[f64], floor_crop: bool) -> Option<Self> {
        let sensible = size > 0 && !scales.is_empty() && scales.iter().all(|scale| (0.05..=8.0).contains(scale));
        sensible.then(|| Views { size, scales: scales.to_vec(), floor_crop })
    }

    /// Number of scales.
    pub fn count(&self) -> usize {
        self.scales.len()
    }

    /// S.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Bytes of one image's views: scales · 3·S·S.
    pub fn output_len(&self) -> usize {
        self.count() * 3 * self.size as usize * self.size as usize
    }

    /// Writes the views as planes `[scales, 3, S, S]` to `out`. Of a `part` (left, top, right, bottom in pixels) nothing outside is
    /// seen: it is cut out before anything else, as Pillow's `crop` does it, coordinates rounded half to even and black beyond the edge.
    ///
    /// # Errors
    /// The image cannot be decoded or is too large, the part is empty or too large, or `out` has not [`Views::output_len`] bytes.
    pub fn apply(&self, bytes: &[u8], part: Option<[f64; 4]>, decoder: &mut Decoder, out: &mut [u8]) -> Result<(), ImageError> {
        if out.len() != self.output_len() {
            return Err(ImageError::OutputSize { expected: self.output_len(), found: out.len() });
        }
        let Some(part) = part else {
            let least = |w, h| self.scales.iter().map(|&s| self.view(w, h, s).least_scale()).fold(0.0, f64::max);
            let image = decoder.codec.decode(bytes, least)?;
            return self.write(&image, &mut decoder.resampler, out);
        };
        let image = decoder.codec.decode(bytes, |_, _| 1.0)?;
        let (left, top) = (part[0].round_ties_even(), part[1].round_ties_even());
        let (width, height) = (part[2].round_ties_even() - left, part[3].round_ties_even() - top);
        // Also false for what is no number.
        if !(width >= 1.0 && height >= 1.0 && left.abs() < 1e9 && top.abs() < 1e9) {
            return Err(ImageError::EmptyPart(format!("{part:?}")));
        }
        let pixels = cut(&image, (left as i64, top as i64), (width as u32, height as u32), decoder.limit)?;
        let size = (width as u32, height as u32);
        let cut = Rgb { pixels: &pixels, width: size.0, height: size.1, full_size: size, scale: 1.0 };
        self.write(&cut, &mut decoder.resampler, out)
    }

    fn write(&self, image: &Rgb<'_>, resampler: &mut super::resize::Resampler, out: &mut [u8]) -> Result<(), ImageError> {
        let side = self.size as usize;
        for (&scale, out) in self.scales.iter().zip(out.chunks_exact_mut(3 * side * side)) {
            let View { region, size: (width, height), at } = self.view(image.full_size.0, image.full_size.1, scale);
            let pixels = resampler.resample(image, &region, (width, height), Interpolation::Bicubic)?;
            for (channel, plane) in out.chunks_exact_mut(side * side).enumerate() {
                plane.fill(BEYOND[channel]);
                let rows = plane.chunks_exact_mut(side).skip(at.1 as usize);
                for (row, from) in rows.zip(pixels.chunks_exact(width as usize * 3)) {
                    let from = from[channel..].iter().step_by(3);
                    row[at.0 as usize..].iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                }
            }
        }
        Ok(())
    }

    fn view(&self, width: u32, height: u32, scale: f64) -> View {
        let short = (f64::from(self.size) * scale).round().max(1.0);
        let along = |side: u32| {
            let resized = (short * f64::from(side) / f64::from(width.min(height))).floor();
            if resized >= f64::from(self.size) {
                let (start, length) = centred(f64::from(side), resized, f64::from(self.size), self.floor_crop);
                return (start, length, self.size, 0);
            }
            (0.0, f64::from(side), resized as u32, (self.size - resized as u32) / 2)
        };
        let ((left, region_width, w, x), (top, region_height, h, y)) = (along(width), along(height));
        let region = Region { left, top, width: region_width, height: region_height, cropped_first: false };
        View { region, size: (w, h), at: (x, y) }
    }
}

impl View {
    fn least_scale(&self) -> f64 {
        self.region.least_scale(self.size.0, self.size.1)
    }
}

/// The pixels `[height, width, 3]` from `at` on; black where there is no image.
fn cut(image: &Rgb<'_>, at: (i64, i64), size: (u32, u32), limit: u64) -> Result<Vec<u8>, ImageError> {
    let (width, height) = size;
    if u64::from(width) * u64::from(height) > limit {
        return Err(ImageError::TooLarge { width, height, limit });
    }
    let mut pixels = vec![0; width as usize * height as usize * 3];
    // Columns of the result that the image has.
    let from = (-at.0).clamp(0, i64::from(width));
    let to = (i64::from(image.width) - at.0).clamp(from, i64::from(width));
    let there = |x: i64| x as usize * 3;
    for (y, row) in (at.1..).zip(pixels.chunks_exact_mut(width as usize * 3)) {
        if (0..i64::from(image.height)).contains(&y) && to > from {
            let line = &image.pixels[y as usize * image.width as usize * 3..][..image.width as usize * 3];
            row[there(from)..there(to)].copy_from_slice(&line[there(at.0 + from)..there(at.0 + to)]);
        }
    }
    Ok(pixels)
}

#[cfg(test)]
mod tests {
    use image::ImageEncoder;

    use super::*;
    use crate::image::{DecodeOptions, Transform};
    use crate::rng::RngKey;

    /// A PNG whose pixels tell where they are.
    fn png(width: u32, height: u32) -> Vec<u8> {
        let pixels: Vec<u8> = (0..height).flat_map(|y| (0..width).flat_map(move |x| [x as u8 * 3, y as u8 * 5, 77])).collect();
        encoded(&pixels, width, height)
    }

    fn encoded(pixels: &[u8], width: u32, height: u32) -> Vec<u8> {
        let mut file = Vec::new();
        let encoder = image::codecs::png::PngEncoder::new(&mut file);
        encoder.write_image(pixels, width, height, image::ExtendedColorType::Rgb8).unwrap();
        file
    }

    fn seen(views: &Views, bytes: &[u8], part: Option<[f64; 4]>) -> Result<Vec<u8>, ImageError> {
        let mut out = vec![0; views.output_len()];
        views.apply(bytes, part, &mut Decoder::new(DecodeOptions::default())?, &mut out)?;
        Ok(out)
    }

    #[test]
    fn scale_1_is_the_transform_of_evaluation() {
        for (width, height) in [(50, 31), (31, 50), (16, 16), (9, 40)] {
            for floor in [true, false] {
                let transform = Transform::eval(16).with_floor_crop(floor);
                let mut expected = vec![0; transform.output_len()];
                let mut decoder = Decoder::new(DecodeOptions::default()).unwrap();
                let bytes = png(width, height);
                transform.apply(&bytes, RngKey::new(0, 0, 0), &mut decoder, &mut expected).unwrap();
                assert_eq!(seen(&Views::new(16, &[1.0], floor).unwrap(), &bytes, None).unwrap(), expected);
            }
        }
    }

    #[test]
    fn a_part_is_the_image_of_its_pixels_alone() {
        let (left, top, right, bottom) = (7, 4, 29, 20);
        let pixels: Vec<u8> =
            (top..bottom).flat_map(|y| (left..right).flat_map(move |x| [x as u8 * 3, y as u8 * 5, 77])).collect();
        let cut = encoded(&pixels, right - left, bottom - top);
        let views = Views::new(12, &[1.0, 0.7], false).unwrap();
        // 6.5 and 20.5 go to the even side, 28.6 up.
        let found = seen(&views, &png(40, 30), Some([6.51, 4.5, 28.6, 20.5])).unwrap();
        assert_eq!(found, seen(&views, &cut, None).unwrap());
        assert_ne!(found, seen(&views, &png(40, 30), None).unwrap());
    }

    #[test]
    fn beyond_the_edge_a_part_is_black_and_an_empty_one_refused() {
        let views = Views::new(8, &[1.0], false).unwrap();
        let white = encoded(&[255; 8 * 8 * 3], 8, 8);
        let found = seen(&views, &white, Some([-8.0, 0.0, 8.0, 16.0])).unwrap();
        // The image is the upper right quarter.
        assert_eq!((found[0], found[7], found[63], found[56]), (0, 255, 0, 0));
        for part in [[3.0, 3.0, 3.2, 8.0], [5.0, 0.0, 2.0, 8.0], [f64::NAN, 0.0, 8.0, 8.0]] {
            assert!(matches!(seen(&views, &white, Some(part)), Err(ImageError::EmptyPart(_))), "{part:?}");
        }
        let error = seen(&views, &white, Some([0.0, 0.0, 1e6, 1e6])).unwrap_err();
        assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
    }

    #[test]
    fn below_1_the_image_stands_in_the_middle_and_above_1_its_middle_is_seen() {
        let views = Views::new(8, &[0.5, 2.0], false).unwrap();
        let out = seen(&views, &encoded(&[200; 16 * 16 * 3], 16, 16), None).unwrap();
        let red = |x: usize, y: usize| out[y * 8 + x];
        assert_eq!((red(1, 4), red(2, 2), red(5, 5), red(6, 4)), (BEYOND[0], 200, 200, BEYOND[0]));
        // Columns 4 to 11 of 16, one to one.
        let zoomed = &seen(&views, &png(16, 16), None).unwrap()[3 * 64..];
        assert_eq!(zoomed[..8], [12, 15, 18, 21, 24, 27, 30, 33]);
        assert!(Views::new(8, &[], false).is_none() && Views::new(8, &[0.0], false).is_none());
        assert!(Views::new(8, &[f64::NAN], false).is_none());
    }
}
