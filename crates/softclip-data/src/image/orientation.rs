//! Exif orientation: finding it in a JPEG and turning decoded pixels.

pub(super) use image::metadata::Orientation;

/// The orientation that a JPEG's Exif segment states. Allocates nothing.
pub(super) fn of_jpeg(bytes: &[u8]) -> Orientation {
    exif_segment(bytes).and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms)
}

/// The TIFF structure inside the first APP1 segment that begins with "Exif".
fn exif_segment(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.strip_prefix(&[0xff, 0xd8])?;
    loop {
        let (&[ff, marker, high, low], _) = rest.split_first_chunk::<4>()?;
        match marker {
            _ if ff != 0xff => return None,
            0xff => rest = &rest[1..],  // fill byte
            0xd9 | 0xda => return None, // image data begin: Exif comes before them
            _ => {
                let segment = rest.get(4..2 + usize::from(u16::from_be_bytes([high, low])))?;
                match segment.strip_prefix(b"Exif\0\0") {
                    Some(tiff) if marker == 0xe1 => return Some(tiff),
                    _ => rest = &rest[4 + segment.len()..],
                }
            }
        }
    }
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
}
