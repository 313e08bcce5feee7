//! Ranges of sizes. Within them no product of sizes overflows.

use crate::error::{Error, Result};

/// The largest width, vocabulary, text length or number of outputs.
const MAX_SIZE: i64 = 1 << 24;
/// The largest number of blocks of one tower or stage.
const MAX_LAYERS: i64 = 10_000;
/// The largest side of an image in pixels.
const MAX_IMAGE: i64 = 1 << 15;

fn within(key: &'static str, value: i64, max: i64) -> Result<()> {
    match value {
        _ if value < 1 => Err(Error::Config { key, why: format!("{value} is not positive") }),
        _ if value > max => {
            Err(Error::Config { key, why: format!("{value} is above the largest size that is supported, {max}") })
        }
        _ => Ok(()),
    }
}

/// A width, a vocabulary, a text length or a number of heads or outputs.
pub(crate) fn size(key: &'static str, value: i64) -> Result<()> {
    within(key, value, MAX_SIZE)
}

/// A number of blocks.
pub(crate) fn layers(key: &'static str, value: i64) -> Result<()> {
    within(key, value, MAX_LAYERS)
}

/// The side of an image.
pub(crate) fn image_size(key: &'static str, value: i64) -> Result<()> {
    within(key, value, MAX_IMAGE)
}

/// A size that `of` divides, which is positive.
pub(crate) fn multiple(key: &'static str, value: i64, of: i64) -> Result<()> {
    size(key, value)?;
    if of > 0 && value % of == 0 {
        return Ok(());
    }
    Err(Error::Config { key, why: format!("{value} is not a multiple of {of}") })
}

/// The hidden width of an MLP, in token widths.
pub(crate) fn mlp_ratio(key: &'static str, ratio: f64, width: i64) -> Result<()> {
    let hidden = super::hidden(width, ratio);
    // Also false for NaN.
    if ratio > 0.0 && (1..=MAX_SIZE).contains(&hidden) {
        return Ok(());
    }
    let why = format!("{ratio:?} times the width {width} is not a hidden width from 1 to {MAX_SIZE}");
    Err(Error::Config { key, why })
}

/// What is added to a variance.
pub(crate) fn layer_norm_eps(key: &'static str, eps: f64) -> Result<()> {
    // In f32, in which it is used.
    if eps as f32 > 0.0 && eps <= 1.0 {
        return Ok(());
    }
    Err(Error::Config { key, why: format!("{eps:?} is not in (0, 1]") })
}
