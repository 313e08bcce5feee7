//! BERT and RoBERTa.

mod config;

use std::collections::BTreeMap;

use softclip_torch::guard;
use tch::nn::{Init, Path};
use tch::{Device, Kind, Tensor};

pub use self::config::{BertConfig, BertKind, BertPool};
use crate::error::{Error, Result};
use crate::layers::{Activation, LayerNorm, Linear, masked_mean};
use crate::parameter::parameter;
use crate::recompute::{Compute, Share, recomputed_masked};
use crate::size::check_room;
use crate::transformer::{Attention, Mask, join_heads, split_heads};

/// Deviation of every weight at the start.
const STD: f64 = 0.02;

fn linear(p: &Path, input: i64, output: i64) -> Linear {
    Linear::normal(p, input, output, STD, true)
}

/// norm(x + attention(x)), then norm(x + MLP(x)).
#[derive(Debug)]
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
    heads: i64,
    activation: Activation,
}

impl Layer {
    fn new(p: &Path, c: &BertConfig) -> Self {
        let (w, hidden, eps) = (c.hidden_size, c.intermediate_size, c.layer_norm_eps);
        let (own, after) = (p / "attention" / "self", p / "attention" / "output");
        let output = p / "output";
        Layer {
            query: linear(&(&own / "query"), w, w),
            key: linear(&(&own / "key"), w, w),
            value: linear(&(&own / "value"), w, w),
            attention_output: linear(&(&after / "dense"), w, w),
            attention_norm: LayerNorm::with_eps(&(&after / "LayerNorm"), w, eps),
            intermediate: linear(&(p / "intermediate" / "dense"), w, hidden),
            output: linear(&(&output / "dense"), hidden, w),
            output_norm: LayerNorm::with_eps(&(&output / "LayerNorm"), w, eps),
            heads: c.num_attention_heads,
            activation: c.hidden_act,
        }
    }

    fn forward(&self, x: &Tensor, mask: Mask, compute: Compute) -> Result<Tensor> {
        let attention = compute.attention;
        if !compute.recompute {
            return Ok(self.apply(x, mask, attention));
        }
        recomputed_masked(self, x, mask, move |layer, x, mask| layer.apply(x, mask, attention))
    }

    fn apply(&self, x: &Tensor, mask: Mask, attention: Attention) -> Tensor {
        let heads = |l: &Linear| split_heads(&l.forward(x), self.heads); // [N, H, L, W/H]
        let y = attention.forward(&heads(&self.query), &heads(&self.key), &heads(&self.value), mask);
        let x = self.attention_norm.forward(&(x + self.attention_output.forward(&join_heads(&y))));
        let h = self.activation.forward(self.intermediate.forward(&x)); // [N, L, intermediate]
        self.output_norm.forward(&(&x + self.output.forward(&h)))
    }
}

impl Share for Layer {
    fn share(&self, learned: &mut Vec<Tensor>) -> Self {
        Layer {
            query: self.query.share(learned),
            key: self.key.share(learned),
            value: self.value.share(learned),
            attention_output: self.attention_output.share(learned),
            attention_norm: self.attention_norm.share(learned),
            intermediate: self.intermediate.share(learned),
            output: self.output.share(learned),
            output_norm: self.output_norm.share(learned),
            heads: self.heads,
            activation: self.activation,
        }
    }
}

/// A BERT or RoBERTa encoder with Hugging Face's parameter names (`embeddings.word_embeddings.weight`,
/// `encoder.layer.0.attention.self.query.weight`, …). `pooler.dense` is there only with [`BertPool::Pooler`].
///
/// There is no dropout, neither in evaluation nor in fine-tuning: a text has one embedding.
///
/// ```
/// use softclip_encoders::{Bert, BertConfig};
/// use tch::{Device, Kind, Tensor, nn};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = BertConfig::from_hugging_face_json(
///     r#"{"model_type": "bert", "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
///         "intermediate_size": 64, "max_position_embeddings": 16, "type_vocab_size": 2, "hidden_dropout_prob": 0.1}"#,
/// )?;
/// let vs = nn::VarStore::new(Device::Cpu);
/// let model = Bert::new(&vs.root(), &config)?;
///
/// let tokens = Tensor::from_slice(&[2i64, 7, 3, 0, 2, 9, 8, 3]).view([2, 4]);
/// let mask = tokens.ne(0);
/// assert_eq!(model.encode(&tokens, &mask, None)?.size(), [2, 32]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Bert {
    config: BertConfig,
    word_embeddings: Tensor,
    position_embeddings: Tensor,
    token_type_embeddings: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
    pooler: Option<Linear>,
    compute: Compute,
}

impl Bert {
    /// Creates the parameters below `path` and draws them as Hugging Face does (normal, deviation 0.02). They are reproducible
    /// inside [`seeded`](crate::seeded).
    ///
    /// # Errors
    /// The configuration makes no sense, or the model does not fit into memory.
    pub fn new(path: &Path, config: &BertConfig) -> Result<Self> {
        config.validate()?;
        check_room(config.parameter_count(), config.memory_bytes(), path.device())?;
        Ok(guard(|| Self::build(path, config))?)
    }

    fn build(path: &Path, config: &BertConfig) -> Self {
        let w = config.hidden_size;
        let p = path / "embeddings";
        let table = |name: &str, rows: i64| parameter(&(&p / name), "weight", &[rows, w], Init::Randn { mean: 0.0, stdev: STD });
        let layers = path / "encoder" / "layer";
        Bert {
            word_embeddings: table("word_embeddings", config.vocab_size),
            position_embeddings: table("position_embeddings", config.max_position_embeddings),
            token_type_embeddings: table("token_type_embeddings", config.type_vocab_size),
            norm: LayerNorm::with_eps(&(&p / "LayerNorm"), w, config.layer_norm_eps),
            layers: (0..config.num_hidden_layers).map(|i| Layer::new(&(&layers / i), config)).collect(),
            pooler: (config.pool == BertPool::Pooler).then(|| linear(&(path / "pooler" / "dense"), w, w)),
            compute: Compute::default(),
            config: config.clone(),
        }
    }

    /// Computes attention in another way than [`Attention::Auto`].
    #[must_use]
    pub fn with_attention(mut self, attention: Attention) -> Self {
        self.compute.attention = attention;
        self
    }

    /// Whether layers keep their inputs alone for backward, and compute the rest again: less memory, a second forward pass.
    #[must_use]
    pub fn with_recompute(mut self, recompute: bool) -> Self {
        self.compute.recompute = recompute;
        self
    }

    pub(crate) fn set_compute(&mut self, compute: Compute) {
        self.compute = compute;
    }

    /// The configuration it was made from.
    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// One vector a text, [N, W], by the configured [`BertPool`]; inputs and errors as [`Bert::hidden_states`].
    ///
    /// # Errors
    /// As [`Bert::hidden_states`].
    pub fn encode(&self, tokens: &Tensor, mask: &Tensor, types: Option<&Tensor>) -> Result<Tensor> {
        let x = self.hidden_states(tokens, mask, types)?; // [N, L, W]
        let first = || x.select(1, 0);
        Ok(match (self.config.pool, &self.pooler) {
            (BertPool::Mean, _) => masked_mean(&x, &mask.to_kind(Kind::Bool)).squeeze_dim(1),
            (_, Some(pooler)) => pooler.forward(&first()).tanh(),
            (_, None) => first(),
        })
    }

    /// The last block's output [N, L, W], also where the mask is false: those rows mean nothing.
    ///
    /// `tokens` is i64 [N, L], `mask` bool or i64 [N, L] and true (1) where a token is real, `types` i64 [N, L] the segment of
    /// each token, all 0 where it is absent.
    ///
    /// # Errors
    /// A shape or kind is another, L is above the context length, or, checked on the CPU only, an id is outside of its
    /// embedding or a text has no real token. On a GPU such an id is a device-side assertion of CUDA.
    pub fn hidden_states(&self, tokens: &Tensor, mask: &Tensor, types: Option<&Tensor>) -> Result<Tensor> {
        self.check(tokens, mask, types)?;
        let mask = mask.to_kind(Kind::Bool);
        let pad = self.config.pad_token_id;
        let word = Tensor::embedding(&self.word_embeddings, tokens, pad, false, false); // [N, L, W]
        let segment = match types {
            Some(types) => Tensor::embedding(&self.token_type_embeddings, types, -1, false, false), // [N, L, W]
            None => self.token_type_embeddings.get(0),                                              // [W]
        };
        let x = word + segment + self.embedded_positions(tokens);
        let x = self.norm.forward(&x);
        self.layers.iter().try_fold(x, |x, layer| layer.forward(&x, Mask::Keys(&mask), self.compute))
    }

    /// [L, W] for BERT, [N, L, W] for RoBERTa.
    fn embedded_positions(&self, tokens: &Tensor) -> Tensor {
        let pad = self.config.pad_token_id;
        match self.config.model_type {
            BertKind::Bert => self.position_embeddings.narrow(0, 0, tokens.size()[1]),
            BertKind::Roberta => Tensor::embedding(&self.position_embeddings, &roberta_positions(tokens, pad), pad, false, false),
        }
    }

    fn check(&self, tokens: &Tensor, mask: &Tensor, types: Option<&Tensor>) -> Result<()> {
        let c = &self.config;
        let (size, context) = (tokens.size(), c.context_length());
        if size.len() != 2 || !(1..=context).contains(&size[1]) || tokens.kind() != Kind::Int64 {
            return Err(wrong("tokens", format!("i64 [N, L] with L from 1 to {context}"), tokens));
        }
        if mask.size() != size || !matches!(mask.kind(), Kind::Bool | Kind::Int64) {
            return Err(wrong("attention mask", format!("bool or i64 {size:?}"), mask));
        }
        within("tokens", tokens, c.vocab_size)?;
        if let Some(types) = types {
            if types.size() != size || types.kind() != Kind::Int64 {
                return Err(wrong("token types", format!("i64 {size:?}"), types));
            }
            within("token types", types, c.type_vocab_size)?;
        }
        if mask.device() == Device::Cpu && mask.any_dim(1, false).all().int64_value(&[]) == 0 {
            return Err(Error::Value { what: "attention mask", why: "a text has no real token".into() });
        }
        Ok(())
    }

    /// This encoder's part of a published file, under its names: [`bert_name`] over all tensors, without the heads of the tasks
    /// that it was trained for, and without `pooler.dense` where this encoder has none. Shallow clones, for
    /// [`load_weights`](crate::load_weights).
    pub fn published_weights(&self, file: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
        let parts: &[&str] = match self.pooler {
            Some(_) => &["embeddings.", "encoder.", "pooler."],
            None => &["embeddings.", "encoder."],
        };
        file.iter()
            .map(|(name, t)| (bert_name(name), t.shallow_clone()))
            .filter(|(name, _)| parts.iter().any(|part| name.starts_with(part)))
            .collect()
    }
}

/// Hugging Face's name today of a tensor in a published BERT or RoBERTa file: a prefix `bert.` or `roberta.` goes,
/// `LayerNorm.gamma` and `beta` become `weight` and `bias`. A name that is today's already stays.
pub fn bert_name(published: &str) -> String {
    let name = published.strip_prefix("module.").unwrap_or(published);
    let name = name.strip_prefix("bert.").or_else(|| name.strip_prefix("roberta.")).unwrap_or(name);
    for (old, new) in [("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")] {
        if let Some(stem) = name.strip_suffix(old) {
            return format!("{stem}{new}");
        }
    }
    name.to_owned()
}

/// RoBERTa's positions i64 [N, L]: real tokens count on from `pad` + 1, padding stays at `pad`.
fn roberta_positions(tokens: &Tensor, pad: i64) -> Tensor {
    let real = tokens.ne(pad).to_kind(Kind::Int64);
    real.cumsum(1, None::<Kind>) * real + pad
}

fn wrong(what: &'static str, expected: String, found: &Tensor) -> Error {
    Error::Input { what, expected, found: found.size(), kind: found.kind() }
}

/// On the CPU: `ids` are all below `rows`. Elsewhere looking would wait for the device.
fn within(what: &'static str, ids: &Tensor, rows: i64) -> Result<()> {
    if ids.device() != Device::Cpu || ids.numel() == 0 {
        return Ok(());
    }
    let (low, high) = (ids.min().int64_value(&[]), ids.max().int64_value(&[]));
    if low >= 0 && high < rows {
        return Ok(());
    }
    let why = format!("ids from {low} to {high}, the model knows 0 to {}", rows - 1);
    Err(Error::Value { what, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_names_become_todays_and_todays_stay() {
        for (published, today) in [
            ("bert.embeddings.LayerNorm.gamma", "embeddings.LayerNorm.weight"),
            ("module.bert.encoder.layer.3.output.LayerNorm.beta", "encoder.layer.3.output.LayerNorm.bias"),
            ("roberta.pooler.dense.weight", "pooler.dense.weight"),
            ("encoder.layer.0.attention.self.query.bias", "encoder.layer.0.attention.self.query.bias"),
            ("cls.predictions.bias", "cls.predictions.bias"),
        ] {
            assert_eq!(bert_name(published), today);
            assert_eq!(bert_name(today), today);
        }
    }

    #[test]
    fn robertas_positions_count_real_tokens_from_padding_on() {
        let tokens = Tensor::from_slice(&[0i64, 9, 2, 1, 1, 0, 1, 5, 2, 1]).view([2, 5]);
        let positions = Vec::<i64>::try_from(roberta_positions(&tokens, 1).view([10])).unwrap();
        assert_eq!(positions, [2, 3, 4, 1, 1, 2, 1, 3, 4, 1]);
    }
}
