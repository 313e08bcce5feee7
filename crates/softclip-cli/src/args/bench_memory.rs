//! The arguments of `softclip bench memory`.

use clap::Args;

#[derive(Debug, Args)]
pub struct BenchMemory {
    /// Models: rn50, vit_b_32, vit_b_16, vit_l_14, resnet50.
    #[arg(long, value_delimiter = ',', default_value = "rn50,vit_b_16")]
    pub model: Vec<String>,
    /// Pairs a step.
    #[arg(long, value_delimiter = ',', default_value = "64,256")]
    pub batch_size: Vec<i64>,
    /// Pairs a chunk, where the batch is cut: batches of no more are measured whole only.
    #[arg(long, default_value_t = 16)]
    pub chunk_size: i64,
    /// Dtype of the encoders.
    #[arg(long, default_value = "fp32", value_parser = super::PRECISIONS)]
    pub precision: String,
    /// On NVIDIA GPUs, multiply f32 matrices in TF32, as `train.tf32` does.
    #[arg(long)]
    pub tf32: bool,
    /// Timed steps a case, of which the shortest is told.
    #[arg(long, default_value_t = 1)]
    pub steps: usize,
    /// Print JSON: a list with an object a case; memory in bytes, time in seconds.
    #[arg(long)]
    pub json: bool,
    /// Measure this one case, given as JSON, in this process: what each case is started with.
    #[arg(long, hide = true, value_name = "JSON")]
    pub case: Option<String>,
    #[command(flatten)]
    pub device: super::Device,
}
