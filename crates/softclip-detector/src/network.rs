//! The network: a TorchScript file that somebody vouches for.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use softclip_tensor::Precision;
use softclip_torch::{Autocast, guard};
use tch::{CModule, Device, IValue, Kind, Tensor, no_grad};

use crate::anchors::{AnchorSource, Anchors};
use crate::error::{Error, Result};
use crate::failure::{self, Pass};
use crate::letterbox::{Letterbox, LetterboxSettings};
use crate::metadata::Metadata;
use crate::names;
use crate::nms::{Detection, Thresholds, select};
use crate::output::{Candidates, OutputDecoder, OutputLayout};

/// Why a TorchScript file may be run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// It may not.
    #[default]
    No,
    /// It is the file with this SHA-256, in hexadecimal.
    Sha256(String),
    /// Whatever it is.
    Yes,
}

/// How a network is read. What is `None` comes from its file, where the file says it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkOptions {
    /// Why it may be run.
    pub trust: Trust,
    /// Names of its classes by number; COCO's if neither this nor the file names them.
    pub names: Option<Vec<String>>,
    /// How images become its inputs.
    pub letterbox: LetterboxSettings,
    /// Layout of its output.
    pub output: OutputLayout,
    /// Anchors of its raw maps; those of `yolov7.yaml`, with a warning, if neither this nor the file has any.
    pub anchors: Option<Anchors>,
    /// dtype of the forward pass.
    pub precision: Precision,
    /// Whether it takes BGR, as what was trained through OpenCV without turning the channels.
    pub bgr: bool,
}

/// A detector as YOLOv7's exporter writes it: RGB `[B, 3, H, W]` in [0, 1] in, boxes out.
pub struct Network {
    module: CModule,
    device: Device,
    path: PathBuf,
    sha256: String,
    names: Vec<String>,
    letterbox: Letterbox,
    decoder: OutputDecoder,
    metadata: Metadata,
    precision: Precision,
    bgr: bool,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").field("path", &self.path).field("device", &self.device).finish_non_exhaustive()
    }
}

impl Network {
    /// Reads the file and, if it is trusted, loads it: the very bytes that were hashed.
    ///
    /// # Errors
    /// The file cannot be read, is not trusted, is not TorchScript, or contradicts the options.
    pub fn open(path: &Path, options: NetworkOptions, device: Device) -> Result<Self> {
        if let Some(anchors) = &options.anchors {
            anchors.validate()?;
        }
        let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        match &options.trust {
            Trust::Yes => {}
            Trust::Sha256(expected) if expected.eq_ignore_ascii_case(&sha256) => {}
            Trust::Sha256(expected) => {
                return Err(Error::Hash { path: path.to_owned(), found: sha256, expected: expected.clone() });
            }
            Trust::No => return Err(Error::Untrusted { path: path.to_owned(), sha256 }),
        }
        let not = |e: tch::TchError| {
            let why = softclip_torch::Error::from(e).to_string();
            let hint =
                "no TorchScript that this libtorch reads (weights alone, as .pt of a training run, are none: export them first)";
            Error::Format { path: path.to_owned(), why: format!("{hint}: {why}") }
        };
        let mut module = CModule::load_data_on_device(&mut &bytes[..], device).map_err(not)?;
        module.f_set_eval().map_err(not)?;
        let metadata = Metadata::read(&bytes, path);
        let NetworkOptions { trust: _, names, letterbox, output, anchors, precision, bgr } = options;
        let letterbox = letterbox_of(&letterbox, &metadata)?;
        let names_assumed = names.is_none() && metadata.names.is_none();
        let names = names_from(names, &metadata)?;
        let anchors = AnchorSource::new(anchors, metadata.anchors.clone());
        let decoder = OutputDecoder::new(names.len(), output, anchors, names_assumed);
        let path = path.to_owned();
        Ok(Network { module, device, path, sha256, names, letterbox, decoder, metadata, precision, bgr })
    }

    /// Runs the network on inputs u8 `[B, H, W, 3]` and decodes its output.
    ///
    /// # Errors
    /// The inputs have another shape or dtype, the network fails on them, or its output is not a detector's.
    pub fn forward(&self, inputs: &Tensor) -> Result<Candidates> {
        let size = inputs.size();
        let &[batch, height, width, 3] = &size[..] else {
            let (expected, found) = ("inputs u8 [B, H, W, 3]".to_owned(), format!("{size:?}"));
            return Err(Error::Output { expected, found, remedy: String::new() });
        };
        guard(|| {
            no_grad(|| {
                // Rows of pixels are what libtorch calls channels last.
                let pixels = inputs.f_to_device(self.device)?.f_permute([0, 3, 1, 2])?;
                let pixels = if self.bgr { pixels.f_flip([1i64])? } else { pixels };
                let images = pixels.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?;
                let _autocast = Autocast::enter(self.device, self.precision)?;
                let output = self.module.forward_is(&[IValue::Tensor(images)]).map_err(|e| self.failure(e, &size))?;
                self.decoder.decode(&output, batch, (height, width))
            })
        })?
    }

    /// Why a pass over inputs of this size failed.
    fn failure(&self, error: tch::TchError, size: &[i64]) -> Error {
        let tch::TchError::Torch(message) = &error else { return error.into() };
        let cause = failure::cause(message);
        // The error for too little memory already contains a remedy.
        let reason = softclip_torch::Error::from(tch::TchError::Torch(cause.to_owned()));
        if let softclip_torch::Error::OutOfMemory(_) = reason {
            return reason.into();
        }
        let pass = Pass { size, precision: self.precision, device: self.device, metadata: &self.metadata };
        Error::Forward {
            path: self.path.clone(),
            input: format!("{} images of {} x {} pixels", size[0], size[1], size[2]),
            cause: cause.to_owned(),
            remedy: pass.remedy(cause),
        }
    }

    /// Detects objects in inputs u8 `[B, H, W, 3]`, in the pixels of each input.
    ///
    /// # Errors
    /// As [`Network::forward`].
    pub fn detect(&self, inputs: &Tensor, thresholds: &Thresholds) -> Result<Vec<Vec<Detection>>> {
        let candidates = self.forward(inputs)?;
        let rows = candidates.filter_by_score(thresholds.floor())?;
        let thresholds = candidates.thresholds(thresholds);
        Ok(rows.iter().map(|rows| select(rows, 5 + self.names.len(), &thresholds)).collect())
    }

    /// Names of its classes, by number.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How images become its inputs.
    pub fn letterbox(&self) -> &Letterbox {
        &self.letterbox
    }

    /// The anchors that decode its raw maps if it returns such, as JSON: those of the settings, of the file, or the default.
    pub fn anchors(&self) -> serde_json::Value {
        self.decoder.anchors.describe()
    }

    /// Layout of its output, as the settings say it.
    pub fn output(&self) -> OutputLayout {
        self.decoder.layout
    }

    /// Whether it takes BGR.
    pub fn is_bgr(&self) -> bool {
        self.bgr
    }

    /// dtype of the forward pass.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's SHA-256 in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

/// The letterbox of the settings with the size and stride that the file says.
fn letterbox_of(settings: &LetterboxSettings, metadata: &Metadata) -> Result<Letterbox> {
    let contradiction = |key, settings: u32, file: String, remedy| {
        Err(Error::Contradiction { key, settings: settings.to_string(), file, remedy })
    };
    if let (Some(stride), Some(own)) = (settings.stride, metadata.stride)
        && !stride.is_multiple_of(own)
    {
        return contradiction("letterbox.stride", stride, own.to_string(), "remove `letterbox.stride` from the settings");
    }
    let side = match metadata.input.filter(|_| !metadata.dynamic) {
        Some((height, width)) if height != width => {
            return Err(Error::Option {
                key: "letterbox.size",
                why: format!(
                    "the TorchScript file was exported for inputs of {height} x {width} pixels: export it for square ones"
                ),
            });
        }
        fixed => fixed.map(|(side, _)| side),
    };
    if let (Some(size), Some(own)) = (settings.size, side)
        && size != own
    {
        let remedy = "remove `letterbox.size` from the settings, or export the network for this size";
        return contradiction("letterbox.size", size, own.to_string(), remedy);
    }
    let suggested = metadata.input.map(|(height, width)| height.max(width));
    let letterbox = settings.resolved(suggested, metadata.stride);
    letterbox.validate()?;
    Ok(letterbox)
}

/// The names of the settings, else those of the file, else COCO's.
fn names_from(settings: Option<Vec<String>>, metadata: &Metadata) -> Result<Vec<String>> {
    let (settings, file) = match (settings, &metadata.names) {
        (Some(settings), Some(file)) => (settings, file),
        (Some(names), None) => return Ok(names),
        (None, file) => return Ok(file.clone().unwrap_or_else(names::coco)),
    };
    let contradiction =
        |settings: String, file: String| Err(Error::Contradiction { key: "classes", settings, file, remedy: CLASSES_REMEDY });
    if settings.len() != file.len() {
        let sample = |names: &[String]| {
            format!("{} names ({}, …)", names.len(), names.iter().take(3).cloned().collect::<Vec<_>>().join(", "))
        };
        return contradiction(sample(&settings), sample(file));
    }
    let plain = |name: &str| name.trim().to_lowercase().replace(['_', '-'], " ");
    let differs = settings.iter().zip(file).position(|(a, b)| plain(a) != plain(b));
    match differs.filter(|_| !metadata.has_placeholder_names()) {
        Some(number) => contradiction(format!("'{}' for class {number}", settings[number]), format!("'{}'", file[number])),
        None => Ok(settings),
    }
}

const CLASSES_REMEDY: &str = "remove `classes` (--classes), or name the classes as the file does";
