//! All three forms against what an independent PyTorch implementation and open_clip computed in f64.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod support;

use std::collections::BTreeMap;

use softclip_loss::Scales;
use softclip_loss::config::{Blend, Divergence, LossConfig, SoftClipConfig, TargetGrad, TextBasedConfig};
use softclip_tensor::file::read_safetensors;
use support::{Data, FORMS, Form, Outcome, error, matrix_error, nan_is_infinite, run};
use tch::{Kind, Tensor};

const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens");
const KINDS: [(Kind, &str); 2] = [(Kind::Double, "f64"), (Kind::Float, "f32")];

/// f64: 1e-10 relative plus 1e-12. f32: 1e-4 relative plus 1e-6.
fn tolerance(kind: &str) -> f64 {
    if kind == "f64" { 1e-10 } else { 1e-4 }
}

/// Largest error of each loss, form and kind.
#[derive(Default)]
struct Table(BTreeMap<(String, &'static str, &'static str), f64>);

impl Table {
    fn add(&mut self, loss: &str, form: Form, kind: &'static str, error: f64, case: &str) {
        assert!(error <= tolerance(kind), "{case} {loss} {} {kind}: error {error:e}", form.name());
        let worst = self.0.entry((loss.to_string(), form.name(), kind)).or_default();
        *worst = worst.max(error);
    }

    fn print(&self, area: &str) {
        assert!(!self.0.is_empty());
        for ((loss, form, kind), worst) in &self.0 {
            println!("PARITY | loss | {area}: {loss}, {form} {kind} | max_rel_err {worst:.1e} | tol {:e}", tolerance(kind));
        }
    }
}

/// Every form in every kind that it has.
fn runs() -> impl Iterator<Item = (Form, Kind, &'static str)> {
    let all = FORMS.into_iter().flat_map(|f| KINDS.into_iter().map(move |(k, name)| (f, k, name)));
    all.filter(|(f, k, _)| *f != Form::Reference || *k == Kind::Double)
}

fn numbers(t: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(t.to_kind(Kind::Double).view([-1])).unwrap()
}

fn double(t: &Tensor) -> Tensor {
    t.to_kind(Kind::Double)
}

/// A setting P of the goldens: τ, α, β, λ, μ.
struct Setting {
    alpha: f64,
    soft: SoftClipConfig,
}

impl Setting {
    fn new(values: &[f64]) -> Self {
        let [_, alpha, beta, lambda, mu] = values[..] else { panic!("five constants") };
        Setting { alpha, soft: SoftClipConfig { beta, lambda, mu, ..Default::default() } }
    }

    fn softclip(&self, change: impl FnOnce(&mut SoftClipConfig)) -> LossConfig {
        let mut c = self.soft.clone();
        change(&mut c);
        LossConfig::Softclip(c)
    }

    /// The configuration that a golden component comes from, and the part it is.
    fn component(&self, name: &str) -> (LossConfig, String) {
        let divergence = |d: Divergence| move |c: &mut SoftClipConfig| c.divergence = d;
        let value = "value".to_string();
        if let Some(side) = name.strip_prefix("clip") {
            let part = side.strip_prefix('_').unwrap_or("value").to_string();
            return (LossConfig::Clip(Default::default()), part);
        }
        if let Some(side) = name.strip_prefix("ls") {
            let part = side.strip_prefix('_').unwrap_or("value").to_string();
            return (self.label_smoothing(), part);
        }
        if let Some(forms) = name.strip_prefix("total_").filter(|f| f.len() == 5) {
            let form = |s: &str| serde_json::from_value(s.into()).unwrap();
            return (self.softclip(|c| c.forms = [form(&forms[..2]), form(&forms[3..])]), value);
        }
        match name {
            "total" => return (self.softclip(|_| ()), value),
            "total_kl" => return (self.softclip(divergence(Divergence::Kl)), value),
            "total_js" => return (self.softclip(divergence(Divergence::Js)), value),
            _ => {}
        }
        if let Some(gamma) = name.strip_prefix("mix_g") {
            let gamma = gamma.parse::<f64>().unwrap() / 10.0;
            return (self.softclip(|c| (c.gamma, c.mu) = (gamma, 0.0)), value);
        }
        let (term, rest) = name.split_once('_').unwrap_or((name, ""));
        let term = if term == "re" { "relation" } else { term };
        let (kind, side) = match rest.split_once('_') {
            Some((kind, side)) => (kind, side),
            None if rest.ends_with("2l") || rest.ends_with("2v") => ("", rest),
            None => (rest, ""),
        };
        let kind = match kind {
            "" => Divergence::Kl,
            "rev" => Divergence::ReverseKl,
            "sym" => Divergence::SymmetricKl,
            "js" => Divergence::Js,
            other => panic!("component {other}"),
        };
        let part = if side.is_empty() { term.to_string() } else { format!("{term}_{side}") };
        (self.softclip(divergence(kind)), part)
    }

    fn label_smoothing(&self) -> LossConfig {
        LossConfig::LabelSmoothing(softclip_loss::config::LabelSmoothingConfig { alpha: self.alpha })
    }

    /// The losses whose gradients the goldens hold.
    fn with_gradients(&self) -> Vec<(&'static str, LossConfig)> {
        use softclip_loss::config::Form::{AR, RA};
        vec![
            ("total", self.softclip(|_| ())),
            ("total_kl", self.softclip(|c| c.divergence = Divergence::Kl)),
            ("ls", self.label_smoothing()),
            ("mix", self.softclip(|c| (c.gamma, c.mu) = (0.5, 0.0))),
            ("forms", self.softclip(|c| c.forms = [RA, AR])),
            ("detached", self.softclip(|c| c.target_grad = TargetGrad::Detach)),
        ]
    }
}

struct Goldens {
    tensors: BTreeMap<String, Tensor>,
    index: serde_json::Value,
}

impl Goldens {
    fn softclip() -> Self {
        let text = std::fs::read_to_string(format!("{GOLDENS}/softclip_losses.json")).unwrap();
        let tensors = read_safetensors(format!("{GOLDENS}/softclip_losses.safetensors")).unwrap();
        Goldens { tensors, index: serde_json::from_str(&text).unwrap() }
    }

    fn cases(&self) -> Vec<(String, String)> {
        let cases = self.index["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 40);
        cases.iter().map(|c| c.as_str().unwrap().split_once('.').map(|(a, b)| (a.into(), b.into())).unwrap()).collect()
    }

    fn setting(&self, p: &str) -> (Setting, Scales) {
        let values: Vec<f64> = serde_json::from_value(self.index["settings"][p].clone()).unwrap();
        (Setting::new(&values), Scales::new(-values[0].ln()))
    }

    fn data(&self, batch: &str) -> Data {
        let set = |k: &str| Some(double(&self.tensors[&format!("{batch}.{k}")]));
        Data { image: set("v"), text: set("t"), regions: set("r"), tags: set("a"), ..Data::default() }
    }
}

/// The row of the table that a component belongs to.
fn group(component: &str) -> &'static str {
    match component.split('_').collect::<Vec<_>>()[..] {
        ["clip", ..] => "clip",
        ["ls", ..] => "label_smoothing",
        ["soft", "rev" | "sym", ..] => "soft, reverse and symmetric KL",
        ["soft", "js"] => "soft, JS",
        ["soft", ..] => "soft, KL",
        ["re", "rev" | "sym", ..] => "relation-enhanced, reverse and symmetric KL",
        ["re", "js"] => "relation-enhanced, JS",
        ["re", ..] => "relation-enhanced, KL",
        ["total", _, _] => "total, forms AA_RR RA_AR AR_RA",
        ["total", ..] => "total, symmetric KL, KL and JS",
        ["mix", ..] => "mix, gamma 0 0.5 1",
        _ => panic!("component {component}"),
    }
}

#[test]
fn every_component_of_softclip_agrees() {
    let goldens = Goldens::softclip();
    let names: Vec<String> = serde_json::from_value(goldens.index["components"].clone()).unwrap();
    assert_eq!(names.len(), 35);
    let mut table = Table::default();
    for (batch, p) in goldens.cases() {
        let (setting, scales) = goldens.setting(&p);
        let data = goldens.data(&batch);
        let expected = numbers(&goldens.tensors[&format!("{batch}.{p}.values")]);
        for (form, kind, kind_name) in runs() {
            let mut done: Vec<(LossConfig, Outcome)> = Vec::new();
            for (name, expected) in names.iter().zip(&expected) {
                let (config, part) = setting.component(name);
                let at = done.iter().position(|(c, _)| *c == config).unwrap_or_else(|| {
                    let outcome = run(form, &config, &data, &scales, kind);
                    done.push((config, outcome));
                    done.len() - 1
                });
                let found = done[at].1.get(&part);
                table.add(group(name), form, kind_name, error(found, *expected), &format!("{batch}.{p}.{name}"));
            }
        }
    }
    table.print("softclip_losses values");
}

/// Errors of [⟨g_v,t⟩, ⟨g_t,v⟩, ⟨g_r,a⟩, ⟨g_a,r⟩, ‖g_v‖, ‖g_t‖, ‖g_r‖, ‖g_a‖, ∂/∂τ, ∂/∂ln(1/τ)]. Dots are relative to the norms of both
/// sides. In f32 a logit at τ = 0.01 is only good to 1e-5: there the temperature's gradient, a sum of ⟨g,x⟩, is relative to those norms,
/// and a set's gradient to its norm plus 1 % of the largest set's (a target's gradient is a difference of nearly equal terms).
fn summary_error(found: &Outcome, data: &Data, tau: f64, expected: &[f64], kind: Kind) -> f64 {
    let partner = [&data.text, &data.image, &data.tags, &data.regions];
    let (mut worst, mut all) = (0.0f64, 0.0);
    let largest = expected[4..8].iter().copied().fold(0.0, f64::max);
    let slack = if kind == Kind::Float { 0.01 * largest } else { 0.0 };
    for k in 0..4 {
        let (g, other) = (found.grads[k].as_ref().unwrap(), partner[k].as_ref().unwrap());
        let dot = (g * other).sum(Kind::Double).double_value(&[]);
        let norm = g.norm().double_value(&[]);
        let size = (expected[4 + k] + slack) * other.norm().double_value(&[]);
        all += size;
        worst = worst.max(nan_is_infinite((dot - expected[k]).abs() / (expected[k].abs() + size + 1e-2)));
        worst = worst.max(nan_is_infinite((norm - expected[4 + k]).abs() / (expected[4 + k] + slack + 1e-2)));
    }
    let size = if kind == Kind::Float { all } else { 0.0 };
    for (found, expected, size) in [(-found.log_scale / tau, expected[8], size / tau), (found.log_scale, expected[9], size)] {
        worst = worst.max(nan_is_infinite((found - expected).abs() / (expected.abs() + size + 1e-2)));
    }
    worst
}

#[test]
fn gradients_of_softclip_agree() {
    let goldens = Goldens::softclip();
    let mut table = Table::default();
    let mut matrices = 0;
    for (batch, p) in goldens.cases() {
        let (setting, scales) = goldens.setting(&p);
        let data = goldens.data(&batch);
        for (name, config) in setting.with_gradients() {
            let case = format!("{batch}.{p}.{name}");
            let summary = numbers(&goldens.tensors[&format!("{case}.gradsummary")]);
            for (form, kind, kind_name) in runs() {
                let found = run(form, &config, &data, &scales, kind);
                let tau = (-scales.log_scale).exp();
                table.add(name, form, kind_name, summary_error(&found, &data, tau, &summary, kind), &case);
                for (k, set) in ["v", "t", "r", "a"].into_iter().enumerate() {
                    let Some(expected) = goldens.tensors.get(&format!("{case}.grad_{set}")) else { continue };
                    matrices += 1;
                    let error = matrix_error(found.grads[k].as_ref().unwrap(), expected);
                    table.add(name, form, kind_name, error, &case);
                }
            }
        }
    }
    assert!(matrices > 500, "{matrices}");
    table.print("softclip_losses gradients");
}

#[test]
fn text_based_loss_agrees() {
    let tensors = read_safetensors(format!("{GOLDENS}/text_based_loss.safetensors")).unwrap();
    let cases: Vec<String> = tensors.keys().filter_map(|k| k.strip_suffix(".values").map(String::from)).collect();
    assert_eq!(cases.len(), 24);
    let mut table = Table::default();
    for case in cases {
        let (batch, constants) = case.split_once('.').unwrap();
        let (alpha, tau) = constants.strip_prefix("alpha").unwrap().split_once(".tau").unwrap();
        let (alpha, tau): (f64, f64) = (alpha.parse().unwrap(), tau.parse().unwrap());
        let set = |k: &str| Some(double(&tensors[&format!("{batch}.{k}")]));
        let data = Data { image: set("v"), text: set("t"), category: set("c"), category_text: set("d"), ..Data::default() };
        let config = LossConfig::TextBased(TextBasedConfig { alpha, blend: Blend::Logits, ..Default::default() });
        let values = numbers(&tensors[&format!("{case}.values")]);
        for (form, kind, kind_name) in runs() {
            let found = run(form, &config, &data, &Scales::new(-tau.ln()), kind);
            let mut worst = error(-found.log_scale / tau, values[3]);
            for (part, expected) in ["v2l", "l2v", "value"].into_iter().zip(&values) {
                worst = worst.max(error(found.get(part), *expected));
            }
            table.add("text_based", form, kind_name, worst, &case);
            let grads = [&found.grads[0], &found.grads[1]].map(|g| g.as_ref().unwrap());
            if let Some(expected) = tensors.get(&format!("{case}.grad_v")) {
                let error = matrix_error(grads[0], expected).max(matrix_error(grads[1], &tensors[&format!("{case}.grad_t")]));
                table.add("text_based", form, kind_name, error, &case);
            } else {
                let expected = numbers(&tensors[&format!("{case}.gradsummary")]);
                let partner = [data.text.as_ref().unwrap(), data.image.as_ref().unwrap()];
                for k in 0..2 {
                    let dot = (grads[k] * partner[k]).sum(Kind::Double).double_value(&[]);
                    let worst = error(dot, expected[k]).max(error(grads[k].norm().double_value(&[]), expected[2 + k]));
                    table.add("text_based", form, kind_name, worst, &case);
                }
            }
        }
    }
    table.print("text_based_loss");
}

#[test]
fn open_clip_losses_agree() {
    let tensors = read_safetensors(format!("{GOLDENS}/openclip_losses.safetensors")).unwrap();
    let cases: Vec<String> = tensors.keys().filter_map(|k| k.strip_suffix(".scale_bias").map(String::from)).collect();
    assert_eq!(cases.len(), 15);
    let mut table = Table::default();
    for case in cases {
        let (batch, name) = case.split_once('.').unwrap();
        let set = |k: &str| Some(double(&tensors[&format!("{batch}.{k}")]));
        let data = Data { image: set("image"), text: set("text"), ..Data::default() };
        let [scale, bias] = numbers(&tensors[&format!("{case}.scale_bias")])[..] else { panic!("{case}") };
        let siglip = name.starts_with("siglip");
        // A bias on all of CLIP's logits changes nothing: its softmax is free of it.
        let config = if siglip { LossConfig::Siglip(Default::default()) } else { LossConfig::Clip(Default::default()) };
        let scales = Scales { log_scale: scale.ln(), target_log_scale: None, bias: siglip.then_some(bias) };
        let expected = numbers(&tensors[&format!("{case}.loss_dscale_dbias")]);
        for (form, kind, kind_name) in runs() {
            let found = run(form, &config, &data, &scales, kind);
            let worst = error(found.value, expected[0])
                .max(error(found.log_scale / scale, expected[1]))
                .max(error(found.bias, expected[2]));
            let name = if siglip { "siglip" } else { "clip" };
            table.add(name, form, kind_name, worst, &case);
            for (k, set) in ["image", "text"].into_iter().enumerate() {
                if let Some(expected) = tensors.get(&format!("{case}.grad_{set}")) {
                    let error = matrix_error(found.grads[k].as_ref().unwrap(), expected);
                    table.add(name, form, kind_name, error, &case);
                }
            }
        }
    }
    table.print("openclip_losses");
}
