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
    assert!(message.contains("broken.json: line 3, column") && message.contains("annotations"), "{message}");
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
    assert_eq!(source.faults()[0].to_string(), "line 3: bad_row: skipped: 3 cells, the header has 2");
}

/// Four images in `im/`, and a COCO file of them in which `change` was replaced.
fn four(folder: &Folder, name: &str, changes: &[(&str, &str)]) -> String {
    (0..4).for_each(|i| drop(folder.put(&format!("im/{i}.png"), b"x")));
    let images: Vec<String> = (0..4).map(|i| format!(r#"{{"id": {i}, "file_name": "{i}.png"}}"#)).collect();
    let captions: Vec<String> = (0..4).map(|i| format!(r#"{{"id": 1{i}, "image_id": {i}, "caption": "caption {i}"}}"#)).collect();
    let mut json = format!(r#"{{"images": [{}], "annotations": [{}]}}"#, images.join(", "), captions.join(", "));
    for (old, new) in changes {
        assert!(json.contains(old), "{old}");
        json = json.replace(old, new);
    }
    folder.put(name, json.as_bytes())
}

#[test]
fn coco_identifiers_may_be_texts_or_fractions_and_differ_between_lists() {
    let folder = Folder::new();
    let (text, fraction) = (r#""id": "0""#, r#""image_id": 0.0"#);
    for changes in [
        [(r#""id": 0"#, text), (r#""image_id": 0"#, fraction)],
        [(r#""id": 0"#, r#""id": 0"#), (r#""image_id": 0"#, r#""image_id": "0""#)],
        [(r#""id": 0"#, r#""id": "img-0""#), (r#""image_id": 0"#, r#""image_id": "img-0""#)],
        [(r#"{"images""#, "\u{feff}{\"images\""), (r#""caption 0"}"#, r#""caption 0", "score": NaN, "x": -Infinity}"#)],
    ] {
        let source = open(&format!("coco:{},{}", four(&folder, "c.json", &changes), folder.path("im"))).unwrap();
        let captions: Vec<_> = (0..source.len()).flat_map(|i| source.read(i).unwrap().captions).collect();
        assert_eq!(captions, ["caption 0", "caption 1", "caption 2", "caption 3"], "{changes:?}");
        assert_eq!(source.faults(), [], "{changes:?}");
    }
}

#[test]
fn what_a_coco_file_lacks_is_counted_and_the_rest_is_read() {
    let folder = Folder::new();
    let caption = r#"{"id": 10, "image_id": 0, "caption": "caption 0"}"#;
    let image = r#"{"id": 0, "file_name": "0.png"}"#;
    use SourceFaultKind::{DuplicateKey, MissingCaption, MissingImage, Orphan};
    for (old, new, expected, detail) in [
        (r#""caption 0""#, "null", vec![MissingCaption, Orphan], "a caption that is missing or null"),
        (r#""caption 0""#, r#"["a", "b"]"#, vec![MissingCaption, Orphan], "a caption that is a list"),
        (caption, "null", vec![MissingCaption, Orphan], "annotations[0]: orphan: it is not an object"),
        (caption, r#"{"caption": "x"}"#, vec![MissingCaption, Orphan], "image_id is missing or null"),
        (image, "7", vec![MissingImage, Orphan], "images[0]: missing_image: skipped: it is not an object"),
        (image, r#"{"id": 0}"#, vec![MissingImage, Orphan], "image 0: missing_image: skipped: its file_name is missing or null"),
        (image, r#"{"file_name": "0.png"}"#, vec![MissingCaption, Orphan], "skipped: its id is missing or null"),
        (image, r#"{"id": "1", "file_name": "0.png"}"#, vec![DuplicateKey, Orphan], "another image has the id 1"),
        ("}]}", "}]} trailing", vec![Orphan], "8 bytes after the end of the JSON value are ignored"),
    ] {
        let source = open(&format!("coco:{},{}", four(&folder, "c.json", &[(old, new)]), folder.path("im"))).unwrap();
        let mut found = kinds(&*source);
        found.sort();
        assert_eq!(found, expected, "{new}");
        let faults: Vec<String> = source.faults().iter().map(ToString::to_string).collect();
        assert!(faults.iter().any(|fault| fault.contains(detail)), "{faults:?}");
        // Every image is used or counted.
        assert_eq!(source.len() + found.iter().filter(|kind| **kind != Orphan).count(), 4, "{new}");
    }
    let many = four(&folder, "c.json", &[(caption, &format!("{caption}, {}", caption.replace("\"caption 0\"", "null")))]);
    let source = open(&format!("coco:{many},{}", folder.path("im"))).unwrap();
    assert_eq!((source.len(), kinds(&*source)), (4, vec![Orphan]));
    let trailing = four(&folder, "c.json", &[("}]}", "}]}\n \n")]);
    assert_eq!(open(&format!("coco:{trailing},{}", folder.path("im"))).unwrap().faults(), []);
}

#[test]
fn instances_of_unknown_categories_are_counted_and_crowds_of_any_type_excluded() {
    let folder = Folder::new();
    let captions = four(&folder, "c.json", &[]);
    let instance = |fields: &str| format!(r#"{{"image_id": 0, {fields}}}"#);
    let instances: Vec<String> = [
        r#""category_id": 1, "iscrowd": false"#,
        r#""category_id": "1", "iscrowd": 0.0"#,
        r#""category_id": 1, "iscrowd": true"#,
        r#""category_id": 1, "iscrowd": "1""#,
        r#""category_id": 1, "iscrowd": null"#,
        r#""category_id": 9"#,
        r#""category_id": null"#,
    ]
    .map(instance)
    .into();
    let json =
        format!(r#"{{"annotations": [{}, 3], "categories": [{{"id": 1, "name": "cat"}}, {{"id": 2}}]}}"#, instances.join(", "));
    let file = folder.put("instances.json", json.as_bytes());
    let source = open(&format!("coco:{captions},{},instances={file}", folder.path("im"))).unwrap();
    assert_eq!(source.read(0).unwrap().tags.unwrap(), ["cat", "cat", "cat"]);
    let faults: Vec<String> = source.faults().iter().map(ToString::to_string).collect();
    assert_eq!(faults.len(), 4, "{faults:?}");
    assert!(faults[1].contains("image 0: orphan: an instance of category 9, which is not listed"), "{faults:?}");
}

#[test]
fn karpathys_file_may_have_marks_and_gaps() {
    let folder = Folder::new();
    folder.put("im/a.png", b"x");
    let good = r#"{"filename": "a.png", "split": "test", "sentences": [{"raw": "one"}, {"raw": null}, 3], "score": NaN}"#;
    let others = r#"{"filename": null, "split": "test"}, {"split": null}, null, {"filename": "b.png", "split": "test", "sentences": null}"#;
    let file = folder.put("d.json", format!("\u{feff}{{\"images\": [{good}, {others}]}}").as_bytes());
    let source = open(&format!("karpathy:{file},{},split=test", folder.path("im"))).unwrap();
    assert_eq!((source.len(), source.read(0).unwrap().captions), (1, vec!["one".to_owned()]));
    assert_eq!(source.faults().len(), 6, "{:?}", source.faults());
}

#[test]
fn tables_of_every_delimiter_are_read_with_images_from_another_folder() {
    let folder = Folder::new();
    folder.put("Images/0.jpg", b"x");
    folder.put("Images/1.jpg", b"x");
    let root = folder.path("Images");
    for text in [
        "image,caption\n0.jpg,A child .\n0.jpg,Another one .\n1.jpg,\"A girl , sitting .\"\n",
        "\u{feff}image;caption\n0.jpg;A child .\n0.jpg;Another one .\n1.jpg;A girl , sitting .\n",
        "image_name| comment_number| comment\r\n0.jpg| 0| A child .\r\n0.jpg| 1| Another one .\r\n1.jpg| 0| A girl , sitting .\r\n",
        "image\tcaption\n0.jpg \tA child .\n0.jpg\tAnother one .\n1.jpg\tA girl , sitting .",
    ] {
        let csv = folder.put("captions.txt", text.as_bytes());
        let source = open(&format!("csv:{csv},root={root}")).unwrap();
        assert_eq!(keys(&*source), ["0.jpg", "1.jpg"], "{text}");
        let captions: Vec<_> = (0..2).map(|i| source.read(i).unwrap().captions).collect();
        assert_eq!(captions, [vec!["A child .", "Another one ."], vec!["A girl , sitting ."]], "{text}");
    }
    let csv = folder.put("labels.csv", b"image,kind\n0.jpg,cat\n1.jpg,dog\n");
    assert_eq!(open(&format!("csv:{csv},label=kind,root={root}")).unwrap().len(), 2);
    let wide = folder.put("wide.csv", b"\xff\xfei\0m\0a\0g\0e\0");
    assert!(error(&format!("csv:{wide}")).to_string().contains("UTF-16: save it as UTF-8"));
    let bare = folder.put("bare.tsv", b"a red thing\thttp://127.0.0.1:9/0.jpg\n");
    assert!(error(&format!("tsv:{bare}")).to_string().contains("no header line"));
}

#[test]
fn quotes_that_swallow_rows_are_refused_unless_quotes_are_characters() {
    let folder = Folder::new();
    (0..4).for_each(|i| drop(folder.put(&format!("{i}.jpg"), b"x")));
    for (kind, delimiter) in [("csv", ","), ("tsv", "\t")] {
        let text =
            "image,caption\n0.jpg,\"Hello he said\n1.jpg,second\n2.jpg,\"another open\n3.jpg,plain\n".replace(',', delimiter);
        let table = folder.put("t", text.as_bytes());
        let message = error(&format!("{kind}:{table}")).to_string();
        assert!(message.contains("line 2: a quote") && message.contains("quotes=off"), "{message}");
        let source = open(&format!("{kind}:{table},quotes=off")).unwrap();
        assert_eq!((source.len(), source.faults().len()), (4, 0));
        assert_eq!(source.read(2).unwrap().captions, ["\"another open"]);
    }
    let table = folder.put("t", b"image,caption\n0.jpg,\"Hello\" he said\n1.jpg,second\n");
    let source = open(&format!("csv:{table}")).unwrap();
    assert_eq!((keys(&*source), kinds(&*source)), (vec!["1.jpg".to_owned()], vec![SourceFaultKind::BadRow]));
    assert!(error(&format!("csv:{table},quotes=no")).to_string().contains("on or off"));
}

#[test]
fn the_first_path_that_was_looked_for_is_shown_if_there_is_no_image() {
    let folder = Folder::new();
    folder.put("im/0.jpg", b"x");
    for (cell, words) in [
        ("im\\0.jpg", "/im\\0.jpg (folders end in `/`"),
        ("file:///data/im/0.jpg", "/file:///data/im/0.jpg (an address: only local files are read)"),
        ("pictures/0.jpg", "/pictures/0.jpg"),
    ] {
        let csv = folder.put("t.csv", format!("image,caption\n{cell},one\n").as_bytes());
        let message = error(&format!("csv:{csv}")).to_string();
        let looked_for = format!("there is no file {}{words}", folder.0.path().display());
        assert!(message.contains("none of its 1 images") && message.contains(&looked_for), "{message}");
    }
    let captions = four(
        &folder,
        "c.json",
        &[
            ("\"0.png\"", "\"val2014/0.png\""),
            ("\"1.png\"", "\"val2014/1.png\""),
            ("\"2.png\"", "\"val2014/2.png\""),
            ("\"3.png\"", "\"val2014/3.png\""),
        ],
    );
    let images = folder.path("im");
    let message = error(&format!("coco:{captions},{images}")).to_string();
    assert!(message.contains(&format!("there is no file {images}/val2014/0.png")), "{message}");
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
