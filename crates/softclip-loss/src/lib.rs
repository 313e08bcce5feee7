//! SoftCLIP's losses and its baselines.
mod blockwise;
pub mod config;
mod error;
mod inputs;
mod parts;
pub mod plain;
pub mod reference;
mod value;

pub use blockwise::{BlockOptions, blockwise};
pub use config::{LossConfig, Needs};
pub use error::{Error, Result};
pub use inputs::{LossInputs, Scales};
pub use value::{Diagnostics, Gradients, Loss};
