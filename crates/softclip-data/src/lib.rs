//! Image-text data: sources, decoding, augmentation, tokenizing, deterministic batches.

pub mod bench;
pub mod fetch;
mod files;
pub mod image;
pub mod inspect;
pub mod loader;
pub mod patches;
pub mod rng;
pub mod source;
pub mod synth;
pub mod table;
pub mod tokenizer;
