//! RoIAlign and suppression against torchvision's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::BTreeMap;

use softclip_detector::{Detection, Region, RoiAlign, Thresholds, roi_align, suppress};
use softclip_tensor::file::read_safetensors;
use tch::{Kind, Tensor};

fn goldens() -> BTreeMap<String, Tensor> {
    read_safetensors(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/detection_ops.safetensors")).unwrap()
}

fn floats(t: &Tensor) -> Vec<f32> {
    Vec::try_from(t.to_kind(Kind::Float).flatten(0, -1)).unwrap()
}

fn ints(t: &Tensor) -> Vec<usize> {
    Vec::<i64>::try_from(t).unwrap().into_iter().map(|i| i as usize).collect()
}

fn xyxy(rows: &[f32]) -> [f32; 4] {
    [rows[0], rows[1], rows[2], rows[3]]
}

#[test]
fn roi_align_is_torchvisions() {
    let g = goldens();
    let rois = floats(&g["roi.rois"]);
    let regions: Vec<Region> = rois.chunks(5).map(|r| Region { image: r[0] as usize, xyxy: xyxy(&r[1..]) }).collect();
    for (aligned, sampling, name) in [
        (false, 0, "roi.out.aligned0.ratio-1"),
        (false, 2, "roi.out.aligned0.ratio2"),
        (true, 0, "roi.out.aligned1.ratio-1"),
        (true, 2, "roi.out.aligned1.ratio2"),
    ] {
        let align = RoiAlign { bins: (4, 3), spatial_scale: 1.0 / 8.0, sampling, aligned };
        let ours = roi_align(&g["roi.map"], &regions, &align).unwrap();
        assert_eq!(ours.size(), g[name].size());
        let off = (ours - &g[name]).abs().max().double_value(&[]);
        let rel = off / g[name].abs().max().double_value(&[]);
        println!("PARITY | detector | {name} | max_rel_err {rel:.1e} | tol 2e-6");
        assert!(rel < 2e-6, "{name}: {rel:e}");
    }
}

/// Boxes, scores and classes as they are, in falling order.
fn ordered(g: &BTreeMap<String, Tensor>) -> Vec<(usize, Detection)> {
    let (boxes, scores, classes) = (floats(&g["nms.boxes"]), floats(&g["nms.scores"]), ints(&g["nms.classes"]));
    let mut all: Vec<(usize, Detection)> = (0..scores.len())
        .map(|i| (i, Detection { xyxy: xyxy(&boxes[4 * i..]), confidence: scores[i], class: classes[i] }))
        .collect();
    all.sort_by(|a, b| b.1.confidence.total_cmp(&a.1.confidence));
    all
}

#[test]
fn suppression_keeps_what_torchvisions_keeps() {
    let g = goldens();
    let all = ordered(&g);
    for (iou, name) in [(0.3, "0.3"), (0.45, "0.45"), (0.65, "0.65")] {
        for (across_classes, name) in [(true, format!("nms.keep.{name}")), (false, format!("nms.keep_per_class.{name}"))] {
            let thresholds = Thresholds { confidence: 0.0, iou, most: 1000, least: 0, across_classes };
            let stay = suppress(all.iter().map(|(_, d)| *d), &thresholds);
            let numbers: Vec<usize> = stay.iter().map(|s| all.iter().find(|(_, d)| d == s).unwrap().0).collect();
            assert_eq!(numbers, ints(&g[&name]), "{name}");
            println!("PARITY | detector | {name} | the same boxes | equal");
        }
    }
}
