//! What the blockwise form tells of its targets, against the dense ones.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use softclip_loss::config::{Blend, Divergence};
use support::{Data, Form, apart, close, run, scales, softclip, text_based};
use tch::{Kind, Tensor};

#[test]
fn diagnostics_are_those_of_the_dense_targets() {
    // Only the blockwise form carries them: here they are counted from the matrices.
    let data = Data::random(13, 9, 6);
    let n = data.rows() as f64;
    let cosines = |x: &Tensor| x.matmul(&x.tr());
    let own = |m: &Tensor| m.diagonal(0, 0, 1).sum(Kind::Double).double_value(&[]);
    let total = |m: &Tensor| m.sum(Kind::Double).double_value(&[]);
    let (beta, gamma) = (0.4, 0.6);
    let (mut softness, mut entropy, mut expected) = (0.0, 0.0, Vec::new());
    for (set, share) in data.sets().into_iter().flatten().zip([1.0 - gamma, 1.0 - gamma, gamma, gamma]) {
        let cosines = cosines(set);
        expected.push((total(&cosines) - own(&cosines)) / (n * (n - 1.0)));
        let q = (cosines * scales().log_scale.exp()).softmax(1, Kind::Double) * beta + apart(9) * (1.0 - beta);
        softness += share / 2.0 * (1.0 - own(&q) / n);
        entropy -= share / 2.0 * total(&(&q * q.log())) / n;
    }
    for divergence in [Divergence::SymmetricKl, Divergence::Js] {
        let config = softclip(|c| (c.beta, c.gamma, c.divergence) = (beta, gamma, divergence));
        let found = run(Form::Blockwise(4), &config, &data, &scales(), Kind::Double).diagnostics.unwrap();
        close(found.target_softness, softness, "softness");
        close(found.target_entropy.unwrap(), entropy, "entropy");
        for ((name, found), expected) in found.mean_cosine.into_iter().zip(&expected) {
            close(found, *expected, name);
        }
    }
}

#[test]
fn label_rows_of_any_sign_count_by_their_sizes() {
    // Cosines of random rows are as often negative as not: their sum is near 0 or below it.
    let data = Data::random(17, 12, 3);
    let [category, captions] = [&data.category, &data.category_text].map(|x| x.as_ref().unwrap());
    let cosines = category.matmul(&captions.tr());
    for (symmetrize, alpha) in [(false, 0.3), (true, 0.3), (false, 1.0)] {
        let text = if symmetrize { (&cosines + cosines.tr()) / 2.0 } else { cosines.shallow_clone() };
        let labels = (apart(12) * (1.0 - alpha) + text * alpha).abs();
        let own = labels.diagonal(0, 0, 1);
        let share = |along: i64| (&own / labels.sum_dim_intlist([along].as_slice(), false, Kind::Double)).mean(Kind::Double);
        let expected = 1.0 - (share(0) + share(1)).double_value(&[]) / 2.0;
        let config = text_based(|c| (c.blend, c.symmetrize, c.alpha) = (Blend::Targets, symmetrize, alpha));
        let found = run(Form::Blockwise(5), &config, &data, &scales(), Kind::Double).diagnostics.unwrap().target_softness;
        close(found, expected, "softness");
        assert!((0.0..=1.0).contains(&found), "{found}");
    }
}
