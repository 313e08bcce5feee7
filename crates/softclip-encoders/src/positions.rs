//! Position embeddings for another resolution or another length of texts.

use std::collections::BTreeMap;

use tch::Tensor;

use crate::config::{ClipConfig, TextConfig, VisionConfig};
use crate::error::{Error, Result};

/// Fits the position embeddings among `tensors` (under our names) to the model's image size and context length; how many changed.
///
/// A grid of patches is interpolated bicubically with antialiasing, as open_clip does. Texts: a shorter context keeps the first
/// positions, a longer one is interpolated linearly.
///
/// # Errors
/// A tensor is no position embedding of such a tower.
pub fn fit_positions(config: &ClipConfig, tensors: &mut BTreeMap<String, Tensor>) -> Result<usize> {
    let mut changed = 0;
    let grid = match &config.vision {
        VisionConfig::Vit(c) => Some(("visual.positional_embedding", c.grid())),
        VisionConfig::Resnet(c) => Some(("visual.attnpool.positional_embedding", c.image_size / 32)),
        VisionConfig::Resnet50(_) => None,
    };
    if let Some((name, side)) = grid {
        changed += replace(tensors, name, side * side + 1, |old| resize_grid(old, side))?;
    }
    if let TextConfig::Clip(c) = &config.text {
        changed += replace(tensors, "positional_embedding", c.context_length, |old| resize_line(old, c.context_length))?;
    }
    Ok(changed)
}

fn replace(
    tensors: &mut BTreeMap<String, Tensor>,
    name: &str,
    rows: i64,
    resize: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> Result<usize> {
    match tensors.get_mut(name) {
        Some(old) if old.dim() == 2 && old.size()[0] != rows => {
            let new = resize(old).map_err(|e| Error::Weights(format!("`{name}`: {e}")))?;
            *old = new;
            Ok(1)
        }
        _ => Ok(0),
    }
}

/// [1 + G², W] → [1 + side², W]: the class token's row stays.
fn resize_grid(old: &Tensor, side: i64) -> Result<Tensor> {
    let (rows, width) = old.size2()?;
    let from = ((rows - 1) as f64).sqrt().round() as i64;
    if from < 1 || from * from != rows - 1 {
        return Err(Error::Weights(format!("{rows} positions are not a class token and a square of patches")));
    }
    let grid = old.f_narrow(0, 1, rows - 1)?.f_to_kind(tch::Kind::Float)?;
    let grid = grid.f_reshape([1, from, from, width])?.f_permute([0, 3, 1, 2])?;
    let grid = grid.f_internal_upsample_bicubic2d_aa([side, side], false, None, None)?;
    let grid = grid.f_permute([0, 2, 3, 1])?.f_reshape([side * side, width])?;
    Ok(Tensor::f_cat(&[old.f_narrow(0, 0, 1)?.f_to_kind(tch::Kind::Float)?, grid], 0)?)
}

/// [L, W] → [length, W].
fn resize_line(old: &Tensor, length: i64) -> Result<Tensor> {
    let rows = old.size()[0];
    if length <= rows {
        return Ok(old.f_narrow(0, 0, length)?);
    }
    let line = old.f_to_kind(tch::Kind::Float)?.f_tr()?.f_unsqueeze(0)?;
    Ok(line.f_upsample_linear1d([length], false, None)?.f_squeeze_dim(0)?.f_tr()?.f_contiguous()?)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    fn rows(t: &Tensor) -> Vec<f64> {
        Vec::<f64>::try_from(t.to_kind(Kind::Double).view([-1])).unwrap()
    }

    #[test]
    fn a_grid_keeps_its_class_row_and_its_mean() {
        let old = Tensor::arange(17 * 2, (Kind::Float, Device::Cpu)).view([17, 2]);
        for side in [2, 7] {
            let new = resize_grid(&old, side).unwrap();
            assert_eq!(new.size(), [1 + side * side, 2]);
            assert_eq!(rows(&new.get(0)), rows(&old.get(0)));
            let mean = |t: &Tensor| rows(&t.narrow(0, 1, t.size()[0] - 1).mean_dim([0i64].as_slice(), false, None));
            // A ramp is symmetric about its middle, and so is every resampling of it.
            mean(&new).iter().zip(mean(&old)).for_each(|(a, b)| assert!((a - b).abs() < 1e-3, "{a} {b}"));
        }
        assert!(resize_grid(&Tensor::zeros([11, 2], (Kind::Float, Device::Cpu)), 2).is_err());
    }

    #[test]
    fn a_shorter_context_keeps_the_first_positions_and_a_longer_one_interpolates() {
        let old = Tensor::arange(8, (Kind::Float, Device::Cpu)).view([4, 2]);
        assert_eq!(rows(&resize_line(&old, 2).unwrap()), [0.0, 1.0, 2.0, 3.0]);
        let long = rows(&resize_line(&old, 8).unwrap());
        assert_eq!((long[0], long[14], long.len()), (0.0, 6.0, 16));
        assert!(long.iter().step_by(2).zip(long.iter().step_by(2).skip(1)).all(|(a, b)| a <= b));
    }
}
