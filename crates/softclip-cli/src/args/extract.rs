//! The arguments of `softclip detect` and `softclip extract`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use super::{Decoding, Device};

pub const DETECT: &str = "\
A TorchScript file is a program, and loading it runs it with your rights: name its SHA-256, or --trust it.

Examples:
  softclip detect street.jpg --detector yolov7.torchscript.pt --trust
  softclip detect photos/*.jpg --detector yolov7.torchscript.pt --sha256 9f86… --out boxes/ --json";

pub const EXTRACT: &str = "\
Objects that were found before (--objects; docs/soft-targets.md):
  vinvl:features.tsv[,labels=labels.tsv]      VinVL's or bottom-up attention's features
  instances:instances_train2017.json          COCO's annotations
  lines:objects.jsonl                         {\"key\": …, \"tags\": [\"red car\"]}, or objects with boxes
  arrays:DIR, arrays:regions.safetensors      finished region features

Examples:
  softclip extract 'cc3m/{00000..00331}.tar' --out cc3m-soft \\
      --detector yolov7.torchscript.pt --trust --backbone timm/resnet50.tv_in1k --device cuda
  softclip extract coco:captions.json,train2017/ --out soft --objects instances:instances.json --backbone resnet50/
  softclip launch -n 8 -- extract … --device cuda             each process takes each eighth shard; also by torchrun or srun

  softclip train configs/softclip-rn50.yaml --set data.train='cc3m/{00000..00331}.tar+cc3m-soft/{00000..00331}.tar'";

#[derive(Debug, Args)]
pub struct Network {
    /// Settings of the detector, YAML: letterbox, thresholds, classes, output, anchors, sha256. See configs/detectors/.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub detector_config: Option<PathBuf>,
    /// Load the detector whatever it is, unless the settings name a SHA-256.
    #[arg(long)]
    pub trust: bool,
    /// Load the detector if it has this SHA-256.
    #[arg(long, value_name = "HEX", conflicts_with = "trust")]
    pub sha256: Option<String>,
    /// Names of the classes, one per line [default: those in the detector's file, else COCO's 80].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub classes: Option<PathBuf>,
    /// The least confidence, objectness × class score [default: 0.25].
    #[arg(long, value_name = "SHARE")]
    pub confidence: Option<f32>,
    /// The overlap (IoU) from which on the less confident of two boxes of a class goes [default: 0.45].
    #[arg(long, value_name = "SHARE")]
    pub iou: Option<f32>,
    /// Keep as many detections even below the confidence, as VinVL's detector does [default: 0].
    #[arg(long, value_name = "N")]
    pub least: Option<usize>,
    /// Number type of the networks [default: fp32].
    #[arg(long, value_parser = super::PRECISIONS)]
    pub precision: Option<String>,
}

impl Network {
    /// What is said of a detector alone; the settings' letterbox and the number type are also the backbone's.
    pub fn of_detector(&self) -> Option<&'static str> {
        let said = [
            ("--trust", self.trust),
            ("--sha256", self.sha256.is_some()),
            ("--classes", self.classes.is_some()),
            ("--confidence", self.confidence.is_some()),
            ("--iou", self.iou.is_some()),
            ("--least", self.least.is_some()),
        ];
        said.into_iter().find(|(_, said)| *said).map(|(name, _)| name)
    }
}

#[derive(Debug, Args)]
pub struct Detect {
    /// Images.
    #[arg(required = true, value_hint = ValueHint::FilePath)]
    pub images: Vec<PathBuf>,
    /// The detector, a TorchScript file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub detector: PathBuf,
    #[command(flatten)]
    pub network: Network,
    /// The folder of pictures with boxes and labels; they are called NAME.boxes.jpg (.png for PNGs).
    #[arg(long, default_value = "boxes", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: PathBuf,
    /// No pictures.
    #[arg(long, conflicts_with = "out")]
    pub no_pictures: bool,
    /// Print a JSON object an image.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub decoding: Decoding,
    #[command(flatten)]
    pub device: Device,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Attributes {
    /// car
    None,
    /// red car
    Best,
    /// red shiny car
    All,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("origin").required(true).multiple(false)))]
pub struct Extract {
    /// The images.
    pub source: String,
    /// The folder of sidecars, one a shard, under the shards' names.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: PathBuf,
    /// Find objects with a detector, a TorchScript file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, group = "origin")]
    pub detector: Option<PathBuf>,
    /// Take objects that were found before. Given twice, the second completes the first: tags of the one, regions of the other.
    #[arg(long, value_name = "KIND:FILE", group = "origin")]
    pub objects: Vec<String>,
    #[command(flatten)]
    pub network: Network,
    /// A pretrained ResNet-50 (torchvision's: a folder, a file or a hub's id) that makes the regions' features; without it sidecars
    /// have tags, and regions only where --objects brings them.
    #[arg(long, value_name = "MODEL", value_hint = ValueHint::AnyPath)]
    pub backbone: Option<String>,
    /// The most regions of an image.
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub regions: usize,
    /// The most tags of an image.
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub tags: usize,
    /// Attributes in tags, where they are known.
    #[arg(long, value_enum, default_value_t = Attributes::Best)]
    pub attributes: Attributes,
    /// Samples of a sidecar, for sources that are not shards.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub shard_size: usize,
    /// Images a forward pass [default: 1 on the CPU, whose caches hold no more; 16 on a GPU].
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Threads that read and decode [default: one a core].
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub workers: usize,
    /// The fraction of samples that may be unreadable, of at least 200 samples or all samples.
    #[arg(long, default_value_t = 0.1, value_name = "SHARE")]
    pub max_bad_share: f64,
    /// This process's number among those that share the job, from 0 [default: as the launcher says].
    #[arg(long, value_name = "N", requires = "world_size")]
    pub rank: Option<usize>,
    /// Processes that share the job, each with a number of its own [default: as the launcher says].
    #[arg(long, value_name = "N", requires = "rank")]
    pub world_size: Option<usize>,
    /// Print the outcome as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub decoding: Decoding,
    #[command(flatten)]
    pub device: Device,
}
