//! Several processes that compute together: who they are ([`Environment`]), what they do together ([`World`]), and how they are
//! started on one machine ([`launch`]).
//!
//! ```
//! use softclip_distributed::{Environment, World};
//! use softclip_distributed::tch::{Device, Tensor};
//! use std::time::Duration;
//!
//! # fn main() -> softclip_distributed::Result<()> {
//! // Under torchrun, srun, mpirun or `softclip launch`: one of many. Without any of their variables: alone, by the same code.
//! let environment = Environment::from_env()?;
//! let world = World::join(&environment, Device::Cpu, Duration::from_secs(60))?;
//! let gradients = [Tensor::from_slice(&[1f32, 2.0])];
//! world.average(&gradients)?;
//! assert!(world.all_ok(true)?);
//! # Ok(())
//! # }
//! ```

pub mod bench;
mod environment;
mod error;
mod launch;
mod parts;
mod world;

pub use environment::{Environment, Master};
pub use error::{Error, Result};
pub use launch::{Failure, LAUNCHER, LaunchOptions, Outcome, is_ignored, launch};
pub use parts::part;
pub use tch;
pub use world::{World, die_with_launcher};
