//! Data sets whose captions lie in one file.

use softclip_data::source::{SourceError, SourceFaultKind, open};

use crate::{Folder, error, keys, kinds, npy, tar};

fn coco(folder: &Folder) -> String {
    let captions = r#"{"images": [{"id": 7, "file_name": "x.png"}, {"id": 8, "file_name": "y.png"}, {"id": 9, "file_name": "z.png"}],
        "annotations": [{"image_id": 7, "caption": "one"}, {"image_id": 7, "caption": "two"}, {"image_id": 9, "caption": "three"},
        {"image_id": 99, "caption": "lost"}]}"#;
    folder.put("captions.json", captions.as_bytes())
}

#[test]
fn coco_captions_find_their_images_in_a_folder_or_a_tar_and_tags_in_instances() {
    let folder = Folder::new();
    let captions = coco(&folder);
    folder.put("images/x.png", b"x");
    folder.put("images/y.png", b"y");
    let archive = folder.put("images.tar", &tar(&[("val2017/x.png", b"x"), ("val2017/y.png", b"y")]));
    let instances = folder.put(
        "instances.json",
        br#"{"categories": [{"id": 1, "name": "dog"}], "annotations": [{"image_id": 7, "category_id": 1}, {"image_id": 7,
        "category_id": 1}, {"image_id": 7, "category_id": 1, "iscrowd": 1}]}"#,
    );
    for images in [folder.path("images"), archive] {
        let source = open(&format!("coco:{captions},{images},instances={instances}")).unwrap();
        assert_eq!(keys(&*source), ["x"]);
        let sample = source.read(0).unwrap();
        assert_eq!((sample.image, sample.captions), (b"x".to_vec(), vec!["one".to_owned(), "two".to_owned()]));
        assert_eq!(sample.tags.unwrap(), ["dog", "dog"]);
        let mut found = kinds(&*source);
        found.sort();
        assert_eq!(found, [SourceFaultKind::MissingImage, SourceFaultKind::MissingCaption, SourceFaultKind::Orphan]);
    }
}

#[test]
fn json_faults_are_shown_with_line_and_key() {
    let folder = Folder::new();
    folder.put("images/x.png", b"x");
    let images = folder.path("images");
    let broken = folder.put("broken.json", b"{\"images\": [\n {\"id\": 1}\n]}");
    let message = error(&format!("coco:{broken},{images}")).to_string();
    assert!(message.contains("broken.json: line 2, column") && message.contains("file_name"), "{message}");
    let message = error(&format!("coco:{images}")).to_string();
    assert!(message.contains("the form is coco:"), "{message}");
    let message = error(&format!("coco:{broken},{images},boxes=x")).to_string();
    assert!(message.contains("unknown option 'boxes'"), "{message}");
    assert!(matches!(error(&format!("coco:{},{images}", folder.path("none.json"))), SourceError::Io { .. }));
}

#[test]
fn karpathys_splits_are_chosen() {
    let folder = Folder::new();
    let entry = |name: &str, split: &str| {
        format!(r#"{{"filename": "{name}.png", "filepath": "val2014", "split": "{split}", "sentences": [{{"raw": "{name}!"}}]}}"#)
    };
    let json = format!(r#"{{"images": [{}, {}, {}]}}"#, entry("a", "train"), entry("b", "test"), entry("c", "restval"));
    let file = folder.put("dataset.json", json.as_bytes());
    folder.put("images/val2014/a.png", b"a");
    folder.put("images/b.png", b"b");
    folder.put("images/val2014/c.png", b"c");
    let images = folder.path("images");
    let names = |split: &str| keys(&*open(&format!("karpathy:{file},{images}{split}")).unwrap());
    assert_eq!(names(",split=all"), ["a", "b", "c"]);
    assert_eq!(names(",test"), ["b"]);
    assert_eq!(names(",split=train+restval"), ["a", "c"]);
    let message = error(&format!("karpathy:{file},{images},val")).to_string();
    assert!(message.contains("no split 'val' (it has restval, test, train"), "{message}");
    let message = error(&format!("karpathy:{file},{images}")).to_string();
    assert!(message.contains("name a split: split=test or split=train+restval (it has restval, test, train"), "{message}");
}

#[test]
fn published_sets_of_captions_have_their_short_names() {
    let folder = Folder::new();
    folder.put("images/x.png", b"x");
    let images = folder.path("images");
    let coco = br#"{"images": [{"id": 7, "file_name": "x.png"}], "annotations": [{"image_id": 7, "caption": "one"}]}"#;
    for (name, expected) in [("captions_val2017.json", Some("mscoco_captions")), ("captions_mine.json", None)] {
        let file = folder.put(name, coco);
        assert_eq!(open(&format!("coco:{file},{images}")).unwrap().name(), expected, "{name}");
    }
    for (dataset, expected) in [("\"coco\"", Some("mscoco_captions")), ("\"flickr30k\"", Some("flickr30k")), ("null", None)] {
        let entry = r#"{"filename": "x.png", "split": "test", "sentences": [{"raw": "one"}]}"#;
        let file = folder.put("dataset.json", format!("{{\"images\": [{entry}], \"dataset\": {dataset}}}").as_bytes());
        assert_eq!(open(&format!("karpathy:{file},{images},test")).unwrap().name(), expected, "{dataset}");
    }
}

#[test]
fn tables_of_paths_and_captions_are_grouped_by_image() {
    let folder = Folder::new();
    folder.put("img/a.png", b"a");
    let csv = folder.put("pairs.csv", b"filepath,title\nimg/a.png,\"one, quoted\"\nimg/a.png,two\nimg/missing.png,three\n");
    let source = open(&format!("csv:{csv}")).unwrap();
    assert_eq!(source.len(), 1);
    assert_eq!(source.read(0).unwrap().captions, ["one, quoted", "two"]);
    assert_eq!(kinds(&*source), [SourceFaultKind::MissingImage]);
    let tsv = folder.put("pairs.tsv", b"where\tsays\nimg/a.png\tcaf\xe9\nimg/a.png\tfine\n");
    let source = open(&format!("tsv:{tsv},image=where,caption=says")).unwrap();
    assert_eq!(source.read(0).unwrap().captions, ["fine"]);
    assert_eq!(source.faults()[0].place, "line 2");
    let message = error(&format!("tsv:{tsv}")).to_string();
    assert!(message.contains("no column for the image") && message.contains("columns: where, says"), "{message}");
}

#[test]
fn regions_of_an_image_lie_under_its_whole_key_and_may_be_missing() {
    let folder = Folder::new();
    let json = r#"{"images": [{"id": 1, "file_name": "a/x.v1.png"}, {"id": 2, "file_name": "b/x.v1.png"},
        {"id": 3, "file_name": "y.png"}], "annotations": [{"image_id": 1, "caption": "1"}, {"image_id": 2, "caption": "2"},
        {"image_id": 3, "caption": "3"}]}"#;
    let captions = folder.put("captions.json", json.as_bytes());
    for name in ["a/x.v1.png", "b/x.v1.png", "y.png"] {
        folder.put(&format!("images/{name}"), b"x");
    }
    folder.put("rois/a/x.v1.npy", &npy([1.0, 2.0]));
    folder.put("rois/b/x.v1.npy", &npy([3.0, 4.0]));
    let source = open(&format!("coco:{captions},{},rois={}", folder.path("images"), folder.path("rois"))).unwrap();
    let features: Vec<_> = (0..3).map(|i| source.read(i).unwrap().rois.map(|rois| rois.features)).collect();
    assert_eq!(features, [Some(vec![1.0, 2.0]), Some(vec![3.0, 4.0]), None]);
}

#[test]
fn images_that_differ_in_their_extension_alone_are_two() {
    let folder = Folder::new();
    let json = r#"{"images": [{"id": 1, "file_name": "x.jpg"}, {"id": 2, "file_name": "x.png"}, {"id": 3, "file_name": "x.gif"},
        {"id": 4, "file_name": "x.gif"}], "annotations": [{"image_id": 1, "caption": "1"}, {"image_id": 2, "caption": "2"},
        {"image_id": 3, "caption": "3"}, {"image_id": 4, "caption": "4"}]}"#;
    let captions = folder.put("captions.json", json.as_bytes());
    folder.put("images/x.png", b"png");
    folder.put("images/x.gif", b"gif");
    let source = open(&format!("coco:{captions},{}", folder.path("images"))).unwrap();
    // x.jpg is not there and takes no name from the others.
    assert_eq!(keys(&*source), ["x", "x.gif"]);
    assert_eq!([0, 1].map(|i| source.read(i).unwrap().image), [b"png".to_vec(), b"gif".to_vec()]);
    assert_eq!(kinds(&*source), [SourceFaultKind::MissingImage, SourceFaultKind::DuplicateKey]);
}

#[test]
fn a_quote_that_is_not_closed_is_refused_with_its_line() {
    let folder = Folder::new();
    folder.put("a.png", b"a");
    for (kind, text, line) in [
        ("tsv", "image\tcaption\na.png\tone\na.png\t\"two\na.png\tthree\"\na.png\tfour\n", "line 3"),
        ("tsv", "image\tcaption\na.png\t\"one\na.png\ttwo", "line 2"),
        ("csv", "image,caption\na.png,one\na.png,\"two\na.png,three\n", "line 3"),
        ("csv", "image,caption\na.png,\"one", "line 2"),
        ("csv", "image,\"caption\na.png,one\n", "names of its columns"),
    ] {
        let message = error(&format!("{kind}:{}", folder.put("pairs", text.as_bytes()))).to_string();
        assert!(message.contains(line) && message.contains("a quote"), "{message}");
    }
    // Quoted line feeds and commas are what quotes are for.
    let csv = folder.put("pairs", b"image,caption\r\na.png,\"one,\ntwo\"\r\na.png,\"three \"\"x\"\"\"");
    assert_eq!(open(&format!("csv:{csv}")).unwrap().read(0).unwrap().captions, ["one,\ntwo", "three \"x\""]);
}

#[test]
fn rows_with_too_few_or_too_many_cells_are_left_out_and_counted() {
    let folder = Folder::new();
    folder.put("a.png", b"a");
    let csv = folder.put("pairs.csv", b"image,caption\na.png,one\na.png,two, too\n\na.png\na.png,three\n");
    let source = open(&format!("csv:{csv}")).unwrap();
    assert_eq!(source.read(0).unwrap().captions, ["one", "three"]);
    assert_eq!(kinds(&*source), [SourceFaultKind::BadRow; 2]);
    assert_eq!(source.faults()[0].to_string(), "line 3: bad_row: left out: 3 cells, the header has 2");
}

#[test]
fn a_name_that_fits_two_members_of_a_tar_is_counted_with_both() {
    let folder = Folder::new();
    let json = |names: &[&str]| {
        let images: Vec<_> = names.iter().enumerate().map(|(i, name)| serde_json::json!({"id": i, "file_name": name})).collect();
        let captions: Vec<_> = (0..names.len()).map(|i| serde_json::json!({"id": i, "image_id": i, "caption": " x\n"})).collect();
        serde_json::json!({"images": images, "annotations": captions}).to_string()
    };
    let members: [(&str, &[u8]); 4] = [("im/a/1.jpg", b"a1"), ("im/b/1.jpg", b"b1"), ("im/b/2.jpg", b"b2"), ("3.jpg", b"3")];
    let images = folder.put("im.tar", &crate::tar(&[&members[..], &[("im/3.jpg", b"other")]].concat()));
    let spec = |names: &[&str]| format!("coco:{},{images}", folder.put("c.json", json(names).as_bytes()));
    let source = open(&spec(&["1.jpg", "a/1.jpg", "b/1.jpg", "im/b/2.jpg", "2.jpg", "3.jpg", "c/2.jpg"])).unwrap();
    let read: Vec<_> = (0..source.len()).map(|i| String::from_utf8(source.read(i).unwrap().image).unwrap()).collect();
    assert_eq!(read, ["a1", "b1", "b2", "b2", "3"], "whole names go before ends of names");
    assert_eq!(source.read(0).unwrap().captions, ["x"]);
    let faults: Vec<String> = source.faults().iter().map(ToString::to_string).collect();
    assert!(faults[0].contains("1: missing_image: skipped: '1.jpg' fits two members of"), "{}", faults[0]);
    assert!(faults[0].contains("'im/a/1.jpg' and 'im/b/1.jpg'"), "{}", faults[0]);
    assert!(faults[1].contains("has no member 'c/2.jpg'"), "{}", faults[1]);
    // Where nothing else is left, the error names both.
    let message = error(&spec(&["1.jpg"])).to_string();
    assert!(message.contains("'im/a/1.jpg' and 'im/b/1.jpg'"), "{message}");
}

#[test]
fn the_first_path_that_was_looked_for_is_in_the_error() {
    let folder = Folder::new();
    let json = r#"{"images": [{"id": 1, "file_name": "train2014/9.jpg"}], "annotations": [{"image_id": 1, "caption": "x"}]}"#;
    folder.put("im/7.jpg", b"x");
    let message = error(&format!("coco:{},{}", folder.put("c.json", json.as_bytes()), folder.path("im"))).to_string();
    assert!(message.contains("9.jpg") && message.contains(&folder.path("im")), "{message}");
    assert!(message.contains("im has 7.jpg"), "{message}");
}
