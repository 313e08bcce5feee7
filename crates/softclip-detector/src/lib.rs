//! YOLOv7 through TorchScript, and what belongs to a detector beside its network: letterbox, decoding, confidence, class-aware
//! non-maximum suppression, boxes back in the image, RoIAlign for the features of regions.
//!
//! ```no_run
//! use softclip_detector::tch::{Device, Tensor};
//! use softclip_detector::{Letterboxer, Network, NetworkOptions, Thresholds, Trust};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (pixels, width, height) = (vec![0u8; 640 * 480 * 3], 640, 480);
//! let options = NetworkOptions { trust: Trust::Sha256("9f86d081…".to_owned()), ..NetworkOptions::default() };
//! let network = Network::open("yolov7.torchscript.pt".as_ref(), options, Device::Cpu)?;
//!
//! let letterbox = network.letterbox();
//! let placed = letterbox.place((width, height));
//! let input = Letterboxer::default().draw(&pixels, width, height, &placed, letterbox.fill)?;
//! let input = Tensor::from_slice(&input).view([1, 640, 640, 3]);
//!
//! let found = network.detect(&input, &Thresholds::default())?.remove(0);
//! for detection in placed.detections(found) {
//!     println!("{} {:.2} {:?}", network.names()[detection.class], detection.confidence, detection.xyxy);
//! }
//! # Ok(())
//! # }
//! ```

mod anchors;
pub mod bench;
mod config;
mod end_to_end;
mod error;
mod failure;
mod letterbox;
mod metadata;
pub mod names;
mod network;
mod nms;
mod output;
mod roi_align;
mod torchscript;

pub use anchors::Anchors;
pub use config::DetectorConfig;
pub use error::{Error, Result};
pub use letterbox::{Letterbox, LetterboxSettings, Letterboxer, Placed};
pub use network::{Network, NetworkOptions, Trust};
pub use nms::{Detection, Thresholds, select, suppress};
pub use output::{Candidates, OutputLayout};
pub use roi_align::{Region, RoiAlign, roi_align, roi_align_mean};
pub use tch;
