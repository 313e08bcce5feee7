//! A text tower that stands alone.

use std::collections::BTreeMap;

use tch::Tensor;
use tch::nn::VarStore;

use crate::bert::Bert;
use crate::config::TextConfig;
use crate::error::{Error, Result};
use crate::parameter::build_from;
use crate::recompute::Compute;
use crate::text::TextTransformer;

#[derive(Debug)]
enum Tower {
    Clip(TextTransformer),
    Bert(Bert),
}

/// The text tower of a pretrained model without the rest of it: for embeddings of texts alone. CLIP's ends in its projection, BERT's
/// and RoBERTa's in their pooling.
#[derive(Debug)]
pub struct TextEncoder {
    tower: Tower,
    context: i64,
    width: i64,
}

/// What BERT's names begin with in a [`Clip`](crate::Clip).
const BERT: &str = "text.transformer.";

impl TextEncoder {
    /// The tower of `tensors`, named as in a [`Clip`](crate::Clip), whose other tensors are passed over; memory is shared where they
    /// are f32 on the CPU. `vs` must be empty.
    ///
    /// # Errors
    /// The configuration makes no sense; a tensor is missing or of another shape.
    pub fn from_tensors(vs: &VarStore, config: &TextConfig, tensors: &BTreeMap<String, Tensor>) -> Result<Self> {
        config.validate()?;
        let own = |name: &str| match config {
            TextConfig::Clip(_) => {
                let parts = ["token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection"];
                parts.iter().any(|part| name.starts_with(part)).then(|| name.to_owned())
            }
            TextConfig::Bert(_) => name.strip_prefix(BERT).map(str::to_owned),
        };
        let own: BTreeMap<String, Tensor> =
            tensors.iter().filter_map(|(name, t)| Some((own(name)?, t.shallow_clone()))).collect();
        let (tower, width) = match config {
            TextConfig::Clip(c) => {
                let width = own.get("text_projection").and_then(|t| t.size().get(1).copied());
                let width = width.ok_or_else(|| Error::Weights("the weights lack `text_projection`".to_owned()))?;
                let build = || Ok(TextTransformer::new(&vs.root(), c, width));
                (Tower::Clip(build_from(own, true, build)?.0), width)
            }
            TextConfig::Bert(c) => {
                let (bert, report) = build_from(own, false, || Bert::new(&vs.root(), c))?;
                // The pooler of another pooling is passed over.
                if let Some(missing) = report.missing.first() {
                    return Err(Error::Weights(format!("the weights lack `{BERT}{missing}`")));
                }
                (Tower::Bert(bert), c.hidden_size)
            }
        };
        Ok(TextEncoder { tower, context: config.context_length(), width })
    }

    /// D.
    pub fn width(&self) -> i64 {
        self.width
    }

    /// Tokens i64 [N, L] → features [N, D], not normalised. Rows are filled up on the right, for BERT and RoBERTa with their
    /// `pad_token_id`.
    ///
    /// # Errors
    /// `tokens` is not i64 [N, L] with 1 ≤ L ≤ context length.
    pub fn encode(&self, tokens: &Tensor) -> Result<Tensor> {
        let size = tokens.size();
        if size.len() != 2 || !(1..=self.context).contains(&size[1]) || tokens.kind() != tch::Kind::Int64 {
            let expected = format!("i64 [N, L] with L from 1 to {}", self.context);
            return Err(Error::Input { what: "tokens", expected, found: size, kind: tokens.kind() });
        }
        match &self.tower {
            Tower::Clip(tower) => tower.forward(tokens, Compute::default(), &mut |_, _| {}),
            Tower::Bert(tower) => tower.encode(tokens, &tokens.ne(tower.config().pad_token_id), None),
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::{BertConfig, BertPool, Clip, ClipConfig, ClipTextConfig, VisionConfig, VitConfig, named_tensors};

    fn clip(text: TextConfig) -> (VarStore, Clip) {
        let vs = VarStore::new(Device::Cpu);
        let clip = Clip::new(&vs.root(), &ClipConfig::new(6, VisionConfig::Vit(VitConfig::clip(16, 8, 8, 1, 2)), text)).unwrap();
        (vs, clip)
    }

    #[test]
    fn a_tower_alone_is_that_of_the_whole() {
        let text = TextConfig::Clip(ClipTextConfig {
            context_length: 8,
            vocab_size: 30,
            heads: 2,
            layers: 1,
            ..ClipTextConfig::clip(8)
        });
        let (vs, whole) = clip(text.clone());
        let tensors: BTreeMap<String, Tensor> = named_tensors(&vs).into_iter().collect();
        let alone = VarStore::new(Device::Cpu);
        let encoder = TextEncoder::from_tensors(&alone, &text, &tensors).unwrap();
        let tokens = Tensor::from_slice(&[27i64, 5, 29, 0, 27, 7, 9, 29]).view([2, 4]);
        assert_eq!(encoder.encode(&tokens).unwrap(), whole.encode_text(&tokens).unwrap());
        assert_eq!(encoder.width(), 6);
        assert!(encoder.encode(&Tensor::zeros([1, 9], (Kind::Int64, Device::Cpu))).is_err());
    }

    #[test]
    fn berts_pooler_is_taken_where_it_is_wanted_and_missed_where_it_is_not_there() {
        let config = |pool| BertConfig {
            vocab_size: 30,
            hidden_size: 8,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 8,
            max_position_embeddings: 10,
            pool,
            ..BertConfig::bert_base()
        };
        let (vs, _) = clip(TextConfig::Bert(config(BertPool::Pooler)));
        let mut tensors: BTreeMap<String, Tensor> = named_tensors(&vs).into_iter().collect();
        let tokens = Tensor::from_slice(&[2i64, 5, 3]).view([1, 3]);
        let encode = |pool, tensors: &BTreeMap<String, Tensor>| {
            let vs = VarStore::new(Device::Cpu);
            TextEncoder::from_tensors(&vs, &TextConfig::Bert(config(pool)), tensors)?.encode(&tokens)
        };
        let pooled = encode(BertPool::Pooler, &tensors).unwrap();
        let mean = encode(BertPool::Mean, &tensors).unwrap();
        assert!(pooled.size() == [1, 8] && pooled != mean);
        tensors.retain(|name, _| !name.contains("pooler"));
        assert_eq!(encode(BertPool::Mean, &tensors).unwrap(), mean);
        assert!(encode(BertPool::Pooler, &tensors).unwrap_err().to_string().contains("text.transformer.pooler.dense"));
    }
}
