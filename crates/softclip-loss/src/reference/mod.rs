//! The losses over `ndarray` in f64, written matrix by matrix from the equations, with gradients by hand: slow, and independent of the
//! other two forms, to check them.
//!
//! Gradients go backwards through the same steps: from each divergence to the logarithms of target and prediction, from those through the
//! log-softmax to logits, from logits to embeddings and scale.

mod dense;
mod losses;

use ndarray::{Array1, Array2};

use crate::config::LossConfig;
use crate::error::{Error, Result};
use crate::inputs::Scales;

/// A batch as f64 matrices [N, D]; see [`crate::LossInputs`].
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// v.
    pub image: Array2<f64>,
    /// t.
    pub text: Array2<f64>,
    /// r.
    pub regions: Option<Array2<f64>>,
    /// a.
    pub tags: Option<Array2<f64>>,
    /// c.
    pub category: Option<Array2<f64>>,
    /// d.
    pub category_text: Option<Array2<f64>>,
    /// β of each row.
    pub row_beta: Option<Array1<f64>>,
}

/// Value, parts and gradients; see [`crate::Loss`].
#[derive(Clone, Debug)]
pub struct Loss {
    /// The loss.
    pub value: f64,
    /// As [`crate::Loss::parts`].
    pub parts: Vec<(&'static str, f64)>,
    /// d/d image embeddings, [N, D].
    pub image: Array2<f64>,
    /// d/d text embeddings.
    pub text: Array2<f64>,
    /// d/d region embeddings, zeros where they are not used or targets are detached.
    pub regions: Option<Array2<f64>>,
    /// d/d tag embeddings.
    pub tags: Option<Array2<f64>>,
    /// d/d ln(1/τ).
    pub log_scale: f64,
    /// d/d ln(1/τ) of the targets.
    pub target_log_scale: Option<f64>,
    /// d/d bias.
    pub bias: Option<f64>,
}

/// The loss of a batch.
///
/// # Errors
/// A configuration out of range, fewer than two pairs, or inputs that are missing or do not fit.
pub fn loss(config: &LossConfig, inputs: &Inputs, scales: &Scales) -> Result<Loss> {
    config.validate()?;
    check(config, inputs, scales)?;
    losses::run(config, inputs, scales)
}

fn check(config: &LossConfig, inputs: &Inputs, scales: &Scales) -> Result<()> {
    let rows = inputs.image.nrows();
    if rows < 2 {
        return Err(Error::BatchTooSmall { rows: rows as i64 });
    }
    let (needs, loss) = (config.needs(), config.name());
    let cross = matches!(config, LossConfig::Softclip(c) if c.forms.iter().any(|f| f.is_cross()));
    // A set, whether it is needed, and the set whose width it must have.
    let sets = [
        ("image embeddings", Some(&inputs.image), true, None),
        ("text embeddings", Some(&inputs.text), true, Some(&inputs.image)),
        ("region embeddings", inputs.regions.as_ref(), needs.regions, None),
        ("tag embeddings", inputs.tags.as_ref(), needs.tags, inputs.regions.as_ref().filter(|_| cross)),
        ("category embeddings", inputs.category.as_ref(), needs.category, None),
        ("category text embeddings", inputs.category_text.as_ref(), needs.category, inputs.category.as_ref()),
    ];
    for (what, set, _, like) in sets.into_iter().filter(|(_, _, needed, _)| *needed) {
        let Some(x) = set else { return Err(Error::Missing { loss, what, hint: "give them in `Inputs`" }) };
        let columns = like.map_or(x.ncols(), |l| l.ncols());
        if x.dim() != (rows, columns) {
            let found = vec![x.nrows() as i64, x.ncols() as i64];
            return Err(Error::Shape { what, expected: format!("[{rows}, {columns}]"), found });
        }
        if let Some(row) = x.rows().into_iter().position(|r| r.iter().any(|v| !v.is_finite())) {
            return Err(Error::NonFiniteInput { what, row: row as i64 });
        }
    }
    if let Some(beta) = &inputs.row_beta {
        if beta.len() != rows {
            return Err(Error::Shape { what: "row_beta", expected: format!("[{rows}] floats"), found: vec![beta.len() as i64] });
        }
        if let Some(i) = beta.iter().position(|b| !(0.0..=1.0).contains(b)) {
            return Err(Error::Range { what: "row_beta", row: i as i64, value: beta[i], expected: "a β in [0, 1]" });
        }
    }
    if (needs.bias && scales.bias.is_none()) || (needs.target_scale && scales.target_log_scale.is_none()) {
        return Err(Error::Missing { loss, what: "a bias or a target scale", hint: "give it in `Scales`" });
    }
    Ok(())
}
