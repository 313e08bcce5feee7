//! The arguments of `softclip score`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use super::Decoding;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Images {
    /// What begins with http:// or https:// is an address, all else a path.
    Auto,
    /// Paths.
    Local,
    /// Addresses.
    Url,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Cells between commas.
    Csv,
    /// Cells between tabs.
    Tsv,
    /// A JSON object a line.
    Jsonl,
}

pub const EXAMPLES: &str = "\
Examples:
  softclip score pairs.csv --model openai/clip-vit-base-patch32 --out scores.csv
  softclip score pairs.csv --model runs/softclip-rn50 > scores.csv
  softclip score pairs.tsv --model runs/softclip-rn50 --image-root photos/ --out scores.jsonl
  softclip score job.yaml";

#[derive(Debug, Args)]
pub struct Score {
    /// A table with a row a pair, CSV or TSV; or a YAML file with csv_path, image_path, use_cuda, pretrained_model.
    #[arg(value_hint = ValueHint::FilePath)]
    pub table: PathBuf,
    /// The model: a run's folder or checkpoint, a pretrained model's folder or file, or a hub's id.
    #[arg(long, value_name = "MODEL", value_hint = ValueHint::AnyPath)]
    pub model: Option<String>,
    /// Where scores go; .csv, .tsv, .jsonl [default: standard output]. The file appears when all is done.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,
    /// How scores are written [default: by --out's extension, else csv].
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// What the image column holds [default: auto].
    #[arg(long, value_enum)]
    pub images: Option<Images>,
    /// The folder that image paths are relative to [default: the table's].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub image_root: Option<PathBuf>,
    /// The column of image paths or addresses [default: image, url, filepath, image_path, path …].
    #[arg(long, value_name = "NAME")]
    pub image_column: Option<String>,
    /// The column of captions [default: caption, text, title, sentence].
    #[arg(long, value_name = "NAME")]
    pub caption_column: Option<String>,
    /// Read quotes in the table as ordinary characters, as CC3M's captions need. By default they enclose cells.
    #[arg(long)]
    pub no_quotes: bool,
    /// Pairs a batch; scores do not depend on it [default: 32 on a CPU, 256 on a GPU].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub batch_size: Option<u16>,
    /// Number type of the encoders.
    #[arg(long, default_value = "fp32", value_parser = super::PRECISIONS)]
    pub precision: String,
    #[command(flatten)]
    pub fetch: Fetch,
    #[command(flatten)]
    pub decoding: Decoding,
    /// Fail (status 1) if any row has an error; otherwise only if all have.
    #[arg(long)]
    pub strict: bool,
    /// Also write time and memory as JSON to this file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub report: Option<PathBuf>,
    /// Where to compute: auto (a GPU if there is one), cpu, cuda or cuda:N [default: auto].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Threads, for tensor operations on the CPU and for images [default: one a core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
}

/// How addresses are fetched.
#[derive(Debug, Args)]
pub struct Fetch {
    /// Addresses fetched at once, four of them from one host.
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub fetch_threads: u16,
    /// The most that one request may take, in seconds; a redirect and a retry are requests of their own.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..))]
    pub fetch_timeout: u16,
    /// Further attempts after a failure that may pass, such as a timeout or status 503.
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub fetch_retries: u8,
    /// The header User-Agent of requests [default: softclip/VERSION].
    #[arg(long, value_name = "TEXT")]
    pub user_agent: Option<String>,
    /// Directives of the header X-Robots-Tag with which an image is not used; an empty list ignores the header.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "noai,noimageai,noindex,noimageindex")]
    pub disallowed_header_directives: Vec<String>,
    /// Time-outs in a row after which a host is given up, whose other addresses then fail at once; 0 for never.
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub max_host_timeouts: u16,
    /// Fetch from addresses that are not public too. A table of other people's could then make this machine read what only it can
    /// reach.
    #[arg(long)]
    pub allow_private: bool,
}
