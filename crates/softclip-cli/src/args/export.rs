//! The arguments of `softclip export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Layout {
    /// CLIPModel of transformers: config.json, model.safetensors, preprocessor_config.json.
    HuggingFace,
    /// open_clip_config.json, open_clip_model.safetensors.
    OpenClip,
}

pub const EXAMPLES: &str = "\
Examples:
  softclip export runs/softclip-vit-b-32 --to hugging_face --out exported/
  softclip export laion/CLIP-ViT-B-32-laion2B-s34B-b79K --to hugging_face --out vit-b-32/";

#[derive(Debug, Args)]
pub struct Export {
    /// The model: a run's folder or checkpoint, a pretrained model's folder or file, or a hub's id.
    #[arg(value_hint = ValueHint::AnyPath)]
    pub model: String,
    /// The layout.
    #[arg(long, value_enum)]
    pub to: Layout,
    /// The folder to make.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: PathBuf,
    /// Write into a folder that has files: those of the same names are replaced.
    #[arg(long)]
    pub force: bool,
    /// Also write what the model computes for noise and some captions, for scripts/check_export.py.
    #[arg(long, value_name = "FILE.safetensors", value_hint = ValueHint::FilePath)]
    pub check: Option<PathBuf>,
}
