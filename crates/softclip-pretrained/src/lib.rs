//! Pretrained models: [`locate`] finds a model's files in a folder or on a hub, [`read_weights`] reads its tensors.
//!
//! A model is named by a folder, by a file of weights, or by a hub's id such as `openai/clip-vit-base-patch32`, with
//! `@revision` where another than `main` is meant; [`locate`] lists the other forms of a hub's name. What a hub has given is kept in the cache that `huggingface_hub` uses, in
//! its layout, so that nothing is fetched twice and both see each other's files. Nothing is printed: progress and warnings
//! come as [`Event`]s. Weights come from safetensors only; a pickle is refused with the command that converts it.
//!
//! ```no_run
//! use softclip_pretrained::{Event, HubOptions, locate, read_weights};
//!
//! # fn main() -> softclip_pretrained::Result<()> {
//! let hub = HubOptions::from_env()?;
//! let files = locate("openai/clip-vit-base-patch32", &hub, &mut |event| match event {
//!     Event::Download { file, done, total } => eprintln!("{file}: {done} of {total:?} bytes"),
//!     Event::Warning(text) => println!("{text}"),
//! })?;
//! let weights = read_weights(&files)?;
//! println!("{} tensors, configured by {:?}", weights.len(), files.config);
//! # Ok(())
//! # }
//! ```

mod cache;
mod error;
mod export;
mod http;
mod hub;
mod locate;
mod module;
mod name;
mod open;
mod options;
mod pickle;
mod preprocessor;
mod weights;

pub use error::{Error, Result};
pub use export::{Exported, export_hugging_face, export_open_clip};
pub use locate::{Event, ModelFiles, locate};
pub use open::{Loaded, Pretrained};
pub use options::HubOptions;
pub use weights::read_weights;
