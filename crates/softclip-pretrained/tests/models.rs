//! Models out and in again, and what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use softclip_data::tokenizer::Tokenizer;
use softclip_encoders::{
    Activation, Architecture, BertConfig, Clip, ClipConfig, ClipTextConfig, Mode, RegionConfig, ResNetConfig, TextConfig,
    VisionConfig, VitConfig, infer_config, named_tensors, seeded,
};
use softclip_pretrained::{HubOptions, Loaded, Pretrained, export_hugging_face, export_open_clip};
use softclip_tensor::file::{read_safetensors, write_safetensors};
use softclip_torch::Generator;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor, no_grad};

fn open(path: &Path) -> softclip_pretrained::Result<Pretrained> {
    let hub = HubOptions { offline: true, ..HubOptions::from_env().unwrap() };
    Pretrained::open(path.to_str().unwrap(), &hub, &mut |_| {})
}

fn load(path: &Path) -> softclip_pretrained::Result<Loaded> {
    open(path)?.into_clip(Device::Cpu)
}

fn text() -> TextConfig {
    TextConfig::Clip(ClipTextConfig { layers: 2, mlp_ratio: 2.5, context_length: 12, ..ClipTextConfig::clip(64) })
}

fn vit() -> ClipConfig {
    let vision = VitConfig { mlp_ratio: 2.25, ..VitConfig::clip(24, 8, 64, 2, 1) };
    ClipConfig::new(40, VisionConfig::Vit(vision), text()).with_activation(Activation::QuickGelu)
}

fn resnet() -> ClipConfig {
    let vision = ResNetConfig { image_size: 64, layers: [1, 2, 1, 1], width: 8, heads: 4 };
    let text = TextConfig::Clip(ClipTextConfig { layers: 1, context_length: 12, ..ClipTextConfig::clip(64) });
    ClipConfig::new(24, VisionConfig::Resnet(vision), text)
}

fn tensors(vs: &VarStore) -> BTreeMap<String, Tensor> {
    named_tensors(vs).into_iter().collect()
}

fn build(config: &ClipConfig) -> (VarStore, Clip) {
    let vs = VarStore::new(Device::Cpu);
    let clip = seeded(3, || Clip::new(&vs.root(), config)).unwrap();
    (vs, clip)
}

/// The same weights to the bit, the same outputs, the same tokens.
fn assert_same(config: &ClipConfig, vs: &VarStore, clip: &Clip, found: &Loaded) {
    let of_hugging_face = found.clip.config().floor_crop;
    assert_eq!(found.clip.config(), &ClipConfig { floor_crop: of_hugging_face, ..config.clone() });
    let (a, b) = (tensors(vs), tensors(&found.vs));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    a.iter().for_each(|(name, t)| assert!(t.equal(&b[name]), "{name}"));
    let side = config.image_size();
    let images = Generator::new(4).normal([2, 3, side, side]).unwrap();
    let tokens = found.tokenizer.encode_batch(&["a red bus", "two dogs"], 12, true);
    assert_eq!(tokens.tokens.get(0), Tokenizer::clip().unwrap().encode_batch(&["a red bus"], 12, true).tokens.get(0));
    no_grad(|| {
        let image = |clip: &Clip| clip.encode_image(&images, Mode::Eval).unwrap();
        let text = |clip: &Clip| clip.encode_text(&tokens.tokens).unwrap();
        assert!(image(clip).equal(&image(&found.clip)) && text(clip).equal(&text(&found.clip)));
    });
}

#[test]
fn what_goes_out_comes_back_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::clip().unwrap();
    for (name, config) in [("vit", vit()), ("resnet", resnet())] {
        let (vs, clip) = build(&config);
        let folder = dir.path().join(name);
        let exported = export_open_clip(&config, &tensors(&vs), &tokenizer, &folder).unwrap();
        assert_eq!((exported.tensors, exported.left_out.len()), (tensors(&vs).len(), 0));
        assert_same(&config, &vs, &clip, &load(&folder).unwrap());
        let theirs = dir.path().join(format!("{name}-hf"));
        match export_hugging_face(&config, &tensors(&vs), &tokenizer, &theirs) {
            Ok(_) => {
                let again = load(&theirs).unwrap();
                assert!(again.clip.config().floor_crop, "images are cut as its processors do");
                assert_same(&config, &vs, &clip, &again);
            }
            Err(e) => {
                assert!(name == "resnet" && e.to_string().contains("open_clip"), "{e}");
                assert!(!theirs.exists(), "nothing is written of what cannot be");
            }
        }
    }
}

#[test]
fn the_region_branch_stays_behind_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = ClipConfig { regions: Some(RegionConfig { dim: 8, blocks: 1, ..RegionConfig::default() }), ..vit() };
    let (vs, _clip) = build(&config);
    let exported = export_hugging_face(&config, &tensors(&vs), &Tokenizer::clip().unwrap(), dir.path()).unwrap();
    assert_eq!(exported.left_out, ["regions.proj.weight"]);
    load(dir.path()).unwrap();
}

#[test]
fn shards_with_an_index_are_the_whole_file() {
    let dir = tempfile::tempdir().unwrap();
    let (vs, clip) = build(&vit());
    export_hugging_face(&vit(), &tensors(&vs), &Tokenizer::clip().unwrap(), dir.path()).unwrap();
    let whole = dir.path().join("model.safetensors");
    let all: Vec<(String, Tensor)> = read_safetensors(&whole).unwrap().into_iter().collect();
    fs::remove_file(&whole).unwrap();
    let mut map = serde_json::Map::new();
    for (i, part) in all.chunks(all.len().div_ceil(2)).enumerate() {
        let name = format!("model-0000{}-of-00002.safetensors", i + 1);
        write_safetensors(dir.path().join(&name), part, &BTreeMap::new()).unwrap();
        part.iter().for_each(|(tensor, _)| drop(map.insert(tensor.clone(), name.clone().into())));
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": map});
    fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    assert_same(&vit(), &vs, &clip, &load(dir.path()).unwrap());
}

#[test]
fn a_state_dict_alone_tells_its_model_and_openais_wants_quick_gelu() {
    let dir = tempfile::tempdir().unwrap();
    let config = vit().with_activation(Activation::Gelu);
    let (vs, _clip) = build(&config);
    let path = dir.path().join("weights.safetensors");
    let mut all: Vec<(String, Tensor)> = named_tensors(&vs).into_iter().map(|(n, t)| (format!("module.{n}"), t)).collect();
    write_safetensors(&path, &all, &BTreeMap::new()).unwrap();
    let loaded = load(&path).unwrap();
    assert_eq!(loaded.clip.config(), &config);

    all.iter_mut().for_each(|(n, _)| *n = n["module.".len()..].to_owned());
    all.extend(["input_resolution", "context_length", "vocab_size"].map(|n| (n.to_owned(), Tensor::from(24i64))));
    write_safetensors(&path, &all, &BTreeMap::new()).unwrap();
    let quick = load(&path).unwrap();
    assert_eq!(quick.clip.config(), &config.clone().with_activation(Activation::QuickGelu));
    let (config, assumed) = infer_config(&all.into_iter().collect()).unwrap();
    assert_eq!((config.embed_dim, assumed), (40, None));
}

#[test]
fn what_does_not_fit_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (vs, _clip) = build(&vit());
    let again = || drop(export_hugging_face(&vit(), &tensors(&vs), &Tokenizer::clip().unwrap(), dir.path()).unwrap());
    let weights = dir.path().join("model.safetensors");
    let edit = |change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
        again();
        let mut all = read_safetensors(&weights).unwrap();
        change(&mut all);
        write_safetensors(&weights, &all.into_iter().collect::<Vec<_>>(), &BTreeMap::new()).unwrap();
        load(dir.path()).unwrap_err().to_string()
    };
    let missing = edit(&|all| drop(all.remove("vision_model.post_layernorm.bias")));
    assert!(missing.contains("visual.ln_post.bias"), "{missing}");
    let unexpected = edit(&|all| drop(all.insert("another.weight".into(), Tensor::from(1f32))));
    assert!(unexpected.contains("another.weight"), "{unexpected}");
    let shape = edit(&|all| drop(all.insert("text_projection.weight".into(), Tensor::zeros([3, 3], (Kind::Float, Device::Cpu)))));
    assert!(shape.contains("text_projection") && shape.contains("[3, 3]"), "{shape}");

    again();
    let preprocessor = dir.path().join("preprocessor_config.json");
    let text = fs::read_to_string(&preprocessor).unwrap();
    for (from, to, says) in [
        ("\"resample\": 3", "\"resample\": 2", "resample"),
        ("\"do_center_crop\": true", "\"do_center_crop\": false", "do_center_crop"),
    ] {
        assert!(text.contains(from), "{text}");
        fs::write(&preprocessor, text.replace(from, to)).unwrap();
        let error = load(dir.path()).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("preprocessor_config.json"), "{error}");
    }
    fs::write(&preprocessor, text.replace("0.48145466", "0.5")).unwrap();
    assert_eq!(load(dir.path()).unwrap().clip.config().normalization.mean[0], 0.5);
}

#[test]
fn a_single_tower_is_a_tower_and_no_model() {
    let dir = tempfile::tempdir().unwrap();
    let config = BertConfig {
        vocab_size: 30,
        hidden_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 8,
        ..BertConfig::bert_base()
    };
    let vs = VarStore::new(Device::Cpu);
    let _bert = softclip_encoders::Bert::new(&vs.root(), &config).unwrap();
    write_safetensors(dir.path().join("model.safetensors"), &named_tensors(&vs), &BTreeMap::new()).unwrap();
    fs::write(dir.path().join("config.json"), serde_json::to_string(&config).unwrap()).unwrap();
    let pretrained = open(dir.path()).unwrap();
    assert_eq!(pretrained.architecture, Some(Architecture::Text(TextConfig::Bert(config))));
    assert!(pretrained.tensors.keys().all(|name| name.starts_with("text.transformer.")));
    assert!(pretrained.tokenizer().unwrap_err().to_string().contains("vocab"), "no vocabulary beside it");
    assert!(pretrained.into_clip(Device::Cpu).unwrap_err().to_string().contains("single tower"));
}
