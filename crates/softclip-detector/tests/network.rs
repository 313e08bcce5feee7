//! TorchScript files of every contract: `tests/goldens/make_detectors.py` makes them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;

use softclip_detector::{Anchors, Error, Letterbox, Letterboxer, Network, NetworkOptions, Thresholds, Trust, select};
use tch::{Device, Tensor};

fn detector(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/detectors")).join(name)
}

fn options(trust: Trust) -> NetworkOptions {
    NetworkOptions { trust, names: Some(vec!["red".to_owned(), "green".to_owned()]), ..NetworkOptions::default() }
}

/// 40 × 20 pixels of blue with a red square of 10 at the left and a green one at the right, enlarged to an input of 64 × 64.
fn input() -> (Tensor, softclip_detector::Placed) {
    let mut pixels = vec![0u8; 40 * 20 * 3];
    for (i, p) in pixels.chunks_exact_mut(3).enumerate() {
        let (x, y) = (i % 40, i / 40);
        match (x / 10, y / 10) {
            (0, 0) => p[0] = 255,
            (3, 1) => p[1] = 255,
            _ => p[2] = 255,
        }
    }
    let letterbox = Letterbox { size: 64, ..Letterbox::default() };
    let placed = letterbox.place((40, 20));
    let drawn = Letterboxer::default().draw(&pixels, 40, 20, &placed, 0).unwrap();
    (Tensor::from_slice(&drawn).view([1, 64, 64, 3]), placed)
}

#[test]
fn objects_are_found_where_they_are() {
    let path = detector("cells.pt");
    let network = Network::open(&path, options(Trust::Yes), Device::Cpu).unwrap();
    let (input, placed) = input();
    let found = network.forward(&input).unwrap().rows;
    assert_eq!(found.size(), [1, 16, 7]);
    let thresholds = Thresholds { confidence: 0.5, ..Thresholds::default() };
    let rows = Vec::<f32>::try_from(found.flatten(0, 2)).unwrap();
    let two = Tensor::cat(&[&input, &input.zeros_like(), &input], 0);
    let found = network.detect(&two, &thresholds).unwrap();
    assert_eq!((found.len(), found[0].len(), &found[0]), (3, 2, &found[2]));
    assert_eq!(found[0], select(&rows, 7, &thresholds));
    let found = placed.detections(found[0].clone());
    let told: Vec<(&str, [f32; 4])> = found.iter().map(|d| (network.names()[d.class].as_str(), d.xyxy)).collect();
    assert_eq!(told, [("red", [0.0, 0.0, 10.0, 10.0]), ("green", [30.0, 10.0, 40.0, 20.0])]);

    let bgr = NetworkOptions { bgr: true, ..options(Trust::Yes) };
    let turned = Network::open(&path, bgr, Device::Cpu).unwrap();
    assert_eq!(turned.forward(&input.flip([3i64])).unwrap().rows, network.forward(&input).unwrap().rows);
}

#[test]
fn nothing_is_run_without_trust() {
    let path = detector("cells.pt");
    let sha256 = match Network::open(&path, options(Trust::No), Device::Cpu).unwrap_err() {
        Error::Untrusted { sha256, .. } => sha256,
        other => panic!("{other}"),
    };
    let network = Network::open(&path, options(Trust::Sha256(sha256.to_uppercase())), Device::Cpu).unwrap();
    assert_eq!(network.sha256(), sha256);
    let wrong = Network::open(&path, options(Trust::Sha256("00".repeat(32))), Device::Cpu).unwrap_err().to_string();
    assert!(wrong.contains(&sha256) && wrong.contains("another file"), "{wrong}");
}

#[test]
fn tuples_and_raw_maps_are_decoded() {
    let (input, _) = input();
    let forward = |name| Network::open(&detector(name), options(Trust::Yes), Device::Cpu).unwrap().forward(&input).unwrap().rows;
    assert_eq!(forward("cells.pt"), forward("cells_first.pt"));
    assert_eq!(forward("raw.pt").size(), [1, 3 * (64 + 16 + 4), 7]);
    // Two levels are not three.
    let anchors = Anchors { sizes: vec![vec![[8.0; 2]; 3]; 2], strides: vec![8.0, 16.0] };
    let network =
        Network::open(&detector("raw.pt"), NetworkOptions { anchors: Some(anchors), ..options(Trust::Yes) }, Device::Cpu)
            .unwrap();
    let error = network.forward(&input).unwrap_err().to_string();
    assert!(error.contains("2 raw maps") && error.contains("[1, 3, 8, 8, 7]"), "{error}");
}

#[test]
fn files_that_are_none_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights.pt");
    std::fs::write(&path, b"PK\x03\x04 of no use").unwrap();
    let error = Network::open(&path, options(Trust::Yes), Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("weights.pt") && error.contains("export them first"), "{error}");
    assert!(error.lines().count() == 1, "{error}");
    assert!(matches!(Network::open(&dir.path().join("none.pt"), options(Trust::Yes), Device::Cpu), Err(Error::Io { .. })));
    let (input, _) = input();
    let network =
        Network::open(&detector("cells.pt"), NetworkOptions { trust: Trust::Yes, ..NetworkOptions::default() }, Device::Cpu)
            .unwrap();
    let error = network.forward(&input).unwrap_err().to_string();
    assert!(error.contains("expected [1, n, 85]") && error.contains("found [1, 16, 7]"), "{error}");
    assert!(network.forward(&input.permute([0, 3, 1, 2])).unwrap_err().to_string().contains("[1, 3, 64, 64]"));
}

#[test]
fn names_come_a_line_each() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("names.txt");
    std::fs::write(&path, "# ours\nred car\n\n tree \r\n").unwrap();
    assert_eq!(softclip_detector::names::read(&path).unwrap(), ["red car", "tree"]);
    std::fs::write(&path, "\u{feff}roof\nroof top\n").unwrap();
    assert_eq!(softclip_detector::names::read(&path).unwrap(), ["roof", "roof top"]);
    std::fs::write(&path, b"r\0o\0o\0f\0\n\0").unwrap();
    assert!(softclip_detector::names::read(&path).unwrap_err().to_string().contains("UTF-16"));
    std::fs::write(&path, "# none\n").unwrap();
    assert!(softclip_detector::names::read(&path).unwrap_err().to_string().contains("names no class"));
}
