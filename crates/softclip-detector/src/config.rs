//! A detector's settings as a file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use softclip_tensor::Precision;
use tch::Device;

use crate::anchors::Anchors;
use crate::error::{Error, Result};
use crate::letterbox::LetterboxSettings;
use crate::names;
use crate::network::{Network, NetworkOptions, Trust};
use crate::nms::Thresholds;
use crate::output::OutputLayout;

/// Everything about a detector but its weights; YAML. What is not set comes from the TorchScript file where it says it (classes,
/// anchors, size and stride of the input), else the defaults are YOLOv7's, with COCO's classes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DetectorConfig {
    /// SHA-256 of the TorchScript file that may be loaded.
    pub sha256: Option<String>,
    /// A file with a class name per line, relative to this one.
    pub classes: Option<PathBuf>,
    /// How images become inputs.
    pub letterbox: LetterboxSettings,
    /// What counts as a detection.
    pub thresholds: Thresholds,
    /// Layout of the network's output.
    pub output: OutputLayout,
    /// Anchors of networks that return raw maps.
    pub anchors: Option<Anchors>,
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
        let text = softclip_io::read_text(path).map_err(|e| Error::text(path, e))?;
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
        self.letterbox.or_default().validate()?;
        self.thresholds.validate()?;
        self.anchors.as_ref().map_or(Ok(()), Anchors::validate)
    }

    /// Opens the TorchScript file `path`, which may be loaded if `trusted`, or if it has the SHA-256 of the settings.
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
        let options = NetworkOptions {
            trust,
            names: self.classes.as_deref().map(names::read).transpose()?,
            letterbox: self.letterbox,
            output: self.output,
            anchors: self.anchors.clone(),
            precision: self.precision,
            bgr: self.bgr,
        };
        Network::open(path, options, device)
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
        assert_eq!((config.thresholds.confidence, config.thresholds.most, config.letterbox.size), (0.2, 300, None));
        assert_eq!(config.letterbox.or_default().size, 640);
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

    #[test]
    fn settings_of_the_project_are_read() {
        let read = |name: &str| {
            DetectorConfig::read(Path::new(&format!("{}/../../configs/detectors/{name}.yaml", env!("CARGO_MANIFEST_DIR"))))
                .unwrap()
        };
        let anchors = |name| read(name).anchors.unwrap();
        assert_eq!(anchors("yolov7"), Anchors::default());
        assert_eq!(anchors("yolov7-tiny").sizes[2], [[116.0, 90.0], [156.0, 198.0], [373.0, 326.0]]);
        assert_eq!(anchors("yolov7-w6").strides, [8.0, 16.0, 32.0, 64.0]);
        let letterbox = read("yolov7-w6").letterbox.or_default();
        assert_eq!((letterbox.size, letterbox.stride), (1280, 64));
        assert!(read("text-based-source").bgr);
    }
}
