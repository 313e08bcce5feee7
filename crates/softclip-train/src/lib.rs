//! Configuration, optimizer groups, schedule, training step, checkpoints and the loop.
//!
//! ```no_run
//! use std::path::Path;
//! use std::sync::{Arc, atomic::AtomicBool};
//!
//! use softclip_train::{Resume, RunOptions, config, train};
//!
//! # fn main() -> softclip_train::Result<()> {
//! let config = config::load(Path::new("configs/softclip-rn50.yaml"), &["data.train=cc3m/*.tar".to_owned()])?;
//! let options = RunOptions {
//!     dir: "runs/softclip".into(),
//!     resume: Resume::Auto,
//!     device: tch::Device::cuda_if_available(),
//!     quiet: false,
//!     stop: Arc::new(AtomicBool::new(false)),
//! };
//! let outcome = train(&config, &options)?;
//! println!("{} steps, loss {:?}", outcome.step, outcome.loss);
//! # Ok(())
//! # }
//! ```

pub mod ablation;
pub mod bench;
pub mod bench_memory;
mod category;
pub mod checkpoint;
pub mod config;
mod crc;
mod error;
pub mod evaluate;
mod init;
pub mod log;
mod model;
pub mod optim;
mod run;
pub mod schedule;
mod signals;
mod step;
mod targets;
pub mod tensorboard;
mod trained;
mod watch;

pub use category::{Category, CategoryEncoder};
pub use error::{Error, Result};
pub use init::Init;
pub use model::Model;
pub use run::{Outcome, Resume, RunOptions, train, train_among};
pub use signals::{end_on_signals, interruptible, stop_on_signals};
pub use step::{Inputs, Phases, StepOptions, StepReport, Trainer};
pub use targets::BatchTargets;
pub use trained::TrainedModel;
