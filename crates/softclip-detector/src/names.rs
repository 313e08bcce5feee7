//! Names of classes.

use std::path::Path;

use crate::error::{Error, Result};

/// COCO's 80 classes in the order of detectors that are trained on it.
pub const COCO: [&str; 80] = [
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "airplane",
    "bus",
    "train",
    "truck",
    "boat",
    "traffic light",
    "fire hydrant",
    "stop sign",
    "parking meter",
    "bench",
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "backpack",
    "umbrella",
    "handbag",
    "tie",
    "suitcase",
    "frisbee",
    "skis",
    "snowboard",
    "sports ball",
    "kite",
    "baseball bat",
    "baseball glove",
    "skateboard",
    "surfboard",
    "tennis racket",
    "bottle",
    "wine glass",
    "cup",
    "fork",
    "knife",
    "spoon",
    "bowl",
    "banana",
    "apple",
    "sandwich",
    "orange",
    "broccoli",
    "carrot",
    "hot dog",
    "pizza",
    "donut",
    "cake",
    "chair",
    "couch",
    "potted plant",
    "bed",
    "dining table",
    "toilet",
    "tv",
    "laptop",
    "mouse",
    "remote",
    "keyboard",
    "cell phone",
    "microwave",
    "oven",
    "toaster",
    "sink",
    "refrigerator",
    "book",
    "clock",
    "vase",
    "scissors",
    "teddy bear",
    "hair drier",
    "toothbrush",
];

/// [`COCO`], owned.
pub fn coco() -> Vec<String> {
    COCO.map(str::to_owned).to_vec()
}

/// Reads a file with a name per line. Blank lines and lines that begin with `#` are skipped.
///
/// # Errors
/// The file cannot be read, is not UTF-8 text, or names no class.
pub fn read(path: &Path) -> Result<Vec<String>> {
    let text = softclip_io::read_text(path).map_err(|e| Error::text(path, e))?;
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect();
    match names.is_empty() {
        true => Err(Error::Format { path: path.to_owned(), why: "it names no class: write one name per line".to_owned() }),
        false => Ok(names),
    }
}
