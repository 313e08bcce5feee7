//! The network: a TorchScript file that somebody vouches for.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use softclip_tensor::Precision;
use softclip_torch::{Autocast, guard};
use tch::{CModule, Device, IValue, Kind, Tensor, no_grad};

use crate::error::{Error, Result};
use crate::nms::{Detection, Thresholds, select};
use crate::output::{Anchors, above, candidates};

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

/// How a network is read.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkOptions {
    /// Why it may be run.
    pub trust: Trust,
    /// Names of its classes, by number.
    pub names: Vec<String>,
    /// For networks that return raw maps.
    pub anchors: Anchors,
    /// Number type of the forward pass.
    pub precision: Precision,
    /// Whether it takes BGR, as what was trained through OpenCV without turning the channels.
    pub bgr: bool,
}

impl Default for NetworkOptions {
    /// A network of COCO's classes in f32 that nobody vouches for.
    fn default() -> Self {
        let (names, anchors) = (crate::names::coco(), Anchors::default());
        NetworkOptions { trust: Trust::No, names, anchors, precision: Precision::Fp32, bgr: false }
    }
}

/// A detector as YOLOv7's exporter writes it: RGB `[B, 3, H, W]` in [0, 1] in, boxes out.
pub struct Network {
    module: CModule,
    device: Device,
    path: PathBuf,
    sha256: String,
    options: NetworkOptions,
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
    /// The file cannot be read, is not trusted, or is no TorchScript.
    pub fn open(path: &Path, options: NetworkOptions, device: Device) -> Result<Self> {
        options.anchors.validate()?;
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
        Ok(Network { module, device, path: path.to_owned(), sha256, options })
    }

    /// Inputs u8 `[B, H, W, 3]` → candidates f32 `[B, n, 5 + C]` on the network's device.
    ///
    /// # Errors
    /// The inputs have another shape or kind, the network fails on them, or its output is no detector's.
    pub fn forward(&self, inputs: &Tensor) -> Result<Tensor> {
        let size = inputs.size();
        let &[batch, _, _, 3] = &size[..] else {
            return Err(Error::Output { expected: "inputs u8 [B, H, W, 3]".to_owned(), found: format!("{size:?}") });
        };
        guard(|| {
            no_grad(|| {
                // Rows of pixels are what libtorch calls channels last.
                let pixels = inputs.f_to_device(self.device)?.f_permute([0, 3, 1, 2])?;
                let pixels = if self.options.bgr { pixels.f_flip([1i64])? } else { pixels };
                let images = pixels.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?;
                let _autocast = Autocast::enter(self.device, self.options.precision)?;
                let output = self.module.forward_is(&[IValue::Tensor(images)])?;
                candidates(&output, batch, self.options.names.len(), &self.options.anchors)
            })
        })?
    }

    /// Inputs u8 `[B, H, W, 3]` → what is in each of them, in its own pixels.
    ///
    /// # Errors
    /// As [`Network::forward`].
    pub fn detect(&self, inputs: &Tensor, thresholds: &Thresholds) -> Result<Vec<Vec<Detection>>> {
        let rows = above(&self.forward(inputs)?, thresholds.floor())?;
        Ok(rows.iter().map(|rows| select(rows, 5 + self.names().len(), thresholds)).collect())
    }

    /// Names of its classes, by number.
    pub fn names(&self) -> &[String] {
        &self.options.names
    }

    /// What makes boxes of its raw maps, if it returns such.
    pub fn anchors(&self) -> &Anchors {
        &self.options.anchors
    }

    /// Whether it takes BGR.
    pub fn is_bgr(&self) -> bool {
        self.options.bgr
    }

    /// Number type of the forward pass.
    pub fn precision(&self) -> Precision {
        self.options.precision
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
