//! A detector's settings as a file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use softclip_tensor::Precision;
use tch::Device;

use crate::error::{Error, Result};
use crate::letterbox::Letterbox;
use crate::names;
use crate::network::{Network, NetworkOptions, Trust};
use crate::nms::Thresholds;
use crate::output::Anchors;

/// Everything about a detector but its weights; YAML. All keys have defaults: YOLOv7's, with COCO's classes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DetectorConfig {
    /// SHA-256 of the TorchScript file that may be loaded.
    pub sha256: Option<String>,
    /// A file with a class's name a line, relative to this one. Default: COCO's 80.
    pub classes: Option<PathBuf>,
    /// How images become inputs.
    pub letterbox: Letterbox,
    /// What counts as a detection.
    pub thresholds: Thresholds,
    /// Of networks that return raw maps.
    pub anchors: Anchors,
    /// Number type of the forward pass.
    pub precision: Precision,
    /// Whether the network takes BGR.
    pub bgr: bool,
}

impl DetectorConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read; a key is unknown or a value makes no sense, with the line where there is one.
    pub fn read(path: &Path) -> Result<Self> {
        let format = |why: String| Error::Format { path: path.to_owned(), why };
        let text = softclip_io::read_text(path).map_err(|e| match e {
            softclip_io::TextError::Io(source) => Error::Io { path: path.to_owned(), source },
            other => format(other.to_string()),
        })?;
        let mut config: Self = softclip_io::parse_yaml(&text).map_err(|e| format(e.to_string()))?;
        config.validate().map_err(|e| format(e.to_string()))?;
        if let (Some(classes), Some(folder)) = (&mut config.classes, path.parent()) {
            *classes = folder.join(&*classes);
        }
        Ok(config)
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// What makes no sense.
    pub fn validate(&self) -> Result<()> {
        self.letterbox.validate()?;
        self.thresholds.validate()?;
        self.anchors.validate()
    }

    /// The network of the TorchScript file `path`, which may be loaded if `trusted`, or if it has the file's SHA-256.
    ///
    /// # Errors
    /// As [`Network::open`] and [`names::read`].
    pub fn open(&self, path: &Path, trusted: bool, device: Device) -> Result<Network> {
        self.validate()?;
        let trust = match &self.sha256 {
            Some(sha256) => Trust::Sha256(sha256.clone()),
            None if trusted => Trust::Yes,
            None => Trust::No,
        };
        let names = self.classes.as_deref().map_or_else(|| Ok(names::coco()), names::read)?;
        let (anchors, precision, bgr) = (self.anchors.clone(), self.precision, self.bgr);
        Network::open(path, NetworkOptions { trust, names, anchors, precision, bgr }, device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_say_what_is_wrong_with_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.yaml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            DetectorConfig::read(&path)
        };
        assert_eq!(read("{}").unwrap(), DetectorConfig::default());
        let config = read("classes: names.txt\nthresholds: {confidence: 0.2, iou: 0.3}\nletterbox: {squash: true}").unwrap();
        assert_eq!(config.classes.unwrap(), dir.path().join("names.txt"));
        assert_eq!((config.thresholds.confidence, config.thresholds.most, config.letterbox.size), (0.2, 300, 640));
        for (text, words) in [
            ("thresholds: {confidense: 0.2}", "unknown field `confidense`"),
            ("thresholds: {iou: 3}", "iou: 3 is outside of [0, 1]"),
            ("letterbox: {size: 500}", "500 is no multiple of the stride"),
            ("anchors: {sizes: [[[1, 2]]], strides: []}", "1 levels of sizes and 0 strides"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("d.yaml"), "{error}");
        }
    }
}
