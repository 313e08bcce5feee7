//! Loss scaling for fp16.

use std::collections::BTreeMap;

use softclip_sys as sys;
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result, check};
use crate::raw::pointers;

/// Multiplies the loss so that small fp16 gradients do not vanish, and adapts the factor: halved when a gradient overflows
/// (that step is skipped), doubled after 2,000 good steps. The rules are those of PyTorch's `GradScaler`.
#[derive(Debug)]
pub struct GradScaler {
    scale: Tensor,
    growth_tracker: Tensor,
    found_inf: Tensor,
}

const GROWTH: f64 = 2.0;
const BACKOFF: f64 = 0.5;
const GROWTH_INTERVAL: i64 = 2000;

impl GradScaler {
    /// Starts at 65,536.
    ///
    /// # Errors
    /// The device has no memory left.
    pub fn new(device: Device) -> Result<Self> {
        Ok(GradScaler {
            scale: Tensor::f_full([], 65536.0, (Kind::Float, device))?,
            growth_tracker: Tensor::f_zeros([], (Kind::Int, device))?,
            found_inf: Tensor::f_zeros([], (Kind::Float, device))?,
        })
    }

    /// The factor by which the loss is to be multiplied before `backward`: f32 scalar on the device.
    pub fn scale(&self) -> &Tensor {
        &self.scale
    }

    /// 1 if the last [`GradScaler::unscale`] met a gradient that is not finite, else 0: f32 scalar on the device.
    pub fn found_inf(&self) -> &Tensor {
        &self.found_inf
    }

    /// Whether the last [`GradScaler::unscale`] met a gradient that is not finite. Waits for the device.
    pub fn overflowed(&self) -> bool {
        self.found_inf.double_value(&[]) != 0.0
    }

    /// Divides the parameters' gradients by the scale, in place, and looks for non-finite ones. Before clipping.
    ///
    /// # Errors
    /// libtorch fails.
    pub fn unscale(&mut self, params: &[Tensor]) -> Result<()> {
        let _ = self.found_inf.zero_();
        let inverse = self.scale.f_reciprocal()?;
        let grads: Vec<Tensor> = params.iter().map(Tensor::grad).filter(Tensor::defined).collect();
        if grads.is_empty() {
            return Ok(());
        }
        let handles = pointers(&grads);
        let found_inf = self.found_inf.as_mut_ptr();
        // SAFETY: all handles belong to tensors that are alive; the error record outlives the call.
        check(|e| unsafe {
            sys::softclip_amp_unscale(handles.len() as i64, handles.as_ptr(), found_inf, inverse.as_ptr(), e);
        })
    }

    /// Adapts the scale. After the optimizer's step.
    ///
    /// # Errors
    /// libtorch fails.
    pub fn update(&mut self) -> Result<()> {
        let (scale, tracker) = (self.scale.as_mut_ptr(), self.growth_tracker.as_mut_ptr());
        // SAFETY: three live tensors of our own; the error record outlives the call.
        check(|e| unsafe {
            sys::softclip_amp_update(scale, tracker, self.found_inf.as_ptr(), GROWTH, BACKOFF, GROWTH_INTERVAL, e);
        })
    }

    /// `scaler.scale` and `scaler.growth_tracker`: for a checkpoint.
    pub fn state_tensors(&self) -> Vec<(String, Tensor)> {
        vec![
            ("scaler.scale".into(), self.scale.shallow_clone()),
            ("scaler.growth_tracker".into(), self.growth_tracker.shallow_clone()),
        ]
    }

    /// Takes over a state that [`GradScaler::state_tensors`] gave.
    ///
    /// # Errors
    /// One of the two is missing.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let get = |name: &str| {
            state.get(name).ok_or_else(|| Error::Invalid(format!("the checkpoint lacks `{name}`: it was not trained with fp16")))
        };
        let (scale, tracker) = (get("scaler.scale")?, get("scaler.growth_tracker")?);
        self.scale.f_copy_(scale)?;
        self.growth_tracker.f_copy_(tracker)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AdamW, AdamWOptions, ParamGroup};

    #[test]
    fn an_overflow_skips_the_step_and_halves_the_scale() {
        let w = Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let params = [w.shallow_clone()];
        let mut adamw = AdamW::new(
            vec![ParamGroup { params: vec![("w".into(), w.shallow_clone())], weight_decay: 0.1, lr_scale: 1.0 }],
            AdamWOptions::default(),
        )
        .unwrap();
        let mut scaler = GradScaler::new(Device::Cpu).unwrap();

        (&w * f64::INFINITY).sum(Kind::Float).backward();
        scaler.unscale(&params).unwrap();
        adamw.step(0.1, Some(&scaler)).unwrap();
        scaler.update().unwrap();
        assert!(scaler.overflowed());
        assert_eq!(scaler.scale().double_value(&[]), 32768.0);
        assert_eq!(Vec::<f32>::try_from(w.detach()).unwrap(), [1.0, 1.0]);
        let steps: BTreeMap<_, _> = adamw.state_tensors().into_iter().collect();
        assert_eq!(steps["w.step"].double_value(&[]), 0.0);

        adamw.zero_grad();
        (&w * scaler.scale()).sum(Kind::Float).backward();
        scaler.unscale(&params).unwrap();
        assert_eq!(Vec::<f32>::try_from(w.grad()).unwrap(), [1.0, 1.0]);
        adamw.step(0.1, Some(&scaler)).unwrap();
        assert!(!scaler.overflowed());
        assert!(w.double_value(&[0]) < 1.0);
    }
}
