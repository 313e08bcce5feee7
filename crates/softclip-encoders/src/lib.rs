//! CLIP's encoders over libtorch: the modified ResNet, the Vision Transformer, the text Transformer, and SoftCLIP's region
//! branch, as typed configurations with open_clip's parameter names; and the encoders of Text-based SoftCLIP, [`Bert`] (BERT
//! and RoBERTa, with Hugging Face's names) and [`ResNet50`] (with torchvision's).
//!
//! ```
//! use softclip_encoders::{Clip, ClipConfig, Mode};
//! use softclip_tensor::Embeddings;
//! use tch::{Device, Kind, Tensor, nn};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = ClipConfig::from_open_clip_json(
//!     r#"{"embed_dim": 32,
//!         "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 16},
//!         "text_cfg": {"context_length": 16, "vocab_size": 99, "width": 32, "heads": 4, "layers": 2}}"#,
//! )?;
//! let vs = nn::VarStore::new(Device::Cpu);
//! let model = Clip::new(&vs.root(), &config)?;
//!
//! let images = Tensor::randn([2, 3, 32, 32], (Kind::Float, Device::Cpu));
//! let tokens = Tensor::from_slice(&[97i64, 5, 98, 0, 97, 7, 9, 98]).view([2, 4]);
//! let v = Embeddings::normalize(&model.encode_image(&images, Mode::Eval)?)?; // [2, 32]
//! let t = Embeddings::normalize(&model.encode_text(&tokens)?)?; // [2, 32]
//! assert_eq!(v.tensor().matmul(&t.tensor().tr()).size(), [2, 2]);
//! # Ok(())
//! # }
//! ```

mod bert;
mod clip;
mod config;
mod error;
mod flops;
pub mod hugging_face;
mod layers;
mod parameter;
mod positions;
mod recompute;
mod resnet;
mod resnet50;
mod size;
mod state_dict;
mod text;
mod text_encoder;
mod transformer;
mod vit;
mod weights;

pub use bert::{Bert, BertConfig, BertKind, BertPool, bert_name};
pub use clip::{Clip, Trace};
pub use config::{
    Aggregate, Architecture, ClipConfig, ClipTextConfig, Normalization, RegionConfig, ResNetConfig, TextConfig, TextPool,
    TorchvisionConfig, VisionConfig, VitConfig,
};
pub use error::{Error, Result};
pub use flops::Flops;
pub use layers::{Activation, Mode};
pub use parameter::seeded;
pub use positions::fit_positions;
pub use resnet50::{ResNet50, ResNet50Config};
pub use size::check_memory;
pub use state_dict::{from_open_clip, from_torchvision, infer_config, infer_torchvision, strip_wrappers};
pub use text_encoder::TextEncoder;
pub use transformer::Attention;
pub use weights::{LoadReport, load_weights, named_tensors, to_channels_last};
