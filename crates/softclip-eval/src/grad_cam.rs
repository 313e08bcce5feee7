//! Which part of an image speaks for a text: Grad-CAM.

use softclip_encoders::{Clip, Mode, VisionConfig};
use softclip_tensor::Embeddings;
use softclip_torch::{channels_last, guard};
use tch::{Device, Kind, Tensor, with_grad};

use crate::EvalError;

/// How much each cell of an image speaks for a text.
#[derive(Debug)]
pub struct HeatMap {
    /// f32 `[h, w]` on the CPU, in [0, 1], its largest value 1; zeros where nothing speaks for the text.
    pub map: Tensor,
    /// Of the image with the text.
    pub cosine: f64,
}

/// Where [`grad_cam`] looks if not told: a ResNet's last stage; the first norm of a Vision Transformer's last block, as
/// `pytorch-grad-cam` recommends, because behind it only the class token counts and all patches have gradients of zero.
pub fn grad_cam_layer(clip: &Clip) -> String {
    match &clip.config().vision {
        VisionConfig::Resnet(_) => "visual.layer4".to_owned(),
        VisionConfig::Resnet50(_) => "visual.trunk.layer4".to_owned(),
        VisionConfig::Vit(c) => format!("visual.transformer.resblocks.{}.ln_1", c.layers - 1),
    }
}

/// Pixels u8 `[3, S, S]` and texts `[T, D]` → a heat map a text, after Selvaraju et al. 2017 (eq. 1 and 2).
///
/// With A the values of `layer` and y the cosine of image and text, each channel weighs the mean of ∂y/∂A over all places; the
/// map is the weighted sum of channels, cut at zero and divided by its largest value. A Transformer's tokens are places in rows of patches,
/// the class token is left out. Computed in f32 and in evaluation, where the model is; `layer` is any that
/// [`Clip::encode_image_with`] shows.
///
/// # Errors
/// Pixels or texts are not of the model's sizes, there is no such layer or it has no places, or libtorch fails.
pub fn grad_cam(clip: &Clip, pixels: &Tensor, texts: &Embeddings, layer: &str) -> Result<Vec<HeatMap>, EvalError> {
    guard(|| with_grad(|| maps(clip, pixels, texts, layer)))?
}

/// The encoders' operators panic where libtorch fails.
fn maps(clip: &Clip, pixels: &Tensor, texts: &Embeddings, layer: &str) -> Result<Vec<HeatMap>, EvalError> {
    let device = clip.logit_scale().device();
    let dim = clip.config().embed_dim;
    if texts.dim() != dim {
        return Err(EvalError::Input(format!("texts have {} dimensions, the model has {dim}", texts.dim())));
    }
    let pixels = channels_last(&pixels.f_to_device(device)?.f_unsqueeze(0)?);
    // Weights may be frozen: the image then asks for the graph.
    let images = clip.normalize_images(&pixels)?.detach().set_requires_grad(true);
    let mut seen = None;
    let features = clip.encode_image_with(&images, Mode::Eval, &mut |name, x| {
        if name == layer {
            seen = Some(x.shallow_clone());
        }
    })?;
    let values = seen.ok_or_else(|| {
        EvalError::Input(format!("the model has no layer {layer} to look at: it has {} among others", grad_cam_layer(clip)))
    })?;
    let unit = Embeddings::normalize(&features.to_kind(Kind::Float))?.into_tensor(); // [1, D]
    let cosines = unit.matmul(&texts.tensor().to_device(device).to_kind(Kind::Float).tr()).squeeze_dim(0); // [T]
    let count = texts.rows();
    (0..count)
        .map(|text| {
            let cosine = cosines.get(text);
            let gradient = Tensor::f_run_backward(&[&cosine], &[&values], text + 1 < count, false)?;
            let gradient = gradient.into_iter().next().ok_or_else(|| EvalError::Input(format!("{layer} has no gradient")))?;
            let map = weighted(&places(&values.detach(), layer)?, &places(&gradient, layer)?);
            Ok(HeatMap { map: map.f_to_device(Device::Cpu)?, cosine: cosine.detach().double_value(&[]) })
        })
        .collect()
}

/// `[1, C, h, w]`, or tokens `[1, 1 + h·w, C]` with the class token first → f32 `[C, h, w]`.
fn places(x: &Tensor, layer: &str) -> Result<Tensor, EvalError> {
    let x = x.to_kind(Kind::Float);
    match x.size()[..] {
        [1, _, _, _] => Ok(x.squeeze_dim(0)),
        [1, tokens, width] if tokens > 1 && (tokens - 1).isqrt().pow(2) == tokens - 1 => {
            let side = (tokens - 1).isqrt();
            Ok(x.squeeze_dim(0).f_narrow(0, 1, tokens - 1)?.tr().f_reshape([width, side, side])?)
        }
        ref size => Err(EvalError::Input(format!("{layer} has no places: its shape is {size:?}"))),
    }
}

/// `[C, h, w]` twice → `[h, w]`.
fn weighted(values: &Tensor, gradient: &Tensor) -> Tensor {
    let weights = gradient.mean_dim([1i64, 2].as_slice(), true, None); // [C, 1, 1]
    let map = (weights * values).sum_dim_intlist([0i64].as_slice(), false, None).relu();
    let largest = map.max();
    // All zeros stay zeros.
    (&map / largest.clamp_min(f64::from(f32::MIN_POSITIVE))).clamp(0.0, 1.0)
}
