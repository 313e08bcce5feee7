//! COCO's instances, and own lines.

use super::*;

const INSTANCES: &str = r#"{
  "info": {"year": 2017},
  "images": [
    {"id": 391895, "file_name": "COCO_train2014_000000391895.jpg", "width": 200, "height": 100, "license": 3},
    {"id": 9, "file_name": "nine.jpg"},
    {"id": 10, "file_name": "9.jpg"},
    {"id": 11, "file_name": "eleven.jpg"}
  ],
  "annotations": [
    {"id": 1, "image_id": 391895, "category_id": 18, "bbox": [10, 20, 30.5, 40], "iscrowd": 0, "area": 9, "segmentation": []},
    {"id": 2, "image_id": 391895, "category_id": 1, "bbox": [0, 0, 200.4, 100], "iscrowd": 0},
    {"id": 3, "image_id": 391895, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1, "segmentation": {"counts": [1]}},
    {"id": 4, "image_id": 391895, "category_id": 1, "bbox": [50, 20, 40, 30.5]},
    {"id": 5, "image_id": 9, "category_id": 1, "bbox": [150, 50, 60, 10]},
    {"id": 6, "image_id": 10, "category_id": 1, "bbox": [150, 50, -1, 10]},
    {"id": 7, "image_id": 77, "category_id": 1, "bbox": [0, 0, 1, 1]}
  ],
  "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
}"#;

#[test]
fn instances_come_with_the_largest_first_and_without_crowds() {
    let folder = Folder::new();
    let objects = opened(&format!("instances:{}", folder.write("instances.json", INSTANCES)));
    let found = objects.find("000000391895", SIZE).unwrap().unwrap();
    assert_eq!(names(&found), ["person", "dog", "person"]);
    assert_eq!(found.objects[0].xyxy, Some([0.0, 0.0, 200.0, 100.0]));
    assert_eq!(found.objects[1].xyxy, Some([10.0, 20.0, 40.5, 60.0]));
    assert!(found.objects.iter().all(|object| object.confidence == 1.0 && object.attributes.is_empty()));
    assert_eq!((found.appearance, found.regions), (None, None));
    assert_has(&objects.describe(), &["4 images", "2 categories"]);
}

#[test]
fn an_image_is_known_by_its_file_name_or_its_id() {
    let folder = Folder::new();
    let file = folder.write("instances.json", INSTANCES);
    let objects = opened(&format!("instances:{file}"));
    for key in ["391895", "train2014/COCO_train2014_000000391895", "COCO_train2014_000000391895.jpg"] {
        assert_eq!(objects.find(key, SIZE).unwrap().unwrap().objects.len(), 3, "{key}");
    }
    assert_eq!(objects.find("eleven", SIZE).unwrap(), Some(Found::default()));
    assert_eq!(objects.find("11", SIZE).unwrap(), Some(Found::default()));
    assert_eq!(objects.find("other", SIZE).unwrap(), None);
    // `9` is the file of id 10; `0009` may be that or the image of id 9.
    assert_has(&objects.find("9", SIZE).unwrap_err(), &[&file, "9.jpg", "annotation 6", "ends before"]);
    assert_has(&objects.find("0009", SIZE).unwrap_err(), &[&file, "'9.jpg' by its file name", "'nine.jpg' by its id"]);
}

#[test]
fn boxes_of_another_size_of_the_image_are_refused() {
    let folder = Folder::new();
    let file = folder.write("instances.json", INSTANCES);
    let objects = opened(&format!("instances:{file}"));
    assert_has(&objects.find("391895", (100, 200)).unwrap_err(), &[&file, "200 x 100", "100 x 200", "391895"]);
    assert_has(&objects.find("nine", SIZE).unwrap_err(), &[&file, "nine.jpg", "annotation 5", "200 x 100"]);
    assert_eq!(objects.find("nine", (210, 60)).unwrap().unwrap().objects.len(), 1);
}

#[test]
fn what_is_no_file_of_instances_is_refused_with_the_place() {
    let folder = Folder::new();
    let wrong = |text: String, words: &[&str]| {
        let file = folder.write("wrong.json", text);
        assert_has(&refusal(&format!("instances:{file}")), &[&[&*file], words].concat());
    };
    wrong(INSTANCES.replace("\"bbox\": [10,", "\"bbox\": [\"x\","), &["line 10"]);
    wrong(INSTANCES.replace("\"annotations\"", "\"captions\""), &["missing field `annotations`"]);
    wrong(INSTANCES.replace("\"id\": 10,", "\"id\": 11,"), &["id 11 comes twice"]);
    wrong(INSTANCES.replace("nine.jpg", "eleven.jpg"), &["'eleven.jpg'"]);
    wrong(INSTANCES.replace("[10, 20,", "[1e999, 20,"), &["line 10"]);
    wrong("{\"images\": [], \"annotations\": [], \"categories\": []}".to_owned(), &["no images"]);
    wrong(INSTANCES[..300].to_owned(), &["EOF"]);
}

/// The same annotations as [`INSTANCES`] as other tools write them, and some that cannot be used.
const LOOSE: &str = r#"{
  "images": [
    {"id": "391895", "file_name": "COCO_train2014_000000391895.jpg", "width": 200.0, "height": 100.0},
    {"id": "nine", "file_name": "nine.jpg", "width": NaN}
  ],
  "annotations": [
    {"id": "1", "image_id": 391895.0, "category_id": "18", "bbox": [10, 20, 30.5, 40], "iscrowd": false},
    {"id": 2, "image_id": "391895", "category_id": 1.0, "bbox": [0, 0, 200.4, 100], "iscrowd": 0.0},
    {"id": 3, "image_id": 391895, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": true},
    {"id": null, "image_id": "nine", "category_id": 18, "bbox": null, "iscrowd": null},
    {"id": 5, "image_id": 391895, "category_id": 19, "bbox": [0, 0, 1, 1]},
    {"id": 6, "image_id": 391895, "category_id": null, "bbox": [0, 0, 1, 1]},
    {"id": 7, "image_id": 391895, "category_id": 1, "bbox": [0, NaN, 1, 1]},
    {"id": 8, "image_id": 391895, "category_id": 1, "bbox": [0, 1, 1]},
    {"id": 9, "image_id": 12, "category_id": 1, "bbox": [0, 0, 1, 1]}
  ],
  "categories": [{"id": "1", "name": "person"}, {"id": 18, "name": "dog"}]
}"#;

#[test]
fn instances_are_read_however_ids_and_crowds_are_written_and_the_rest_is_counted() {
    let folder = Folder::new();
    let objects = opened(&format!("instances:{}", folder.write("loose.json", format!("\u{feff}{LOOSE}"))));
    let found = objects.find("000000391895", SIZE).unwrap().unwrap();
    assert_eq!(names(&found), ["person", "dog"]);
    assert_eq!(found.objects[1].xyxy, Some([10.0, 20.0, 40.5, 60.0]));
    let found = objects.find("nine", SIZE).unwrap().unwrap();
    assert_eq!((names(&found), found.objects[0].xyxy), (vec!["dog"], None), "an object without a box has a name");
    let faults = objects.faults();
    let counted: Vec<_> = faults.iter().map(|fault| (fault.cause, fault.count)).collect();
    assert_eq!(counted, [("bad_box", 2), ("unknown_category", 2), ("unknown_image", 1)]);
    assert_has(&faults[0].first, &["annotation 7", "four numbers"]);
    assert_has(&faults[1].first, &["annotation 5", "category 19 is not listed"]);
    assert_has(&faults[2].first, &["annotation 9", "image 12 is not listed"]);
    assert!(opened(&format!("instances:{}", folder.write("strict.json", INSTANCES))).faults().len() == 1);
}

#[test]
fn byte_order_marks_are_not_part_of_a_file() {
    let folder = Folder::new();
    let file = folder.write("marked.jsonl", format!("\u{feff}{LINES}"));
    let objects = opened(&format!("lines:{file}"));
    assert_eq!(names(&objects.find("a", SIZE).unwrap().unwrap()), ["red car", "dog", "dog"]);
    assert_eq!(names(&objects.find("b", SIZE).unwrap().unwrap()), ["cat", "sky", "car"]);
    let wide: Vec<u8> = LINES.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_has(&refusal(&format!("lines:{}", folder.write("wide.jsonl", wide))), &["UTF-16", "save it as UTF-8"]);
}

const LINES: &str = concat!(
    "{\"key\": \"a\", \"tags\": [\"red car\", \"dog\", \"dog\"]}\r\n",
    "\n",
    "{\"image\": \"b\", \"objects\": [{\"name\": \"cat\"}, {\"name\": \"car\", \"confidence\": 0.5, ",
    "\"attributes\": [\"red\", \"old\"], \"box\": [1, 2, 30, 40.5]}, {\"name\": \"sky\", \"confidence\": 0.75, \"box\": null}]}\n",
    "{\"key\": \"c\", \"objects\": []}\n",
    "{\"key\": \"d\", \"objects\": [{\"name\": \"x\"}, {\"name\": \"y\", \"box\": [0, 0, 250, 10]}]}",
);

#[test]
fn own_lines_hold_tags_or_objects() {
    let folder = Folder::new();
    let file = folder.write("own.jsonl", LINES);
    let objects = opened(&format!("lines:{file}"));
    let tags = objects.find("a.jpg", SIZE).unwrap().unwrap();
    assert_eq!(names(&tags), ["red car", "dog", "dog"]);
    assert!(tags.objects.iter().all(|object| object.confidence == 1.0 && object.xyxy.is_none()));
    let found = objects.find("b", SIZE).unwrap().unwrap();
    assert_eq!(names(&found), ["cat", "sky", "car"]);
    assert_eq!(found.objects[2].attributes, ["red", "old"]);
    assert_eq!((found.objects[2].confidence, found.objects[2].xyxy), (0.5, Some([1.0, 2.0, 30.0, 40.5])));
    assert_eq!(objects.find("c", SIZE).unwrap(), Some(Found::default()));
    assert_eq!(objects.find("e", SIZE).unwrap(), None);
    let error = objects.find("d", SIZE).unwrap_err();
    assert_has(&error, &[&file, "line 5", &format!("byte {}", LINES.rfind('\n').unwrap() + 1), "object 2", "200 x 100"]);
}

#[test]
fn lines_that_are_wrong_are_refused_with_their_number() {
    let folder = Folder::new();
    for (line, words) in [
        (r#"{"key": "b", "tag": ["x"]}"#, "unknown field `tag`"),
        (r#"{"key": "b", "objects": [{"name": "x", "conf": 1}]}"#, "unknown field `conf`"),
        (r#"{"key": "b", "objects": [{"name": "x", "confidence": 1.5}]}"#, "object 1: confidence"),
        (r#"{"key": "b", "objects": [{"name": "x", "confidence": NaN}]}"#, "column"),
        (r#"{"key": "b", "objects": [{"name": " "}]}"#, "object 1: the name is empty"),
        (r#"{"key": "b", "objects": [], "tags": []}"#, "either `tags` or `objects`"),
        (r#"{"key": "b"}"#, "either `tags` or `objects`"),
        (r#"{"key": "b", "tags": [""]}"#, "a tag is empty"),
        (r#"{"key": "", "tags": []}"#, "the key is empty"),
        (r#"{"tags": []}"#, "missing field `key`"),
        (r#"{"key": "a", "tags": []}"#, "key 'a' again, first in line 1"),
        (r#"{"key": "b", "tags": ["#, "EOF"),
        ("b\tdog", "column 1"),
    ] {
        let file = folder.write("wrong.jsonl", format!("{{\"key\": \"a\", \"tags\": []}}\n\n{line}\n"));
        assert_has(&refusal(&format!("lines:{file}")), &[&file, "line 3 (byte 26)", words]);
    }
}
