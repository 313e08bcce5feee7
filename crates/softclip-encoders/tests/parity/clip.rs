//! CLIP's encoders against open_clip's.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;

use softclip_encoders::{Activation, Clip, ClipConfig, Mode, load_weights};
use softclip_tensor::Embeddings;
use softclip_tensor::file::read_safetensors_metadata;
use tch::nn::VarStore;
use tch::{Kind, Reduction, Tensor, no_grad};

use crate::{GOLDENS, allowed, check, device, golden};

const MODELS: [&str; 4] = ["rn50", "vit_b_32", "vit_b_16", "vit_l_14"];

struct Case {
    name: &'static str,
    vs: VarStore,
    model: Clip,
    io: BTreeMap<String, Tensor>,
}

impl Case {
    fn open(name: &'static str, quick_gelu: bool) -> Self {
        let io = format!("{GOLDENS}/openclip_{name}_small.io.safetensors");
        let json = read_safetensors_metadata(&io).unwrap()["config"].clone();
        let config = ClipConfig::from_open_clip_json(&json).unwrap();
        let config = if quick_gelu { config.with_activation(Activation::QuickGelu) } else { config };
        let vs = VarStore::new(device());
        let model = Clip::new(&vs.root(), &config).unwrap();
        let weights = golden(&format!("openclip_{name}_small.weights"));
        let report = load_weights(&vs, &weights, true).unwrap();
        assert_eq!(report.loaded, vs.variables().len());
        Case { name, vs, model, io: golden(&format!("openclip_{name}_small.io")) }
    }

    fn image(&self) -> Tensor {
        self.io["image"].to_kind(Kind::Float)
    }

    fn check(&self, row: &str, found: &Tensor, golden: &str, tolerance: f64) {
        check(self.name, row, found, &self.io[golden], tolerance);
    }
}

#[test]
fn features_and_logits_agree_with_open_clip() {
    for name in MODELS {
        for (quick, suffix) in [(false, ""), (true, ".quick_gelu")] {
            let case = Case::open(name, quick);
            no_grad(|| {
                let v = case.model.encode_image(&case.image(), Mode::Eval).unwrap();
                let t = case.model.encode_text(&case.io["text"]).unwrap();
                case.check(&format!("image_features{suffix}"), &v, &format!("image_features{suffix}"), 1e-5);
                case.check(&format!("text_features{suffix}"), &t, &format!("text_features{suffix}"), 1e-5);
                let (v, t) = (Embeddings::normalize(&v).unwrap().into_tensor(), Embeddings::normalize(&t).unwrap().into_tensor());
                case.check(&format!("image_features_norm{suffix}"), &v, &format!("image_features_norm{suffix}"), 1e-5);
                case.check(&format!("text_features_norm{suffix}"), &t, &format!("text_features_norm{suffix}"), 1e-5);
                let logits = v.matmul(&t.tr()) * case.model.logit_scale().exp();
                case.check(&format!("logits_per_image{suffix}"), &logits, &format!("logits_per_image{suffix}"), 1e-5);
            });
        }
    }
}

#[test]
fn intermediate_values_agree_with_open_clip() {
    for name in MODELS {
        let case = Case::open(name, false);
        let mut seen = BTreeMap::new();
        let mut trace = |module: &str, x: &Tensor| {
            seen.insert(module.to_owned(), x.narrow(0, 0, 1));
        };
        no_grad(|| {
            let _ = case.model.encode_image_with(&case.image(), Mode::Eval, &mut trace).unwrap();
            let _ = case.model.encode_text_with(&case.io["text"], &mut trace).unwrap();
        });
        let mut compared = 0;
        for golden in case.io.keys().filter(|k| k.starts_with("mid.")) {
            let module = &golden["mid.".len()..];
            case.check(golden, seen.get(module).unwrap_or_else(|| panic!("{name}: {module} was not traced")), golden, 1e-5);
            compared += 1;
        }
        assert!(compared >= 2, "{name}: {compared}");
    }
}

fn clip_loss(v: &Tensor, t: &Tensor, log_scale: &Tensor) -> Tensor {
    let logits = v.matmul(&t.tr()) * log_scale.exp();
    let labels = Tensor::arange(v.size()[0], (Kind::Int64, v.device()));
    let ce = |x: &Tensor| x.cross_entropy_loss::<Tensor>(&labels, None, Reduction::Mean, -100, 0.0);
    (ce(&logits) + ce(&logits.tr())) / 2.0
}

#[test]
fn a_training_step_agrees_with_open_clip() {
    for name in MODELS {
        let case = Case::open(name, false);
        let v = Embeddings::normalize(&case.model.encode_image(&case.image(), Mode::Train).unwrap()).unwrap().into_tensor();
        let t = Embeddings::normalize(&case.model.encode_text(&case.io["text"]).unwrap()).unwrap().into_tensor();
        let loss = clip_loss(&v, &t, case.model.logit_scale());
        loss.backward();
        case.check("train.loss", &loss.detach().view([1]), "train.loss", 1e-5);
        case.check("train.image_features_norm", &v.detach(), "train.image_features_norm", 1e-5);
        let variables = case.vs.variables();
        let mut norms = 0.0f64;
        for golden in case.io.keys() {
            if let Some(parameter) = golden.strip_prefix("grad.") {
                case.check(golden, &variables[parameter].grad(), golden, 1e-4);
            } else if let Some(parameter) = golden.strip_prefix("gradnorm.") {
                let found = variables[parameter].grad().norm().double_value(&[]);
                let expected = case.io[golden].double_value(&[0]);
                // The keys' biases cancel in the softmax: their gradients are rounding noise.
                let error = (found - expected).abs() / expected.max(1e-3);
                assert!(error <= allowed(1e-4), "{name} {golden}: {found} {expected}");
                norms = norms.max(error);
            } else if let Some(buffer) = golden.strip_prefix("train.after.") {
                case.check(golden, &variables[buffer], golden, 1e-5);
            }
        }
        println!("PARITY | encoders {name} | gradnorm.* (all parameters) | max_rel_err {norms:.1e} | tol {:.0e}", allowed(1e-4));
    }
}
