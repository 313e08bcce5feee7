//! Retrieval, pairing, zero-shot, instance retrieval and copy detection: protocols and their metrics; how similarities are
//! distributed.
//!
//! The metrics work on embeddings of any origin; [`evaluate`] runs a whole protocol with a model and a data set.
//!
//! ```
//! use softclip_eval::retrieval;
//! use softclip_tensor::Embeddings;
//! use tch::{Device, Kind, Tensor};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Three images, two captions each, all captions exactly where their image is.
//! let image = Embeddings::normalize(&Tensor::eye(3, (Kind::Float, Device::Cpu)))?;
//! let text = Embeddings::normalize(&image.tensor().repeat_interleave_self_int(2, 0, 6))?;
//! let found = retrieval(&image, &text, &[0, 0, 1, 1, 2, 2])?;
//! assert_eq!(found.text_to_image.recall, [1.0; 3]);
//! # Ok(())
//! # }
//! ```

pub mod bench;
mod compat;
mod distribution;
mod encode;
mod error;
mod grad_cam;
mod instance;
mod pairing;
mod prompts;
mod published;
mod result;
mod retrieval;
mod run;
mod zeroshot;

pub use compat::pairing_as_source;
pub use distribution::{Similarities, similarity_histogram, sorted_probabilities};
pub use encode::{Done, Encoded, EvalOptions, encode_source, encode_texts};
pub use error::EvalError;
pub use grad_cam::{HeatMap, grad_cam, grad_cam_layer};
pub use instance::{InstanceSet, PRECISION_KS, Picture, Precision, Rankings, Relevant, average_precision, evaluate_instances};
pub use pairing::{BLOCK, Pairing, pairing};
pub use prompts::{ClassNames, Prompts};
pub use published::{PUBLISHED, PublishedSet, published};
pub use result::{ClassScore, Collected, Confusion, Data, EvalResult, collect};
pub use retrieval::{Direction, KS, Retrieval, retrieval, top_k};
pub use run::{PairingProtocol, Task, evaluate, slug, suits};
pub use zeroshot::{Tally, ZeroShot, class_embeddings, classify};
