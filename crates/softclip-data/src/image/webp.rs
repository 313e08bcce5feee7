//! What the headers of a WebP file state.

use super::error::ImageError;

/// What the headers of a file state.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Header {
    /// Width and height of the largest image, by pixels: the canvas, or one of the images in it, which the decoder allocates before it
    /// compares them with the canvas.
    pub(super) largest: (u32, u32),
    pub(super) animated: bool,
}

impl Header {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, ImageError> {
        let mut header = Header::default();
        header.visit(bytes.get(12..).ok_or(ImageError::Truncated)?, false);
        Ok(header)
    }

    fn see(&mut self, width: u32, height: u32) {
        let area = |(width, height): (u32, u32)| u64::from(width) * u64::from(height);
        if area((width, height)) > area(self.largest) {
            self.largest = (width, height);
        }
    }

    /// Visits the chunks of a file, or of one animated frame.
    fn visit(&mut self, mut chunks: &[u8], in_frame: bool) {
        while let Some((name, rest)) = chunks.split_first_chunk::<4>() {
            let Some((length, rest)) = rest.split_first_chunk::<4>() else { return };
            let length = u32::from_le_bytes(*length) as usize;
            // The last chunk of a file that is cut still states its size.
            let data = &rest[..length.min(rest.len())];
            match name {
                b"VP8X" => {
                    if let (Some(width), Some(height)) = (u24(data, 4), u24(data, 7)) {
                        self.see(width + 1, height + 1);
                    }
                }
                b"VP8 " => {
                    if let Some(&[a, b, c, d]) = data.get(6..).and_then(|s| s.first_chunk()) {
                        let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
                        self.see(side(a, b), side(c, d));
                    }
                }
                b"VP8L" => {
                    if let Some(&bits) = data.get(1..).and_then(|s| s.first_chunk()) {
                        let bits = u32::from_le_bytes(bits);
                        self.see((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1);
                    }
                }
                b"ANMF" if !in_frame => {
                    self.animated = true;
                    if let (Some(width), Some(height)) = (u24(data, 6), u24(data, 9)) {
                        self.see(width + 1, height + 1);
                    }
                    // A frame's own chunks follow its header.
                    self.visit(data.get(16..).unwrap_or_default(), true);
                }
                _ => {}
            }
            // Chunks begin at even places.
            chunks = rest.get(length.next_multiple_of(2)..).unwrap_or_default();
        }
    }
}

fn u24(data: &[u8], at: usize) -> Option<u32> {
    let &[a, b, c] = data.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes([a, b, c, 0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let padding: &[u8] = if data.len() % 2 == 1 { &[0] } else { &[] };
        [name, &(data.len() as u32).to_le_bytes()[..], data, padding].concat()
    }

    fn riff(chunks: &[Vec<u8>]) -> Vec<u8> {
        let body = chunks.concat();
        [b"RIFF", &(body.len() as u32 + 4).to_le_bytes()[..], b"WEBP", &body].concat()
    }

    fn largest(chunks: &[Vec<u8>]) -> (u32, u32) {
        Header::read(&riff(chunks)).unwrap().largest
    }

    #[test]
    fn frames_within_frames_are_not_followed() {
        let deep = b"ANMF\xff\xff\xff\x7f\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".repeat(200_000);
        assert_eq!(largest(&[deep]), (1, 1));
    }

    #[test]
    fn the_largest_image_in_the_file_is_found() {
        let canvas = chunk(b"VP8X", &[0, 0, 0, 0, 9, 0, 0, 9, 0, 0]);
        let lossy = chunk(b"VP8 ", &[0, 0, 0, 0x9d, 1, 0x2a, 0xff, 0x3f, 0xff, 0x7f, 1]);
        let lossless = chunk(b"VP8L", &[0x2f, 19 | 0x40, 0x02, 0, 0]);
        assert_eq!(largest(std::slice::from_ref(&canvas)), (10, 10));
        assert_eq!(largest(&[canvas.clone(), chunk(b"ALPH", b"abc"), lossy.clone()]), (16383, 16383));
        assert_eq!(largest(&[lossless]), (596, 1));
        let frame = [&[0; 6][..], &[4, 0, 0, 4, 0, 0, 0, 0, 0, 0], &lossy].concat();
        let animated = riff(&[canvas, chunk(b"ANMF", &frame)]);
        assert_eq!(Header::read(&animated), Ok(Header { largest: (16383, 16383), animated: true }));
        for cut in 0..animated.len() {
            let _ = Header::read(&animated[..cut]);
        }
    }
}
