//! The arguments of `softclip report`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::Device;

pub const EXAMPLES: &str = "\
Examples:
  softclip report runs/softclip-rn50                       # runs/softclip-rn50/report/index.html
  softclip report runs/clip-rn50 runs/softclip-rn50 --data 'karpathy:dataset_coco.json,coco/,split=test' --out compared.html";

#[derive(Debug, Args)]
pub struct Report {
    /// The runs' folders. A run keeps its colour in the whole page.
    #[arg(required = true, value_name = "RUN", value_hint = ValueHint::DirPath)]
    pub runs: Vec<PathBuf>,
    /// Images and captions to look at [default: the runs' data.val, where all name the same].
    #[arg(long, value_name = "SOURCE")]
    pub data: Option<String>,
    /// The page [default: RUN/report/index.html of one run, report.html of several].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,
    /// Queries shown of each direction of retrieval.
    #[arg(long, default_value_t = 6, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=200))]
    pub queries: u16,
    /// Pairs of the batch whose soft targets are shown.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=64))]
    pub pairs: u16,
    /// Words to look for in some of the images [default: the first ones of the image's caption that name something].
    #[arg(long, value_name = "WORD,…", value_delimiter = ',')]
    pub words: Vec<String>,
    #[command(flatten)]
    pub device: Device,
}
