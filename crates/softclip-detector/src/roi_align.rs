//! RoIAlign (He et al. 2017, Mask R-CNN, section 3).

use tch::{Kind, Tensor};

use crate::error::{Error, Result};

/// How regions are read off a map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoiAlign {
    /// Bins along height and width.
    pub bins: (usize, usize),
    /// Pixels of the map for a pixel of the boxes: 1/32 for C5.
    pub spatial_scale: f64,
    /// Samples along each side of a bin; 0 for as many as the bin has pixels, rounded up.
    pub sampling: usize,
    /// Whether boxes are shifted by half a pixel, so that they lie where pixels' centres do.
    pub aligned: bool,
}

impl Default for RoiAlign {
    /// 7 × 7 bins over C5 with two samples along a bin's sides, aligned.
    fn default() -> Self {
        RoiAlign { bins: (7, 7), spatial_scale: 1.0 / 32.0, sampling: 2, aligned: true }
    }
}

/// What each pixel along one axis counts for in each bin. Bilinear interpolation over a grid of samples comes apart into its two axes,
/// so that RoIAlign is a product of small matrices on any device.
struct Axis<'a> {
    align: &'a RoiAlign,
    bins: usize,
    size: usize,
}

impl Axis<'_> {
    /// `[bins, size]` of the span between two coordinates in the boxes' pixels.
    fn weights(&self, from: f64, to: f64) -> Vec<f32> {
        let RoiAlign { spatial_scale, sampling, aligned, .. } = *self.align;
        let shift = if aligned { 0.5 } else { 0.0 };
        let (start, end) = (from * spatial_scale - shift, to * spatial_scale - shift);
        // Unaligned boxes are at least a pixel wide, as the first implementations had it.
        let length = if aligned { end - start } else { (end - start).max(1.0) };
        let bin = length / self.bins as f64;
        let samples = if sampling > 0 { sampling } else { (bin.ceil() as usize).max(1) };
        let share = 1.0 / samples as f64;
        let mut weights = vec![0.0; self.bins * self.size];
        for (i, row) in weights.chunks_exact_mut(self.size).enumerate() {
            for s in 0..samples {
                self.sample(start + bin * (i as f64 + (s as f64 + 0.5) * share), share, row);
            }
        }
        weights
    }

    /// Adds the two pixels around a sample. Up to one pixel outside the edge counts, further out nothing does.
    fn sample(&self, at: f64, share: f64, row: &mut [f32]) {
        if !(-1.0..=self.size as f64).contains(&at) {
            return;
        }
        let at = at.clamp(0.0, (self.size - 1) as f64);
        let low = (at as usize).min(self.size - 1);
        let high = (low + 1).min(self.size - 1);
        let part = at - low as f64;
        row[low] += (share * (1.0 - part)) as f32;
        row[high] += (share * part) as f32;
    }
}

/// The part of a region's box on one map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Region {
    /// Number of its map in the batch.
    pub image: usize,
    /// Left, top, right, bottom in pixels of the image that the map was made from.
    pub xyxy: [f32; 4],
}

/// Maps `[B, C, H, W]` and R regions → `[R, C, bins, bins]`, as torchvision's `roi_align`.
///
/// # Errors
/// The map has another shape, a region's image is not in it, or the device has no memory left.
pub fn roi_align(map: &Tensor, regions: &[Region], align: &RoiAlign) -> Result<Tensor> {
    let (rows, columns) = weights(map, regions, align, false)?;
    let index: Vec<i64> = regions.iter().map(|r| r.image as i64).collect();
    let maps = map.f_index_select(0, &Tensor::from_slice(&index).f_to_device(map.device())?)?;
    // [R, 1, bins, H] × [R, C, H, W] × [R, 1, W, bins]
    Ok(rows.f_unsqueeze(1)?.f_matmul(&maps)?.f_matmul(&columns.f_unsqueeze(1)?.f_transpose(2, 3)?)?)
}

/// The mean of [`roi_align`] over all bins, `[R, C]`: what region features are. The maps are read once for all regions of an image.
///
/// # Errors
/// As [`roi_align`].
pub fn roi_align_mean(map: &Tensor, regions: &[Region], align: &RoiAlign) -> Result<Tensor> {
    let (rows, columns) = weights(map, regions, align, true)?; // [R, 1, H], [R, 1, W]
    let over_map = rows.f_transpose(1, 2)?.f_matmul(&columns)?.f_flatten(1, 2)?; // [R, H·W]
    let size = map.size();
    let images = Vec::from_iter(regions.chunk_by(|a, b| a.image == b.image));
    let mut from = 0;
    let mut parts = Vec::with_capacity(images.len());
    for of_image in images {
        let n = of_image.len() as i64;
        let pixels = map.f_select(0, of_image[0].image as i64)?.f_flatten(1, 2)?.f_transpose(0, 1)?; // [H·W, C]
        parts.push(over_map.f_narrow(0, from, n)?.f_matmul(&pixels)?);
        from += n;
    }
    match parts.is_empty() {
        true => Ok(Tensor::f_zeros([0, size[1]], (map.kind(), map.device()))?),
        false => Ok(Tensor::f_cat(&parts, 0)?),
    }
}

/// `[R, bins, H]` and `[R, bins, W]`; with `mean` the bins' mean, one for all.
fn weights(map: &Tensor, regions: &[Region], align: &RoiAlign, mean: bool) -> Result<(Tensor, Tensor)> {
    let size = map.size();
    let &[batch, _, height, width] = &size[..] else {
        return Err(Error::Output {
            expected: "a map [B, C, H, W]".to_owned(),
            found: format!("{size:?}"),
            remedy: String::new(),
        });
    };
    if let Some(region) = regions.iter().find(|r| r.image as i64 >= batch) {
        let why = format!("a region of image {} in a batch of {batch}", region.image);
        return Err(Error::Option { key: "regions", why });
    }
    let (down, across) =
        (Axis { align, bins: align.bins.0, size: height as usize }, Axis { align, bins: align.bins.1, size: width as usize });
    let of = |axis: &Axis, ends: fn(&[f32; 4]) -> (f32, f32)| -> Result<Tensor> {
        let spans = regions.iter().map(|region| ends(&region.xyxy));
        let all: Vec<f32> = spans.flat_map(|(from, to)| axis.weights(from.into(), to.into())).collect();
        let all = Tensor::from_slice(&all).f_view([regions.len() as i64, axis.bins as i64, axis.size as i64])?;
        let all = if mean { all.f_mean_dim([1i64].as_slice(), true, Kind::Float)? } else { all };
        Ok(all.f_to_device(map.device())?.f_to_kind(map.kind())?)
    };
    Ok((of(&down, |b| (b[1], b[3]))?, of(&across, |b| (b[0], b[2]))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn the_mean_is_that_of_all_bins() {
        let map = softclip_torch::Generator::new(3).normal([2, 5, 9, 7]).unwrap();
        let boxes = [(0, [0.0, 0.0, 224.0, 288.0]), (0, [-40.0, 20.0, 100.0, 400.0]), (1, [30.5, 31.0, 33.0, 35.0])];
        let regions = boxes.map(|(image, xyxy)| Region { image, xyxy });
        for sampling in [0, 2] {
            let align = RoiAlign { sampling, ..RoiAlign::default() };
            let bins = roi_align(&map, &regions, &align).unwrap();
            let mean = roi_align_mean(&map, &regions, &align).unwrap();
            let most = (bins.mean_dim([2i64, 3].as_slice(), false, None) - &mean).abs().max().double_value(&[]);
            assert!(most < 1e-6, "{most}");
        }
        assert_eq!(roi_align_mean(&map, &[], &RoiAlign::default()).unwrap().size(), [0, 5]);
    }

    #[test]
    fn regions_of_no_image_are_refused() {
        let map = Tensor::zeros([1, 2, 3, 3], (Kind::Float, Device::Cpu));
        let region = Region { image: 1, xyxy: [0.0; 4] };
        assert!(roi_align(&map, &[region], &RoiAlign::default()).unwrap_err().to_string().contains("image 1 in a batch of 1"));
        assert!(roi_align(&map.get(0), &[], &RoiAlign::default()).is_err());
    }
}
