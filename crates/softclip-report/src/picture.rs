//! Pictures inside the page.

use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{DynamicImage, ImageFormat, RgbImage};

use crate::html::escape;
use crate::{Error, Result};

/// An encoded picture with its alternative text. Its bytes go into the page as they are: make it small before (160 pixels do).
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    mime: &'static str,
    bytes: Vec<u8>,
    alt: String,
}

impl Picture {
    /// `bytes` of a JPEG, PNG or WebP file; `alt` says what can be seen, for those who cannot see it.
    ///
    /// # Errors
    /// The bytes start like none of the three.
    pub fn new(bytes: impl Into<Vec<u8>>, alt: impl Into<String>) -> Result<Self> {
        let (bytes, alt) = (bytes.into(), alt.into());
        let mime = match &bytes[..] {
            [0xff, 0xd8, 0xff, ..] => "image/jpeg",
            [0x89, b'P', b'N', b'G', ..] => "image/png",
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image/webp",
            _ => {
                let found = match bytes.len() {
                    0 => "it is empty".to_owned(),
                    n => format!("{n} bytes that start with {:02x?}", &bytes[..n.min(4)]),
                };
                return Err(Error::Picture { alt, found });
            }
        };
        Ok(Picture { mime, bytes, alt })
    }

    /// RGB `pixels` `[height, width, 3]` as a JPEG whose longer side has at most `side` pixels.
    ///
    /// # Errors
    /// The pixels are not `width` × `height`, or there are none.
    pub fn from_rgb(pixels: &[u8], width: u32, height: u32, side: u32, alt: impl Into<String>) -> Result<Self> {
        let failed = |why: String| Error::Drawing(why);
        let image = RgbImage::from_raw(width, height, pixels.to_vec()).filter(|image| !image.is_empty());
        let image = image.ok_or_else(|| failed(format!("{} bytes are no picture of {width} x {height}", pixels.len())))?;
        let image = DynamicImage::ImageRgb8(image);
        let image = if width.max(height) > side { image.thumbnail(side, side) } else { image };
        let mut file = Cursor::new(Vec::new());
        image.write_to(&mut file, ImageFormat::Jpeg).map_err(|e| failed(e.to_string()))?;
        Picture::new(file.into_inner(), alt)
    }

    pub(crate) fn render(&self, out: &mut String) {
        self.with("", out);
    }

    /// Its text also shows where the pointer rests on it.
    pub(crate) fn render_titled(&self, out: &mut String) {
        self.with(&format!("title=\"{}\" ", escape(&self.alt)), out);
    }

    fn with(&self, attribute: &str, out: &mut String) {
        out.push_str("<img loading=\"lazy\" ");
        out.push_str(attribute);
        out.push_str("alt=\"");
        out.push_str(&escape(&self.alt));
        out.push_str("\" src=\"data:");
        out.push_str(self.mime);
        out.push_str(";base64,");
        STANDARD.encode_string(&self.bytes, out);
        out.push_str("\">");
    }
}

/// RGB `pixels` `[height, width, 3]` as a PNG or JPEG file.
///
/// # Errors
/// The pixels are not `width` × `height`, or the format cannot be written.
pub fn encode(pixels: &[u8], width: u32, height: u32, png: bool) -> Result<Vec<u8>> {
    let image = RgbImage::from_raw(width, height, pixels.to_vec());
    let image = image.ok_or_else(|| Error::Drawing(format!("{} bytes are no picture of {width} x {height}", pixels.len())))?;
    let mut file = Cursor::new(Vec::new());
    let format = if png { ImageFormat::Png } else { ImageFormat::Jpeg };
    image.write_to(&mut file, format).map_err(|e| Error::Drawing(e.to_string()))?;
    Ok(file.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_carries_its_bytes_and_its_text() {
        let mut out = String::new();
        Picture::new([0xff, 0xd8, 0xff, 0xe0], "a \"red\" ball").unwrap().render(&mut out);
        assert_eq!(out, r#"<img loading="lazy" alt="a &quot;red&quot; ball" src="data:image/jpeg;base64,/9j/4A==">"#);
    }

    #[test]
    fn pixels_become_a_small_picture() {
        let picture = Picture::from_rgb(&[200; 64 * 32 * 3], 64, 32, 16, "grey").unwrap();
        let image = image::load_from_memory(&picture.bytes).unwrap().to_rgb8();
        assert_eq!(image.dimensions(), (16, 8));
        assert!(image.pixels().all(|p| p.0.iter().all(|c| c.abs_diff(200) < 4)));
        assert!(Picture::from_rgb(&[0; 5], 64, 32, 16, "").is_err() && Picture::from_rgb(&[], 0, 0, 16, "").is_err());
    }

    #[test]
    fn bytes_that_no_browser_shows_are_refused_by_name() {
        for bytes in [&b""[..], b"<svg onload=x>", b"GIF89a"] {
            let message = Picture::new(bytes, "cat 7").unwrap_err().to_string();
            assert!(message.contains("cat 7"), "{message}");
        }
    }
}
