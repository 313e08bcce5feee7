//! From pixels and texts to rows of unit length.

use softclip_data::image::{DecodeOptions, Decoder, ImageError, Transform};
use softclip_data::rng::RngKey;
use softclip_data::tokenizer::Tokenizer;
use softclip_encoders::Clip;
use softclip_tensor::{Embeddings, Precision};
use softclip_torch::{Autocast, guard};
use tch::{Device, Kind, Tensor, no_grad};

use crate::error::Result;

/// A model with all that its inputs need.
#[derive(Clone, Copy, Debug)]
pub struct Encoder<'a> {
    /// The network.
    pub clip: &'a Clip,
    /// What its texts are made of.
    pub tokenizer: &'a Tokenizer,
    /// Limits and habits of decoding its images.
    pub decode: DecodeOptions,
    /// Where the network is.
    pub device: Device,
    /// Number type of the forward passes.
    pub precision: Precision,
}

impl Encoder<'_> {
    /// D.
    pub fn dim(&self) -> usize {
        self.clip.config().embed_dim as usize
    }

    /// What is done to an image before it.
    pub fn transform(&self) -> Transform {
        let config = self.clip.config();
        Transform::eval(config.image_size() as u32).with_floor_crop(config.floor_crop)
    }

    /// The part of an image file that the model sees: u8 `[3, S, S]`.
    ///
    /// # Errors
    /// It cannot be decoded, or is larger than the options allow.
    pub fn crop(&self, bytes: &[u8]) -> std::result::Result<Vec<u8>, ImageError> {
        crop(bytes, &self.transform(), self.decode)
    }

    /// Pixels u8 `[N, 3, S, S]` → unit rows f32 `[N, D]` on the CPU. All in one pass.
    ///
    /// # Errors
    /// The images are not of the model's size, or libtorch fails.
    pub fn images(&self, pixels: &Tensor) -> Result<Tensor> {
        self.pass(|| {
            let pixels = pixels.f_to_device(self.device)?;
            Ok(self.clip.encode_pixels(&pixels)?)
        })
    }

    /// Texts → unit rows f32 `[N, D]` on the CPU. All in one pass.
    ///
    /// # Errors
    /// There is no text, or libtorch fails.
    pub fn texts<S: AsRef<str>>(&self, texts: &[S]) -> Result<Tensor> {
        let rows = self.tokenizer.encode_batch(texts, self.clip.config().context_length() as usize, true);
        self.pass(|| Ok(self.clip.encode_text(&rows.tokens.f_to_device(self.device)?)?))
    }

    /// The encoders' operators panic where libtorch fails.
    fn pass(&self, features: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        guard(|| {
            no_grad(|| {
                let _autocast = Autocast::enter(self.device, self.precision)?;
                let features = features()?.f_to_kind(Kind::Float)?;
                Ok(Embeddings::normalize(&features)?.into_tensor().f_to_device(Device::Cpu)?)
            })
        })?
    }
}

/// As [`Encoder::crop`], for threads that have no encoder.
pub(crate) fn crop(bytes: &[u8], transform: &Transform, decode: DecodeOptions) -> std::result::Result<Vec<u8>, ImageError> {
    let mut pixels = vec![0; transform.output_len()];
    transform.apply(bytes, RngKey::new(0, 0, 0), &mut Decoder::new(decode)?, &mut pixels)?;
    Ok(pixels)
}

/// One crop u8 `[3, S, S]` as what [`Encoder::images`] takes: `[1, 3, S, S]`.
pub(crate) fn single(encoder: &Encoder, crop: &[u8]) -> Result<Tensor> {
    let side = i64::from(encoder.transform().size());
    Ok(Tensor::f_from_slice(crop)?.f_view([1, 3, side, side].as_slice())?)
}
