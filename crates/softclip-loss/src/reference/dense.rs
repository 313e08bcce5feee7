//! Softmax, targets and divergences of whole matrices, each with its step backwards.

use ndarray::{Array1, Array2, ArrayView1};

use crate::config::Divergence;

/// log softmax of each row; with `off_diagonal` entry (i, i) takes no part and comes back as −∞ (eq. 12).
pub fn log_softmax(z: &Array2<f64>, off_diagonal: bool) -> Array2<f64> {
    let mut out = z.clone();
    for (i, mut row) in out.rows_mut().into_iter().enumerate() {
        if off_diagonal {
            row[i] = f64::NEG_INFINITY;
        }
        let top = argmax(row.view());
        row -= row[top];
        // ln Σ = ln(1 + all but the largest), which keeps its digits where one entry has almost all the mass.
        let others: f64 = row.iter().enumerate().filter(|(k, _)| *k != top).map(|(_, x)| x.exp()).sum();
        row -= others.ln_1p();
    }
    out
}

/// Gradient of z from that of `log_p = log_softmax(z)`: g_i − p_i Σ_k g_k, for the largest p_i as g_i (1 − p_i) − p_i Σ_{k≠i} g_k.
pub fn log_softmax_back(log_p: &Array2<f64>, grad: &Array2<f64>) -> Array2<f64> {
    let mut out = grad.clone();
    for (mut row, p) in out.rows_mut().into_iter().zip(log_p.rows()) {
        let top = argmax(p);
        let own = row[top];
        row[top] = 0.0;
        let others = row.sum();
        row.zip_mut_with(&p, |g, p| *g -= p.exp() * (others + own));
        row[top] = own * -p[top].exp_m1() - p[top].exp() * others;
    }
    out
}

fn argmax(row: ArrayView1<f64>) -> usize {
    row.iter().enumerate().fold(0, |best, (k, x)| if *x > row[best] { k } else { best })
}

/// log of (1 − β_i) y_i + β_i w_i from log w (eqs 8, 9).
pub fn soft_target(log_w: &Array2<f64>, beta: &Array1<f64>) -> Array2<f64> {
    Array2::from_shape_fn(log_w.dim(), |(i, j)| {
        let b = beta[i];
        if i != j {
            return b.ln() + log_w[[i, j]];
        }
        // 1 − β (1 − w_ii), from the other entries where w_ii is near 1.
        let rest: f64 = (0..log_w.ncols()).filter(|k| *k != i).map(|k| log_w[[i, k]].exp()).sum();
        if b * rest < 0.5 { (-b * rest).ln_1p() } else { ((1.0 - b) + b * log_w[[i, i]].exp()).ln() }
    })
}

/// Gradient of log w from that of log q = `soft_target(log_w)`: ∂ log q/∂ log w is 1 off the diagonal, β w_ii/q_ii on it.
pub fn soft_target_back(log_w: &Array2<f64>, log_q: &Array2<f64>, beta: &Array1<f64>, grad: &Array2<f64>) -> Array2<f64> {
    let mut out = grad.clone();
    for i in 0..log_w.nrows() {
        out[[i, i]] *= beta[i] * (log_w[[i, i]] - log_q[[i, i]]).exp();
        if beta[i] == 0.0 {
            out.row_mut(i).fill(0.0);
        }
    }
    out
}

/// A row's divergence and its derivatives with respect to log q and log p, entry by entry.
pub struct Compared {
    pub rows: Array1<f64>,
    pub to_log_q: Array2<f64>,
    pub to_log_p: Array2<f64>,
}

/// Compares targets q with predictions p row by row, 0 log 0 = 0. Entries where both are −∞ take no part.
pub fn compare(kind: Divergence, log_q: &Array2<f64>, log_p: &Array2<f64>) -> Compared {
    let mut out = Compared {
        rows: Array1::zeros(log_p.nrows()),
        to_log_q: Array2::zeros(log_p.dim()),
        to_log_p: Array2::zeros(log_p.dim()),
    };
    for ((i, j), &p) in log_p.indexed_iter() {
        let (value, to_q, to_p) = entry(kind, log_q[[i, j]], p);
        out.rows[i] += value;
        out.to_log_q[[i, j]] = to_q;
        out.to_log_p[[i, j]] = to_p;
    }
    out
}

fn entry(kind: Divergence, q: f64, p: f64) -> (f64, f64, f64) {
    // x log(x/y) with derivatives with respect to log x and log y.
    let term = |x: f64, y: f64| {
        if x == f64::NEG_INFINITY {
            return (0.0, 0.0, 0.0);
        }
        (x.exp() * (x - y), x.exp() * (x - y + 1.0), -x.exp())
    };
    if q == f64::NEG_INFINITY && p == f64::NEG_INFINITY {
        return (0.0, 0.0, 0.0);
    }
    match kind {
        Divergence::Kl => term(q, p),
        Divergence::ReverseKl => {
            let (value, to_p, to_q) = term(p, q);
            (value, to_q, to_p)
        }
        Divergence::SymmetricKl => {
            let (a, aq, ap) = term(q, p);
            let (b, bp, bq) = term(p, q);
            ((a + b) / 2.0, (aq + bq) / 2.0, (ap + bp) / 2.0)
        }
        Divergence::Js => {
            let (high, low) = (q.max(p), q.min(p));
            let m = high + (low - high).exp().ln_1p() - std::f64::consts::LN_2;
            let (a, b) = (term(q, m), term(p, m));
            // m's own derivatives cancel: −½ (q + p)/m · dm + dm = 0; so do the "+ 1" of each term.
            let half = |x: f64, t: (f64, f64, f64)| if x == f64::NEG_INFINITY { 0.0 } else { t.0 / 2.0 };
            ((a.0 + b.0) / 2.0, half(q, a), half(p, b))
        }
    }
}
