//! Appearance of regions: RoIAlign over the last stage of a pretrained ResNet-50 (SPEC of SoftCLIP's regions: 2,048 numbers each).

use softclip_detector::{Region, RoiAlign, roi_align_mean};
use softclip_encoders::{Mode, Normalization, ResNet50, ResNet50Config, VisionConfig, load_weights, to_channels_last};
use softclip_pretrained::Pretrained;
use softclip_tensor::{Precision, normalize_images};
use softclip_torch::{Autocast, guard};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor, no_grad};

use crate::error::{Error, Result};

/// What torchvision's tower is called within a model of two.
const TRUNK: &str = "visual.trunk.";

/// A ResNet-50 whose map C5 regions are read off.
#[derive(Debug)]
pub struct Backbone {
    vs: VarStore,
    model: ResNet50,
    normalization: Normalization,
    precision: Precision,
    align: RoiAlign,
    /// SHA-256 of its weights.
    pub(crate) sha256: String,
}

impl Backbone {
    /// Of torchvision's weights.
    ///
    /// # Errors
    /// It is another network, or its weights are not whole.
    pub fn new(pretrained: Pretrained, precision: Precision, device: Device) -> Result<Self> {
        let name = pretrained.files.name.clone();
        let wrong = |why: String| Error::Options(format!("{name}, for the features of regions: {why}"));
        let Some(VisionConfig::Resnet50(config)) = pretrained.vision() else {
            return Err(wrong("it has no ResNet-50 as torchvision's: take timm/resnet50.tv_in1k, or its file".to_owned()));
        };
        let config = ResNet50Config { layers: config.layers, width: config.width, classes: None };
        let sha256 = pretrained.files.sha256().map_err(|e| wrong(e.to_string()))?;
        let normalization = pretrained.normalization.unwrap_or(Normalization::IMAGENET);
        let mut vs = VarStore::new(Device::Cpu);
        let model = ResNet50::new(&vs.root(), &config)?;
        let of_trunk = |(name, tensor): (String, Tensor)| {
            let name = name.strip_prefix(TRUNK).filter(|name| !name.starts_with("fc."))?;
            Some((name.to_owned(), tensor))
        };
        let tensors = pretrained.tensors.into_iter().filter_map(of_trunk).collect();
        load_weights(&vs, &tensors, true)?;
        vs.set_device(device);
        vs.freeze();
        to_channels_last(&vs)?;
        Ok(Backbone { vs, model, normalization, precision, align: RoiAlign::default(), sha256 })
    }

    /// F: numbers of a region, 2,048 for ResNet-50.
    pub fn features(&self) -> usize {
        self.model.config().features() as usize
    }

    /// Number type of its forward pass.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// Inputs u8 `[B, H, W, 3]` → C5, in f32, `[B, F, H/32, W/32]` on the network's device.
    ///
    /// # Errors
    /// The device has no memory left.
    pub fn map(&self, inputs: &Tensor) -> Result<Tensor> {
        guard(|| {
            no_grad(|| {
                let pixels = inputs.f_to_device(self.vs.device()).and_then(|x| x.f_permute([0, 3, 1, 2]));
                let pixels = pixels.map_err(softclip_torch::Error::from)?;
                let f32s = |x: [f64; 3]| x.map(|x| x as f32);
                let (mean, std) = (f32s(self.normalization.mean), f32s(self.normalization.std));
                let images = normalize_images(&pixels, Kind::Float, mean, std)?;
                let _autocast = Autocast::enter(self.vs.device(), self.precision)?;
                let mut map = None;
                let _pooled = self.model.encode_with(&images, Mode::Eval, &mut |name, x| {
                    if name == "layer4" {
                        map = Some(x.to_kind(Kind::Float));
                    }
                })?;
                map.ok_or_else(|| Error::Options("the network has no last stage".to_owned()))
            })
        })?
    }

    /// A map and regions in the inputs' pixels → their appearance `[R, F]`, row by row.
    ///
    /// # Errors
    /// A region of no map; the device has no memory left.
    pub fn appearance(&self, map: &Tensor, regions: &[Region]) -> Result<Vec<f32>> {
        let read = || -> softclip_detector::Result<Vec<f32>> {
            let rows = roi_align_mean(map, regions, &self.align)?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?;
            Ok(Vec::try_from(rows.f_contiguous()?.f_view([-1])?)?)
        };
        Ok(no_grad(read)?)
    }
}
