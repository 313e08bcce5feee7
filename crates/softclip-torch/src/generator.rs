//! Random generators that nothing else draws from.
//!
//! libtorch's default generator belongs to the whole process: what one thread draws from it depends on what other threads draw
//! meanwhile. A [`Generator`] depends on its seed only. Fresh weights and the inputs of tests are drawn from one.

use std::ptr::NonNull;

use softclip_sys as sys;
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result, check};

/// A random generator on the CPU (libtorch's Mersenne Twister).
///
/// It draws the numbers that libtorch's default generator draws after `manual_seed` with the same seed.
///
/// ```
/// use softclip_torch::Generator;
///
/// let draw = || Generator::new(7).normal([2, 3]);
/// assert_eq!(draw()?, draw()?);
/// # Ok::<(), softclip_torch::Error>(())
/// ```
#[derive(Debug)]
pub struct Generator {
    /// None where the C++ side had no memory for it: drawing reports that.
    inner: Option<NonNull<sys::SoftclipGenerator>>,
}

impl Generator {
    /// Creates a generator that depends on `seed` only.
    pub fn new(seed: u64) -> Self {
        // SAFETY: the error record outlives the call; on success the shim hands over a new generator.
        let made = check(|e| unsafe { sys::softclip_generator(seed, e) });
        Self { inner: made.ok().and_then(NonNull::new) }
    }

    /// Returns f32 numbers of the standard normal distribution, on the CPU.
    ///
    /// # Errors
    /// There is no memory left, or a size is negative.
    pub fn normal(&self, size: impl AsRef<[i64]>) -> Result<Tensor> {
        self.normal_of(size, Kind::Float)
    }

    /// As [`normal`](Self::normal), of the floating-point type `kind`.
    ///
    /// # Errors
    /// As [`normal`](Self::normal); `kind` is not a floating-point type.
    pub fn normal_of(&self, size: impl AsRef<[i64]>, kind: Kind) -> Result<Tensor> {
        let tensor = Tensor::f_empty(size.as_ref(), (kind, Device::Cpu))?;
        let inner = self.pointer()?;
        // SAFETY: generator, tensor and error record outlive the call.
        check(|e| unsafe { sys::softclip_normal(inner, tensor.as_ptr(), 0.0, 1.0, e) })?;
        Ok(tensor)
    }

    /// Returns f32 numbers that are uniformly distributed in `[low, high)`, on the CPU.
    ///
    /// # Errors
    /// There is no memory left, a size is negative, or `low` is greater than `high`.
    pub fn uniform(&self, size: impl AsRef<[i64]>, low: f64, high: f64) -> Result<Tensor> {
        self.uniform_of(size, low, high, Kind::Float)
    }

    /// As [`uniform`](Self::uniform), of the floating-point type `kind`.
    ///
    /// # Errors
    /// As [`uniform`](Self::uniform); `kind` is not a floating-point type.
    pub fn uniform_of(&self, size: impl AsRef<[i64]>, low: f64, high: f64, kind: Kind) -> Result<Tensor> {
        let tensor = Tensor::f_empty(size.as_ref(), (kind, Device::Cpu))?;
        let inner = self.pointer()?;
        // SAFETY: generator, tensor and error record outlive the call.
        check(|e| unsafe { sys::softclip_uniform(inner, tensor.as_ptr(), low, high, e) })?;
        Ok(tensor)
    }

    fn pointer(&self) -> Result<*const sys::SoftclipGenerator> {
        let inner = self.inner.ok_or_else(|| Error::Torch("no memory for a random generator".to_owned()))?;
        Ok(inner.as_ptr())
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        if let Some(inner) = self.inner {
            // SAFETY: made by the shim, owned by this value alone.
            unsafe { sys::softclip_generator_free(inner.as_ptr()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_alone_decides_what_is_drawn() {
        let draw = |seed| {
            let generator = Generator::new(seed);
            let normal = generator.normal([50]).unwrap();
            // Another user of the process-wide generator.
            let _ = Tensor::rand([7], (Kind::Float, Device::Cpu));
            Tensor::cat(&[normal, generator.uniform([50], -2.0, 3.0).unwrap()], 0)
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn numbers_have_their_distribution() {
        let generator = Generator::new(3);
        let normal = generator.normal_of([100, 1000], Kind::Double).unwrap();
        let (mean, std) = (normal.mean(Kind::Double).double_value(&[]), normal.std(true).double_value(&[]));
        assert!(mean.abs() < 0.02 && (std - 1.0).abs() < 0.02, "{mean} {std}");
        let uniform = generator.uniform_of([100_000], -2.0, 3.0, Kind::Double).unwrap();
        let (low, high) = (uniform.min().double_value(&[]), uniform.max().double_value(&[]));
        assert!((-2.0..-1.99).contains(&low) && (2.99..3.0).contains(&high), "{low} {high}");
    }

    #[test]
    fn what_cannot_be_drawn_is_an_error() {
        let generator = Generator::new(0);
        assert!(generator.normal_of([2], Kind::Int64).is_err());
        assert!(generator.normal([-1]).is_err());
        assert!(generator.uniform([2], 1.0, 0.0).is_err());
    }
}
