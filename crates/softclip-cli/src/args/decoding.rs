//! Limits of decoding images, the same for every command that reads some.

use clap::Args;
use softclip_data::image::DecodeOptions;

/// Limits of decoding images.
#[derive(Clone, Copy, Debug, Args)]
pub struct Decoding {
    /// The most pixels of an image; a larger one is refused before it is decoded [default: 89478485, or a run's
    /// data.decode.max_pixels].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_pixels: Option<u64>,
}

impl Decoding {
    /// `decode` with this limit, if one was given.
    pub fn limit(self, decode: DecodeOptions) -> DecodeOptions {
        DecodeOptions { max_pixels: self.max_pixels.unwrap_or(decode.max_pixels), ..decode }
    }
}
