//! The arguments of `softclip ablate`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

pub const EXAMPLES: &str = "\
Examples:
  softclip ablate configs/ablations/table6.yaml --set data.val=imagenet:imagenet/ \\
      --set data.train='cc3m/{00000..00331}.tar+cc3m-soft/{00000..00331}.tar' --device cuda:0,cuda:1
  softclip ablate configs/ablations/figure4b.yaml --config my-small.yaml --seeds 0,1,2 \\
      --metric 'retrieval_image_retrieval_recall@10' --set 'eval=[{task: retrieval}]' --jobs 2 --threads 1
  softclip ablate configs/ablations/table6.yaml --dry-run

Started again, it goes on: finished runs are kept, others continue from their last checkpoint. What a plan may say: docs/ablations.md.";

#[derive(Debug, Args)]
pub struct Ablate {
    /// The plan, YAML: rows, columns and seeds. See configs/ablations/ for the paper's tables and figures.
    #[arg(value_hint = ValueHint::FilePath)]
    pub plan: PathBuf,
    /// Change a value of all runs' configurations: --set train.epochs=4. Repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Start all runs from this configuration instead of those that the plan names; columns that differ in nothing else become one.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Tell this metric instead of the plan's, as the eval lines of metrics.jsonl name it. Repeatable.
    #[arg(long = "metric", value_name = "NAME")]
    pub metrics: Vec<String>,
    /// Seeds instead of the plan's: 0,1,2.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub seeds: Vec<u64>,
    /// The folder of all runs and of the result [default: runs/ablations/NAME, with the plan's name].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
    /// Runs at a time [default: one a device].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Where runs compute: auto, cpu, cuda, or several GPUs that take runs in turn: cuda:0,cuda:1.
    #[arg(long, default_value = "auto", value_name = "LIST", value_delimiter = ',', value_parser = super::device_name)]
    pub device: Vec<String>,
    /// Threads of each run for tensor operations on the CPU [default: the cores, shared out among the jobs].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Print what would be run, and what is finished; run nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Print the result as JSON instead of tables.
    #[arg(long, conflicts_with = "dry_run")]
    pub json: bool,
}
