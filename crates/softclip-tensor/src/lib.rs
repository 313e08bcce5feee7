//! The tensor types that softclip's crates share: [`Embeddings`], [`LogitScale`], [`Logits`], [`Batch`], and
//! safetensors files ([`mod@file`]). Shapes and ranges are checked where values enter; past that point plain tensors will do.
//!
//! ```
//! use softclip_tensor::tch::{Device, Kind, Tensor};
//! use softclip_tensor::{Embeddings, LogitScale};
//!
//! # fn main() -> softclip_tensor::Result<()> {
//! let images = Embeddings::normalize(&Tensor::randn([4, 16], (Kind::Float, Device::Cpu)))?;
//! let texts = Embeddings::normalize(&Tensor::randn([4, 16], (Kind::Float, Device::Cpu)))?;
//! let logits = images.logits(&texts, LogitScale::from_tau(0.07)?)?; // [4, 4]
//! assert_eq!(logits.tensor().size(), [4, 4]);
//! # Ok(())
//! # }
//! ```

mod batch;
mod embeddings;
mod error;
pub mod file;
pub mod nearest;
pub mod npy;
mod scale;

pub use batch::{Batch, CLIP_MEAN, CLIP_STD, Regions, Tags, Texts, TokenRows, normalize_images};
pub use embeddings::{Embeddings, Logits};
pub use error::{Error, Result};
pub use scale::LogitScale;
pub use softclip_torch::Precision;
pub use tch;
