//! YOLOv7 through TorchScript.

mod error;

pub use error::{Error, Result};
