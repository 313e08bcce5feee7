//! Heat maps: what holds for every model, and what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::BTreeMap;

use softclip_encoders::{Clip, ClipConfig, ClipTextConfig, TextConfig, TorchvisionConfig, VisionConfig, load_weights};
use softclip_eval::{HeatMap, grad_cam, grad_cam_layer};
use softclip_tensor::Embeddings;
use softclip_tensor::file::{read_safetensors, read_safetensors_metadata};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens");
const RESNET50: &str = "resnet50";
const MODELS: [&str; 4] = ["rn50", "vit_b_32", "vit_l_14", RESNET50];

struct Case {
    vs: VarStore,
    clip: Clip,
    golden: BTreeMap<String, Tensor>,
}

impl Case {
    fn open(name: &str) -> Self {
        let golden = read_safetensors(format!("{GOLDENS}/grad_cam.safetensors")).unwrap();
        let own = |(k, v): (String, Tensor)| Some((k.strip_prefix(&format!("{name}/"))?.to_owned(), v));
        let golden: BTreeMap<String, Tensor> = golden.into_iter().filter_map(own).collect();
        if name == RESNET50 {
            return Self::torchvision(golden);
        }
        let json =
            read_safetensors_metadata(format!("{GOLDENS}/openclip_{name}_small.io.safetensors")).unwrap()["config"].clone();
        let weights = read_safetensors(format!("{GOLDENS}/openclip_{name}_small.weights.safetensors")).unwrap();
        Self::new(&ClipConfig::from_open_clip_json(&json).unwrap(), &weights, true, golden)
    }

    /// torchvision's tower, whose projection lies beside the maps; its text tower is not asked for anything.
    fn torchvision(golden: BTreeMap<String, Tensor>) -> Self {
        let vision = TorchvisionConfig { image_size: 64, layers: [1, 2, 1, 1], width: 4 };
        let text = ClipTextConfig { vocab_size: 49408, width: 16, heads: 2, layers: 1, ..ClipTextConfig::clip(512) };
        let config = ClipConfig::new(12, VisionConfig::Resnet50(vision), TextConfig::Clip(text));
        let trunk = read_safetensors(format!("{GOLDENS}/resnet50_small.weights.safetensors")).unwrap();
        let trunk = trunk.into_iter().filter(|(k, _)| !k.starts_with("fc."));
        let mut weights: BTreeMap<String, Tensor> = trunk.map(|(k, v)| (format!("visual.trunk.{k}"), v)).collect();
        weights.insert("visual.head.proj.weight".to_owned(), golden["proj"].shallow_clone());
        Self::new(&config, &weights, false, golden)
    }

    fn new(config: &ClipConfig, weights: &BTreeMap<String, Tensor>, strict: bool, golden: BTreeMap<String, Tensor>) -> Self {
        let device = softclip_torch::parse_device(&std::env::var("SOFTCLIP_TEST_DEVICE").unwrap_or("cpu".into())).unwrap();
        let vs = VarStore::new(device);
        let clip = Clip::new(&vs.root(), config).unwrap();
        let report = load_weights(&vs, weights, strict).unwrap();
        assert!(report.unexpected.is_empty() && !report.missing.iter().any(|name| name.starts_with("visual.")), "{report:?}");
        Case { vs, clip, golden }
    }

    fn texts(&self) -> Embeddings {
        Embeddings::checked(self.golden["texts"].shallow_clone()).unwrap()
    }

    fn maps(&self, texts: &Embeddings, layer: &str) -> Vec<HeatMap> {
        grad_cam(&self.clip, &self.golden["pixels"], texts, layer).unwrap()
    }
}

fn stacked(maps: &[HeatMap]) -> Tensor {
    Tensor::stack(&maps.iter().map(|m| m.map.shallow_clone()).collect::<Vec<_>>(), 0)
}

fn largest(x: &Tensor) -> f64 {
    x.abs().max().double_value(&[])
}

#[test]
fn maps_agree_with_pytorch_on_every_layer() {
    let mut compared = 0;
    for name in MODELS {
        let case = Case::open(name);
        for (layer, expected) in case.golden.iter().filter(|(k, _)| k.starts_with("visual.")) {
            let maps = case.maps(&case.texts(), layer);
            let error = largest(&(stacked(&maps) - expected));
            println!("PARITY | eval grad_cam {name} | {layer} | max_rel_err {error:.1e} | tol 1e-04");
            assert!(error <= 1e-4, "{name} {layer}: {error:e}");
            let cosines: Vec<f64> = maps.iter().map(|m| m.cosine).collect();
            assert!(largest(&(Tensor::from_slice(&cosines) - &case.golden["cosines"])) <= 1e-5, "{name}: {cosines:?}");
            compared += usize::from(*layer == grad_cam_layer(&case.clip));
        }
    }
    assert_eq!(compared, MODELS.len(), "the layer that is looked at by default is among them");
}

#[test]
fn what_speaks_for_a_text_does_not_speak_against_it() {
    for name in MODELS {
        let case = Case::open(name);
        let layer = grad_cam_layer(&case.clip);
        let opposite = Embeddings::checked(-case.texts().tensor()).unwrap();
        let (with, against) = (case.maps(&case.texts(), &layer), case.maps(&opposite, &layer));
        for (with, against) in with.iter().zip(&against) {
            assert_eq!((with.map.kind(), with.map.device()), (Kind::Float, Device::Cpu));
            assert_eq!(largest(&(&with.map * &against.map)), 0.0, "{name}");
            assert!([with, against].iter().all(|m| [0.0, 1.0].contains(&largest(&m.map))), "{name}: the largest value is 1");
            assert!((with.cosine + against.cosine).abs() < 1e-6);
        }
        assert!(largest(&stacked(&with)) == 1.0, "{name}");
    }
}

#[test]
fn frozen_weights_change_nothing_and_gradients_of_weights_are_left_alone() {
    let mut case = Case::open("vit_b_32");
    let layer = grad_cam_layer(&case.clip);
    let learning = stacked(&case.maps(&case.texts(), &layer));
    assert!(case.vs.trainable_variables().iter().all(|v| !v.grad().defined()));
    case.vs.freeze();
    let frozen = tch::no_grad(|| stacked(&case.maps(&case.texts(), &layer)));
    assert_eq!(largest(&(learning - frozen)), 0.0);
}

#[test]
fn what_cannot_be_looked_at_is_told() {
    let case = Case::open("vit_b_32");
    let (pixels, texts) = (&case.golden["pixels"], case.texts());
    let why =
        |pixels: &Tensor, texts: &Embeddings, layer: &str| grad_cam(&case.clip, pixels, texts, layer).unwrap_err().to_string();
    let layer = grad_cam_layer(&case.clip);
    let told = why(pixels, &texts, "visual.layer9");
    assert!(told.contains("visual.layer9") && told.contains(&layer), "{told}");
    let narrow = Embeddings::normalize(&texts.tensor().narrow(1, 0, 3)).unwrap();
    assert!(why(pixels, &narrow, &layer).contains("3 dimensions"));
    assert!(why(&pixels.narrow(1, 0, 8), &texts, &layer).contains("images"));
    assert!(!why(&pixels.to_kind(Kind::Float), &texts, &layer).is_empty());
}
