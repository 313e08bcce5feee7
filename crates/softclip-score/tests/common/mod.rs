//! A small random model.

use softclip_data::tokenizer::Tokenizer;
use softclip_encoders::{Clip, ClipConfig};
use softclip_score::embed::{Encoder, ModelId};
use softclip_tensor::Precision;
use tch::{Device, nn};

const CONFIG: &str = r#"{"embed_dim": 24,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}}"#;

pub struct Model {
    _vs: nn::VarStore,
    clip: Clip,
    tokenizer: Tokenizer,
}

impl Model {
    pub fn new() -> Self {
        let vs = nn::VarStore::new(Device::Cpu);
        let config = ClipConfig::from_open_clip_json(CONFIG).unwrap();
        let clip = softclip_encoders::seeded(3, || Clip::new(&vs.root(), &config)).unwrap();
        Self { _vs: vs, clip, tokenizer: Tokenizer::clip().unwrap() }
    }

    pub fn encoder(&self) -> Encoder<'_> {
        Encoder {
            clip: &self.clip,
            tokenizer: &self.tokenizer,
            decode: Default::default(),
            device: Device::Cpu,
            precision: Precision::Fp32,
        }
    }
}

pub fn id(weights: &str) -> ModelId {
    ModelId { name: "tiny".to_owned(), weights: weights.to_owned() }
}
