//! What `tch` lacks of libtorch, behind a safe face: CUDA loaded at run time, autocast, fused AdamW, gradient clipping,
//! fp16 loss scaling, activations recomputed in backward, a faster linear layer, random state, memory figures, process groups,
//! errors in place of `tch`'s panics.
//!
//! All `unsafe` of the workspace lives here and in `softclip-sys`.
//!
//! ```
//! use softclip_torch::{Autocast, Precision, parse_device};
//! use tch::{Device, Kind, Tensor};
//!
//! # fn main() -> softclip_torch::Result<()> {
//! softclip_torch::init()?; // the first statement of `main`
//! let device = parse_device("cpu")?;
//! let x = Tensor::ones([4, 4], (Kind::Float, device));
//! let _bf16 = Autocast::enter(device, Precision::Bf16)?;
//! assert_eq!(x.matmul(&x).kind(), Kind::BFloat16);
//! # Ok(())
//! # }
//! ```
#![allow(unsafe_code)]

mod adamw;
mod autocast;
mod device;
mod error;
mod generator;
mod guard;
mod linear;
mod memory;
mod process_group;
mod raw;
mod recompute;
mod rng;
mod scaler;

pub use adamw::{AdamW, AdamWOptions, ParamGroup, clip_grad_norm};
pub use autocast::{Autocast, Precision};
pub use device::{
    channels_last, cuda_available, cuda_devices, cuda_loaded, init, parse_device, select_device, synchronize, tune_training,
    without_tf32,
};
pub use error::{Error, PEER_LOST, Peers, Result};
pub use generator::Generator;
pub use guard::guard;
pub use linear::linear;
pub use memory::{
    MemoryStats, available_memory, keep_freed_memory, limit_memory, memory, page_out, peak_above, reset_peak_memory, trim_heap,
};
pub use process_group::{Backend, BucketSizes, Ddp, ProcessGroup, Reduce, Store, Work};
pub use recompute::{Pass, recompute};
pub use rng::{RandomState, rng_state, set_rng_state};
pub use scaler::GradScaler;

/// The version of libtorch that everything is built against.
pub const LIBTORCH: &str = softclip_sys::LIBTORCH;
