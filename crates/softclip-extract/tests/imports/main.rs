//! Objects that were found before, from whole and damaged files.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod annotated;
mod arrays;
mod rows;
mod vinvl;

use std::path::{Path, PathBuf};

use softclip_extract::{Error, Found, Objects, import};
use tempfile::TempDir;

const SIZE: (u32, u32) = (200, 100);

/// A folder for a test's files.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn names(found: &Found) -> Vec<&str> {
    found.objects.iter().map(|object| &*object.name).collect()
}

fn opened(spec: &str) -> Box<dyn Objects> {
    import::open(spec).unwrap()
}

/// What keeps a file from being opened.
fn refusal(spec: &str) -> String {
    import::open(spec).expect_err("opened").to_string()
}

fn assert_has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "'{word}' is not in: {text}");
    }
}

#[test]
fn specs_that_cannot_be_understood_list_the_kinds() {
    for spec in ["", "objects.tsv", "voc:x.xml", "vinvl:", "vinvl:x.tsv,labels=", "lines:"] {
        let error = import::open(spec).err().unwrap();
        assert!(matches!(error, Error::Options(_)), "{spec}: {error}");
        assert_has(&error.to_string(), &["vinvl:FEATURES.tsv[,labels=LABELS.tsv]", "instances:", "lines:", "arrays:", spec]);
    }
}

#[test]
fn files_that_are_missing_or_empty_are_named() {
    let folder = Folder::new();
    let empty = folder.write("empty", "");
    std::fs::create_dir(folder.path("nothing")).unwrap();
    for kind in ["vinvl", "instances", "lines", "arrays"] {
        let missing = import::open(&format!("{kind}:{}", folder.path("none").display())).err().unwrap();
        assert!(matches!(missing, Error::Io { .. }), "{missing}");
        assert_has(&missing.to_string(), &["none"]);
        assert_has(&refusal(&format!("{kind}:{empty}")), &[&empty]);
    }
    assert_has(&refusal(&format!("vinvl:{empty}")), &["is empty"]);
    assert_has(&refusal(&format!("arrays:{}", folder.path("nothing").display())), &["nothing", "no KEY.npy"]);
}

#[test]
fn a_file_tells_what_it_is() {
    let folder = Folder::new();
    let file = folder.write("x.jsonl", "{\"key\": \"a\", \"tags\": []}\n");
    let objects = opened(&format!("lines:{file}"));
    assert_eq!(objects.paths(), [Path::new(&file)]);
    assert_has(&objects.describe(), &["JSON", "1 image"]);
}
