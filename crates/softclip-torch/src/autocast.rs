//! Automatic mixed precision.

use std::marker::PhantomData;

use serde::{Deserialize, Serialize};
use softclip_sys as sys;
use tch::{Device, Kind};

use crate::error::{Result, check};
use crate::raw::device_code;

/// The number type in which encoders multiply matrices. Parameters, losses and statistics stay in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32 throughout.
    #[default]
    Fp32,
    /// bfloat16: f32's range, 8 bits of mantissa. Needs no loss scaling.
    Bf16,
    /// float16: needs a [`GradScaler`](crate::GradScaler).
    Fp16,
}

impl Precision {
    /// The tensor kind that matrix products have under this precision.
    pub fn kind(self) -> Kind {
        match self {
            Precision::Fp32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::Fp16 => Kind::Half,
        }
    }

    /// libtorch's own number of that kind.
    fn scalar_type(self) -> i8 {
        match self {
            Precision::Fp32 => 6,
            Precision::Bf16 => 15,
            Precision::Fp16 => 5,
        }
    }
}

/// While it lives, libtorch runs matrix products and convolutions on `device` in the given precision, on this thread only.
/// Guards nest; the former state comes back on drop, also after a panic.
#[must_use = "autocast ends when the guard is dropped"]
pub struct Autocast {
    device_type: i32,
    before: Option<sys::AutocastState>,
    _this_thread: PhantomData<*const ()>,
}

impl Autocast {
    /// Enters a region. [`Precision::Fp32`] switches autocast off inside it.
    ///
    /// # Errors
    /// libtorch knows no autocast for the device.
    pub fn enter(device: Device, precision: Precision) -> Result<Self> {
        let AutocastState { device_type, state: before } = AutocastState::now(device)?;
        let dtype = if precision == Precision::Fp32 { before.dtype } else { precision.scalar_type() };
        let state = sys::AutocastState { enabled: precision != Precision::Fp32, dtype };
        AutocastState { device_type, state }.enter()
    }
}

/// The autocast of one kind of device, to be entered again, on whatever thread.
#[derive(Clone, Copy)]
pub(crate) struct AutocastState {
    device_type: i32,
    state: sys::AutocastState,
}

impl AutocastState {
    /// This thread's for `device`.
    pub fn now(device: Device) -> Result<Self> {
        let (device_type, _) = device_code(device);
        // SAFETY: the error record outlives the call.
        let state = check(|e| unsafe { sys::softclip_autocast_state(device_type, e) })?;
        Ok(AutocastState { device_type, state })
    }

    pub fn enter(&self) -> Result<Autocast> {
        let &AutocastState { device_type, state } = self;
        // SAFETY: the error records outlive the calls.
        let before = check(|e| unsafe { sys::softclip_autocast_state(device_type, e) })?;
        check(|e| unsafe { sys::softclip_autocast_enter(device_type, state, e) })?;
        Ok(Autocast { device_type, before: Some(before), _this_thread: PhantomData })
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            // SAFETY: the error record outlives the call. An error here would mean that entering failed, and then there is no guard.
            let _ = check(|e| unsafe { sys::softclip_autocast_leave(self.device_type, before, e) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Tensor;

    fn product(x: &Tensor) -> Kind {
        x.matmul(x).kind()
    }

    #[test]
    fn products_follow_the_innermost_guard() {
        let x = Tensor::ones([8, 8], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        {
            let _outer = Autocast::enter(Device::Cpu, Precision::Bf16).unwrap();
            assert_eq!(product(&x), Kind::BFloat16);
            {
                // The cast of a leaf is cached: another type inside must not meet it.
                let _inner = Autocast::enter(Device::Cpu, Precision::Fp16).unwrap();
                assert_eq!(product(&x), Kind::Half);
            }
            assert_eq!(product(&x), Kind::BFloat16);
            {
                let _off = Autocast::enter(Device::Cpu, Precision::Fp32).unwrap();
                assert_eq!(product(&x), Kind::Float);
            }
        }
        assert_eq!(product(&x), Kind::Float);
    }

    #[test]
    fn the_former_state_returns_after_a_panic() {
        let caught = std::panic::catch_unwind(|| {
            let _guard = Autocast::enter(Device::Cpu, Precision::Bf16).unwrap();
            panic!("inside");
        });
        assert!(caught.is_err());
        assert_eq!(product(&Tensor::ones([2, 2], (Kind::Float, Device::Cpu))), Kind::Float);
    }

    #[test]
    fn gradients_of_parameters_stay_f32() {
        let w = Tensor::ones([4, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let x = Tensor::ones([2, 4], (Kind::Float, Device::Cpu));
        let y = {
            let _guard = Autocast::enter(Device::Cpu, Precision::Bf16).unwrap();
            x.matmul(&w)
        };
        y.to_kind(Kind::Float).sum(Kind::Float).backward();
        assert_eq!(w.grad().kind(), Kind::Float);
    }
}
