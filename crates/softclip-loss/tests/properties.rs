//! What must hold for every loss whatever the embeddings: symmetries, limits, closed forms, derivatives, refusals.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use proptest::prelude::*;
use softclip_loss::config::{Blend, Divergence, Form as Guided, LossConfig, TargetGrad, TargetTemperature};
use softclip_loss::{BlockOptions, Error, Scales, blockwise};
use softclip_tensor::Embeddings;
use support::{Data, Draw, FORMS, Form, Outcome, embeddings, error, inputs, matrix_error, outcome_error, run};
use support::{apart, close, losses, scales, smoothing, softclip, text_based};
use tch::{Device, Kind, Tensor};

fn any_case() -> impl Strategy<Value = (LossConfig, Data)> {
    cases(2, 1)
}

/// At least so many rows and columns.
fn cases(rows: i64, columns: i64) -> impl Strategy<Value = (LossConfig, Data)> {
    let sizes = (rows..20, columns..9);
    (0..losses().len(), any::<u64>(), sizes).prop_map(|(k, seed, (n, d))| (losses().swap_remove(k), Data::random(seed, n, d)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn three_forms_agree_at_any_tile((config, data) in any_case(), tile in 1..24i64) {
        let expected = run(Form::Reference, &config, &data, &scales(), Kind::Double);
        for form in [Form::Plain, Form::Blockwise(tile)] {
            let found = run(form, &config, &data, &scales(), Kind::Double);
            let error = outcome_error(&found, &expected);
            prop_assert!(error < 1e-9, "{config:?}, {form:?}: {error:e}");
        }
    }

    #[test]
    fn f32_is_within_1e_4_of_f64((config, data) in cases(4, 4), tile in 1..24i64) {
        let expected = run(Form::Reference, &config, &data, &scales(), Kind::Double);
        for form in [Form::Plain, Form::Blockwise(tile)] {
            let error = outcome_error(&run(form, &config, &data, &scales(), Kind::Float), &expected);
            prop_assert!(error < 1e-4, "{config:?}, {form:?}: {error:e}");
        }
    }

    #[test]
    fn the_order_of_the_batch_is_of_no_account((config, data) in any_case(), seed in any::<u64>()) {
        let mut draw = Draw(seed);
        let mut order: Vec<(f64, i64)> = (0..data.rows()).map(|i| (draw.next(), i)).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        let order: Vec<i64> = order.into_iter().map(|(_, i)| i).collect();
        let index = Tensor::from_slice(&order);
        for form in FORMS {
            let mut straight = run(form, &config, &data, &scales(), Kind::Double);
            let permuted = run(form, &config, &data.permuted(&order), &scales(), Kind::Double);
            straight.grads = straight.grads.map(|g| g.map(|g| g.index_select(0, &index)));
            let error = outcome_error(&permuted, &straight);
            prop_assert!(error < 1e-9, "{config:?}, {form:?}: {error:e}");
        }
    }

    #[test]
    fn a_constant_on_all_logits_is_of_no_account((config, data) in any_case(), c in 0.1..2.0f64) {
        // One more column c in both sets of a product, and 1 + c² on the scale, which keeps the rows' norms at 1, add c²/τ to every logit.
        prop_assume!(has_shift_symmetry(&config));
        let labels = matches!(&config, LossConfig::TextBased(t) if t.blend != Blend::Logits);
        let norm = (1.0 + c * c).sqrt();
        let shifted = data.map(|index, x| {
            let column = Tensor::full([x.size()[0], 1], c, (Kind::Double, Device::Cpu));
            if labels && index >= 4 { x.shallow_clone() } else { Tensor::cat(&[x, &column], 1) / norm }
        });
        let more = |s: f64| s + 2.0 * norm.ln();
        let shifted_scales =
            Scales { log_scale: more(scales().log_scale), target_log_scale: scales().target_log_scale.map(more), bias: None };
        for form in FORMS {
            let before = run(form, &config, &data, &scales(), Kind::Double);
            let after = run(form, &config, &shifted, &shifted_scales, Kind::Double);
            prop_assert!(error(after.value, before.value) < 1e-9, "{config:?}, {form:?}: {} and {}", after.value, before.value);
            for (a, b) in after.grads.iter().zip(&before.grads) {
                if let (Some(a), Some(b)) = (a, b) {
                    let error = matrix_error(&(a.narrow(1, 0, b.size()[1]) / norm), b);
                    prop_assert!(error < 1e-8, "{config:?}, {form:?}: gradients differ by {error:e}");
                }
            }
        }
    }

    #[test]
    fn gradients_are_slopes((config, data) in any_case(), seed in any::<u64>()) {
        // Detached targets are constants to the gradient and not to a difference.
        prop_assume!(!matches!(&config, LossConfig::Softclip(c) if c.target_grad == TargetGrad::Detach));
        let mut draw = Draw(seed);
        let direction: Vec<Tensor> = data.sets().iter().take(4).flatten().map(|x| draw.rows(x.size()[0], x.size()[1], None)).collect();
        let h = 1e-5;
        let at = |step: f64| {
            let moved = data.map(|index, x| match direction.get(index) {
                Some(d) => x + d * step,
                None => x.shallow_clone(),
            });
            let scales = scales();
            let scales = Scales {
                log_scale: scales.log_scale + step,
                target_log_scale: scales.target_log_scale.map(|s| s + step),
                bias: scales.bias.map(|b| b + step),
            };
            run(Form::Reference, &config, &moved, &scales, Kind::Double)
        };
        let slope = (at(h).value - at(-h).value) / (2.0 * h);
        let here = at(0.0);
        let along: f64 = here.grads.iter().flatten().zip(&direction).map(|(g, d)| (g * d).sum(Kind::Double).double_value(&[])).sum();
        let along = along + here.log_scale + here.target_log_scale + here.bias;
        prop_assert!((slope - along).abs() < 1e-6 * (1.0 + slope.abs()), "{config:?}: slope {slope}, gradient {along}");
    }

    #[test]
    fn one_beta_for_all_rows_is_the_same_as_beta((seed, n, d) in (any::<u64>(), 2..12i64, 1..8i64), beta in 0.05..0.95f64) {
        let data = Data::random(seed, n, d);
        let by_row = Data { row_beta: Some(Tensor::full([n], beta, (Kind::Double, Device::Cpu))), ..data.map(|_, x| x.shallow_clone()) };
        for form in FORMS {
            let expected = run(form, &softclip(|c| c.beta = beta), &data, &scales(), Kind::Double);
            let found = run(form, &softclip(|_| ()), &by_row, &scales(), Kind::Double);
            prop_assert!(outcome_error(&found, &expected) < 1e-10, "{form:?}");
        }
    }

    #[test]
    fn rows_of_any_beta_agree((config, data) in any_case(), seed in any::<u64>(), tile in 1..24i64) {
        prop_assume!(matches!(&config, LossConfig::Softclip(_)));
        let mut draw = Draw(seed);
        // Hard labels, targets without the own pair's share, and all between, side by side.
        let betas: Vec<f64> = (0..data.rows()).map(|_| [0.0, 1.0, draw.next()][(draw.next() * 3.0) as usize]).collect();
        let data = Data { row_beta: Some(Tensor::from_slice(&betas)), ..data };
        let expected = run(Form::Reference, &config, &data, &scales(), Kind::Double);
        for form in [Form::Plain, Form::Blockwise(tile)] {
            let found = run(form, &config, &data, &scales(), Kind::Double);
            let error = outcome_error(&found, &expected);
            prop_assert!(error < 1e-9, "{config:?}, {form:?}, {betas:?}: {error:e}");
        }
    }
}

#[test]
fn two_pairs_agree() {
    // One entry is left off the diagonal: the relation-enhanced term is gone, and without a soft term all that a target says.
    let data = Data::random(8, 2, 4);
    for config in losses() {
        let expected = run(Form::Reference, &config, &data, &scales(), Kind::Double);
        for form in [Form::Plain, Form::Blockwise(1), Form::Blockwise(2)] {
            let error = outcome_error(&run(form, &config, &data, &scales(), Kind::Double), &expected);
            assert!(error < 1e-9, "{config:?}, {form:?}: {error:e}");
        }
    }
}

/// A sigmoid has no such symmetry, and a fixed temperature does not let the norms be kept.
fn has_shift_symmetry(config: &LossConfig) -> bool {
    match config {
        LossConfig::Siglip(_) => false,
        LossConfig::Softclip(c) => !matches!(c.target_temperature, TargetTemperature::Fixed(_)),
        LossConfig::TextBased(c) => c.tau.is_none(),
        _ => true,
    }
}

/// The same unit row n times.
fn alike(n: i64) -> Tensor {
    Tensor::full([n, 4], 0.5, (Kind::Double, Device::Cpu))
}

fn of(config: &LossConfig, pairs: &Tensor, guides: &Tensor, mut check: impl FnMut(Form, Outcome)) {
    let [image, text] = [pairs, pairs].map(|t| Some(t.copy()));
    let [regions, tags, category, category_text] = [guides; 4].map(|t| Some(t.copy()));
    let data = Data { image, text, regions, tags, category, category_text, row_beta: None };
    for form in [Form::Reference, Form::Plain, Form::Blockwise(3)] {
        check(form, run(form, config, &data, &scales(), Kind::Double));
    }
}

#[test]
fn closed_forms() {
    let n = 7.0;
    let (scale, bias) = (scales().log_scale.exp(), scales().bias.unwrap());
    let softplus = |x: f64| x.exp().ln_1p();
    let clip = LossConfig::Clip(Default::default());
    of(&clip, &alike(7), &alike(7), |_, l| close(l.value, f64::ln(n), "a collapsed batch: ln N"));
    let apart_loss = ((n - 1.0) * (-scale).exp()).ln_1p();
    of(&clip, &apart(7), &alike(7), |_, l| close(l.value, apart_loss, "orthogonal pairs: ln(1 + (N - 1) e^(-1/τ))"));
    of(&smoothing(0.3), &alike(7), &alike(7), |_, l| close(l.value, f64::ln(n), "a collapsed batch: ln N for any label"));
    of(&smoothing(0.3), &apart(7), &alike(7), |_, l| close(l.value, apart_loss + 0.3 * scale, "smoothed: α more than CLIP's"));
    let both = |own: f64, other: f64| softplus(-(scale * own + bias)) + (n - 1.0) * softplus(scale * other + bias);
    of(&LossConfig::Siglip(Default::default()), &apart(7), &alike(7), |_, l| close(l.value, both(1.0, 0.0), "orthogonal pairs"));
    of(&LossConfig::Siglip(Default::default()), &alike(7), &alike(7), |_, l| close(l.value, both(1.0, 1.0), "a collapsed batch"));
}

#[test]
fn perfect_predictions_cost_nothing() {
    // Where the guides are like the pairs, β = 1 makes the target the prediction itself.
    for divergence in [Divergence::Kl, Divergence::ReverseKl, Divergence::SymmetricKl, Divergence::Js] {
        let config = softclip(|c| (c.beta, c.mu, c.divergence) = (1.0, 0.0, divergence));
        let rows = Draw(3).rows(9, 4, None);
        of(&config, &rows, &rows, |form, l| assert!(l.value.abs() < 1e-12, "{divergence:?} {form:?}: {}", l.value));
    }
}

#[test]
fn uniform_targets_are_label_smoothing() {
    // Guides that are all alike spread β evenly over all N, so β (N - 1)/N off the own pair; KL is cross-entropy less the label's entropy.
    let (n, beta) = (8.0, 0.4);
    let alpha = beta * (n - 1.0) / n;
    let entropy = -(1.0 - alpha) * f64::ln(1.0 - alpha) - alpha * f64::ln(alpha / (n - 1.0));
    let soft = softclip(|c| (c.beta, c.lambda, c.mu, c.divergence) = (beta, 0.0, 0.0, Divergence::Kl));
    let pairs = Draw(5).rows(8, 6, None);
    let mut smoothed = Vec::new();
    of(&smoothing(alpha), &pairs, &alike(8), |_, l| smoothed.push(l));
    let mut expected = smoothed.into_iter();
    of(&soft, &pairs, &alike(8), |form, found| {
        let expected = expected.next().unwrap();
        close(found.value, expected.value - entropy, "value");
        for side in 0..2 {
            let (a, b) = (found.grads[side].as_ref().unwrap(), expected.grads[side].as_ref().unwrap());
            assert!(matrix_error(a, b) < 1e-9, "{form:?}");
        }
    });
}

#[test]
fn guides_that_are_all_alike_show_in_the_diagnostics() {
    // The target is spread evenly: β (N - 1)/N off the own pair, and all guides point one way.
    let (n, beta) = (7.0, 0.4);
    let off = beta * (n - 1.0) / n;
    let entropy = -(1.0 - off) * f64::ln(1.0 - off) - off * f64::ln(beta / n);
    for divergence in [Divergence::Kl, Divergence::ReverseKl, Divergence::SymmetricKl, Divergence::Js] {
        let config = softclip(|c| (c.beta, c.divergence) = (beta, divergence));
        of(&config, &apart(7), &alike(7), |form, l| {
            let Some(d) = l.diagnostics else { return assert_ne!(form, Form::Blockwise(3)) };
            close(d.target_softness, off, "softness");
            close(d.target_entropy.unwrap(), entropy, "entropy");
            let cosines = d.mean_cosine.into_iter().map(|(name, c)| (name, (c * 1e9).round() / 1e9)).collect::<Vec<_>>();
            assert_eq!(cosines, [("image", 0.0), ("text", 0.0), ("regions", 1.0), ("tags", 1.0)]);
        });
    }
}

#[test]
fn a_vanishing_beta_is_clip() {
    let data = Data::random(11, 10, 6);
    let clip = run(Form::Reference, &LossConfig::Clip(Default::default()), &data, &scales(), Kind::Double);
    let soft = |beta: f64| softclip(|c| (c.beta, c.lambda, c.mu, c.divergence) = (beta, 0.0, 0.0, Divergence::Kl));
    for form in FORMS {
        let error = |beta: f64| (run(form, &soft(beta), &data, &scales(), Kind::Double).value - clip.value).abs();
        assert!(error(1e-3) < 0.05 && error(1e-6) < 1e-4 && error(1e-6) < error(1e-3), "{form:?}");
        assert!(error(0.0) < 1e-12, "{form:?}: β = 0 is CLIP");
    }
}

#[test]
fn detached_targets_change_gradients_and_not_the_value() {
    let data = Data::random(12, 9, 6);
    for form in FORMS {
        let flow = run(form, &softclip(|_| ()), &data, &scales(), Kind::Double);
        let detach = run(form, &softclip(|c| c.target_grad = TargetGrad::Detach), &data, &scales(), Kind::Double);
        assert_eq!(flow.value, detach.value);
        assert!(flow.grads[2].as_ref().unwrap().abs().max().double_value(&[]) > 1e-4, "{form:?}");
        assert!(detach.grads[2].as_ref().is_none_or(|g| g.abs().max().double_value(&[]) == 0.0), "{form:?}");
    }
}

fn refuse(config: &LossConfig, data: &Data, kind: Kind) -> Error {
    let sets = embeddings(data, kind);
    let inputs = inputs(&sets, data.row_beta.as_ref());
    blockwise(config, &inputs, &scales(), &BlockOptions { tile: 4 }).unwrap_err()
}

#[test]
fn one_pair_is_refused() {
    for config in losses() {
        let error = refuse(&config, &Data::random(1, 1, 4), Kind::Float);
        assert!(matches!(error, Error::BatchTooSmall { rows: 1 }), "{error}");
        assert!(error.to_string().contains("at least 2"));
    }
}

#[test]
fn nan_is_refused_with_its_row() {
    for bad in [f64::NAN, f64::INFINITY] {
        let data = Data::random(2, 6, 4);
        let mut sets = embeddings(&data, Kind::Float);
        let tags = data.tags.as_ref().unwrap().copy();
        let _ = tags.get(3).get(1).fill_(bad);
        sets[3] = Some(Embeddings::normalize(&tags.to_kind(Kind::Float)).unwrap());
        let run = |config: &LossConfig| blockwise(config, &inputs(&sets, None), &scales(), &BlockOptions { tile: 4 });
        let error = run(&softclip(|_| ())).unwrap_err();
        assert!(matches!(error, Error::NonFiniteInput { what: "tag embeddings", row: 3 }), "{error}");
        // What a loss does not look at cannot disturb it.
        assert!(run(&LossConfig::Clip(Default::default())).unwrap().value.is_finite());
    }
}

#[test]
fn inputs_that_do_not_fit_are_refused_by_name() {
    let full = Data::random(4, 6, 4);
    let copy = || full.map(|_, x| x.shallow_clone());
    let narrow = Draw(1).rows(6, 3, None);
    let short = Draw(1).rows(5, 7, None);
    let message = |config: LossConfig, data: Data| refuse(&config, &data, Kind::Float).to_string();
    let text = message(LossConfig::Clip(Default::default()), Data { text: Some(narrow.shallow_clone()), ..copy() });
    assert!(text.contains("text embeddings") && text.contains("[6, 4]"), "{text}");
    let text = message(softclip(|_| ()), Data { regions: Some(short), ..copy() });
    assert!(text.contains("region embeddings") && text.contains("[6, D]"), "{text}");
    let text = message(softclip(|c| c.forms = [Guided::RA, Guided::AR]), Data { tags: Some(narrow), ..copy() });
    assert!(text.contains("tag embeddings"), "{text}");
    let text = message(softclip(|_| ()), Data { tags: None, ..copy() });
    assert!(text.contains("needs tag embeddings") && text.contains("forms: [RR, RR]"), "{text}");
    let sets = embeddings(&full, Kind::Float);
    let lacking = Scales::new(2.0);
    let error = blockwise(&LossConfig::Siglip(Default::default()), &inputs(&sets, None), &lacking, &BlockOptions { tile: 4 });
    assert!(error.unwrap_err().to_string().contains("a bias"));
}

#[test]
fn constants_out_of_range_are_refused_by_key() {
    let refused = [
        (softclip(|c| c.beta = 1.5), "loss.beta"),
        (softclip(|c| c.beta = 0.0), "loss.beta"),
        (softclip(|c| c.gamma = -0.1), "loss.gamma"),
        (softclip(|c| c.lambda = f64::NAN), "loss.lambda"),
        (softclip(|c| (c.soft, c.lambda, c.mu) = (0.0, 0.0, 0.0)), "loss.mu"),
        (softclip(|c| c.target_temperature = TargetTemperature::Fixed(0.0)), "loss.target_temperature"),
        (smoothing(1.1), "loss.alpha"),
        (text_based(|c| c.tau = Some(-1.0)), "loss.tau"),
    ];
    for (config, key) in refused {
        let text = config.validate().unwrap_err().to_string();
        assert!(text.starts_with(key), "{text}");
        assert_eq!(refuse(&config, &Data::random(1, 4, 4), Kind::Float).to_string(), text);
    }
    let unknown = serde_yaml::from_str::<LossConfig>("{ name: softclip, betta: 0.3 }").unwrap_err().to_string();
    assert!(unknown.contains("betta"), "{unknown}");
}

#[test]
fn without_a_share_of_the_categories_nothing_of_them_is_needed() {
    let data = Data::random(17, 7, 5);
    let alone = Data { category: None, category_text: None, ..data.map(|_, t| t.shallow_clone()) };
    let clip = run(Form::Reference, &LossConfig::Clip(Default::default()), &data, &Scales::new(10f64.ln()), Kind::Double);
    for blend in [Blend::Logits, Blend::Targets, Blend::TargetsNormalized] {
        for symmetrize in [false, true] {
            let config = text_based(|c| (c.alpha, c.blend, c.symmetrize, c.tau) = (0.0, blend, symmetrize, Some(0.1)));
            assert!(!config.needs().category && config.validate().is_ok());
            let expected = run(Form::Reference, &config, &data, &scales(), Kind::Double);
            for form in [Form::Reference, Form::Plain, Form::Blockwise(3)] {
                let found = run(form, &config, &alone, &scales(), Kind::Double);
                close(found.value, expected.value, form.name());
                assert_eq!(found.log_scale, 0.0, "a constant τ has no gradient");
                for k in 0..2 {
                    let off = matrix_error(found.grads[k].as_ref().unwrap(), expected.grads[k].as_ref().unwrap());
                    assert!(off < 1e-9, "{blend:?} {} {k}: {off}", form.name());
                }
            }
            if !symmetrize {
                close(expected.value, clip.value, "CLIP's loss at τ = 0.1");
            }
        }
    }
}
