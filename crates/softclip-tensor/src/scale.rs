//! The temperature.

use crate::error::{Error, Result};

/// The logarithm of the logit scale, ln(1/τ), as CLIP learns it. Always finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitScale(f64);

impl LogitScale {
    /// From the temperature τ > 0.
    ///
    /// # Errors
    /// τ is not a positive number.
    pub fn from_tau(tau: f64) -> Result<Self> {
        if tau.is_finite() && tau > 0.0 {
            return Ok(LogitScale(-tau.ln()));
        }
        Err(Error::Value { what: "temperature", why: format!("{tau} is not a positive number; CLIP starts at 0.07") })
    }

    /// From ln(1/τ), as a checkpoint's `logit_scale` has it.
    ///
    /// # Errors
    /// It is not finite.
    pub fn from_log(log: f64) -> Result<Self> {
        if log.is_finite() {
            return Ok(LogitScale(log));
        }
        Err(Error::Value { what: "logit_scale", why: format!("{log} is not a finite number") })
    }

    /// ln(1/τ).
    pub fn log(self) -> f64 {
        self.0
    }

    /// 1/τ, what cosines are multiplied by.
    pub fn scale(self) -> f64 {
        self.0.exp()
    }

    /// τ.
    pub fn tau(self) -> f64 {
        (-self.0).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tau_and_scale_are_inverse() {
        let s = LogitScale::from_tau(0.07).unwrap();
        assert!((s.log() - 2.6592600369327783).abs() < 1e-12);
        assert!((s.scale() * 0.07 - 1.0).abs() < 1e-12);
        assert!((s.tau() - 0.07).abs() < 1e-12);
    }

    #[test]
    fn senseless_temperatures_are_refused() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(LogitScale::from_tau(bad).is_err(), "{bad}");
        }
        assert!(LogitScale::from_log(f64::NAN).is_err());
    }
}
