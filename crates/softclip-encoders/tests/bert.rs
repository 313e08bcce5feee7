//! What BERT and RoBERTa promise beyond agreeing with their originals.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use softclip_encoders::{Attention, Bert, BertConfig, BertPool, load_weights, named_tensors, seeded};
use softclip_torch::Generator;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor, no_grad};

const POOLS: [BertPool; 3] = [BertPool::Pooler, BertPool::Class, BertPool::Mean];

fn small(base: BertConfig, pool: BertPool) -> BertConfig {
    BertConfig {
        vocab_size: 50,
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 24,
        max_position_embeddings: 12,
        pool,
        ..base
    }
}

fn configs(pool: BertPool) -> [BertConfig; 2] {
    [small(BertConfig::bert_base(), pool), small(BertConfig::roberta_base(), pool)]
}

/// A model with weights of about unit size, so that nothing is small by its start.
fn build(config: &BertConfig) -> (VarStore, Bert) {
    let vs = VarStore::new(Device::Cpu);
    let model = seeded(7, || Bert::new(&vs.root(), config)).unwrap();
    let random = Generator::new(8);
    no_grad(|| {
        for (name, mut t) in named_tensors(&vs) {
            if !name.contains("LayerNorm") {
                t.copy_(&(random.normal(t.size()).unwrap() * 0.4));
            }
        }
    });
    (vs, model)
}

/// Three texts of 4, 7 and 5 tokens in rows of `width`, and their mask.
fn texts(config: &BertConfig, width: i64) -> (Tensor, Tensor) {
    let mut all = Vec::new();
    for row in [&[40i64, 5, 6, 41][..], &[40, 12, 2, 3, 4, 5, 41], &[40, 9, 8, 7, 41]] {
        all.extend_from_slice(row);
        all.extend(std::iter::repeat_n(config.pad_token_id, width as usize - row.len()));
    }
    let tokens = Tensor::from_slice(&all).view([3, width]);
    let mask = tokens.ne(config.pad_token_id);
    (tokens, mask)
}

fn largest(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn padding_changes_nothing_and_neither_does_the_kind_of_attention_or_mask() {
    for config in POOLS.into_iter().flat_map(configs) {
        let (_vs, model) = build(&config);
        no_grad(|| {
            let (tokens, mask) = texts(&config, 7);
            let short = model.encode(&tokens, &mask, None).unwrap();
            assert_eq!(short.size(), [3, 16]);
            let (tokens, mask) = texts(&config, 10);
            assert!(largest(&short, &model.encode(&tokens, &mask, None).unwrap()) < 1e-5, "{config:?}");
            let model = model.with_attention(Attention::Explicit);
            let types = tokens.zeros_like();
            let again = model.encode(&tokens, &mask.to_kind(Kind::Int64), Some(&types)).unwrap();
            assert!(largest(&short, &again) < 1e-5, "{config:?}");
        });
    }
}

#[test]
fn every_parameters_gradient_agrees_with_central_differences() {
    for config in POOLS.into_iter().flat_map(configs) {
        let (mut vs, model) = build(&config);
        vs.double();
        let (tokens, mask) = texts(&config, 8);
        let random = Generator::new(9);
        let weights = random.normal_of([3, 16], Kind::Double).unwrap();
        let value = || (model.encode(&tokens, &mask, None).unwrap() * &weights).sum(Kind::Double);
        value().backward();
        for (name, t) in named_tensors(&vs) {
            let direction = random.normal_of(t.size(), Kind::Double).unwrap();
            let analytic = (t.grad() * &direction).sum(Kind::Double).double_value(&[]);
            let at = |step: f64| {
                no_grad(|| {
                    let kept = t.copy();
                    let mut moved = t.shallow_clone();
                    moved.copy_(&(&kept + &direction * step));
                    let v = value().double_value(&[]);
                    moved.copy_(&kept);
                    v
                })
            };
            let h = 2e-6;
            let numeric = (at(h) - at(-h)) / (2.0 * h);
            let error = (analytic - numeric).abs() / analytic.abs().max(1e-2);
            assert!(error < 1e-6, "{:?} {:?} {name}: {analytic} {numeric}", config.model_type, config.pool);
        }
    }
}

#[test]
fn a_file_with_heads_loads_and_one_without_a_pooler_loads_where_none_is_needed() {
    let [_, config] = configs(BertPool::Pooler);
    let (vs, model) = build(&config);
    let mut file: BTreeMap<String, Tensor> =
        named_tensors(&vs).into_iter().map(|(n, t)| (format!("roberta.{n}"), t.detach().copy())).collect();
    file.insert("lm_head.bias".into(), Tensor::zeros([50], (Kind::Float, Device::Cpu)));
    load_weights(&vs, &model.published_weights(&file), true).unwrap();

    file.retain(|name, _| !name.contains("pooler"));
    let error = load_weights(&vs, &model.published_weights(&file), true).unwrap_err().to_string();
    assert!(error.contains("pooler.dense.weight"), "{error}");
    let (vs, model) = build(&BertConfig { pool: BertPool::Mean, ..config });
    load_weights(&vs, &model.published_weights(&file), true).unwrap();
}

#[test]
fn inputs_that_do_not_fit_are_errors() {
    for config in configs(BertPool::Pooler) {
        let (_vs, model) = build(&config);
        let (tokens, mask) = texts(&config, 8);
        let says = |tokens: &Tensor, mask: &Tensor, types: Option<&Tensor>, what: &str| {
            let error = model.encode(tokens, mask, types).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        let context = config.context_length();
        let long = Tensor::full([1, context + 1], 5, (Kind::Int64, Device::Cpu));
        says(&long, &long.ones_like(), None, &format!("L from 1 to {context}"));
        let longest = long.narrow(1, 0, context);
        let _ = model.encode(&longest, &longest.ones_like(), None).unwrap();
        says(&tokens.view([24]), &mask, None, "i64 [N, L]");
        says(&tokens.to_kind(Kind::Float), &mask, None, "i64 [N, L]");
        says(&tokens, &mask.narrow(1, 0, 7), None, "attention mask");
        says(&tokens, &mask.to_kind(Kind::Float), None, "attention mask");
        says(&tokens, &mask, Some(&mask), "token types");
        says(&(&tokens + 10), &mask, None, "the model knows 0 to 49");
        says(&(&tokens - 10), &mask, None, "the model knows 0 to 49");
        says(&tokens, &mask, Some(&(tokens.zeros_like() + config.type_vocab_size)), "token types");
        says(&tokens, &mask.zeros_like(), None, "no real token");
    }
    let [mut config, _] = configs(BertPool::Pooler);
    config.num_attention_heads = 3;
    assert!(Bert::new(&VarStore::new(Device::Cpu).root(), &config).unwrap_err().to_string().contains("hidden_size"));
}

#[test]
fn the_presets_have_the_published_numbers_of_parameters() {
    for (config, expected) in [(BertConfig::bert_base(), 109_482_240i64), (BertConfig::roberta_base(), 124_645_632)] {
        let vs = VarStore::new(Device::Cpu);
        let _model = Bert::new(&vs.root(), &config).unwrap();
        let count: i64 = vs.trainable_variables().iter().map(|t| t.numel() as i64).sum();
        assert_eq!(count, expected, "{:?}", config.model_type);
    }
}
