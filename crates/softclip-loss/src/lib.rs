//! SoftCLIP's losses and its baselines.
//!
//! A batch is N pairs of an image and a text. From their L2-normalised embeddings v, t (\[N, D\]) and a learned temperature τ all of these
//! losses make the logits `S_ij = v_i·t_j / τ`; they differ in what a row of the logits is compared with. SoftCLIP compares it with a
//! *soft* target, made from how alike the images' regions r and the images' tags a are among themselves.
//!
//! | `loss.name` | what it is | equations |
//! | --- | --- | --- |
//! | `clip` | cross-entropy with the own pair, in both directions | (1) to (4) |
//! | `label_smoothing` | the same with 1 − α on the own pair, α/(N − 1) on every other | (5) |
//! | `softclip` | soft targets, negatives disentangled, symmetric KL, plus CLIP's loss | (6) to (16) |
//! | `softclip` with `lambda`, `divergence` | ablation rows | Table 6 |
//! | `softclip` with `forms` | whose similarities guide which direction | Table 9 |
//! | `softclip` with `gamma`, `beta` | the mix with targets from v and t themselves; the share of the soft target | Figure 4 |
//! | `text_based` | cross-entropy over similarities, or against labels, blended with `c_i·d_j` of a frozen text encoder | NT-Xent; Text-based SoftCLIP |
//! | `siglip` | a sigmoid of each of the N² pairs, with a learned bias | SigLIP, arXiv 2303.15343 |
//!
//! Equation numbers are those of SoftCLIP, arXiv 2303.17561. Values are in nats; directions are averaged, rows too (SigLIP: the sum over
//! all pairs divided by N). [`config`] documents every constant, its default and where that comes from.
//!
//! # Three forms
//!
//! | form | arithmetic | memory | use it |
//! | --- | --- | --- | --- |
//! | [`blockwise()`] | tile by tile, gradients in closed form, no autograd | O(N·D + tile²) | to train, at any N |
//! | [`plain`] | tensor operations under autograd, the text to read beside the paper | O(N²), some 33 matrices | for small N, or where the loss is part of a larger graph |
//! | [`reference`](mod@reference) | `ndarray` in f64, gradients by hand, from the equations | O(N²) | to check the other two |
//!
//! All three take the same [`LossConfig`], compute the same value and the same gradients, and refuse the same inputs with an [`Error`] that
//! says what to change: fewer than two pairs, shapes that do not fit, sets that are missing, NaN.
//!
//! # Example
//!
//! ```
//! use softclip_loss::{BlockOptions, LossConfig, LossInputs, Scales, blockwise};
//! use softclip_tensor::Embeddings;
//! use tch::{Device, Kind, Tensor};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // As in an experiment's section `loss:`; what is left out has its default. `SoftClipConfig { beta: 0.2, ..Default::default() }` does too.
//! let config: LossConfig = serde_yaml::from_str("{ name: softclip, beta: 0.2, divergence: symmetric_kl }")?;
//! config.validate()?;
//!
//! // Outputs of four encoders for a batch of eight pairs.
//! let encode = || Tensor::randn([8, 16], (Kind::Float, Device::Cpu)).set_requires_grad(true);
//! let features = [encode(), encode(), encode(), encode()];
//! let [image, text, regions, tags] = features.each_ref().map(Embeddings::normalize);
//! let (image, text, regions, tags) = (image?, text?, regions?, tags?);
//!
//! let inputs = LossInputs { regions: Some(&regions), tags: Some(&tags), ..LossInputs::new(&image, &text) };
//! let scales = Scales::new((1.0f64 / 0.07).ln());
//! let loss = blockwise(&config, &inputs, &scales, &BlockOptions::default())?;
//! println!("loss {:.4}, of it CLIP's {:.4}, softness {:.2}", loss.value, loss.parts[0].1, loss.diagnostics.target_softness);
//!
//! // The loss is outside of autograd. Σ x·g has the gradient g at x and carries it on into the encoders.
//! let mut carrier = (image.tensor() * &loss.grads.image + text.tensor() * &loss.grads.text).sum(Kind::Float);
//! for (set, gradient) in [(&regions, &loss.grads.regions), (&tags, &loss.grads.tags)] {
//!     if let Some(gradient) = gradient {
//!         carrier += (set.tensor() * gradient).sum(Kind::Float); // none with `target_grad: detach`
//!     }
//! }
//! carrier.backward();
//! assert_eq!(features[0].grad().size(), [8, 16]);
//! // The learned temperature's gradient is a number: d(loss)/d ln(1/τ).
//! assert!(loss.value.is_finite() && loss.grads.log_scale.is_finite());
//! # Ok(())
//! # }
//! ```
//!
//! [`LossConfig::needs`] says which sets and scalars a configuration asks for, [`LossConfig::warnings`] what is allowed but known to
//! disappoint, and [`Diagnostics`] what a trainer should watch: softness and entropy of the targets, and collapse of the embeddings.
//! [`blockwise_among`] shares the work of one large batch among the processes of a job ([`Ranks`]): no N×N matrix anywhere, no gather that
//! gradients flow through. [`bench`](mod@bench) measures the blockwise form against the plain one.

pub mod bench;
mod blockwise;
pub mod config;
mod error;
mod inputs;
mod parts;
pub mod plain;
mod ranks;
pub mod reference;
mod value;

pub use blockwise::{BlockOptions, blockwise, blockwise_among};
pub use config::{LossConfig, Needs};
pub use error::{Error, Result};
pub use inputs::{LossInputs, Scales};
pub use ranks::{Alone, Ranks, RanksError};
pub use value::{Diagnostics, Gradients, Loss};
