//! The first frame of a GIF, as Pillow shows it.

use std::io::Cursor;

use gif::{ColorOutput, DecodeOptions as GifOptions, DecodingError};

use super::decode::{Buffer, DecodeOptions, Decoded};
use super::error::ImageError;
use super::orientation::{self, Orientation};
use super::pixels::Alpha;

/// Decodes the first frame into `pixels`. Around a frame that does not cover the canvas the image has the transparent color, or color 0
/// of the palette where there is none. A frame that reaches beyond the canvas makes it larger.
pub(super) fn decode(
    bytes: &[u8],
    options: &DecodeOptions,
    pixels: &mut Buffer,
    spare: &mut Buffer,
) -> Result<Decoded, ImageError> {
    let mut reader = GifOptions::new();
    reader.set_color_output(ColorOutput::Indexed);
    let mut reader = reader.read_info(Cursor::new(bytes)).map_err(error)?;
    let Some(frame) = reader.next_frame_info().map_err(error)? else { return Err(ImageError::Truncated) };
    let [left, top, across, down] = [frame.left, frame.top, frame.width, frame.height].map(u32::from);
    let transparent = frame.transparent;
    let (width, height) = (u32::from(reader.width()).max(left + across), u32::from(reader.height()).max(top + down));
    options.check_size(width, height)?;
    // A frame of no pixels leaves the canvas as it is filled.
    let indices = spare.take(across as usize * down as usize);
    if !indices.is_empty() {
        reader.read_into_buffer(indices).map_err(error)?;
    }
    let colors = colors(reader.palette().map_err(error)?, transparent, options.alpha);
    let rgb = pixels.take(width as usize * height as usize * 3);
    let around = colors[usize::from(transparent.unwrap_or(0))];
    rgb.chunks_exact_mut(3).for_each(|pixel| pixel.copy_from_slice(&around));
    let rows = rgb.chunks_exact_mut(width as usize * 3).skip(top as usize);
    for (row, from) in rows.zip(indices.chunks_exact(across.max(1) as usize)) {
        for (pixel, &index) in row[left as usize * 3..].chunks_exact_mut(3).zip(from) {
            pixel.copy_from_slice(&colors[usize::from(index)]);
        }
    }
    let orientation = match options.apply_exif {
        true => orientation::of_metadata(None, reader.xmp_metadata()),
        false => Orientation::NoTransforms,
    };
    Ok(Decoded { width, height, full_size: (width, height), scale: 1.0, orientation })
}

/// The color of each index; black for one that the palette lacks.
fn colors(palette: &[u8], transparent: Option<u8>, alpha: Alpha) -> [[u8; 3]; 256] {
    let mut colors = [[0; 3]; 256];
    for (color, rgb) in colors.iter_mut().zip(palette.as_chunks().0) {
        *color = *rgb;
    }
    if let Some(index) = transparent.map(usize::from) {
        colors[index] = alpha.apply(colors[index], 0);
    }
    colors
}

/// Width and height of the image that [`decode`] makes.
pub(super) fn size(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    let mut reader = GifOptions::new().read_info(Cursor::new(bytes)).map_err(error)?;
    let (width, height) = (u32::from(reader.width()), u32::from(reader.height()));
    let frame = reader.next_frame_info().map_err(error)?.ok_or(ImageError::Truncated)?;
    let end = |start: u16, length: u16| u32::from(start) + u32::from(length);
    Ok((width.max(end(frame.left, frame.width)), height.max(end(frame.top, frame.height))))
}

fn error(error: DecodingError) -> ImageError {
    match error {
        DecodingError::UnexpectedEof => ImageError::Truncated,
        DecodingError::Io(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => ImageError::Truncated,
        other => ImageError::Corrupt(other.to_string()),
    }
}
