//! Heat maps laid over photographs.

use image::{Rgb, RgbImage};

use crate::picture::encode;
use crate::{Error, Result};

/// Nine colours of equal steps in lightness, for values from 0 to 1: matplotlib's `inferno`, which is in the public domain. What is
/// between two of them is mixed.
const COLOURS: [[u8; 3]; 9] = [
    [0, 0, 4],
    [33, 12, 74],
    [86, 16, 110],
    [137, 34, 106],
    [187, 55, 84],
    [227, 89, 50],
    [249, 140, 10],
    [249, 201, 50],
    [252, 255, 164],
];

/// How much of a pixel is the map's colour where the map is 0, and where it is 1.
const COVER: (f32, f32) = (0.45, 0.7);

/// A map of few cells.
#[derive(Clone, Copy, Debug)]
pub struct Heat<'a> {
    /// Row by row, in [0, 1].
    pub values: &'a [f32],
    /// Cells a row.
    pub width: usize,
}

impl Heat<'_> {
    fn height(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or(0)
    }

    /// The value at shares of width and height in [0, 1]: cells are known at their middles, between them it is linear.
    fn at(&self, x: f32, y: f32) -> f32 {
        let between = |share: f32, cells: usize| {
            let place = (share * cells as f32 - 0.5).clamp(0.0, (cells - 1) as f32);
            let first = place as usize;
            (first, (first + 1).min(cells - 1), place - first as f32)
        };
        let (left, right, dx) = between(x, self.width);
        let (top, bottom, dy) = between(y, self.height());
        let row = |y: usize| {
            let cell = |x: usize| self.values[y * self.width + x];
            cell(left) + dx * (cell(right) - cell(left))
        };
        row(top) + dy * (row(bottom) - row(top))
    }
}

/// The colour of a value; what is no number is 0.
fn colour(value: f32) -> [f32; 3] {
    let place = value.clamp(0.0, 1.0).max(0.0) * (COLOURS.len() - 1) as f32;
    let first = (place as usize).min(COLOURS.len() - 2);
    let share = place - first as f32;
    std::array::from_fn(|i| {
        let (a, b) = (f32::from(COLOURS[first][i]), f32::from(COLOURS[first + 1][i]));
        a + share * (b - a)
    })
}

/// RGB `pixels` `[height, width, 3]` under `heat`, which is spread over all of them, as a PNG or JPEG file: dark where it is 0,
/// bright where it is 1.
///
/// # Errors
/// The pixels are not `width` × `height`, the map has no cell or an incomplete row, or the format cannot be written.
pub fn overlay(pixels: &[u8], width: u32, height: u32, heat: Heat, png: bool) -> Result<Vec<u8>> {
    if heat.height() == 0 || heat.height() * heat.width != heat.values.len() {
        return Err(Error::Drawing(format!("a map of {} values has no rows of {}", heat.values.len(), heat.width)));
    }
    let mut out = pixels.to_vec();
    if let Some(image) = RgbImage::from_raw(width, height, pixels.to_vec()) {
        let middle = |i: u32, of: u32| (i as f32 + 0.5) / of as f32;
        for ((x, y, &Rgb(pixel)), out) in image.enumerate_pixels().zip(out.chunks_exact_mut(3)) {
            let value = heat.at(middle(x, width), middle(y, height)).clamp(0.0, 1.0).max(0.0);
            let cover = COVER.0 + value * (COVER.1 - COVER.0);
            for ((out, photo), colour) in out.iter_mut().zip(pixel).zip(colour(value)) {
                *out = ((1.0 - cover) * f32::from(photo) + cover * colour).round() as u8;
            }
        }
    }
    encode(&out, width, height, png)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(values: &[f32], width: usize) -> RgbImage {
        let file = overlay(&[128; 40 * 20 * 3], 40, 20, Heat { values, width }, true).unwrap();
        image::load_from_memory(&file).unwrap().to_rgb8()
    }

    /// CIE L* of an sRGB colour, from 0 to 100.
    fn lightness(colour: [f32; 3]) -> f32 {
        let linear = colour.map(|c| match c / 255.0 {
            c if c <= 0.04045 => c / 12.92,
            c => ((c + 0.055) / 1.055).powf(2.4),
        });
        let y = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
        if y > 0.008856 { 116.0 * y.cbrt() - 16.0 } else { 903.3 * y }
    }

    #[test]
    fn lightness_grows_evenly_with_the_value() {
        let light: Vec<f32> = (0..=40).map(|i| lightness(colour(i as f32 / 40.0))).collect();
        assert!(light.is_sorted_by(|a, b| a < b), "{light:?}");
        for (i, l) in light.iter().enumerate() {
            let even = light[0] + (light[40] - light[0]) * i as f32 / 40.0;
            assert!((l - even).abs() < 6.0, "{i}: {l}, evenly {even}");
        }
        assert_eq!(colour(f32::NAN), colour(0.0));
    }

    #[test]
    fn the_map_is_bright_where_it_is_warm_and_linear_between() {
        let image = drawn(&[0.0, 1.0, 0.0, 1.0], 2);
        let light = |x| lightness(image.get_pixel(x, 10).0.map(f32::from));
        assert!(light(39) > light(0) + 30.0, "{} {}", light(0), light(39));
        assert!((0..39).all(|x| light(x) <= light(x + 1) + 0.5), "no step back from cold to warm");
        assert_eq!(image.get_pixel(0, 10), image.get_pixel(9, 10), "half a cell at the edge is constant");
        let heat = Heat { values: &[0.0, 1.0, 0.0, 1.0], width: 2 };
        assert_eq!([0.25, 0.5, 0.75].map(|x| heat.at(x, 0.3)), [0.0, 0.5, 1.0]);
    }

    #[test]
    fn maps_of_any_size_are_drawn_and_broken_ones_refused() {
        assert_eq!(drawn(&[1.0], 1).dimensions(), (40, 20));
        assert_eq!(drawn(&[f32::NAN; 6], 3), drawn(&[0.0; 6], 3));
        let refused = |values: &[f32], width| overlay(&[0; 12], 2, 2, Heat { values, width }, false).is_err();
        assert!(refused(&[], 0) && refused(&[], 3) && refused(&[0.0; 5], 2) && !refused(&[0.5; 4], 2));
        assert!(overlay(&[0; 11], 2, 2, Heat { values: &[0.0], width: 1 }, true).is_err());
    }
}
