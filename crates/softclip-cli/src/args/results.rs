//! The arguments of `softclip results`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    /// Columns set in line.
    Text,
    /// As GitHub has tables.
    Markdown,
    /// RFC 4180, with all digits.
    Csv,
    /// An array with an object a result, in CLIP_benchmark's form.
    Json,
}

pub const EXAMPLES: &str = "\
Examples:
  softclip results runs/softclip-rn50 runs/clip-rn50 --last
  softclip results runs clip_benchmark_results/ --metric acc1 --metric mean_per_class_recall --format markdown
  softclip results runs --format csv > results.csv";

#[derive(Debug, Args)]
pub struct Results {
    /// Runs, folders of runs, or files of results, CLIP_benchmark's own among them [default: runs].
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,
    /// How the table is written.
    #[arg(long, value_enum, default_value_t = TableFormat::Text)]
    pub format: TableFormat,
    /// Only this metric's column: acc1, image_retrieval_recall@5 … Repeatable, in this order [default: all there are].
    #[arg(long = "metric", value_name = "NAME")]
    pub metrics: Vec<String>,
    /// Of an evaluation that a run repeated, only its last step.
    #[arg(long)]
    pub last: bool,
}
