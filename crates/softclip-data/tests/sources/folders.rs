//! A folder for each class.

use softclip_data::source::{SourceFaultKind, open};

use crate::{Folder, error, keys, kinds, tar};

#[test]
fn class_folders_give_ids_and_names() {
    let folder = Folder::new();
    for name in ["n02/b.png", "n01/a.png", "n01/c.txt"] {
        folder.put(&format!("val/{name}"), b"x");
    }
    folder.put("val/classnames.tsv", b"n01\ttench\n");
    let archive = folder.put("v/val.tar", &tar(&[("n02/b.png", b"x"), ("n01/a.png", b"x")]));
    // As a spreadsheet on Windows saves it.
    folder.put("v/classnames.tsv", b"\xef\xbb\xbfn01\ttench\r\n");
    for place in [folder.path("val"), archive] {
        let source = open(&format!("folder:{place}")).unwrap();
        assert_eq!(source.classes().unwrap(), ["tench", "n02"]);
        assert_eq!(keys(&*source), ["n01/a", "n02/b"]);
        assert_eq!([0, 1].map(|i| source.read(i).unwrap().class), [Some(0), Some(1)]);
    }
}

#[test]
fn what_is_no_image_of_a_class_is_reported() {
    let folder = Folder::new();
    let names = [
        "cat/1.png",
        "cat/notes.md",
        "cat/deep/2.png",
        "cat/.DS_Store",
        ".cache/3.png",
        "readme.txt",
        "classnames.tsv",
        "dog/4.png",
    ];
    for name in names {
        folder.put(&format!("val/{name}"), b"x\ty");
    }
    let packed: Vec<(String, &[u8])> = names.iter().map(|name| (format!("val/{name}"), b"x".as_slice())).collect();
    let archive = folder.put("val.tar", &tar(&packed.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect::<Vec<_>>()));
    for (place, root) in [(folder.path("val"), ""), (archive, "val/")] {
        let source = open(&format!("folder:{place}")).unwrap();
        assert_eq!(source.classes().unwrap(), ["cat", "dog"]);
        assert_eq!(keys(&*source), [format!("{root}cat/1"), format!("{root}dog/4")]);
        let mut found: Vec<&str> = source.faults().iter().map(|fault| fault.place.strip_prefix(root).unwrap()).collect();
        found.sort_unstable();
        assert_eq!(found, ["cat/deep/2.png", "cat/notes.md", "readme.txt"]);
        assert!(kinds(&*source).iter().all(|kind| *kind == SourceFaultKind::Orphan));
    }
}

#[test]
fn classes_that_would_be_mixed_or_have_no_image_are_refused() {
    let folder = Folder::new();
    let mixed = folder.put("mixed.tar", &tar(&[("a/outdoor/1.png", b"x"), ("b/outdoor/2.png", b"x"), ("b/indoor/3.png", b"x")]));
    let message = error(&format!("folder:{mixed}")).to_string();
    assert!(message.contains("'a/outdoor' and 'b/outdoor'"), "{message}");
    let empty = folder.put("empty.tar", &tar(&[("cat/1.png", b"x"), ("dog/notes.md", b"x")]));
    folder.put("val/cat/1.png", b"x");
    std::fs::create_dir_all(folder.path("val/dog")).unwrap();
    for place in [empty, folder.path("val")] {
        let message = error(&format!("folder:{place}")).to_string();
        assert!(message.contains("class folder 'dog' holds no image"), "{message}");
    }
}

#[test]
fn images_of_a_class_that_differ_in_their_extension_alone_are_two() {
    let folder = Folder::new();
    folder.put("val/cat/1.jpg", b"x");
    folder.put("val/cat/1.png", b"x");
    let source = open(&format!("folder:{}", folder.path("val"))).unwrap();
    assert_eq!(keys(&*source), ["cat/1", "cat/1.png"]);
    assert!(source.faults().is_empty());
}
