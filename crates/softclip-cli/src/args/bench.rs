//! The arguments of `softclip bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Device;

#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Images a second and core from JPEG bytes to a training tensor, ours against the image crate's in one run.
    Data(Data),
    /// Training steps: time of each part, memory and arithmetic, with captions trimmed to the batch's longest and not.
    ///
    /// What the columns mean: docs/performance.md.
    Step(Step),
    /// From a detector's 25,200 candidates of 80 classes to 1,000 detections on one core, beside the usual way.
    Nms(Nms),
    /// Time of exchanges between ranks: softclip launch -n 2 -- bench comm. Rank 0 prints.
    Comm(Comm),
    /// Peak memory and time of training steps: whole batches, blocks recomputed in backward, chunks (gradient caching), and both.
    ///
    /// Each case runs in a process of its own, on the CPU with what memory is free but for a GiB: one that does not fit is told so.
    Memory(super::BenchMemory),
    /// Time and memory of the loss and its gradients, plain against blockwise.
    Loss(Loss),
    /// Time and memory of R@1, R@5 and R@10 both ways, beside the whole matrix and its sort in libtorch.
    Recall(Recall),
}

#[derive(Debug, Args)]
pub struct Recall {
    /// Images.
    #[arg(long, default_value_t = 5000)]
    pub images: i64,
    /// Texts, as many or more: equally many an image, one after another.
    #[arg(long, default_value_t = 25000)]
    pub texts: i64,
    /// Numbers of an embedding.
    #[arg(long, default_value_t = 512)]
    pub dim: i64,
    /// Embeddings instead of random ones: NumPy files of f32 with unit rows, of the images and of the texts.
    #[arg(long, num_args = 2, value_names = ["IMAGE.npy", "TEXT.npy"], conflicts_with_all = ["images", "texts", "dim"])]
    pub embeddings: Option<Vec<PathBuf>>,
    /// Leave the whole matrix out.
    #[arg(long)]
    pub alone: bool,
    /// Runs of each, of which the shortest is told.
    #[arg(long, default_value_t = 3)]
    pub runs: usize,
    #[command(flatten)]
    pub device: Device,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Data {
    /// A tar or folder of JPEG files [default: made up].
    #[arg(long, value_name = "TAR|DIR")]
    pub images: Option<PathBuf>,
    /// Seconds a measurement.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Captions {
    /// Both of the following in turn.
    Both,
    /// Rows of tokens as long as the batch's longest caption, as training has them.
    Trimmed,
    /// Rows as long as the model allows.
    Untrimmed,
}

#[derive(Debug, Args)]
pub struct Step {
    /// Models: rn50, vit_b_32, vit_b_16, vit_l_14, resnet50.
    #[arg(long, value_delimiter = ',', default_value = "rn50,vit_b_32", value_parser = super::preset_name)]
    pub model: Vec<String>,
    /// Pairs a step.
    #[arg(long, default_value_t = 32)]
    pub batch_size: usize,
    /// Dtype of the encoders.
    #[arg(long, default_value = "fp32", value_parser = super::PRECISIONS)]
    pub precision: String,
    /// On NVIDIA GPUs, multiply f32 matrices in TF32, as `train.tf32` does.
    #[arg(long)]
    pub tf32: bool,
    /// Timed steps a case, after one that is not; the shortest counts.
    #[arg(long, default_value_t = 3, value_parser = super::at_least_1)]
    pub steps: usize,
    /// How long rows of tokens are.
    #[arg(long, value_enum, default_value = "both")]
    pub captions: Captions,
    /// Pairs to read while training, so that the wait for them is measured too [default: random images in memory].
    #[arg(long, value_name = "SOURCE")]
    pub data: Option<String>,
    #[command(flatten)]
    pub device: Device,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Nms {
    /// Runs, of which the median is told.
    #[arg(long, default_value_t = 21)]
    pub runs: usize,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Comm {
    /// MiB of the tensors.
    #[arg(long, value_delimiter = ',', default_value = "0.001,1,64")]
    pub mib: Vec<f64>,
    /// Timed exchanges a size and sort.
    #[arg(long, default_value_t = 10)]
    pub repeats: u32,
    /// Where the tensors lie: cpu, cuda (each rank its own) or auto.
    #[arg(long, default_value = "cpu", value_name = "DEVICE", value_parser = super::device_name)]
    pub device: String,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Loss {
    /// Pairs. The plain form is left out where it would need more memory than there is.
    #[arg(long, value_delimiter = ',', default_value = "1024,4096,16384")]
    pub n: Vec<i64>,
    /// Seconds a size, at least.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    #[command(flatten)]
    pub device: Device,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
