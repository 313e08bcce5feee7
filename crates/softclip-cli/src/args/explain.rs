//! The arguments of `softclip explain`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::{Decoding, Device};

pub const EXAMPLES: &str = "\
Examples:
  softclip explain runs/softclip-rn50 --image street.jpg --text 'a red car on grass' --out explain.html
  softclip explain runs/clip runs/softclip --image street.jpg --text 'a red car on grass' --words red,car --out explain.html
  softclip explain openai/clip-vit-base-patch32 --image street.jpg --text 'a red car' --out pictures/";

#[derive(Debug, Args)]
pub struct Explain {
    /// The models: runs' folders or checkpoints, pretrained models' folders or files, or hub's ids. Several are shown together.
    #[arg(required = true, value_name = "MODEL", value_hint = ValueHint::AnyPath)]
    pub models: Vec<String>,
    /// The photograph.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub image: PathBuf,
    /// What may be in it; the whole text has a map of its own.
    #[arg(long, value_name = "TEXT")]
    pub text: String,
    /// The words that have maps, with commas between them [default: the text's, without articles, prepositions and the like].
    #[arg(long, value_name = "WORDS", value_delimiter = ',')]
    pub words: Vec<String>,
    /// What is made of a word before it is encoded; `{}` stands for it.
    #[arg(long, default_value = "a photo of a {}", value_name = "PROMPT")]
    pub prompt: String,
    /// The layer that is looked at, visual.layer3 say [default: a ResNet's last stage, the first norm of a Transformer's last block].
    #[arg(long, value_name = "NAME")]
    pub layer: Option<String>,
    /// A page, if it ends in .html; else a folder, which gets a PNG a map.
    #[arg(long, value_name = "FILE.html|DIR", value_hint = ValueHint::AnyPath)]
    pub out: PathBuf,
    #[command(flatten)]
    pub decoding: Decoding,
    #[command(flatten)]
    pub device: Device,
}
