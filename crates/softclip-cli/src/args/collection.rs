//! `softclip embed` and `softclip search`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use super::{Decoding, Device};

pub const INPUTS: &str = "\
What can be embedded, beside every source that `softclip eval --help` lists:
  photos/                         all images in a folder, however deep
  images.txt                      a list of images, one a line, relative to the list
  sentences.txt  --what texts     a text a line
  -                               a text a line on standard input

Examples:
  softclip embed photos/ --model openai/clip-vit-base-patch32 --out photos.emb
  softclip embed 'shards/*.tar' --model runs/softclip --out shards.emb
  softclip search photos.emb --text 'a red car' --format html --out found.html";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// A row an image.
    Images,
    /// A row a caption, or a line.
    Texts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rows {
    /// embeddings.npy, for NumPy.
    Npy,
    /// embeddings.safetensors with one tensor, `embeddings`.
    Safetensors,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// 32 bits.
    F32,
    /// 16 bits: half the size, cosines to about 3e-4.
    F16,
}

#[derive(Debug, Args)]
pub struct Embed {
    /// What to embed.
    pub source: String,
    /// The model: a run's folder or checkpoint, a pretrained model's folder or file, or a hub's id.
    #[arg(long, value_name = "MODEL", value_hint = ValueHint::AnyPath)]
    pub model: String,
    /// The folder to make.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: PathBuf,
    /// What of the source [default: images; texts for `-`].
    #[arg(long, value_enum)]
    pub what: Option<What>,
    /// The file that holds the rows.
    #[arg(long, value_enum, default_value_t = Rows::Npy)]
    pub format: Rows,
    /// Number type of the rows.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    pub dtype: Dtype,
    /// Images or texts a forward pass.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub batch_size: u16,
    /// Number type of the encoders [default: the run's; fp32 for pretrained models].
    #[arg(long, value_parser = super::PRECISIONS)]
    pub precision: Option<String>,
    /// The share of samples that may be unreadable.
    #[arg(long, default_value_t = 0.1, value_name = "SHARE")]
    pub max_bad_share: f64,
    #[command(flatten)]
    pub decoding: Decoding,
    #[command(flatten)]
    pub device: Device,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shown {
    /// A line a row: rank, cosine, key, and the text or path.
    Text,
    /// The same for machines.
    Json,
    /// A page with pictures, which opens without a server.
    Html,
}

#[derive(Debug, Args)]
pub struct Search {
    /// The folder that `softclip embed` made, or one with embeddings.npy and a keys.txt.
    #[arg(value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Serve a page to search from, until Ctrl-C. Its address goes to standard output.
    #[arg(long, conflicts_with_all = ["text", "image", "queries", "format", "out"])]
    pub serve: bool,
    /// The page's port; 0 takes any that is free.
    #[arg(long, default_value_t = 8080, requires = "serve")]
    pub port: u16,
    /// The address or name to serve at. Any but this machine's own lets others on the network search, and see the pictures.
    #[arg(long, default_value = "127.0.0.1", requires = "serve")]
    pub host: String,
    /// Search for a text. Repeatable.
    #[arg(long, value_name = "TEXT")]
    pub text: Vec<String>,
    /// Search for what is like an image. Repeatable.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub image: Vec<PathBuf>,
    /// Search for each line of a file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub queries: Option<PathBuf>,
    /// The model [default: the one that made the folder].
    #[arg(long, value_name = "MODEL", value_hint = ValueHint::AnyPath)]
    pub model: Option<String>,
    /// Rows a query; with --serve what the page asks for first, at most 500.
    #[arg(short, default_value_t = 10, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub k: u32,
    /// What is printed.
    #[arg(long, value_enum, default_value_t = Shown::Text)]
    pub format: Shown,
    /// Write to this file instead of standard output.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub decoding: Decoding,
    #[command(flatten)]
    pub device: Device,
}
