//! Real detectors on real photographs: run where `SOFTCLIP_DATA` names the folder that holds them, skipped elsewhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod precision;
mod raw_maps;

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use precision::{Photograph, ap50};
use softclip_data::image::DecodeOptions;
use softclip_detector::{Detection, DetectorConfig, Network, Thresholds};
use softclip_extract::look;
use tch::Device;

/// The data's folder, or none with a line that says so.
fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("SOFTCLIP_DATA").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: SOFTCLIP_DATA does not name a folder with detectors and photographs");
    }
    folder
}

fn photographs(data: &Path) -> HashMap<String, Vec<u8>> {
    let mut tar = tar::Archive::new(std::fs::File::open(data.join("coco-mini/val2017.tar")).unwrap());
    let read = |entry: std::io::Result<tar::Entry<std::fs::File>>| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().file_name()?.to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        Some((name, bytes))
    };
    tar.entries().unwrap().filter_map(read).collect()
}

fn detect(network: &Network, image: &[u8], iou: f32) -> Vec<Detection> {
    let thresholds = Thresholds { confidence: 0.001, iou, ..Thresholds::default() };
    let decode = DecodeOptions { dct_scaling: false, ..DecodeOptions::default() };
    look(image, network, &thresholds, decode).unwrap().detections
}

/// AP50 of a detector on the photographs with boxes.
fn measure(data: &Path, network: &Network, iou: f32) -> f64 {
    let images = photographs(data);
    let (photographs, categories) = precision::read(&data.join("coco-mini/annotations/instances_val2017.json"));
    assert_eq!(photographs.len(), 79);
    let found = |photograph: &Photograph| {
        let detections = detect(network, &images[&photograph.name], iou).into_iter();
        detections.map(|d| (categories[&network.names()[d.class]], d)).collect()
    };
    let found: Vec<Vec<(i64, Detection)>> = photographs.iter().map(found).collect();
    ap50(&photographs, &found)
}

#[test]
fn yolov5n_has_its_average_precision() {
    let Some(data) = data() else { return };
    let path = data.join("detectors/yolov5n-640.torchscript.pt");
    let network = DetectorConfig::default().open(&path, true, Device::Cpu).unwrap();
    let ap50 = measure(&data, &network, 0.65);
    println!("YOLOv5n: AP50 {ap50:.4}");
    assert!((ap50 - 0.510).abs() < 0.005, "{ap50}");
}

#[test]
fn fastestdet_has_its_average_precision() {
    let Some(data) = data() else { return };
    let config = DetectorConfig::read(&data.join("detectors/fastestdet.yaml")).unwrap();
    let network = config.open(&data.join("detectors/fastestdet-352.torchscript.pt"), true, Device::Cpu).unwrap();
    let ap50 = measure(&data, &network, 0.45);
    println!("FastestDet: AP50 {ap50:.4}");
    assert!((ap50 - 0.338).abs() < 0.005, "{ap50}");
}

#[test]
fn raw_maps_are_decoded_as_the_network_itself_does() {
    let Some(data) = data() else { return };
    let path = data.join("detectors/yolov5n-640.torchscript.pt");
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("raw.pt");
    std::fs::write(&raw, raw_maps::without_decoding(&std::fs::read(&path).unwrap())).unwrap();
    let open = |path: &Path| DetectorConfig::default().open(path, true, Device::Cpu).unwrap();
    let (whole, raw) = (open(&path), open(&raw));
    let mut images: Vec<_> = photographs(&data).into_iter().collect();
    images.sort();
    let mut compared = 0;
    for (name, image) in &images[..8] {
        let (expected, found) = (detect(&whole, image, 0.65), detect(&raw, image, 0.65));
        assert_eq!(found.len(), expected.len(), "{name}");
        for (a, b) in found.iter().zip(&expected).filter(|(_, b)| b.confidence > 0.1) {
            let off = a.xyxy.iter().zip(b.xyxy).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(a.class == b.class && (a.confidence - b.confidence).abs() < 1e-4 && off < 0.05, "{name}: {a:?} {b:?}");
            compared += 1;
        }
    }
    assert!(compared > 10, "{compared}");
}
