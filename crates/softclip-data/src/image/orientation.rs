//! Orientation: finding it in the metadata as Pillow's `ImageOps.exif_transpose` does, and turning decoded pixels.

pub(super) use image::metadata::Orientation;

use super::markers::Markers;

const APP1: u8 = 0xe1;
const EXIF: &[u8] = b"Exif\0\0";
const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
/// The Exif tag.
const ORIENTATION: u16 = 0x0112;

/// The orientation that a JPEG states in its Exif or XMP segment. Allocates nothing.
pub(super) fn of_jpeg(bytes: &[u8]) -> Orientation {
    let (mut exif, mut xmp) = (None, None);
    for (marker, segment) in Markers::new(bytes).take_while(|(marker, _)| *marker != Markers::SOS) {
        if marker != APP1 {
            continue;
        }
        if segment.starts_with(EXIF) {
            exif = exif.or(Some(segment));
        } else if let Some(packet) = segment.strip_prefix(XMP) {
            xmp = Some(packet);
        }
    }
    of_metadata(exif, xmp)
}

/// The orientation that metadata state. XMP counts only where Exif has no such tag.
pub(super) fn of_metadata(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Orientation {
    let stated = exif.and_then(exif_value).or_else(|| xmp.and_then(xmp_value));
    let value = stated.and_then(|value| u8::try_from(value).ok());
    value.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms)
}

/// The value of the orientation tag in the first directory of a TIFF structure; 0 for one that is not a single integer.
fn exif_value(exif: &[u8]) -> Option<u32> {
    let tiff = exif.strip_prefix(EXIF).unwrap_or(exif);
    let little = match tiff.get(..4)? {
        b"II\x2a\0" => true,
        b"MM\0\x2a" => false,
        _ => return None,
    };
    let u16_at = |at: usize| {
        let bytes = *tiff.get(at..)?.first_chunk()?;
        Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let u32_at = |at: usize| {
        let bytes = *tiff.get(at..)?.first_chunk()?;
        Some(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    };
    let directory = u32_at(4)? as usize;
    let entries = usize::from(u16_at(directory)?);
    // Tag, type, count, and the value where it fits into four bytes.
    let entry = (0..entries).map(|i| directory + 2 + 12 * i).find(|&at| u16_at(at) == Some(ORIENTATION))?;
    // Cameras write a SHORT, some programs a LONG or a BYTE.
    Some(match (u16_at(entry + 2)?, u32_at(entry + 4)?) {
        (1 | 6, 1) => u32::from(*tiff.get(entry + 8)?),
        (3 | 8, 1) => u32::from(u16_at(entry + 8)?),
        (4 | 9, 1) => u32_at(entry + 8)?,
        _ => 0,
    })
}

/// The digit after `tiff:Orientation`, an attribute or an element.
fn xmp_value(xmp: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"tiff:Orientation";
    let after = |at: usize| {
        let rest = xmp.get(at..)?.strip_prefix(NAME)?;
        let value = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?;
        char::from(*value.first()?).to_digit(10)
    };
    (0..xmp.len()).find_map(after)
}

/// Whether width and height change places.
pub(super) fn swaps_sides(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH)
}

/// Writes `from`, RGB of `width` × `height`, turned upright into `to`, which has the same length.
pub(super) fn turn(orientation: Orientation, from: &[u8], width: usize, height: usize, to: &mut [u8]) {
    use Orientation as O;
    let (out_width, out_height) = if swaps_sides(orientation) { (height, width) } else { (width, height) };
    // Where the output pixel (x, y) lies in the stored image: start + x·across + y·down.
    let (w, last_x, last_y) = (width as isize, width as isize - 1, height as isize - 1);
    let (start, across, down) = match orientation {
        O::NoTransforms => (0, 1, w),
        O::FlipHorizontal => (last_x, -1, w),
        O::Rotate180 => (last_y * w + last_x, -1, -w),
        O::FlipVertical => (last_y * w, 1, -w),
        O::Rotate90FlipH => (0, w, 1),
        O::Rotate90 => (last_y * w, -w, 1),
        O::Rotate270FlipH => (last_y * w + last_x, -w, -1),
        O::Rotate270 => (last_x, w, -1),
    };
    for (y, row) in to.chunks_exact_mut(out_width * 3).take(out_height).enumerate() {
        let mut at = start + y as isize * down;
        for pixel in row.chunks_exact_mut(3) {
            let i = at as usize * 3;
            pixel.copy_from_slice(&from[i..i + 3]);
            at += across;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_turn_as_the_image_crate_turns_them() {
        let (w, h) = (5, 3);
        let pixels: Vec<u8> = (0..w * h * 3).map(|i| i as u8).collect();
        for value in 1..=8 {
            let orientation = Orientation::from_exif(value).unwrap();
            let mut expected =
                image::DynamicImage::ImageRgb8(image::RgbImage::from_raw(w as u32, h as u32, pixels.clone()).unwrap());
            expected.apply_orientation(orientation);
            let mut found = vec![0; pixels.len()];
            turn(orientation, &pixels, w, h, &mut found);
            assert_eq!(found, expected.as_bytes(), "{orientation:?}");
            assert_eq!(expected.width() == w as u32, !swaps_sides(orientation));
        }
    }

    fn app1(payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u16 + 2).to_be_bytes();
        [&[0xff, APP1], &length[..], payload].concat()
    }

    /// An Exif segment whose only tag is an orientation of this type and count.
    fn exif(kind: u16, count: u32, value: [u8; 4]) -> Vec<u8> {
        let tag = [&b"\x01\x12"[..], &kind.to_be_bytes(), &count.to_be_bytes(), &value].concat();
        app1(&[b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01", &tag[..], b"\0\0\0\0"].concat())
    }

    fn xmp(text: &str) -> Vec<u8> {
        app1(&[XMP, text.as_bytes()].concat())
    }

    fn of(segments: &[Vec<u8>]) -> u8 {
        of_jpeg(&[b"\xff\xd8", &segments.concat()[..], b"\xff\xda"].concat()).to_exif()
    }

    #[test]
    fn odd_segments_are_no_orientation() {
        for bytes in
            [&b""[..], b"\xff\xd8", b"\xff\xd8\xff\xe1", b"\xff\xd8\xff\xe1\0\0Exif\0\0", b"\xff\xd8\xff\xe1\xff\xffExif\0\0MM"]
        {
            assert_eq!(of_jpeg(bytes), Orientation::NoTransforms);
        }
        let header = b"\xff\xd8\xff\xff\xe0\0\x04ab\xff\xe1\0\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0\0\0\0\0";
        assert_eq!(of_jpeg(header), Orientation::Rotate270);
    }

    #[test]
    fn exif_orientation_is_read_as_any_type_of_integer() {
        assert_eq!(of(&[exif(3, 1, [0, 6, 0, 0])]), 6, "SHORT");
        assert_eq!(of(&[exif(4, 1, [0, 0, 0, 6])]), 6, "LONG");
        assert_eq!(of(&[exif(9, 1, [0, 0, 0, 8])]), 8, "SLONG");
        assert_eq!(of(&[exif(1, 1, [5, 0, 0, 0])]), 5, "BYTE");
        for odd in [exif(3, 2, [0, 6, 0, 6]), exif(2, 2, *b"6\0\0\0"), exif(4, 1, [0, 1, 0, 6]), exif(3, 1, [0, 9, 0, 0])] {
            assert_eq!(of(&[odd]), 1);
        }
    }

    #[test]
    fn xmp_orientation_counts_where_exif_has_none() {
        let attribute = xmp(r#"<rdf:Description tiff:Orientation="6"/>"#);
        assert_eq!(of(std::slice::from_ref(&attribute)), 6);
        assert_eq!(of(&[xmp("<tiff:Orientation>8</tiff:Orientation>")]), 8);
        assert_eq!(of(&[xmp("tiff:Orientation tiff:Orientation=\"3\"")]), 3, "the first with a value");
        assert_eq!(of(&[attribute.clone(), exif(3, 1, [0, 3, 0, 0])]), 3, "Exif counts first");
        assert_eq!(of(&[attribute, exif(3, 1, [0, 0, 0, 0])]), 1, "also where it states nonsense");
        assert_eq!(of(&[xmp("tiff:Orientation=\"x\""), xmp("tiff:Orientation=\"9\"")]), 1);
    }
}
