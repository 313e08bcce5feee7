//! Pictures of what was detected.

use font8x8::UnicodeFonts;
use image::{Rgb, RgbImage};

use crate::Error;
use crate::picture::encode;

/// A box to draw.
#[derive(Clone, Debug, PartialEq)]
pub struct Labelled {
    /// Left, top, right, bottom in pixels.
    pub xyxy: [f32; 4],
    /// What stands over it.
    pub label: String,
    /// Boxes of one number have one colour.
    pub class: usize,
}

/// Colours that are told apart on photographs, and by most people who do not see all colours.
const COLOURS: [[u8; 3]; 8] =
    [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167], [255, 255, 255]];

/// Pixels of a character's side in the font.
const GLYPH: u32 = 8;

/// RGB `pixels` `[height, width, 3]` with boxes and their labels, as a PNG or JPEG file. Boxes of later objects lie under earlier ones.
///
/// # Errors
/// The pixels are not `width` × `height`, or the format cannot be written.
pub fn draw(pixels: &[u8], width: u32, height: u32, boxes: &[Labelled], png: bool) -> Result<Vec<u8>, Error> {
    let image = RgbImage::from_raw(width, height, pixels.to_vec());
    let mut image =
        image.ok_or_else(|| Error::Drawing(format!("{} bytes are no picture of {width} x {height}", pixels.len())))?;
    // Lines and letters that are seen on large pictures too.
    let scale = (width.max(height) / 640).max(1);
    for one in boxes.iter().rev() {
        let colour = COLOURS[one.class % COLOURS.len()];
        outline(&mut image, one.xyxy, 2 * scale, colour);
        label(&mut image, one, scale, colour);
    }
    encode(image.as_raw(), width, height, png)
}

/// Fills the part of a rectangle that lies in the picture.
fn fill(image: &mut RgbImage, (left, top): (i64, i64), (width, height): (i64, i64), colour: [u8; 3]) {
    let (w, h) = (i64::from(image.width()), i64::from(image.height()));
    for y in top.clamp(0, h)..(top + height).clamp(0, h) {
        for x in left.clamp(0, w)..(left + width).clamp(0, w) {
            image.put_pixel(x as u32, y as u32, Rgb(colour));
        }
    }
}

fn outline(image: &mut RgbImage, [l, t, r, b]: [f32; 4], thick: u32, colour: [u8; 3]) {
    let [l, t, r, b] = [l, t, r, b].map(|x| x.round() as i64);
    let thick = i64::from(thick);
    fill(image, (l, t), (r - l, thick), colour);
    fill(image, (l, b - thick), (r - l, thick), colour);
    fill(image, (l, t), (thick, b - t), colour);
    fill(image, (r - thick, t), (thick, b - t), colour);
}

/// Letters on a bar of the box's colour: over the box, or in it where there is no room.
fn label(image: &mut RgbImage, one: &Labelled, scale: u32, colour: [u8; 3]) {
    let scale = i64::from(scale);
    let side = i64::from(GLYPH) * scale;
    let letters: Vec<char> = one.label.chars().collect();
    let (width, height) = (side * letters.len() as i64 + 4 * scale, side + 4 * scale);
    let top = one.xyxy[1].round() as i64;
    let top = if top >= height { top - height } else { top.max(0) };
    let left = (one.xyxy[0].round() as i64).min(i64::from(image.width()) - width).max(0);
    fill(image, (left, top), (width, height), colour);
    for (i, letter) in letters.into_iter().enumerate() {
        // What the font lacks stands as a box.
        let glyph = font8x8::BASIC_FONTS.get(letter).or_else(|| font8x8::LATIN_FONTS.get(letter)).unwrap_or([0xff; 8]);
        for (row, bits) in (0..).zip(glyph) {
            for column in (0..8).filter(|column| bits >> column & 1 == 1) {
                let x = left + 2 * scale + side * i as i64 + column * scale;
                fill(image, (x, top + 2 * scale + row * scale), (scale, scale), [0, 0, 0]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(xyxy: [f32; 4], label: &str) -> RgbImage {
        let one = Labelled { xyxy, label: label.to_owned(), class: 1 };
        let file = draw(&[10; 60 * 40 * 3], 60, 40, &[one], true).unwrap();
        image::load_from_memory(&file).unwrap().to_rgb8()
    }

    #[test]
    fn boxes_have_their_colour_and_labels_their_letters() {
        let image = drawn([5.0, 20.0, 40.0, 38.0], "i");
        assert_eq!(image.get_pixel(5, 30).0, COLOURS[1]);
        assert_eq!(image.get_pixel(20, 30).0, [10; 3], "what is in the box stays");
        let black = image.enumerate_pixels().filter(|(_, _, p)| p.0 == [0; 3]).count();
        assert!((8..40).contains(&black), "{black} pixels of a letter");
    }

    #[test]
    fn boxes_at_the_edge_and_outside_do_no_harm() {
        for xyxy in [[-20.0, -20.0, 500.0, 500.0], [59.0, 39.0, 60.0, 40.0], [70.0, 70.0, 90.0, 90.0], [f32::NAN; 4]] {
            let image = drawn(xyxy, "a label that is longer than the picture is wide, ü and 猫");
            assert_eq!((image.width(), image.height()), (60, 40));
        }
        assert!(draw(&[0; 5], 60, 40, &[], false).is_err());
    }
}
