//! What is no image, or not a whole one, is an error of its kind: never a panic, never a batch of garbage.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use proptest::prelude::*;
use softclip_data::image::{Alpha, Augment, DecodeOptions, Decoder, ImageError, Transform};
use softclip_data::rng::RngKey;

fn golden(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/images");
    std::fs::read(Path::new(folder).join(name)).unwrap()
}

fn run(options: DecodeOptions, bytes: &[u8]) -> Result<Vec<u8>, ImageError> {
    let transform = Transform::eval(32);
    let mut out = vec![0; transform.output_len()];
    transform.apply(bytes, RngKey::new(0, 0, 0), &mut Decoder::new(options).unwrap(), &mut out)?;
    Ok(out)
}

fn error(bytes: &[u8]) -> ImageError {
    run(DecodeOptions::default(), bytes).unwrap_err()
}

fn encoded(pixels: image::RgbImage, format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    pixels.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Stripes, so that nothing compresses to nothing.
fn striped(width: u32, height: u32) -> image::RgbImage {
    image::RgbImage::from_fn(width, height, |x, y| image::Rgb([(x * 37) as u8, (y * 11) as u8, (x ^ y) as u8]))
}

/// A PNG that ends after a header of this size.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut png = golden("rgb.png");
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    png.truncate(33);
    png
}

/// A whole JPEG whose header states this size.
fn jpeg_that_claims(width: u16, height: u16) -> Vec<u8> {
    let mut jpeg = golden("landscape_420.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    jpeg[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    jpeg
}

#[test]
fn no_bytes_are_an_empty_file() {
    assert_eq!(error(b""), ImageError::Empty);
}

#[test]
fn text_and_noise_are_of_no_known_format_and_the_message_shows_their_beginning() {
    let page = error(b"<!DOCTYPE html><html><body>404</body></html>");
    assert_eq!(page, ImageError::UnknownFormat { head: "<!DOCTYPE ht".into() });
    assert!(page.to_string().contains("<!DOCTYPE ht"));
    assert_eq!(error(&[0; 1000]).cause(), "unknown_format");
    assert_eq!(error(&[0x93, 0x17, 0xff]), ImageError::UnknownFormat { head: "\\x93\\x17\\xff".into() });
}

#[test]
fn a_known_format_that_is_not_decoded_is_named() {
    assert!(error(b"II*\0\x08\0\0\0").to_string().contains("Tiff"));
}

#[test]
fn a_header_of_too_many_pixels_is_refused_before_anything_is_allocated() {
    let too_large = |width, height| ImageError::TooLarge { width, height, limit: 89_478_485 };
    assert_eq!(error(&png_header(60_000, 60_000)), too_large(60_000, 60_000));
    assert_eq!(error(&png_header(u32::MAX, u32::MAX)), too_large(u32::MAX, u32::MAX));
    assert_eq!(error(&jpeg_that_claims(65_500, 65_500)), too_large(65_500, 65_500));
    let strict = DecodeOptions { max_pixels: 300 * 200 - 1, ..DecodeOptions::default() };
    assert_eq!(
        run(strict, &golden("landscape_420.jpg")).unwrap_err(),
        ImageError::TooLarge { width: 300, height: 200, limit: 59_999 }
    );
    assert!(run(DecodeOptions { max_pixels: 300 * 200, ..strict }, &golden("landscape_420.jpg")).is_ok());
    for name in ["rgb.png", "lossless.webp"] {
        assert_eq!(run(DecodeOptions { max_pixels: 100, ..strict }, &golden(name)).unwrap_err().cause(), "too_large", "{name}");
    }
}

#[test]
fn a_size_of_nothing_is_corrupt() {
    assert_eq!(error(&png_header(0, 5)).cause(), "corrupt");
    assert_eq!(error(&jpeg_that_claims(0, 5)).cause(), "corrupt");
}

#[test]
fn a_file_that_is_cut_is_truncated() {
    for name in
        ["landscape_420.jpg", "odd_422_progressive.jpg", "gray.jpg", "cmyk.jpg", "rgb.png", "palette.png", "lossless.webp"]
    {
        let bytes = golden(name);
        for share in [0.3, 0.6, 0.9] {
            let cut = &bytes[..(bytes.len() as f64 * share) as usize];
            assert_eq!(error(cut), ImageError::Truncated, "{name}, {share} of it");
        }
    }
}

#[test]
fn a_jpeg_cut_anywhere_in_its_data_is_truncated() {
    let bytes = golden("tiny_40x30.jpg");
    let data = bytes.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap() + 14;
    for end in (data..bytes.len() - 4).step_by(7) {
        assert_eq!(error(&bytes[..end]), ImageError::Truncated, "{end} of {}", bytes.len());
    }
}

#[test]
fn a_cut_jpeg_can_be_allowed_and_its_rest_is_grey() {
    let bytes = golden("landscape_420.jpg");
    let allowing = DecodeOptions { allow_truncated: true, ..DecodeOptions::default() };
    let part = run(allowing, &bytes[..bytes.len() / 2]).unwrap();
    let whole = run(allowing, &bytes).unwrap();
    assert_eq!(whole, run(DecodeOptions::default(), &bytes).unwrap());
    // The first rows of the red plane are there, the last ones are of one colour.
    let difference = |rows: std::ops::Range<usize>| rows.map(|i| part[i].abs_diff(whole[i])).max().unwrap();
    assert!(difference(0..6 * 32) <= 1, "{}", difference(0..6 * 32));
    assert!(part[31 * 32..32 * 32].iter().all(|x| x.abs_diff(128) < 24), "{:?}", &part[31 * 32..32 * 32]);
}

#[test]
fn bytes_after_the_image_do_no_harm() {
    for name in ["landscape_420.jpg", "rgb.png"] {
        let mut bytes = golden(name);
        let whole = run(DecodeOptions::default(), &bytes).unwrap();
        bytes.extend_from_slice(&[0; 100]);
        assert_eq!(run(DecodeOptions::default(), &bytes).unwrap(), whole, "{name}");
    }
}

#[test]
fn a_jpeg_with_a_harmless_fault_is_used() {
    let whole = golden("landscape_420.jpg");
    // A JFIF version that does not exist: the first decoder refuses the header, the other takes it.
    let mut version = whole.clone();
    let jfif = version.windows(5).position(|part| part == b"JFIF\0").unwrap();
    version[jfif + 5] = 9;
    let (found, expected) = (run(DecodeOptions::default(), &version).unwrap(), run(DecodeOptions::default(), &whole).unwrap());
    let most = found.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(most <= 6, "{most}");
    // Bytes between two segments.
    let mut stray = whole.clone();
    stray.splice(2..2, [0x11, 0x22, 0x33]);
    assert_eq!(run(DecodeOptions::default(), &stray).map(|found| found.len()), Ok(expected.len()));
}

#[test]
fn the_most_extreme_shapes_are_images() {
    for (width, height) in [(1, 5000), (5000, 1), (1, 1), (2, 3), (1, 65_000), (3000, 2)] {
        for format in [image::ImageFormat::Png, image::ImageFormat::Jpeg] {
            let bytes = encoded(striped(width, height), format);
            for transform in
                [Transform::eval(32), Transform::train(32, Augment { flip: 0.5, scale: [0.05, 1.0], ..Augment::default() })]
            {
                let mut decoder = Decoder::new(DecodeOptions::default()).unwrap();
                let mut out = vec![0; transform.output_len()];
                for index in 0..4 {
                    let result = transform.apply(&bytes, RngKey::new(0, 0, index), &mut decoder, &mut out);
                    assert_eq!(result, Ok(()), "{width} x {height} {format:?}");
                }
            }
        }
    }
}

#[test]
fn an_image_of_one_colour_stays_so_in_every_format_and_at_every_scale() {
    use image::ImageFormat::{Bmp, Gif, Jpeg, Png, WebP};
    for format in [Jpeg, Png, WebP, Gif, Bmp] {
        for (width, height) in [(40, 30), (300, 200), (1000, 1200), (33, 900)] {
            let bytes = encoded(image::RgbImage::from_pixel(width, height, image::Rgb([200, 100, 50])), format);
            let out = run(DecodeOptions::default(), &bytes).unwrap();
            for (channel, colour) in [200u8, 100, 50].into_iter().enumerate() {
                let plane = &out[channel * 1024..(channel + 1) * 1024];
                assert!(plane.iter().all(|x| x.abs_diff(colour) <= 2), "{format:?} {width} x {height}: {plane:?}");
            }
        }
    }
}

#[test]
fn sixteen_bits_and_alpha_become_eight_without_it() {
    let deep = image::ImageBuffer::from_fn(20, 20, |x, _| image::Rgba([x as u16 * 257 * 10, 0x80ff, 0xff00, x as u16]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::DynamicImage::ImageRgba16(deep).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    let mut decoder = Decoder::new(DecodeOptions::default()).unwrap();
    let image = decoder.decode(bytes.get_ref()).unwrap();
    assert_eq!((image.width, image.height), (20, 20));
    for (x, pixel) in image.pixels.chunks_exact(3).take(20).enumerate() {
        assert_eq!(pixel, [x as u8 * 10, 0x80, 0xff]);
    }
}

#[test]
fn exif_orientation_is_applied_unless_switched_off() {
    let bytes = golden("exif_orientation6.jpg");
    let mut upright = Decoder::new(DecodeOptions::default()).unwrap();
    let mut stored = Decoder::new(DecodeOptions { apply_exif: false, ..DecodeOptions::default() }).unwrap();
    let (upright, stored) = (upright.decode(&bytes).unwrap(), stored.decode(&bytes).unwrap());
    assert_eq!((upright.width, upright.height, upright.full_size), (80, 120, (80, 120)));
    assert_eq!((stored.width, stored.height), (120, 80));
    // 6: the first row of the picture is the last column from the right, read downwards: turned clockwise.
    for y in 0..80usize {
        assert_eq!(upright.pixels[(79 - y) * 3..][..3], stored.pixels[y * 120 * 3..][..3]);
    }
}

#[test]
fn transparency_is_dropped_or_composed_on_white_in_every_format_that_has_it() {
    let pixel = |x: u32, _| image::Rgba([10, 100, 250, [0, 77, 255][x as usize % 3]]);
    let rgba = image::DynamicImage::ImageRgba8(image::RgbaImage::from_fn(3, 2, pixel));
    for format in [image::ImageFormat::Png, image::ImageFormat::WebP] {
        let mut bytes = std::io::Cursor::new(Vec::new());
        rgba.write_to(&mut bytes, format).unwrap();
        let decoded = |alpha| {
            let mut decoder = Decoder::new(DecodeOptions { alpha, ..DecodeOptions::default() }).unwrap();
            decoder.decode(bytes.get_ref()).unwrap().pixels[..9].to_vec()
        };
        assert_eq!(decoded(Alpha::Drop), [10, 100, 250].repeat(3), "{format:?}");
        assert_eq!(decoded(Alpha::White), [255, 255, 255, 181, 208, 253, 10, 100, 250], "{format:?}");
    }
}

/// A GIF of 4 × 3 pixels whose palette is red, green, blue, white; its frame of 2 × 1 blue pixels begins at (1, 2).
fn gif_with_offset(transparent: Option<u8>) -> Vec<u8> {
    let mut bytes = b"GIF89a\x04\0\x03\0\x81\0\0".to_vec();
    bytes.extend([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255; 3]].concat());
    if let Some(index) = transparent {
        bytes.extend([0x21, 0xf9, 4, 1, 0, 0, index, 0]);
    }
    bytes.extend(b",\x01\0\x02\0\x02\0\x01\0\0");
    // Codes of three bits: clear, 2, 2, end.
    bytes.extend([2, 2, 0b1001_0100, 0b0000_1010, 0, 0x3b]);
    bytes
}

#[test]
fn around_its_frame_a_gif_has_the_color_that_pillow_shows() {
    let decoded = |bytes: &[u8], alpha| {
        let mut decoder = Decoder::new(DecodeOptions { alpha, ..DecodeOptions::default() }).unwrap();
        let image = decoder.decode(bytes).unwrap();
        assert_eq!((image.width, image.height), (4, 3));
        let pixel = |x: usize, y: usize| image.pixels[3 * (4 * y + x)..][..3].to_vec();
        (pixel(0, 0), pixel(1, 2), pixel(3, 2))
    };
    let (red, green, blue, white) = (vec![255, 0, 0], vec![0, 255, 0], vec![0, 0, 255], vec![255; 3]);
    assert_eq!(decoded(&gif_with_offset(None), Alpha::Drop), (red.clone(), blue.clone(), red.clone()));
    assert_eq!(decoded(&gif_with_offset(None), Alpha::White), (red.clone(), blue.clone(), red));
    assert_eq!(decoded(&gif_with_offset(Some(1)), Alpha::Drop), (green.clone(), blue.clone(), green));
    assert_eq!(decoded(&gif_with_offset(Some(1)), Alpha::White), (white.clone(), blue, white));
    let mut beyond = gif_with_offset(None);
    beyond[6..10].copy_from_slice(&[1, 0, 1, 0]);
    let mut decoder = Decoder::new(DecodeOptions::default()).unwrap();
    assert_eq!(decoder.decode(&beyond).unwrap().full_size, (3, 3), "the canvas grows with the frame");
}

#[test]
fn an_orientation_in_xmp_alone_turns_jpeg_and_png() {
    let packet = r#"<rdf:Description tiff:Orientation="6"/>"#;
    let mut jpeg = golden("landscape_420.jpg");
    let segment = [b"http://ns.adobe.com/xap/1.0/\0", packet.as_bytes()].concat();
    let length = (segment.len() as u16 + 2).to_be_bytes();
    jpeg.splice(2..2, [&[0xff, 0xe1], &length[..], &segment].concat());
    let mut png = golden("rgb.png");
    let text = [b"XML:com.adobe.xmp\0\0\0\0\0", packet.as_bytes()].concat();
    let mut crc = flate2::Crc::new();
    crc.update(&[b"iTXt", &text[..]].concat());
    png.splice(33..33, [&(text.len() as u32).to_be_bytes(), b"iTXt", &text[..], &crc.sum().to_be_bytes()].concat());
    for (file, bytes) in [("landscape_420.jpg", jpeg), ("rgb.png", png)] {
        let size = |bytes: &[u8], apply_exif| {
            let mut decoder = Decoder::new(DecodeOptions { apply_exif, ..DecodeOptions::default() }).unwrap();
            decoder.decode(bytes).unwrap().full_size
        };
        let (width, height) = size(&golden(file), true);
        assert_ne!(width, height);
        assert_eq!((size(&bytes, true), size(&bytes, false)), ((height, width), (width, height)), "{file}");
    }
}

#[test]
fn many_scans_are_refused_before_they_are_decoded() {
    let mut jpeg = golden("odd_422_progressive.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc2]).unwrap();
    // The last scan again and again, in an image that claims to be large.
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0x1f, 0x40, 0x1f, 0x40]);
    let last = jpeg.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap();
    let scan = jpeg[last..jpeg.len() - 2].to_vec();
    jpeg.truncate(last);
    (0..490).for_each(|_| jpeg.extend_from_slice(&scan));
    jpeg.extend([0xff, 0xd9]);
    let start = std::time::Instant::now();
    let refused = error(&jpeg);
    assert!(matches!(refused, ImageError::TooManyScans { width: 8000, height: 8000, .. }), "{refused}");
    assert!(refused.to_string().contains("--max-pixels") && start.elapsed().as_secs() < 5);
}

#[test]
fn a_webp_whose_image_is_larger_than_its_canvas_is_refused_before_it_is_allocated() {
    let mut webp = golden("lossless.webp");
    let canvas = [b"VP8X", &10u32.to_le_bytes()[..], &[0, 0, 0, 0, 9, 0, 0, 9, 0, 0]].concat();
    let lossy = [b"VP8 ", &10u32.to_le_bytes()[..], &[0, 0, 0, 0x9d, 1, 0x2a, 0xff, 0x3f, 0xff, 0x3f]].concat();
    webp.truncate(12);
    webp.extend([canvas, lossy].concat());
    assert_eq!(error(&webp), ImageError::TooLarge { width: 16383, height: 16383, limit: 89_478_485 });
}

#[test]
fn a_decoder_goes_on_after_every_error() {
    let good = golden("landscape_420.jpg");
    let expected = run(DecodeOptions::default(), &good).unwrap();
    let transform = Transform::eval(32);
    let mut decoder = Decoder::new(DecodeOptions::default()).unwrap();
    let mut out = vec![0; transform.output_len()];
    for bad in [&good[..good.len() / 2], &good[..20], b"", b"text", &jpeg_that_claims(65_500, 65_500), &golden("rgb.png")[..500]]
    {
        out.fill(7);
        assert!(transform.apply(bad, RngKey::new(0, 0, 0), &mut decoder, &mut out).is_err());
        assert!(out.iter().all(|&x| x == 7), "an error leaves the slot as it was");
        transform.apply(&good, RngKey::new(0, 0, 0), &mut decoder, &mut out).unwrap();
        assert_eq!(out, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_change_to_a_file_makes_the_decoder_panic(
        file in 0usize..8,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        near_the_start in any::<bool>(),
        keep in prop::option::of(any::<prop::sample::Index>()),
        allow_truncated in any::<bool>(),
        index in any::<u64>(),
    ) {
        let names = ["odd_422_progressive.jpg", "cmyk.jpg", "exif_orientation6.jpg", "tiny_40x30.jpg", "gray_alpha.png", "palette.png",
            "lossless.webp", "gif"];
        let mut bytes = if names[file] == "gif" { encoded(striped(30, 20), image::ImageFormat::Gif) } else { golden(names[file]) };
        let reach = if near_the_start { bytes.len().min(700) } else { bytes.len() };
        for (at, value) in changes {
            let at = at.index(reach);
            bytes[at] = value;
        }
        if let Some(keep) = keep {
            bytes.truncate(keep.index(bytes.len() + 1));
        }
        // Small, so that headers with changed sizes do not make the test slow.
        let options = DecodeOptions { max_pixels: 1 << 20, allow_truncated, ..DecodeOptions::default() };
        let mut decoder = Decoder::new(options).unwrap();
        let transform = Transform::train(16, Augment { flip: 0.5, ..Augment::default() });
        let mut out = vec![0; transform.output_len()];
        // An image or an error: what matters is that it returns.
        let result = transform.apply(&bytes, RngKey::new(0, 0, index), &mut decoder, &mut out);
        prop_assert!(result.is_ok() || !result.unwrap_err().to_string().is_empty());
    }

    #[test]
    fn no_text_makes_the_tokenizer_panic(text in any::<String>(), raw in prop::collection::vec(any::<u8>(), 0..80)) {
        let tokenizer = softclip_data::tokenizer::Tokenizer::clip().unwrap();
        // Bytes read as Latin-1 look like mojibake, which is where repairing begins.
        for text in [text, raw.iter().map(|&b| char::from(b)).collect()] {
            let ids = tokenizer.encode(&text, 77);
            prop_assert!(ids.len() >= 2 && ids.len() <= 77);
            prop_assert_eq!((ids[0], ids[ids.len() - 1]), (tokenizer.start_token(), tokenizer.end_token()));
        }
    }
}
