//! The arguments of `softclip data patches`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};
use softclip_data::patches::Shares;

pub const EXAMPLES: &str = "\
Examples:
  softclip data patches --images tiles/ --masks masks/ --map configs/patches/roof-solar.yaml --out patches/
  softclip eval openai/clip-vit-base-patch32 --task zeroshot --data folder:patches/test --prompts patches/prompts.txt

  softclip data patches --pairs pairs.csv --map configs/patches/roof-solar.yaml --size 224 --stride 112 \\
      --format shards --out shards/
  softclip train configs/clip-rn50.yaml --set data.train='shards/train/*.tar' --set data.val='shards/val/*.tar'";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SplitBy {
    /// All patches of an image go to one split: none is seen in training and, shifted a little, in the test.
    Image,
    /// Each patch goes its own way.
    Patch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// SPLIT/CLASS/IMAGE_X_Y.png and classnames.tsv: folder:OUT/test for zero-shot classification.
    Folder,
    /// SPLIT/00000.tar with captions made from the class's name: for training.
    Shards,
}

#[derive(Debug, Args)]
pub struct Patches {
    /// A folder of images: JPEG, PNG, WebP, GIF, BMP.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, requires = "masks", required_unless_present = "pairs")]
    pub images: Option<PathBuf>,
    /// A folder of masks, PNG or BMP, named as the images but for the extension.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, requires = "images")]
    pub masks: Option<PathBuf>,
    /// Instead of folders: a CSV or TSV table with the columns image and mask, paths relative to it.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["images", "masks"])]
    pub pairs: Option<PathBuf>,
    /// What the values of masks mean and which classes there are, YAML. See configs/patches/ for a ready one.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub map: PathBuf,
    /// The folder to make.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: PathBuf,
    /// Side of a patch in pixels. Only whole patches are cut.
    #[arg(long, default_value_t = 224, value_name = "PIXELS")]
    pub size: u32,
    /// Pixels from a patch to the next [default: the size].
    #[arg(long, value_name = "PIXELS")]
    pub stride: Option<u32>,
    /// Probabilities of train, val and test, in percent.
    #[arg(long, default_value = "70,20,10", value_name = "A,B,C")]
    pub split: Shares,
    /// What goes to one split as a whole.
    #[arg(long, value_enum, default_value_t = SplitBy::Image)]
    pub split_by: SplitBy,
    /// The same seed gives the same splits; further images move no patch.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// How patches are laid out.
    #[arg(long, value_enum, default_value_t = Format::Folder)]
    pub format: Format,
    /// Store JPEG of this quality, 1 to 100 [default: PNG].
    #[arg(long, value_name = "QUALITY")]
    pub jpeg: Option<u8>,
    /// The share of pairs that may be unusable.
    #[arg(long, default_value_t = 0.1, value_name = "SHARE")]
    pub max_bad_share: f64,
    /// The most pixels of an image. Each takes up to 12 bytes of memory.
    #[arg(long, default_value_t = 400_000_000, value_name = "N")]
    pub max_pixels: u64,
    /// Take images as they are stored, not turned upright as their Exif orientation says: for masks that were drawn so.
    #[arg(long)]
    pub ignore_exif: bool,
    /// Replace a data set of patches that is there.
    #[arg(long)]
    pub force: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
