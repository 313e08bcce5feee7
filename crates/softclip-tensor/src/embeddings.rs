//! Normalised embeddings and the logits between them.

use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::scale::LogitScale;

/// How far from 1 a row's norm may be: bf16 rows, normalised in bf16, reach 4e-3.
const NORM_TOLERANCE: f64 = 1e-2;

/// Rows of unit L2 norm, or zero: [N, D], f32, f64 or bf16, on any device.
#[derive(Debug)]
pub struct Embeddings(Tensor);

impl Embeddings {
    /// Divides each row of `features` [N, D] by its L2 norm; differentiable. A row of zeros stays zeros.
    ///
    /// # Errors
    /// `features` is not a matrix of floats, or of f16, in which small norms underflow.
    pub fn normalize(features: &Tensor) -> Result<Self> {
        Self::check_shape(features)?;
        let norm = features.f_norm_scalaropt_dim(2, [1i64].as_slice(), true)?.f_clamp_min(1e-12)?;
        Ok(Embeddings(features.f_div(&norm)?))
    }

    /// Takes rows that are normalised already.
    ///
    /// # Errors
    /// `rows` is not a matrix of floats, or of f16, or a row's norm is off 1 by more than 1 % (the message says which), or not finite.
    pub fn checked(rows: Tensor) -> Result<Self> {
        Self::check_shape(&rows)?;
        if rows.size()[0] == 0 {
            return Ok(Embeddings(rows));
        }
        let norms = rows.detach().f_to_kind(Kind::Float)?.f_norm_scalaropt_dim(2, [1i64].as_slice(), false)?;
        let off = norms.f_sub_scalar(1.0)?.f_abs()?.f_nan_to_num(f64::INFINITY, f64::INFINITY, f64::INFINITY)?;
        let worst = off.argmax(None, false).int64_value(&[]);
        if off.double_value(&[worst]) > NORM_TOLERANCE {
            let norm = norms.double_value(&[worst]);
            let why = format!("row {worst} has L2 norm {norm}, expected 1 (normalise it with Embeddings::normalize)");
            return Err(Error::Value { what: "embeddings", why });
        }
        Ok(Embeddings(rows))
    }

    /// Takes rows that were [`Embeddings`] elsewhere, in another process for one, as they are; rows of zeros may be among them.
    ///
    /// # Errors
    /// `rows` is not a matrix of floats, or of f16.
    pub fn trusted(rows: Tensor) -> Result<Self> {
        Self::check_shape(&rows)?;
        Ok(Embeddings(rows))
    }

    /// The rows of all `parts`, one part below the other; differentiable. Norms are not checked again.
    ///
    /// # Errors
    /// There is no part, or the parts differ in D or device.
    pub fn cat(parts: &[&Embeddings]) -> Result<Self> {
        if parts.is_empty() {
            return Err(Error::Value { what: "embeddings", why: "nothing to put together: at least one part is needed".into() });
        }
        Ok(Embeddings(Tensor::f_cat(&parts.iter().map(|e| &e.0).collect::<Vec<_>>(), 0)?))
    }

    fn check_shape(t: &Tensor) -> Result<()> {
        if t.dim() != 2 {
            return Err(Error::Shape { what: "embeddings", expected: "[N, D]", found: t.size() });
        }
        if !t.is_floating_point() {
            return Err(Error::Value {
                what: "embeddings",
                why: format!("expected floating point numbers, found {:?}", t.kind()),
            });
        }
        if t.kind() == Kind::Half {
            // The smallest norm, 1e-12, is 0 there, and a row of zeros would become NaN.
            return Err(Error::Value { what: "embeddings", why: "widen f16 to f32 first".into() });
        }
        Ok(())
    }

    /// The matrix, [N, D].
    pub fn tensor(&self) -> &Tensor {
        &self.0
    }

    /// The matrix, [N, D].
    pub fn into_tensor(self) -> Tensor {
        self.0
    }

    /// The same values outside of the graph.
    pub fn detach(&self) -> Self {
        Embeddings(self.0.detach())
    }

    /// N.
    pub fn rows(&self) -> i64 {
        self.0.size()[0]
    }

    /// D.
    pub fn dim(&self) -> i64 {
        self.0.size()[1]
    }

    /// Cosines with `other` [M, D] times the scale: eq. (1) before its softmax, [N, M].
    ///
    /// # Errors
    /// The two differ in D, kind or device.
    pub fn logits(&self, other: &Embeddings, scale: LogitScale) -> Result<Logits> {
        Ok(Logits(self.0.f_matmul(&other.0.f_tr()?)?.f_mul_scalar(scale.scale())?))
    }
}

/// Scaled cosines, [N, M]: not probabilities.
#[derive(Debug)]
pub struct Logits(Tensor);

impl Logits {
    /// The matrix, [N, M].
    pub fn tensor(&self) -> &Tensor {
        &self.0
    }

    /// Row-wise probabilities, f32 [N, M].
    pub fn softmax(&self) -> Tensor {
        self.0.softmax(1, Kind::Float)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn normalised_rows_pass_the_check_and_others_are_named() {
        let x = softclip_torch::Generator::new(1).normal([5, 8]).unwrap();
        let rows = Embeddings::normalize(&x).unwrap().into_tensor();
        assert!(Embeddings::checked(rows.shallow_clone()).is_ok());
        let _ = rows.get(3).fill_(2.0);
        assert!(Embeddings::checked(rows.shallow_clone()).unwrap_err().to_string().contains("row 3"));
        let _ = rows.get(1).fill_(f64::NAN);
        assert!(Embeddings::checked(rows).unwrap_err().to_string().contains("row 1"));
    }

    #[test]
    fn other_shapes_and_kinds_are_refused() {
        assert!(Embeddings::normalize(&Tensor::zeros([3], (Kind::Float, Device::Cpu))).is_err());
        assert!(Embeddings::normalize(&Tensor::zeros([3, 2], (Kind::Int64, Device::Cpu))).is_err());
        let half = || Tensor::zeros([3, 2], (Kind::Half, Device::Cpu));
        for refused in [Embeddings::normalize(&half()), Embeddings::checked(half())] {
            assert!(refused.unwrap_err().to_string().contains("widen f16 to f32 first"));
        }
    }

    #[test]
    fn a_row_of_zeros_gives_no_nan() {
        let e = Embeddings::normalize(&Tensor::zeros([2, 3], (Kind::Float, Device::Cpu))).unwrap();
        assert_eq!(e.tensor().abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn parts_are_put_one_below_the_other() {
        let random = softclip_torch::Generator::new(2);
        let part = |rows: i64, d: i64| Embeddings::normalize(&random.normal([rows, d]).unwrap()).unwrap();
        let (a, b) = (part(2, 4), part(3, 4));
        let zeros = Embeddings::normalize(&Tensor::zeros([1, 4], (Kind::Float, Device::Cpu))).unwrap();
        let all = Embeddings::cat(&[&a, &b, &zeros]).unwrap();
        assert_eq!((all.rows(), all.dim()), (6, 4));
        assert_eq!(all.tensor().narrow(0, 2, 3), *b.tensor());
        assert!(Embeddings::cat(&[&a, &part(1, 5)]).is_err());
        assert!(matches!(Embeddings::cat(&[]), Err(Error::Value { .. })));
    }

    #[test]
    fn gradients_pass_through_the_normalisation() {
        let x = Tensor::from_slice(&[3f64, 4.0]).view([1, 2]).set_requires_grad(true);
        let e = Embeddings::normalize(&x).unwrap();
        e.tensor().get(0).get(0).backward();
        // d(x1/|x|)/dx = (1 - 9/25)/5, -12/125
        let g = Vec::<f64>::try_from(x.grad().view([2])).unwrap();
        assert!((g[0] - 16.0 / 125.0).abs() < 1e-12 && (g[1] + 12.0 / 125.0).abs() < 1e-12, "{g:?}");
    }
}
