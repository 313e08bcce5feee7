//! Arrays and images as files.

use half::f16;

use super::SynthError;
use super::draw::Canvas;

/// A NumPy file of the array `[rows, columns]`.
pub(super) fn npy(values: &[f16], columns: usize) -> Vec<u8> {
    let rows = values.len() / columns.max(1);
    let header = format!("{{'descr': '<f2', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    // With the ten bytes before it and a line feed, the header ends at a multiple of 64.
    let length = (header.len() + 11).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(format!("{header:<width$}\n", width = length - 1).bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

/// The canvas as a JPEG file of quality 90.
pub(super) fn jpeg(canvas: &Canvas) -> Result<Vec<u8>, SynthError> {
    let side = canvas.side;
    let format = turbojpeg::PixelFormat::RGB;
    let image = turbojpeg::Image { pixels: canvas.pixels.as_slice(), width: side, pitch: 3 * side, height: side, format };
    turbojpeg::compress(image, 90, turbojpeg::Subsamp::Sub2x2)
        .map(|bytes| bytes.to_vec())
        .map_err(|error| SynthError::Compress { side, reason: error.to_string() })
}
