use softclip_detector::{Anchors, LetterboxSettings};

use super::archive::{Value, constant, network, tensor};
use super::*;

/// Anchors of three levels in pixels.
const SIZES: [[f32; 6]; 3] =
    [[10., 13., 16., 30., 33., 23.], [30., 61., 62., 45., 59., 119.], [116., 90., 156., 198., 373., 326.]];
const STRIDES: [f32; 3] = [8., 16., 32.];

fn pixels() -> Vec<f32> {
    SIZES.concat()
}

fn cells() -> Vec<f32> {
    SIZES.iter().zip(STRIDES).flat_map(|(sizes, stride)| sizes.map(|x| x / stride)).collect()
}

/// A network that returns three raw maps of zeros for two classes; `head` are the attributes of its head.
fn raw(head: Vec<(&'static str, Value)>) -> Vec<u8> {
    let map = |side: usize| tensor(&[1, 3, side, side, 7], &vec![0.0; 3 * side * side * 7]);
    let maps = [("p3", map(8)), ("p4", map(4)), ("p5", map(2)), ("head", Value::Module(head))];
    network("List[Tensor]:\n    return [self.p3, self.p4, self.p5]", &maps, &[])
}

fn two() -> NetworkOptions {
    NetworkOptions { names: names(&["red", "green"]), ..NetworkOptions::default() }
}

/// Widths and heights of the boxes of raw maps of zeros, which are the anchors'.
fn anchors_used(bytes: &[u8], options: NetworkOptions) -> Result<Vec<f32>, Error> {
    let rows = open(bytes, options)?.forward(&input())?.rows;
    // The first cell of each anchor of each level.
    let first = [0, 64, 128, 192, 208, 224, 240, 244, 248];
    Ok(first.iter().flat_map(|&row| [2, 3].map(|i| rows.double_value(&[0, row, i]) as f32)).collect())
}

#[test]
fn raw_maps_are_decoded_with_the_anchors_of_the_file() {
    let list = || {
        let level = |(sizes, side): (&[f32; 6], usize)| {
            let expanded = sizes.chunks(2).flat_map(|pair| pair.repeat(side * side)).collect();
            (vec![1, 3, side, side, 2], expanded)
        };
        Value::Tensors(SIZES.iter().zip([8, 4, 2]).map(level).collect())
    };
    for (kind, head) in [
        (
            "cells and pixels",
            vec![("anchors", tensor(&[3, 3, 2], &cells())), ("anchor_grid", tensor(&[3, 1, 3, 1, 1, 2], &pixels()))],
        ),
        ("cells and strides", vec![("anchors", tensor(&[3, 3, 2], &cells())), ("stride", tensor(&[3], &STRIDES))]),
        ("cells", vec![("anchors", tensor(&[3, 3, 2], &cells()))]),
        ("cells and a list by level", vec![("anchors", tensor(&[3, 3, 2], &cells())), ("anchor_grid", list())]),
        ("pixels", vec![("anchor_grid", tensor(&[3, 1, 3, 1, 1, 2], &pixels()))]),
        ("pixels where cells are usual", vec![("anchors", tensor(&[3, 6], &pixels())), ("stride", tensor(&[3], &STRIDES))]),
        (
            "a list that is not filled",
            vec![("anchors", tensor(&[3, 3, 2], &cells())), ("anchor_grid", Value::Tensors(vec![(vec![0], Vec::new()); 3]))],
        ),
    ] {
        let used = anchors_used(&raw(head), two()).unwrap();
        let off = used.iter().zip(pixels()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-3, "{kind}: {used:?}");
    }
}

#[test]
fn levels_are_matched_by_their_strides() {
    let reversed: Vec<f32> = SIZES.iter().rev().flatten().copied().collect();
    let head = vec![("anchor_grid", tensor(&[3, 1, 3, 1, 1, 2], &reversed)), ("stride", tensor(&[3], &[32., 16., 8.]))];
    assert_eq!(anchors_used(&raw(head), two()).unwrap(), pixels());
}

#[test]
fn anchors_of_the_settings_must_not_contradict_the_file() {
    let head = || vec![("anchors", tensor(&[3, 3, 2], &cells())), ("stride", tensor(&[3], &STRIDES))];
    let with = |anchors: Anchors| anchors_used(&raw(head()), NetworkOptions { anchors: Some(anchors), ..two() });
    refusal(
        with(Anchors::default()),
        &["`anchors` is [[[12.0, 16.0]", "the TorchScript file says [[[10.0, 13.0]", "remove `anchors`"],
    );
    let sizes = SIZES.map(|level| level.as_chunks().0.iter().map(|size: &[f32; 2]| size.map(f64::from)).collect()).to_vec();
    let same = Anchors { sizes, strides: vec![8.0, 16.0, 32.0] };
    assert_eq!(with(same.clone()).unwrap(), pixels());
    // A file without anchors takes them from the settings, else YOLOv7's.
    let used = |anchors| anchors_used(&raw(Vec::new()), NetworkOptions { anchors, ..two() }).unwrap();
    assert_eq!(used(Some(same)), pixels());
    assert_eq!(used(None)[..2], [12.0, 16.0]);
}

const CONFIG: &str = r#"{"shape": [1, 3, 64, 64], "stride": 32, "names": {"0": "red", "1": "green"}}"#;

fn exported(config: &str) -> Vec<u8> {
    let mut row = vec![32.0, 32.0, 20.0, 10.0, 0.9, 0.1, 1.0];
    row.resize(7, 0.0);
    constant(&[1, 1, 7], &row, &[("config.txt", config)])
}

#[test]
fn class_names_and_input_size_come_from_config_txt() {
    for config in [
        CONFIG,
        r#"{"shape": [1, 3, 64, 64], "stride": 32, "names": ["red", "green"]}"#,
        r#"{"imgsz": [64, 64], "stride": 32.0, "names": {"1": "green", "0": "red"}, "task": "detect", "args": {"nms": false}}"#,
        "\u{feff}{\"imgsz\": 64, \"stride\": [8, 16, 32], \"names\": [\"red\", \"green\"], \"map\": NaN}",
    ] {
        let network = open(&exported(config), NetworkOptions::default()).unwrap();
        assert_eq!(network.names(), ["red", "green"], "{config}");
        assert_eq!((network.letterbox().size, network.letterbox().stride), (64, 32), "{config}");
        let found = detect(&exported(config), NetworkOptions::default()).unwrap();
        assert_eq!((found.len(), found[0].class), (1, 1));
    }
    // What is not JSON, or says nothing, changes nothing.
    for config in ["names: [red]", "[]", r#"{"names": {"0": "red", "2": "green"}, "shape": "?", "stride": null}"#] {
        let network = open(&exported(config), NetworkOptions::default()).unwrap();
        assert_eq!((network.names().len(), network.letterbox().size), (80, 640), "{config}");
    }
}

#[test]
fn settings_must_not_contradict_config_txt() {
    let with = |config: &str, options| open(&exported(config), options);
    let letterbox = |size, stride| LetterboxSettings { size, stride, ..LetterboxSettings::default() };
    let sized = |size, stride| NetworkOptions { letterbox: letterbox(size, stride), ..NetworkOptions::default() };
    let named = |all: &[&str]| NetworkOptions { names: names(all), ..NetworkOptions::default() };
    refusal(with(CONFIG, sized(Some(320), None)), &["`letterbox.size` is 320", "says 64"]);
    refusal(with(CONFIG, sized(None, Some(16))), &["`letterbox.stride` is 16", "says 32"]);
    refusal(with(CONFIG, named(&["roof"])), &["`classes` is 1 names (roof", "says 2 names (red, green"]);
    refusal(with(CONFIG, named(&["red", "blue"])), &["'blue' for class 1", "says 'green'"]);
    refusal(with(r#"{"shape": [1, 3, 64, 96]}"#, sized(None, None)), &["64 x 96", "square"]);
    assert_eq!(with(CONFIG, sized(Some(64), Some(64))).unwrap().letterbox().stride, 64);
    assert_eq!(with(CONFIG, named(&["Red", " green"])).unwrap().names(), ["Red", " green"]);
    // A network of dynamic size takes what is set.
    let dynamic = CONFIG.replace("\"stride\"", "\"args\": {\"dynamic\": true}, \"stride\"");
    assert_eq!(with(&dynamic, sized(Some(320), None)).unwrap().letterbox().size, 320);
    // Names that only number the classes may be replaced.
    let numbered = r#"{"names": {"0": "class0", "1": "class1"}}"#;
    assert_eq!(with(numbered, named(&["red", "green"])).unwrap().names(), ["red", "green"]);
}

#[test]
fn class_names_come_from_the_module_too() {
    let all = || vec!["red".to_owned(), "green".to_owned()];
    for value in [Value::Names(all()), Value::NamesByNumber(all())] {
        let bytes = network("Tensor:\n    return x", &[("names", value)], &[]);
        assert_eq!(open(&bytes, NetworkOptions::default()).unwrap().names(), ["red", "green"]);
    }
    // Names of a part of the network are not those of its classes.
    let part = Value::Module(vec![("names", Value::Names(all()))]);
    assert_eq!(
        open(&network("Tensor:\n    return x", &[("part", part)], &[]), NetworkOptions::default()).unwrap().names().len(),
        80
    );
}
