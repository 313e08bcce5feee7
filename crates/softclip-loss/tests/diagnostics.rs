//! What the blockwise form tells of its targets, against the dense ones.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use softclip_loss::config::{Blend, Divergence, LossConfig};
use softclip_loss::plain;
use support::{Data, Form, apart, close, embeddings, inputs, losses, run, scales, softclip, text_based};
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

#[test]
fn targets_as_matrices_are_those_that_the_blockwise_form_tells_of() {
    let mut data = Data::random(19, 11, 5);
    // Some rows have a plain hard label.
    data.row_beta = Some(Tensor::from_slice(&[0.3, 0.0, 0.5, 0.3, 0.0, 0.2, 0.9, 0.3, 0.3, 0.1, 0.3]));
    let scale = |log: f64| Tensor::from_slice(&[log]).to_kind(Kind::Double).squeeze();
    let of = scales();
    let tensors = plain::Scales {
        log_scale: scale(of.log_scale),
        target_log_scale: of.target_log_scale.map(scale),
        bias: of.bias.map(scale),
    };
    for config in losses() {
        let sets = embeddings(&data, Kind::Double);
        let found = plain::targets(&config, &inputs(&sets, data.row_beta.as_ref()), &tensors).unwrap();
        let signed = matches!(&config, LossConfig::TextBased(c) if c.blend == Blend::Targets);
        let mut softness = 0.0;
        for q in &found {
            assert_eq!(q.size(), [11, 11]);
            let q = if signed { q.abs() } else { q.shallow_clone() };
            let sums = q.sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
            if !signed {
                close((&sums - 1.0).abs().max().double_value(&[]), 0.0, "a row's sum off 1");
            }
            softness += (1.0 - (q.diagonal(0, 0, 1) / sums).mean(Kind::Double).double_value(&[])) / 2.0;
        }
        let told = run(Form::Blockwise(4), &config, &data, &scales(), Kind::Double).diagnostics.unwrap();
        close(softness, told.target_softness, config.name());
    }
}

#[test]
fn a_target_follows_from_the_equations_by_hand() {
    // Two pairs whose regions have the cosine 0.5 and whose tags have the cosine 0, at 1/τ = 2 and β = 0.4.
    let rows = |x: [[f64; 2]; 2]| Some(Tensor::from_slice(&x.concat()).view([2, 2]));
    let unit = [[1.0, 0.0], [0.0, 1.0]];
    let data = Data {
        image: rows(unit),
        text: rows(unit),
        regions: rows([[1.0, 0.0], [0.5, 0.75f64.sqrt()]]),
        tags: rows(unit),
        ..Data::default()
    };
    let sets = embeddings(&data, Kind::Double);
    let scales = plain::Scales::new(Tensor::from(2f64.ln()));
    let [v2l, l2v] = plain::targets(&softclip(|c| c.beta = 0.4), &inputs(&sets, None), &scales).unwrap();
    for (target, cosine) in [(v2l, 0.5f64), (l2v, 0.0)] {
        let other = 0.4 / (1.0 + (2.0 * (1.0 - cosine)).exp());
        close(target.double_value(&[0, 1]), other, "off the own pair");
        close(target.double_value(&[1, 1]), 1.0 - other, "on it");
    }
}
