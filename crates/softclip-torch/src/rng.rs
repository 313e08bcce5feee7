//! The state of libtorch's random generators, so that a resumed run draws what the uninterrupted one would have drawn.

use softclip_sys as sys;
use tch::{Device, Tensor};

use crate::error::{Error, Result, check};
use crate::raw::{device_code, owned};

/// The default generator's state on `device`: u8 `[n]`, on the CPU.
///
/// # Errors
/// The device has no generator.
pub fn rng_state(device: Device) -> Result<Tensor> {
    let (kind, index) = device_code(device);
    // SAFETY: the error record outlives the call; on success the shim hands over a new tensor handle.
    let pointer = check(|e| unsafe { sys::softclip_rng_state(kind, index, e) })?;
    if pointer.is_null() {
        return Err(Error::Torch("no random state was returned".into()));
    }
    // SAFETY: a new handle that only we own.
    Ok(unsafe { owned(pointer) })
}

/// Puts a state back that [`rng_state`] gave.
///
/// # Errors
/// `state` is not one of this kind of device.
pub fn set_rng_state(device: Device, state: &Tensor) -> Result<()> {
    let (kind, index) = device_code(device);
    // SAFETY: the tensor and the error record outlive the call.
    check(|e| unsafe { sys::softclip_set_rng_state(kind, index, state.as_ptr(), e) })
}

/// Where the generators stood that code for one device draws from: the device's and the CPU's.
#[derive(Debug, PartialEq)]
pub struct RandomState(Vec<(Device, Tensor)>);

impl RandomState {
    /// Where they stand now.
    ///
    /// # Errors
    /// The device has no generator.
    pub fn save(device: Device) -> Result<Self> {
        let other = (device != Device::Cpu).then_some(device);
        let state = |device| Ok((device, rng_state(device)?));
        Ok(RandomState([Device::Cpu].into_iter().chain(other).map(state).collect::<Result<_>>()?))
    }

    /// Puts them back there.
    ///
    /// # Errors
    /// libtorch refuses.
    pub fn restore(&self) -> Result<()> {
        self.0.iter().try_for_each(|(device, state)| set_rng_state(*device, state))
    }

    /// Runs `f` from there. Then the generators stand where they stood before, also after a panic.
    ///
    /// # Errors
    /// libtorch refuses; `f` has not run then.
    pub fn replay<T>(&self, f: impl FnOnce() -> T) -> Result<T> {
        struct Outer(RandomState);
        impl Drop for Outer {
            fn drop(&mut self) {
                // They took such a state a moment ago.
                let _ = self.0.restore();
            }
        }
        let devices = self.0.iter().map(|(device, _)| Ok((*device, rng_state(*device)?)));
        let _outer = Outer(RandomState(devices.collect::<Result<_>>()?));
        self.restore()?;
        Ok(f())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn a_state_of_the_wrong_size_is_an_error() {
        let wrong = Tensor::zeros([3], (Kind::Uint8, Device::Cpu));
        assert!(set_rng_state(Device::Cpu, &wrong).is_err());
    }
}
