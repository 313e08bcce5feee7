use softclip_detector::OutputLayout;

use super::archive::{constant, network, tensor};
use super::*;

fn named(all: &[&str], output: OutputLayout) -> NetworkOptions {
    NetworkOptions { names: names(all), output, ..NetworkOptions::default() }
}

fn rows(rows: &[&[f32]]) -> (Vec<usize>, Vec<f32>) {
    (vec![1, rows.len(), rows[0].len()], rows.concat())
}

fn of_rows(all: &[&[f32]]) -> Vec<u8> {
    let (size, values) = rows(all);
    constant(&size, &values, &[])
}

fn summary(found: &[Detection]) -> Vec<(usize, [f32; 4], f32)> {
    found.iter().map(|d| (d.class, d.xyxy, d.confidence)).collect()
}

#[test]
fn class_scores_without_objectness_are_read() {
    // [1, 4 + 2, n], three candidates: two of one object, and one below the threshold.
    let columns: [[f32; 6]; 3] = [[32., 32., 20., 10., 0.9, 0.3], [33., 32., 20., 10., 0.2, 0.8], [10., 10., 4., 4., 0.1, 0.1]];
    let values: Vec<f32> = (0..6).flat_map(|i| columns.map(|column| column[i])).collect();
    let found = detect(&constant(&[1, 6, 3], &values, &[]), named(&["a", "b"], OutputLayout::Auto)).unwrap();
    assert_eq!(summary(&found), [(0, [22., 27., 42., 37.], 0.9), (1, [23., 27., 43., 37.], 0.8)]);
    // One class.
    let values: Vec<f32> = (0..5).flat_map(|i| columns.map(|column| column[i])).collect();
    let found = detect(&constant(&[1, 5, 3], &values, &[]), named(&["a"], OutputLayout::Auto)).unwrap();
    assert_eq!(summary(&found), [(0, [22., 27., 42., 37.], 0.9)]);
}

#[test]
fn end_to_end_rows_of_many_classes_are_read_and_not_suppressed_again() {
    let network = of_rows(&[
        &[10., 10., 30., 30., 0.9, 79.],
        &[11., 10., 31., 30., 0.8, 79.],
        &[11., 10., 31., 30., 0.2, 3.],
        &[0., 0., 0., 0., 0., 0.],
    ]);
    let found = detect(&network, NetworkOptions::default()).unwrap();
    assert_eq!(summary(&found), [(79, [10., 10., 30., 30.], 0.9), (79, [11., 10., 31., 30.], 0.8)]);
    refusal(detect(&network, named(&["a", "b", "c"], OutputLayout::Auto)), &["class 79 in row 0", "below 3", "--classes"]);
    // Rows with objectness of a network whose one class is not named.
    let other = of_rows(&[&[32., 32., 20., 10., 0.9, 0.95]]);
    refusal(detect(&other, NetworkOptions::default()), &["expected [1, n, 85]", "found [1, 1, 6]", "--classes"]);
}

#[test]
fn layouts_of_one_class_are_distinguished_by_values() {
    let detections = of_rows(&[&[10., 10., 30., 30., 0.9, 0.], &[40., 10., 60., 30., 0.8, 0.], &[0.; 6]]);
    let found = detect(&detections, named(&["a"], OutputLayout::Auto)).unwrap();
    assert_eq!(summary(&found), [(0, [10., 10., 30., 30.], 0.9), (0, [40., 10., 60., 30.], 0.8)]);
    let candidates = of_rows(&[&[32., 32., 20., 10., 0.9, 0.95], &[0., 0., 0., 0., 0.001, 0.]]);
    let found = detect(&candidates, named(&["a"], OutputLayout::Auto)).unwrap();
    assert_eq!(summary(&found), [(0, [22., 27., 42., 37.], 0.9)]);
    // Nothing is found either way.
    assert!(detect(&of_rows(&[&[0.; 6], &[0.; 6]]), named(&["a"], OutputLayout::Auto)).unwrap().is_empty());

    // Ordered corners and 1 behind the score: a class number of two classes, or a class score.
    let either = of_rows(&[&[10., 10., 30., 30., 0.9, 1.]]);
    let words = ["[1, 1, 6]", "`output: objectness` and `output: end_to_end`", "--detector-config"];
    refusal(detect(&either, named(&["a"], OutputLayout::Auto)), &words);
    let found = detect(&either, named(&["a"], OutputLayout::Objectness)).unwrap();
    assert_eq!(summary(&found), [(0, [-5., -5., 25., 25.], 0.9)]);
    refusal(detect(&either, named(&["a"], OutputLayout::EndToEnd)), &["class 1 in row 0"]);
    // As many rows as candidates have.
    let many: Vec<&[f32]> = vec![&[10., 10., 30., 30., 0.9, 0.]; 2000];
    refusal(detect(&of_rows(&many), named(&["a"], OutputLayout::Auto)), &words[1..]);
}

#[test]
fn rows_with_the_number_of_their_image_are_read() {
    let row: &[f32] = &[0., 10., 10., 30., 30., 1., 0.9];
    for size in [&[1, 1, 7][..], &[1, 7]] {
        let network = constant(size, row, &[]);
        for classes in [&["a", "b"][..], &["a", "b", "c"]] {
            let found = detect(&network, named(classes, OutputLayout::Auto)).unwrap();
            assert_eq!(summary(&found), [(1, [10., 10., 30., 30.], 0.9)], "{size:?}");
        }
    }
    let none = detect(&constant(&[0, 7], &[], &[]), named(&["a", "b"], OutputLayout::Auto)).unwrap();
    assert!(none.is_empty());
    // Two classes with objectness have as many columns.
    let candidates = of_rows(&[&[32., 32., 20., 10., 0.9, 0.1, 1.]]);
    assert_eq!(detect(&candidates, named(&["a", "b"], OutputLayout::Auto)).unwrap()[0].class, 1);

    // Images of a batch.
    let two = constant(&[3, 7], &[&[1., 1., 1., 5., 5., 0., 0.5][..], row, &[1., 2., 2., 9., 9., 1., 0.7]].concat(), &[]);
    let network = open(&two, named(&["a", "b"], OutputLayout::Auto)).unwrap();
    let inputs = Tensor::zeros([2, SIDE, SIDE, 3], (Kind::Uint8, Device::Cpu));
    let found = network.detect(&inputs, &Thresholds::default()).unwrap();
    assert_eq!(summary(&found[0]), [(1, [10., 10., 30., 30.], 0.9)]);
    assert_eq!(summary(&found[1]), [(1, [2., 2., 9., 9.], 0.7), (0, [1., 1., 5., 5.], 0.5)]);
    refusal(network.detect(&input(), &Thresholds::default()), &["found [3, 7]"]);
}

#[test]
fn what_one_batch_has_shown_holds_for_the_next() {
    // Detections where the image has any blue, else two rows of zeros but for a class score.
    let code = "Tensor:\n    return torch.add(self.none, torch.mul(self.some, torch.max(x)))";
    let attributes = || [("none", tensor(&[1, 1, 6], &[0.; 6])), ("some", tensor(&[1, 1, 6], &[32., 32., 20., 10., 0.9, 0.95]))];
    let network = open(&network(code, &attributes(), &[]), named(&["a"], OutputLayout::Auto)).unwrap();
    let white = input().fill(255);
    let detect = |input: &Tensor| network.detect(input, &Thresholds::default()).unwrap().remove(0).len();
    assert_eq!((detect(&input()), detect(&white), detect(&input())), (0, 1, 0));
}

#[test]
fn shapes_of_two_layouts_are_refused_until_the_settings_decide() {
    // Six candidates of two class scores, or six detections.
    let network = constant(&[1, 6, 6], &[0.0; 36], &[]);
    refusal(detect(&network, named(&["a", "b"], OutputLayout::Auto)), &["`output: class_scores` and `output: end_to_end`"]);
    assert!(detect(&network, named(&["a", "b"], OutputLayout::ClassScores)).unwrap().is_empty());
    refusal(detect(&network, named(&["a", "b"], OutputLayout::Objectness)), &["found [1, 6, 6]", "`output: objectness`"]);
    refusal(detect(&network, named(&["a", "b"], OutputLayout::RawMaps)), &["found [1, 6, 6]", "3 raw maps"]);
}
