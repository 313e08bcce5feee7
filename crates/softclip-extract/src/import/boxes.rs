//! Boxes in pixels.

/// Pixels by which a box may stand out of its image: detectors and people count to the last pixel or past it.
const SLACK: f32 = 1.0;

/// Left, top, right, bottom within an image of (width, height); a box that cannot be of this image is an error.
pub(super) fn inside(xyxy: [f32; 4], size: (u32, u32)) -> Result<[f32; 4], String> {
    let [x1, y1, x2, y2] = xyxy;
    let (width, height) = (size.0 as f32, size.1 as f32);
    if !xyxy.iter().all(|x| x.is_finite()) {
        return Err(format!("box {xyxy:?} is not finite"));
    }
    if x2 < x1 || y2 < y1 {
        return Err(format!("box {xyxy:?} ends before it begins: left, top, right, bottom are needed"));
    }
    if x1.min(y1) < -SLACK || x2 > width + SLACK || y2 > height + SLACK {
        return Err(format!(
            "box {xyxy:?} stands out of the image of {} x {} pixels: it is of another size of it",
            size.0, size.1
        ));
    }
    Ok([x1.clamp(0.0, width), y1.clamp(0.0, height), x2.clamp(0.0, width), y2.clamp(0.0, height)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pixel_of_slack_is_cut_and_more_is_refused() {
        assert_eq!(inside([-0.5, 0.0, 10.9, 5.0], (10, 5)), Ok([0.0, 0.0, 10.0, 5.0]));
        assert_eq!(inside([3.0, 3.0, 3.0, 3.0], (10, 5)), Ok([3.0; 4]));
        for (xyxy, words) in [
            ([0.0, 0.0, 11.5, 5.0], "10 x 5"),
            ([0.0, -2.0, 10.0, 5.0], "10 x 5"),
            ([4.0, 0.0, 3.0, 5.0], "ends before"),
            ([0.0, f32::NAN, 1.0, 1.0], "not finite"),
            ([0.0, 0.0, f32::INFINITY, 1.0], "not finite"),
        ] {
            let error = inside(xyxy, (10, 5)).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
