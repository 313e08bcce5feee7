//! What exported networks return, as candidates `[B, n, 5 + C]`.

use serde::{Deserialize, Serialize};
use tch::{Device, IValue, Kind, Tensor};

use crate::error::{Error, Result};

/// Widths and heights of the anchors of each level, in pixels of the input, from the finest level on; and the levels' strides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchors {
    /// Of each level.
    pub sizes: Vec<Vec<[f64; 2]>>,
    /// Of each level.
    pub strides: Vec<f64>,
}

impl Default for Anchors {
    /// Those of `yolov7.yaml`.
    fn default() -> Self {
        let level = |sizes: [[f64; 2]; 3]| sizes.to_vec();
        Anchors {
            sizes: vec![
                level([[12.0, 16.0], [19.0, 36.0], [40.0, 28.0]]),
                level([[36.0, 75.0], [76.0, 55.0], [72.0, 146.0]]),
                level([[142.0, 110.0], [192.0, 243.0], [459.0, 401.0]]),
            ],
            strides: vec![8.0, 16.0, 32.0],
        }
    }
}

impl Anchors {
    /// Checks that each level has a stride, and sizes and strides make sense.
    ///
    /// # Errors
    /// What does not.
    pub fn validate(&self) -> Result<()> {
        let wrong = |why: String| Err(Error::Option { key: "anchors", why });
        if self.sizes.is_empty() || self.sizes.len() != self.strides.len() {
            return wrong(format!("{} levels of sizes and {} strides", self.sizes.len(), self.strides.len()));
        }
        let all = self.sizes.iter().flatten().flatten().chain(&self.strides);
        match all.copied().find(|x| !(x.is_finite() && *x > 0.0)) {
            Some(x) => wrong(format!("{x} is no size in pixels")),
            None if self.sizes.iter().any(Vec::is_empty) => wrong("a level without anchors".to_owned()),
            None => Ok(()),
        }
    }
}

/// What a network returned → candidates, f32 `[B, n, 5 + classes]` on its device: centre, width and height in pixels of the input,
/// objectness, class scores. Taken are
///
/// - `[B, n, 5 + C]`, which is that already (exported with its grid);
/// - a tuple or list that begins with such a tensor;
/// - a tuple or list of raw maps, one a level, `[B, A, H, W, 5 + C]` or `[B, A (5 + C), H, W]`, which `anchors` make boxes of.
///
/// # Errors
/// Anything else, with what was found.
pub fn candidates(output: &IValue, batch: i64, classes: usize, anchors: &Anchors) -> Result<Tensor> {
    let width = 5 + classes as i64;
    let tensors = tensors(output);
    let fits = |size: &[i64]| matches!(*size, [b, _, w] if b == batch && w == width);
    if let Some(first) = tensors.first().filter(|first| fits(&first.size())) {
        return Ok(first.f_to_kind(Kind::Float)?);
    }
    let levels: Option<Vec<Tensor>> = match tensors.len() == anchors.sizes.len() {
        true => tensors.iter().zip(&anchors.sizes).map(|(map, sizes)| level(map, batch, sizes.len() as i64, width)).collect(),
        false => None,
    };
    let Some(levels) = levels else { return Err(unknown(output, batch, width, anchors)) };
    let boxes: Vec<Tensor> = levels
        .iter()
        .zip(anchors.sizes.iter().zip(&anchors.strides))
        .map(|(map, (sizes, stride))| decode(map, sizes, *stride))
        .collect::<Result<_>>()?;
    Ok(Tensor::f_cat(&boxes, 1)?)
}

/// The rows `[k, 5 + C]` of each image whose objectness is at least `floor`, in their order: of 25,200 mostly a few dozen, which
/// alone leave the device.
///
/// # Errors
/// The device has no memory left.
pub fn above(candidates: &Tensor, floor: f32) -> Result<Vec<Vec<f32>>> {
    let chosen = candidates.f_select(2, 4)?.f_ge(f64::from(floor))?; // [B, n]
    let counts =
        Vec::<i64>::try_from(chosen.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Int64)?.f_to_device(Device::Cpu)?)?;
    let index = chosen.f_flatten(0, 1)?.f_nonzero()?.f_squeeze_dim(1)?;
    let rows = candidates.f_flatten(0, 1)?.f_index_select(0, &index)?.f_to_device(Device::Cpu)?;
    let width = candidates.size()[2];
    let all = Vec::<f32>::try_from(rows.f_contiguous()?.f_view([-1])?)?;
    let mut rest = &all[..];
    let mut take = |n: i64| {
        let (rows, behind) = rest.split_at((n * width) as usize);
        rest = behind;
        rows.to_vec()
    };
    Ok(counts.into_iter().map(&mut take).collect())
}

fn tensors(output: &IValue) -> Vec<Tensor> {
    match output {
        IValue::Tensor(t) => vec![t.shallow_clone()],
        IValue::TensorList(list) => list.iter().map(Tensor::shallow_clone).collect(),
        // Some exports have (candidates, [maps]): the first is what counts.
        IValue::Tuple(parts) | IValue::GenericList(parts) => parts
            .iter()
            .enumerate()
            .flat_map(|(i, part)| match part {
                IValue::Tensor(t) => vec![t.shallow_clone()],
                nested if i == 0 => tensors(nested),
                _ => Vec::new(),
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// A level's raw map as `[B, A, H, W, 5 + C]`.
fn level(map: &Tensor, batch: i64, anchors: i64, width: i64) -> Option<Tensor> {
    match map.size()[..] {
        [b, a, _, _, w] if (b, a, w) == (batch, anchors, width) => Some(map.shallow_clone()),
        [b, c, h, w] if (b, c) == (batch, anchors * width) => {
            Some(map.f_view([b, anchors, width, h, w]).ok()?.permute([0, 1, 3, 4, 2]))
        }
        _ => None,
    }
}

/// YOLOv5's and YOLOv7's boxes: centres up to half a cell outside of theirs, sides up to four times their anchor's.
fn decode(map: &Tensor, sizes: &[[f64; 2]], stride: f64) -> Result<Tensor> {
    let size = map.size();
    let (h, w, width) = (size[2], size[3], size[4]);
    let on = (Kind::Float, map.device());
    let y = map.f_to_kind(Kind::Float)?.f_sigmoid()?;
    let grid = Tensor::f_meshgrid_indexing(&[Tensor::f_arange(h, on)?, Tensor::f_arange(w, on)?], "ij")?;
    let grid = Tensor::f_stack(&[&grid[1], &grid[0]], -1)?; // [H, W, 2], x before y
    let sizes = Tensor::from_slice(sizes.as_flattened()).f_to_kind(Kind::Float)?.f_to_device(map.device())?;
    let sizes = sizes.f_view([-1, 1, 1, 2])?; // [A, 1, 1, 2]
    let xy = ((y.f_narrow(4, 0, 2)?.f_mul_scalar(2.0)? - 0.5).f_add(&grid)?).f_mul_scalar(stride)?;
    let wh = y.f_narrow(4, 2, 2)?.f_mul_scalar(2.0)?.f_square()?.f_mul(&sizes)?;
    Ok(Tensor::f_cat(&[xy, wh, y.f_narrow(4, 4, width - 4)?], 4)?.f_reshape([size[0], -1, width])?)
}

fn unknown(output: &IValue, batch: i64, width: i64, anchors: &Anchors) -> Error {
    let levels = anchors.sizes.len();
    let of_level = anchors.sizes.first().map_or(0, Vec::len);
    let expected = format!(
        "[{batch}, n, {width}] (a box, objectness and {} class scores a candidate), a tuple that begins with that, or {levels} raw maps \
         [{batch}, {of_level}, H, W, {width}]; other classes are named with a file, other anchors in the settings, and what was traced for one image alone takes one a pass",
        width - 5
    );
    Error::Output { expected, found: told(output) }
}

fn told(value: &IValue) -> String {
    let list = |parts: Vec<String>| match parts.len() {
        n @ 9.. => format!("{}, … ({n} in all)", parts[..8].join(", ")),
        _ => parts.join(", "),
    };
    match value {
        IValue::Tensor(t) => format!("{:?}", t.size()),
        IValue::TensorList(parts) => format!("a list of {}", list(parts.iter().map(|t| format!("{:?}", t.size())).collect())),
        IValue::Tuple(parts) => format!("a tuple of ({})", list(parts.iter().map(told).collect())),
        IValue::GenericList(parts) => format!("a list of {}", list(parts.iter().map(told).collect())),
        IValue::GenericDict(_) => "a dictionary".to_owned(),
        IValue::None => "nothing".to_owned(),
        _ => "no tensor".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(size: &[i64]) -> Tensor {
        Tensor::zeros(size, (Kind::Float, Device::Cpu))
    }

    #[test]
    fn both_layouts_of_raw_maps_become_the_same_boxes() {
        let random = softclip_torch::Generator::new(1);
        let maps = [8, 4, 2].map(|side| random.normal([2, 3, side, side + 1, 7]).unwrap());
        let anchors = Anchors::default();
        let split = IValue::TensorList(maps.iter().map(Tensor::shallow_clone).collect());
        let found = candidates(&split, 2, 2, &anchors).unwrap();
        assert_eq!(found.size(), [2, 3 * (8 * 9 + 4 * 5 + 2 * 3), 7]);

        let joined = maps.iter().map(|m| IValue::Tensor(m.permute([0, 1, 4, 2, 3]).contiguous().flatten(1, 2))).collect();
        // Sigmoid rounds otherwise where numbers do not lie side by side.
        let off = (candidates(&IValue::Tuple(joined), 2, 2, &anchors).unwrap() - &found).abs().max().double_value(&[]);
        assert!(off < 1e-3, "{off}");

        // By hand: the second anchor of the middle level in its cell of row 1 and column 2.
        let raw = Vec::<f64>::try_from(maps[1].get(0).get(1).get(1).get(2).to_kind(Kind::Double)).unwrap();
        let at = 3 * 8 * 9 + (4 + 1) * 5 + 2;
        let one = Vec::<f64>::try_from(found.get(0).get(at).to_kind(Kind::Double)).unwrap();
        let s: Vec<f64> = raw.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
        let expected = [
            (s[0] * 2.0 - 0.5 + 2.0) * 16.0,
            (s[1] * 2.0 - 0.5 + 1.0) * 16.0,
            (s[2] * 2.0).powi(2) * 76.0,
            (s[3] * 2.0).powi(2) * 55.0,
        ];
        let off = one.iter().zip(expected.iter().chain(&s[4..])).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off < 1e-4, "{one:?} {expected:?}");
    }

    #[test]
    fn finished_candidates_are_taken_alone_and_as_first_of_a_tuple() {
        let anchors = Anchors::default();
        let tuple = IValue::Tuple(vec![IValue::Tensor(map(&[2, 10, 7])), IValue::TensorList(vec![map(&[1])])]);
        for output in [IValue::Tensor(map(&[2, 10, 7])), tuple] {
            assert_eq!(candidates(&output, 2, 2, &anchors).unwrap().size(), [2, 10, 7]);
        }
    }

    #[test]
    fn other_outputs_are_told() {
        let anchors = Anchors::default();
        for (output, found) in [
            (IValue::Tensor(map(&[2, 10, 85])), "found [2, 10, 85]"),
            (IValue::Tensor(map(&[1, 10, 7])), "found [1, 10, 7]"),
            (IValue::TensorList(vec![map(&[2, 3, 4, 4, 7])]), "found a list of [2, 3, 4, 4, 7]"),
            (IValue::Tuple(vec![IValue::Int(3)]), "found a tuple of (no tensor)"),
            (IValue::None, "found nothing"),
        ] {
            let error = candidates(&output, 2, 2, &anchors).unwrap_err().to_string();
            assert!(error.contains(found) && error.contains("expected [2, n, 7]"), "{error}");
        }
        assert!(Anchors { sizes: vec![], strides: vec![] }.validate().is_err());
        assert!(
            Anchors { strides: vec![8.0, 0.0, 32.0], ..anchors }.validate().unwrap_err().to_string().contains("0 is no size")
        );
    }
}
