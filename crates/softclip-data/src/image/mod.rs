//! Images: decoding, cropping, resizing, augmentation.
//!
//! JPEG is decoded by libjpeg-turbo, at the nearest scale in the DCT that is not below the result; PNG, WebP, GIF (the first
//! frame) and BMP by the `image` crate. Everything becomes 8-bit RGB as Pillow's `convert("RGB")` makes it, or is composed on white
//! ([`Alpha`]), and is resized by Pillow's bicubic, or bilinear where [`Augment::interpolation`] says so.
//!
//! ```
//! use softclip_data::image::{Augment, DecodeOptions, Decoder, Transform};
//! use softclip_data::rng::RngKey;
//!
//! # fn main() -> Result<(), softclip_data::image::ImageError> {
//! # let mut file = Vec::new();
//! # let encoder = image::codecs::png::PngEncoder::new(&mut file);
//! # image::ImageEncoder::write_image(encoder, &[200; 40 * 30 * 3], 40, 30, image::ExtendedColorType::Rgb8).unwrap();
//! let mut decoder = Decoder::new(DecodeOptions::default())?; // one a thread
//! let transform = Transform::train(224, Augment::default());
//! let mut slot = vec![0; transform.output_len()]; // [3, 224, 224]
//! transform.apply(&file, RngKey::new(0, 0, 17), &mut decoder, &mut slot)?;
//! # assert!(slot.iter().all(|&x| x == 200));
//! # Ok(())
//! # }
//! ```

mod augment;
mod decode;
mod error;
mod gif;
mod jpeg;
mod markers;
mod memory;
mod orientation;
mod pixels;
mod resize;
mod transform;
mod views;
mod webp;

pub use augment::{Augment, AugmentError};
pub use decode::{DecodeOptions, Rgb};
pub use error::ImageError;
pub use pixels::Alpha;
pub use resize::{Interpolation, Region};
pub use transform::{Decoder, Transform};
pub use views::Views;

/// Whether the first bytes of a file (16 are enough) are those of an image, also of a format that is not decoded.
pub fn is_image(bytes: &[u8]) -> bool {
    decode::format(bytes).is_ok()
}
