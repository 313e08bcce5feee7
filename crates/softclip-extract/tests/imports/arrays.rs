//! Region features as arrays.

use std::collections::BTreeMap;

use half::f16;
use softclip_tensor::file::write_safetensors;
use softclip_tensor::npy::header;
use softclip_tensor::tch::{Kind, Tensor};

use super::*;

const NUMBERS: [f32; 12] = [1.0, -2.5, 0.0, 0.25, 0.5, 1.0, 7.0, 8.0, 0.0, 0.0, 1.0, 0.75];

fn npy(kind: Kind, shape: &[usize], numbers: &[f32]) -> Vec<u8> {
    let mut bytes = header(kind, shape);
    match kind {
        Kind::Half => bytes.extend(numbers.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes())),
        _ => bytes.extend(numbers.iter().flat_map(|x| x.to_le_bytes())),
    }
    bytes
}

fn regions(objects: &dyn Objects, key: &str) -> Option<(usize, Vec<f32>)> {
    let found = objects.find(key, SIZE).unwrap()?;
    assert!(found.objects.is_empty() && found.appearance.is_none());
    found.regions
}

#[test]
fn a_folder_of_arrays_is_read_by_key() {
    let folder = Folder::new();
    folder.write("rois/a/x.npy", npy(Kind::Half, &[2, 6], &NUMBERS));
    folder.write("rois/a/y.v2.npy", npy(Kind::Float, &[1, 12], &NUMBERS));
    folder.write("rois/b/000000000042.npy", npy(Kind::Float, &[0, 6], &[]));
    folder.write("rois/readme.txt", "of no use");
    let path = folder.path("rois");
    let objects = opened(&format!("arrays:{}", path.display()));
    assert_eq!(regions(&*objects, "a/x"), Some((6, NUMBERS.to_vec())));
    assert_eq!(regions(&*objects, "a/x.jpg"), Some((6, NUMBERS.to_vec())));
    assert_eq!(regions(&*objects, "a/y.v2"), Some((12, NUMBERS.to_vec())));
    assert_eq!(regions(&*objects, "COCO_val2014_000000000042"), Some((6, Vec::new())));
    assert_eq!(regions(&*objects, "b/x"), None);
    assert_eq!(objects.paths(), [path]);
    assert_has(&objects.describe(), &["folder", "3 images"]);
}

#[test]
fn arrays_that_cannot_be_used_are_named() {
    let folder = Folder::new();
    for (bytes, words) in [
        (npy(Kind::Float, &[2, 6], &NUMBERS[..11]), "44 bytes do not make [2, 6]"),
        (npy(Kind::Float, &[12], &NUMBERS), "shape (12,)"),
        (npy(Kind::Float, &[3, 4], &NUMBERS), "4 numbers a region"),
        (npy(Kind::Float, &[1, 6], &[0.0, 1.0, f32::NAN, 0.0, 0.0, 0.0]), "element 2 is not finite"),
        (npy(Kind::Half, &[1, 6], &[0.0, 1e9, 0.0, 0.0, 0.0, 0.0]), "element 1 is not finite"),
        (npy(Kind::Float, &[usize::MAX, 6], &NUMBERS), "do not make"),
        (b"PK\x03\x04 and so on".to_vec(), "not a .npy"),
    ] {
        let file = folder.write("rois/x.npy", bytes);
        let objects = opened(&format!("arrays:{}", folder.path("rois").display()));
        assert_has(&objects.find("x", SIZE).unwrap_err(), &[&file, words]);
    }
}

fn tensors(folder: &Folder, tensors: &[(&str, Tensor)]) -> String {
    let path = folder.path("regions.safetensors");
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.shallow_clone())).collect();
    write_safetensors(&path, &tensors, &BTreeMap::from([("made".to_owned(), "here".to_owned())])).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_file_of_tensors_is_read_by_key() {
    let folder = Folder::new();
    let all = Tensor::from_slice(&NUMBERS);
    let file = tensors(
        &folder,
        &[("a/x", all.view([2, 6])), ("a/y", all.to_kind(Kind::Half).view([1, 12])), ("none", all.narrow(0, 0, 0).view([0, 6]))],
    );
    let objects = opened(&format!("arrays:{file}"));
    assert_eq!(regions(&*objects, "a/x"), Some((6, NUMBERS.to_vec())));
    assert_eq!(regions(&*objects, "y"), Some((12, NUMBERS.to_vec())));
    assert_eq!(regions(&*objects, "none"), Some((6, Vec::new())));
    assert_eq!(regions(&*objects, "made"), None);
    assert_has(&objects.describe(), &["file", "3 images"]);
}

#[test]
fn files_of_tensors_that_cannot_be_used_are_named() {
    let folder = Folder::new();
    let all = Tensor::from_slice(&NUMBERS);
    let file = tensors(&folder, &[("flat", all.shallow_clone()), ("inf", (&all / 0.0).view([2, 6]))]);
    let objects = opened(&format!("arrays:{file}"));
    assert_has(&objects.find("flat", SIZE).unwrap_err(), &[&file, "'flat' (byte ", "shape (12,)"]);
    assert_has(&objects.find("inf", SIZE).unwrap_err(), &[&file, "'inf' (byte ", "not finite"]);

    let bytes = std::fs::read(&file).unwrap();
    for keep in [3, 20, bytes.len() - 1] {
        let file = folder.write("cut.safetensors", &bytes[..keep]);
        assert_has(&refusal(&format!("arrays:{file}")), &[&file, "not a whole safetensors file"]);
    }
    let file = tensors(&folder, &[("long", all.to_kind(Kind::Int64).view([2, 6]))]);
    assert_has(&refusal(&format!("arrays:{file}")), &[&file, "'long' is I64"]);
}
