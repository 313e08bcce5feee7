//! The markers of a JPEG file, and what its scans would cost.

use super::decode::DecodeOptions;
use super::error::ImageError;

/// Passes over an image of [`DecodeOptions::max_pixels`] that a file may cost. Progressive files of common encoders have about ten
/// scans; a crafted one has hundreds, each of few bytes and each a pass over all pixels.
const MAX_PASSES: u64 = 16;

/// The segments of a JPEG, as libjpeg finds them: bytes between them are skipped.
pub(super) struct Markers<'a> {
    rest: &'a [u8],
}

/// What the frame header states.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Frame {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) components: u64,
    /// Scans, or 1 where the decoder stops after the first.
    pub(super) scans: u64,
}

impl<'a> Markers<'a> {
    /// Start of scan.
    pub(super) const SOS: u8 = 0xda;

    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Markers { rest: bytes }
    }
}

impl<'a> Iterator for Markers<'a> {
    /// Marker and payload.
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let at = self.rest.iter().position(|&byte| byte == 0xff)?;
            let after = &self.rest[at + 1..];
            let (&marker, segment) = after.split_first()?;
            match marker {
                // A fill byte: the marker follows.
                0xff => self.rest = after,
                // Stuffed zeros in a scan, and markers without a segment.
                0x00 | 0x01 | 0xd0..=0xd8 => self.rest = segment,
                // The end of the image.
                0xd9 => {
                    self.rest = &[];
                    return None;
                }
                _ => {
                    let length = usize::from(u16::from_be_bytes(*segment.first_chunk()?));
                    let payload = segment.get(2..length)?;
                    self.rest = &segment[length..];
                    return Some((marker, payload));
                }
            }
        }
    }
}

impl Frame {
    pub(super) fn read(bytes: &[u8]) -> Self {
        let mut frame = Frame::default();
        let mut progressive = false;
        for (marker, payload) in Markers::new(bytes) {
            match (marker, payload) {
                (0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf, [_, h0, h1, w0, w1, components, ..]) => {
                    progressive = matches!(marker, 0xc2 | 0xc6 | 0xca | 0xce);
                    frame.height = u16::from_be_bytes([*h0, *h1]).into();
                    frame.width = u16::from_be_bytes([*w0, *w1]).into();
                    frame.components = u64::from(*components);
                }
                (Markers::SOS, [components, ..]) => {
                    frame.scans += 1;
                    if !progressive && u64::from(*components) == frame.components {
                        break;
                    }
                }
                _ => {}
            }
        }
        frame
    }
}

/// Refuses a file whose scans make too many passes over its pixels, before any is decoded.
pub(super) fn check_scans(bytes: &[u8], width: u32, height: u32, options: &DecodeOptions) -> Result<(), ImageError> {
    let scans = Frame::read(bytes).scans;
    let limit = options.max_pixels.saturating_mul(MAX_PASSES);
    match (u64::from(width) * u64::from(height)).saturating_mul(scans) > limit {
        true => Err(ImageError::TooManyScans { scans, width, height, limit }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(marker: u8, payload: &[u8]) -> Vec<u8> {
        [&[0xff, marker], &(payload.len() as u16 + 2).to_be_bytes()[..], payload].concat()
    }

    /// A frame of 40 × 30 pixels and three components.
    fn frame(marker: u8) -> Vec<u8> {
        segment(marker, &[8, 0, 30, 0, 40, 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1])
    }

    /// Bytes within a scan, among them a stuffed 0xff and a restart marker.
    const DATA: &[u8] = b"\x12\xff\x00\xda\xff\xd0\x34";

    fn scan(components: u8) -> Vec<u8> {
        [&segment(Markers::SOS, &[components, 1, 0, 0, 63, 0])[..], DATA].concat()
    }

    #[test]
    fn scans_are_counted_up_to_the_end_of_the_image() {
        let thumbnail = segment(0xe1, b"\xff\xd8\xff\xda\x00\x02\xff\xd9");
        let all =
            [b"\xff\xd8", &thumbnail[..], &frame(0xc2), &scan(3), b"\xff", &scan(1), &scan(1), b"\xff\xd9", &scan(1)].concat();
        assert_eq!(Frame::read(&all), Frame { width: 40, height: 30, components: 3, scans: 3 });
        let sequential = [b"\xff\xd8", &frame(0xc0)[..], &scan(3), &scan(3)].concat();
        assert_eq!(Frame::read(&sequential).scans, 1, "the decoder stops after it");
        let apart = [b"\xff\xd8", &frame(0xc0)[..], &scan(1), &scan(1), &scan(1)].concat();
        assert_eq!(Frame::read(&apart).scans, 3);
        for cut in 0..all.len() {
            assert!(Frame::read(&all[..cut]).scans <= 3);
        }
    }

    #[test]
    fn passes_over_all_pixels_are_bounded() {
        let file = |scans: usize| [b"\xff\xd8", &frame(0xc2)[..], &scan(3).repeat(scans)].concat();
        let options = DecodeOptions { max_pixels: 1200, ..DecodeOptions::default() };
        assert_eq!(check_scans(&file(16), 40, 30, &options), Ok(()));
        let error = check_scans(&file(17), 40, 30, &options).unwrap_err();
        assert_eq!(error, ImageError::TooManyScans { scans: 17, width: 40, height: 30, limit: 19200 });
        assert_eq!(check_scans(&file(400), 40, 30, &DecodeOptions::default()), Ok(()), "a small image costs little");
    }
}
