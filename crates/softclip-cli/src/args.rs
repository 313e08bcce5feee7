//! The command line: what can be typed, and its help.

mod ablate;
pub mod bench;
mod bench_memory;
pub mod collection;
mod decoding;
pub mod explain;
mod export;
pub mod extract;
mod launch;
pub mod patches;
mod report;
mod results;
mod score;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

pub use ablate::Ablate;
pub use bench_memory::BenchMemory;
pub use decoding::Decoding;
pub use export::{Export, Layout};
pub use launch::Launch;
pub use report::Report;
pub use results::{Results, TableFormat};
pub use score::{Format, Images, Score};

/// Trains and evaluates image-text models whose targets are soft.
///
/// A configuration file is an experiment; a run is a folder with its checkpoints, metrics and results. Results go to standard
/// output (`--json` for machines), progress and messages to standard error. Exit status: 0 done, 1 failed, 2 wrong usage,
/// 130 interrupted (training has written a checkpoint).
#[derive(Debug, Parser)]
#[command(name = "softclip", version, max_term_width = 110, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

macro_rules! sources {
    () => {
        "\
Sources, wherever data is named (more in docs/data.md):
  shards/{00000..00009}.tar       webdataset shards; also globs, .txt lists, a.tar::b.tar, .tar.gz
  shards/*.tar+rois/*.tar         with sidecars of the same keys: tags, region features
  coco:captions.json,images/      COCO captions; images in a folder or in a tar
  karpathy:dataset.json,images/,split=test
  csv:pairs.csv   tsv:pairs.tsv   columns found by name
  coco:…,sidecars=soft/*.tar      with sidecars; also karpathy:, csv:, tsv:
  folder:dir/                     a folder a class; also a tar of them
  csv:images.csv,label=COLUMN     images with a class each; also tsv:
  imagenet:DIR  pets:DIR  dtd:DIR  food101:DIR  flowers102:DIR  sun397:DIR  caltech101:DIR  wds:DIR
                                  published sets as they are unpacked (docs/evaluation.md)"
    };
}

const SOURCES: &str = sources!();

const EVAL: &str = concat!(
    sources!(),
    "
For instance and copy (docs/instance.md), each also with ,distractors=FOLDER:
  revisited:gnd_roxford5k.json,jpg/    ground truth by scripts/revisited-to-json
  copydays:copydays/,subset=strong     copies in copydays/strong/, originals in copydays/original/

Examples:
  softclip eval runs/softclip-rn50 --task copy --data copydays:copydays/ --scales 1,0.7071,0.5
  softclip eval runs/softclip-rn50 --task retrieval --data 'coco:captions_val2017.json,val2017/'
  softclip eval openai/clip-vit-base-patch32 --task zeroshot --data pets:oxford-iiit-pet/ --per-class
  softclip eval runs/softclip-rn50 --task zeroshot --data folder:val/ --prompts imagenet80 --classnames imagenet1k"
);

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a model from a configuration file, or go on with a run.
    ///
    /// The run folder gets the resolved configuration, checkpoints, metrics.jsonl and TensorBoard events. Started again
    /// with the same run folder, training goes on from the newest checkpoint that verifies, on a CPU bit for bit as if it had
    /// never stopped. Ctrl-C, SIGTERM or SIGHUP finishes the step, writes a checkpoint and ends; a second one ends at once.
    #[command(after_help = "\
Examples:
  softclip train configs/softclip-rn50.yaml \\
      --set data.train='cc3m/{00000..00331}.tar+rois/{00000..00331}.tar'
  softclip train configs/photos-small.yaml --set data.train='photos/0000[0-3].tar' \\
      --set data.val=photos/00004.tar")]
    Train(Train),
    /// Evaluate a run or a pretrained model: retrieval, pairing accuracy, zero-shot classification, instance retrieval, copy detection.
    ///
    /// A run keeps the result in its folder results/.
    #[command(after_help = EVAL)]
    Eval(Eval),
    /// One table over results of runs: a row a result, a column a metric.
    ///
    /// Reads what `softclip eval` and training wrote, and files of CLIP_benchmark.
    #[command(after_help = results::EXAMPLES)]
    Results(Results),
    /// Run a grid of trainings that differ in little, and tell what each difference brings, as mean and deviation over seeds.
    ///
    /// A plan says what is compared; the plans in configs/ablations/ are tables and figures of SoftCLIP's paper, whose figures stand
    /// beside the result. The folder gets a run a cell, results.json, tables as Markdown and CSV, and report.html with plots. A run
    /// that fails is told at the end and the others go on. Exit status: 0, 1 if a run failed, 130 if interrupted.
    #[command(after_help = ablate::EXAMPLES)]
    Ablate(Ablate),
    /// Write a page about one run or several: what differs, results, curves, and what the models find, as one HTML file.
    ///
    /// The page needs no server and no network, and holds what it shows. Tables and curves come from the runs' folders; retrieved images,
    /// distributions of probabilities and cosines, and soft targets come from their newest checkpoints on the validation data.
    #[command(after_help = report::EXAMPLES)]
    Report(Report),
    /// Score pairs of a table: how well each image fits its caption.
    ///
    /// Every row of the table comes back in its order, with the columns cosine, logit (by the model's temperature) and error: a row
    /// that cannot be scored says why, and the rest goes on. A table of time and memory follows on standard error. Exit status: 0,
    /// 1 if no row has a score, 130 if interrupted.
    #[command(after_help = score::EXAMPLES)]
    Score(Score),
    /// Turn a collection of images or texts into rows of unit length that NumPy reads.
    ///
    /// The folder gets embeddings.npy (or .safetensors), keys.jsonl with an entry a row, skipped.txt with what could not be used,
    /// and meta.json. Killed or stopped with Ctrl-C, the same command goes on where it was; the files become the same.
    #[command(after_help = collection::INPUTS)]
    Embed(collection::Embed),
    /// Find the rows of `softclip embed` that are nearest to texts or images, once or from a page.
    #[command(after_help = "\
Examples:
  softclip search photos.emb --text 'a red car' --text 'a dog on grass' -k 5
  softclip search photos.emb --image cat.jpg --format html --out like-cat.html
  softclip search photos.emb --serve                       # a page at http://127.0.0.1:8080/")]
    Search(collection::Search),
    /// Show which part of an image speaks for a text, and for each of its words.
    ///
    /// Grad-CAM heat maps over what the model sees, as one page that opens without a server, or as PNG files. Cosines of the image
    /// with the whole text and with each word go to standard output.
    #[command(after_help = explain::EXAMPLES)]
    Explain(explain::Explain),
    /// Find objects in images, print them, and draw them into copies.
    #[command(after_help = extract::DETECT)]
    Detect(extract::Detect),
    /// Make the soft targets of a data set: tags and region features of every image, as sidecars of its shards.
    ///
    /// A sidecar appears when it is whole. Killed or stopped with Ctrl-C, the same command goes on with the first that is not; several
    /// processes share a job by --rank and --world-size. Training refuses sidecars that were made from other images.
    #[command(after_help = extract::EXTRACT)]
    Extract(extract::Extract),
    /// Write a model in another library's layout: Hugging Face's or open_clip's.
    ///
    /// The folder gets configuration, weights as safetensors, and the tokenizer. It is then read back and compared with the model:
    /// all tensors bit for bit, and what they compute.
    #[command(after_help = export::EXAMPLES)]
    Export(Export),
    /// Print the configuration that a run would use, with every default and every inherited value.
    Config(Config),
    /// Look at data, or make some.
    #[command(subcommand)]
    Data(Data),
    /// Make a small data set, train CLIP and SoftCLIP on it, evaluate both, and write a page that shows the result.
    ///
    /// Needs no download and no GPU: a few minutes on two cores. The scenes are drawn by the program: coloured objects of several
    /// sizes and places, with captions that partly hold for other images too, which is what soft targets are for.
    Demo(Demo),
    /// Measure speed: the data path, the training step, the loss, the exchange between ranks.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Run a command as several ranks on this machine, which end together.
    ///
    /// Standard output is rank 0's; all else goes to standard error with the rank in front of each line. Ctrl-C and SIGTERM go on to all
    /// ranks. If one fails, the others are ended, and it is told which failed first and why. Exit status: 0 if all ranks ended so, 1,
    /// or 130 if interrupted. Several machines, and what ranks can do yet: docs/distributed.md.
    #[command(after_help = launch::EXAMPLES)]
    Launch(Launch),
    /// Print a completion script: softclip completions bash > /etc/bash_completion.d/softclip
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write manual pages, one a command: softclip man /usr/local/share/man/man1
    Man {
        /// The folder.
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
}

/// Dtypes of the encoders.
pub const PRECISIONS: [&str; 3] = ["fp32", "bf16", "fp16"];

/// Whether it is the name of a device; whether there is one is seen when it is used.
pub fn device_name(name: &str) -> Result<String, String> {
    let numbered = name.strip_prefix("cuda:").is_some_and(|number| number.parse::<u16>().is_ok());
    match numbered || ["auto", "cpu", "cuda"].contains(&name) {
        true => Ok(name.to_owned()),
        false => Err("use auto, cpu, cuda or cuda:N".to_owned()),
    }
}

/// A scale at which images are seen.
fn scale(text: &str) -> Result<f64, String> {
    let scale: f64 = text.parse().map_err(|e| format!("{e}"))?;
    if (0.05..=8.0).contains(&scale) { Ok(scale) } else { Err("a scale is from 0.05 to 8".to_owned()) }
}

/// Whether it is the name of a model.
pub fn preset_name(name: &str) -> Result<String, String> {
    softclip_encoders::ClipConfig::preset(name).map(|_| name.to_owned()).map_err(|e| e.to_string())
}

/// A number of at least 1.
pub fn at_least_1(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(e) => Err(format!("{e}")),
    }
}

#[derive(Debug, Args)]
pub struct Device {
    /// Where to compute: auto (a GPU if there is one), cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto", value_name = "DEVICE", value_parser = device_name)]
    pub device: String,
    /// Threads for tensor operations on the CPU [default: one a core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
}

#[derive(Debug, Args)]
pub struct Train {
    /// The configuration, YAML. See configs/ for ready ones.
    #[arg(value_hint = ValueHint::FilePath)]
    pub config: PathBuf,
    /// Change a value of the configuration: --set train.batch_size=256. Repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// The run's folder [default: runs/NAME, with the configuration file's name].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub run_dir: Option<PathBuf>,
    /// auto: go on from the newest whole checkpoint of the run folder if there is one; never: start anew, and refuse a
    /// folder that has checkpoints; or a checkpoint's folder.
    #[arg(long, default_value = "auto", value_name = "auto|never|CHECKPOINT")]
    pub resume: String,
    /// As one of several ranks: how long one may wait for another before the job fails, in minutes.
    #[arg(long, default_value = "30", value_name = "MINUTES", value_parser = clap::value_parser!(u16).range(1..))]
    pub timeout: u16,
    #[command(flatten)]
    pub device: Device,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Task {
    /// R@1, R@5, R@10 from text to image and from image to text, all captions of an image.
    Retrieval,
    /// Share of pairs whose partner is the most similar one in a block of 128 pairs, both ways; first captions only.
    Pairing,
    /// Top-1, top-5 and mean per class, with prompts made from the class names.
    Zeroshot,
    /// mAP and mP@k of photographs of the same place, on the revisited Oxford and Paris sets: Easy, Medium and Hard.
    Instance,
    /// mAP of finding an altered copy's original: Copydays.
    Copy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compat {
    /// As the code of Text-based SoftCLIP's authors: all captions in random order, random crops and flips, symmetrised similarities,
    /// a shorter last block counts as 0.
    Source,
}

#[derive(Debug, Args)]
pub struct Eval {
    /// The model: a run's folder or checkpoint, a pretrained model's folder or file, or a hub's id.
    #[arg(value_hint = ValueHint::AnyPath)]
    pub model: String,
    /// What to measure.
    #[arg(long, value_enum)]
    pub task: Task,
    /// The data.
    #[arg(long, value_name = "SOURCE")]
    pub data: String,
    /// Also write the result as JSON to this file; `-` for standard output instead of the table.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub json: Option<PathBuf>,
    /// Prompts for zeroshot: clip (what CLIP's authors took for this data set), imagenet80 (for ImageNet), imagenet7 (the best of
    /// them), simple ("a photo of a …"), or a file with one template per line or a JSON list, {} for the class [default: clip
    /// where the data set has such, else simple].
    #[arg(long, value_name = "NAME|FILE")]
    pub prompts: Option<String>,
    /// Names of classes for zeroshot: a file with a line a class (its key in the data set, a tab, a name), or a published set's
    /// name, such as imagenet1k [default: CLIP's for published data sets, else the data's own].
    #[arg(long, value_name = "FILE|SET", value_hint = ValueHint::FilePath)]
    pub classnames: Option<String>,
    /// Also print each class's recall and the classes that were confused most (zeroshot).
    #[arg(long)]
    pub per_class: bool,
    /// Follow another protocol of pairing, to compare with numbers that were measured so.
    #[arg(long, value_enum)]
    pub compat: Option<Compat>,
    /// Scales at which instance and copy see each image; its embeddings are summed. At 0.5 the shorter side is half of the model's.
    #[arg(long, default_value = "1", value_delimiter = ',', value_name = "S,…", value_parser = scale)]
    pub scales: Vec<f64>,
    /// Images or captions a forward pass.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub batch_size: u16,
    /// Number type of the encoders [default: the run's; fp32 for pretrained models].
    #[arg(long, value_parser = PRECISIONS)]
    pub precision: Option<String>,
    #[command(flatten)]
    pub decoding: Decoding,
    #[command(flatten)]
    pub device: Device,
}

#[derive(Debug, Args)]
pub struct Config {
    /// The configuration, YAML.
    #[arg(value_hint = ValueHint::FilePath)]
    pub config: PathBuf,
    /// Change a value: --set loss.beta=0.1. Repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum Data {
    /// Read and decode every sample of a source: counts, sizes, lengths of captions, and what cannot be used.
    #[command(after_help = SOURCES)]
    Inspect {
        /// The source.
        source: String,
        /// The most tokens of a caption, start and end among them: longer ones are counted.
        #[arg(long, default_value_t = 77)]
        context_length: usize,
        #[command(flatten)]
        decoding: Decoding,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Draw the demo's data set: scenes with captions, boxes, tags and region features, in COCO's format and as shards.
    Synth {
        /// The folder to make.
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
        /// Scenes to train on.
        #[arg(long, default_value_t = 4000)]
        train: usize,
        /// Scenes to evaluate on.
        #[arg(long, default_value_t = 500)]
        val: usize,
        /// Single objects of each of the zero-shot classes.
        #[arg(long, default_value_t = 20)]
        zeroshot: usize,
        /// Side of the images in pixels.
        #[arg(long, default_value_t = 96)]
        size: u32,
        /// The same seed draws the same scenes.
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Write the class names and templates of a published data set as files to change: --classnames and --prompts take them.
    #[command(after_help = "\
Example:
  softclip data prompts pets my-pets/
  softclip eval runs/softclip-rn50 --task zeroshot --data pets:oxford-iiit-pet/ \\
      --classnames my-pets/classnames.txt --prompts my-pets/templates.txt")]
    Prompts {
        /// The set.
        #[arg(value_parser = clap::builder::PossibleValuesParser::new(softclip_eval::PUBLISHED.map(|set| set.name)))]
        set: String,
        /// The folder to write to.
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
    /// Cut images and their masks into patches with a class each, split into train, val and test.
    ///
    /// A YAML file says which values of a mask mean what, and which class a patch has that shows it. The folder appears when all is
    /// done, with patches.json: options, counts, and what was left out. Printed is the number of patches by class and split.
    #[command(after_help = patches::EXAMPLES)]
    Patches(patches::Patches),
}

#[derive(Debug, Args)]
pub struct Demo {
    /// Where everything goes. Started again on the same folder, it goes on where it stopped.
    #[arg(long, default_value = "runs/demo", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: PathBuf,
    /// Training steps a model [default: 400].
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,
    /// Scenes to train on.
    #[arg(long, default_value_t = 4000)]
    pub images: usize,
    #[command(flatten)]
    pub device: Device,
}
