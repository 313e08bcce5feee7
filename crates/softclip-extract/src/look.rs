//! A look at single images.

use softclip_data::image::{DecodeOptions, Decoder};
use softclip_detector::{Detection, Letterboxer, Network, Thresholds};
use tch::Tensor;

use crate::error::{Error, Result};

/// An image and what was detected in it.
#[derive(Clone, Debug)]
pub struct Looked {
    /// RGB `[height, width, 3]`, upright.
    pub pixels: Vec<u8>,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The most confident first, in pixels of the image.
    pub detections: Vec<Detection>,
}

/// Detects in one encoded image.
///
/// # Errors
/// The image cannot be decoded; the network fails.
pub fn look(image: &[u8], network: &Network, thresholds: &Thresholds, decode: DecodeOptions) -> Result<Looked> {
    let letterbox = network.letterbox();
    let mut decoder = Decoder::new(decode)?;
    let rgb = decoder.decode(image)?;
    let (width, height) = rgb.full_size;
    let placed = letterbox.place((width, height));
    let input = Letterboxer::default().draw(rgb.pixels, rgb.width, rgb.height, &placed, letterbox.fill)?;
    let (w, h) = placed.input;
    let input = Tensor::from_slice(&input).f_view([1, i64::from(h), i64::from(w), 3]).map_err(softclip_torch::Error::from)?;
    let found = network.detect(&input, thresholds)?.pop().unwrap_or_default();
    let detections = placed.detections(found);
    match rgb.pixels.len() == width as usize * height as usize * 3 {
        true => Ok(Looked { pixels: rgb.pixels.to_vec(), width, height, detections }),
        false => Err(Error::Options("the image was not decoded at its full size".to_owned())),
    }
}
