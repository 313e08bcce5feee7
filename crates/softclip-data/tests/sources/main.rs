//! Data sets of every layout, whole and damaged.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod annotated;
mod classes;
mod damage;
mod folders;
mod shards;

use std::path::Path;

use softclip_data::source::{Source, SourceError, SourceFaultKind, open};

fn png() -> Vec<u8> {
    let mut file = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut file);
    image::ImageEncoder::write_image(encoder, &[90; 40 * 30 * 3], 40, 30, image::ExtendedColorType::Rgb8).unwrap();
    file
}

fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A `.npy` file of one region with two features.
fn npy(features: [f32; 2]) -> Vec<u8> {
    [
        b"\x93NUMPY\x01\x00".as_slice(),
        &64u16.to_le_bytes(),
        format!("{:<64}", "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }").as_bytes(),
        &features.map(f32::to_le_bytes).concat(),
    ]
    .concat()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

fn error(spec: &str) -> SourceError {
    match open(spec) {
        Ok(source) => panic!("{spec} opens: {}", source.describe()),
        Err(e) => e,
    }
}

fn keys(source: &dyn Source) -> Vec<String> {
    (0..source.len()).map(|i| source.key(i)).collect()
}

fn kinds(source: &dyn Source) -> Vec<SourceFaultKind> {
    source.faults().iter().map(|fault| fault.kind).collect()
}

#[test]
fn what_cannot_be_understood_is_said() {
    let folder = Folder::new();
    let here = folder.0.path().display().to_string();
    for (spec, words) in [
        ("".to_owned(), "nothing is named"),
        ("s3://bucket/x.tar".to_owned(), "download the shards first"),
        ("images:x".to_owned(), "unknown kind of data set"),
        (here.clone(), "name its shards"),
        (format!("{here}/{{0..3}}.tar"), "no file matches"),
        (format!("{here}/{{0..3.tar"), "'{' without '}'"),
        (format!("folder:{here}/none"), "expected a folder with a folder for each class"),
    ] {
        let message = error(&spec).to_string();
        assert!(message.contains(words), "{message} / {words}");
    }
    assert!(Path::new(&here).exists());
}
