//! VinVL's features and labels.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;

const WIDTH: usize = 2048;

/// Appearance that begins with a mark by which it is known.
fn appearance(mark: f32) -> Vec<f32> {
    (0..WIDTH).map(|i| if i == 0 { mark } else { (i % 7) as f32 }).collect()
}

/// Appearance with the place behind it, as in the downloads.
fn placed(mark: f32, [x1, y1, x2, y2]: [f32; 4]) -> Vec<f32> {
    let (w, h) = (SIZE.0 as f32, SIZE.1 as f32);
    [appearance(mark), vec![x1 / w, y1 / h, x2 / w, y2 / h, (x2 - x1) / w, (y2 - y1) / h]].concat()
}

fn base64(numbers: &[f32]) -> String {
    STANDARD.encode(numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
}

fn marks(found: &Found) -> Vec<f32> {
    let rows = found.appearance.as_ref().unwrap();
    assert_eq!(rows.len(), found.objects.len() * WIDTH);
    rows.chunks(WIDTH).map(|row| row[0]).collect()
}

const BOXES: [[f32; 4]; 3] = [[1.0, 2.0, 50.0, 60.0], [0.0, 0.0, 200.0, 100.0], [10.5, 20.25, 30.0, 40.0]];

/// Three objects, of which the second and third are the most certain.
fn labels() -> Value {
    json!([
        {"class": "car", "rect": BOXES[0], "conf": 0.25, "attributes": ["old", "red", "flat"], "attr_scores": [0.3, 0.9, 0.05]},
        {"class": "sky", "rect": BOXES[1], "conf": 0.75, "attributes": ["blue"]},
        {"class": "dog", "rect": BOXES[2], "conf": 0.75},
    ])
}

fn matrix() -> String {
    base64(&(0..3).flat_map(|i| placed(i as f32, BOXES[i])).collect::<Vec<_>>())
}

fn check(found: &Found) {
    assert_eq!(names(found), ["sky", "dog", "car"]);
    assert_eq!(marks(found), [1.0, 2.0, 0.0]);
    assert_eq!(found.objects[2].attributes, ["red", "old"]);
    assert_eq!(found.objects[0].attributes, ["blue"]);
    assert_eq!(found.objects.iter().map(|object| object.confidence).collect::<Vec<_>>(), [0.75, 0.75, 0.25]);
    for (object, expected) in found.objects.iter().zip([BOXES[1], BOXES[2], BOXES[0]]) {
        assert!(object.xyxy.unwrap().iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3), "{object:?}");
    }
    assert_eq!(found.regions, None);
}

#[test]
fn what_the_extractor_writes_is_read() {
    let folder = Folder::new();
    let mut objects = labels();
    for (i, object) in objects.as_array_mut().unwrap().iter_mut().enumerate() {
        object["feature"] = base64(&appearance(i as f32)).into();
        object["bbox_id"] = i.into();
    }
    let with = json!({"objects": objects, "relations": []});
    let without = json!({"objects": labels(), "image_w": 200, "image_h": 100.0});
    let file = folder.write("x.tsv", format!("a/1\t{with}\r\na/2\t{without}\r\na/3\t{{\"objects\": []}}\r\n\r\n"));
    let vinvl = opened(&format!("vinvl:{file}"));
    check(&vinvl.find("a/1.jpg", SIZE).unwrap().unwrap());
    let found = vinvl.find("2", SIZE).unwrap().unwrap();
    assert_eq!((names(&found), &found.appearance), (vec!["sky", "dog", "car"], &None));
    assert_eq!(vinvl.find("3", SIZE).unwrap(), Some(Found::default()));
    assert_eq!(vinvl.find("4", SIZE).unwrap(), None);
    assert_eq!(vinvl.describe(), "VinVL TSV, 3 images");
    assert_has(&vinvl.find("2", (100, 200)).unwrap_err(), &[&file, "line 2", "200 x 100", "100 x 200"]);
}

#[test]
fn the_downloads_are_read_in_each_of_their_forms() {
    let folder = Folder::new();
    let rows: Vec<String> = (0..3).map(|i| base64(&placed(i as f32, BOXES[i]))).collect();
    let plain = base64(&(0..3).flat_map(|i| appearance(i as f32)).collect::<Vec<_>>());
    let features = folder.write(
        "features.tsv",
        [
            format!("1\t3\t{}", matrix()),
            format!("2\t{}", json!({"num_boxes": 3, "features": matrix()})),
            format!("3\t{}", json!({"num_boxes": 3, "features": rows})),
            format!("4\t3\t{plain}\n5\t0\t"),
        ]
        .join("\n"),
    );
    let named = json!({"objects": labels()});
    // In another order than the features.
    let of = folder.write("labels.tsv", format!("5\t[]\n4\t{named}\n3\t{0}\n2\t{0}\n1\t{0}\n", labels()));
    let vinvl = opened(&format!("vinvl:{features},labels={of}"));
    for key in ["1", "2", "3", "COCO_val2014_000000000004.jpg"] {
        check(&vinvl.find(key, SIZE).unwrap().unwrap());
    }
    let none = vinvl.find("5", SIZE).unwrap().unwrap();
    assert_eq!((none.objects, none.appearance, none.regions), (vec![], Some(vec![]), None));
    assert_eq!(vinvl.describe(), "VinVL TSV with labels, 5 images");
}

#[test]
fn features_boxes_and_objects_may_stand_in_one_row() {
    let folder = Folder::new();
    let plain = base64(&(0..3).flat_map(|i| appearance(i as f32)).collect::<Vec<_>>());
    let unplaced = json!([
        {"name": "car", "confidence": 0.25, "attributes": ["red", "old"]},
        {"class": "sky", "conf": 0.75, "attributes": ["blue"]},
        {"class": "dog", "conf": 0.75},
    ]);
    let rows = [
        json!({"features": plain, "bbox": BOXES, "objects": unplaced}),
        json!({"features": plain, "bbox": base64(&BOXES.concat()), "objects": unplaced, "num_boxes": 3}),
        json!({"features": matrix(), "objects": unplaced}),
        json!({"features": matrix(), "bbox": BOXES, "objects": ["car", "sky", "dog"]}),
        json!({"bbox": BOXES, "objects": ["car", "sky", "dog"]}),
    ];
    let text: String = rows.iter().enumerate().map(|(i, row)| format!("{i}\t{row}\n")).collect();
    let vinvl = opened(&format!("vinvl:{}", folder.write("x.tsv", text)));
    for key in ["0", "1", "2"] {
        check(&vinvl.find(key, SIZE).unwrap().unwrap());
    }
    // Names without confidence are certain and stay in their order.
    let found = vinvl.find("3", SIZE).unwrap().unwrap();
    assert_eq!((names(&found), marks(&found)), (vec!["car", "sky", "dog"], vec![0.0, 1.0, 2.0]));
    assert_eq!(found.objects[2].confidence, 1.0);
    assert_eq!(vinvl.find("4", SIZE).unwrap().unwrap().objects[2].xyxy, Some(BOXES[2]));
}

#[test]
fn features_without_labels_are_finished_regions() {
    let folder = Folder::new();
    let plain = base64(&appearance(5.0));
    let boxed = json!({"features": plain, "bbox": [[0, 0, 100, 100]]});
    let text = format!("1\t3\t{}\n2\t1\t{plain}\n3\t{boxed}\n4\t0\t\n5\t{{}}\n", matrix());
    let file = folder.write("x.tsv", text);
    let vinvl = opened(&format!("vinvl:{file}"));
    let found = vinvl.find("1", SIZE).unwrap().unwrap();
    assert!(found.objects.is_empty() && found.appearance.is_none());
    let (width, rows) = found.regions.unwrap();
    assert_eq!((width, rows.len()), (2052, 3 * 2052));
    for (i, row) in rows.chunks(2052).enumerate() {
        assert_eq!(row[0], i as f32);
        let [x1, y1, x2, y2] = BOXES[i];
        let expected = [x1 / 200.0, y1 / 100.0, x2 / 200.0, y2 / 100.0];
        assert!(row[2048..].iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{:?}", &row[2048..]);
    }
    assert_has(&vinvl.find("2", SIZE).unwrap_err(), &[&file, "line 2", "without boxes", "labels"]);
    assert_eq!(vinvl.find("3", SIZE).unwrap().unwrap().regions.unwrap().1[2048..], [0.0, 0.0, 0.5, 1.0]);
    assert_eq!(vinvl.find("4", SIZE).unwrap().unwrap().regions, Some((2052, vec![])));
    assert_has(&vinvl.find("5", SIZE).unwrap_err(), &[&file, "line 5", "neither objects nor features"]);
}

#[test]
fn bottom_up_attention_is_read_as_finished_regions() {
    let folder = Folder::new();
    let boxes: Vec<f32> = BOXES.concat();
    let matrix: Vec<f32> = (0..3).flat_map(|i| appearance(i as f32)).collect();
    let row =
        |size: (u32, u32), count: usize| format!("{}\t{}\t{count}\t{}\t{}\r\n", size.0, size.1, base64(&boxes), base64(&matrix));
    let lines = format!("\u{feff}one\t{}two\t{}three\t{}", row(SIZE, 3), row((100, 200), 3), row(SIZE, 4));
    let file = folder.write("bottom_up.tsv", lines);
    let objects = opened(&format!("vinvl:{file}"));
    let found = objects.find("one", SIZE).unwrap().unwrap();
    let (width, rows) = found.regions.as_ref().unwrap();
    assert!(found.unnamed && found.objects.is_empty());
    assert_eq!((*width, rows.len()), (WIDTH + 4, 3 * (WIDTH + 4)));
    assert_eq!((rows[0], rows[WIDTH + 4], rows[2 * (WIDTH + 4)]), (0.0, 1.0, 2.0));
    assert_eq!(rows[WIDTH..WIDTH + 4], [1.0 / 200.0, 0.02, 0.25, 0.6]);
    assert_has(&objects.find("two", SIZE).unwrap_err(), &[&file, "line 2", "100 x 200", "200 x 100"]);
    assert_has(&objects.find("three", SIZE).unwrap_err(), &[&file, "line 3", "3 boxes, but 4"]);
}

#[test]
fn rows_that_cannot_be_used_are_told_with_their_place() {
    let folder = Folder::new();
    let nan = {
        let mut row = placed(0.0, BOXES[0]);
        row[7] = f32::NAN;
        base64(&row)
    };
    let object = |more: Value| {
        let mut object = json!({"class": "car", "rect": BOXES[0], "conf": 0.5});
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"objects": [{"class": "sky", "conf": 1}, object]}).to_string()
    };
    let one = base64(&appearance(1.0));
    let whole = matrix();
    for (payload, words) in [
        (format!("3\t{}", &whole[..whole.len() - 3]), "not whole base64"),
        (format!("3\t{}", &whole[..whole.len() - 4]), "no whole numbers"),
        (format!("3\t{}", &whole[..whole.len() - 16]), "neither 2048 nor 2054 a box"),
        (format!("2\t{whole}"), "6162 numbers for 2 boxes"),
        (format!("99999999999999999\t{whole}"), "99999999999999999 boxes"),
        (format!("1\t{nan}"), "number 7 of the features is not finite"),
        (format!("1\t{}", base64(&placed(0.0, [0.0, 0.0, 250.0, 10.0]))), "features: row 1: box"),
        (json!({"num_boxes": 2, "features": whole}).to_string(), "6162 numbers for 2 boxes"),
        (json!({"num_boxes": 2, "objects": labels()}).to_string(), "3 objects, but 2 are announced"),
        (json!({"bbox": [BOXES[0]], "objects": labels()}).to_string(), "1 boxes, but 3 are announced"),
        (json!({"features": [one], "objects": labels()}).to_string(), "1 rows of features, but 3 boxes"),
        (json!({"features": one}).to_string(), "without `num_boxes`"),
        (json!({"bbox": [[0, 0, 201.5, 50]], "objects": ["x"]}).to_string(), "bbox: row 1: box"),
        (json!({"bbox": "AAAA", "objects": ["x"]}).to_string(), "bbox: base64 of 3 bytes"),
        (json!({"bbox": [[0, 0, 1]], "objects": ["x"]}).to_string(), "bbox: invalid length 3"),
        (
            json!({"features": base64(&placed(0.0, BOXES[0])), "bbox": [BOXES[1]], "objects": ["x"]}).to_string(),
            "by its features",
        ),
        (json!({"objects": labels(), "image_w": 640, "image_h": 480}).to_string(), "640 x 480"),
        (
            object(json!({"rect": [0, 0, 100, 150]})),
            "object 2: box [0.0, 0.0, 100.0, 150.0] stands out of the image of 200 x 100",
        ),
        (object(json!({"rect": [9, 0, 8, 10]})), "object 2: box"),
        (object(json!({"conf": 1.5})), "object 2: confidence 1.5"),
        (object(json!({"conf": null})), "object 2: no `conf`"),
        (object(json!({"class": ""})), "object 2: the class is empty"),
        (object(json!({"class": 7})), "object 2: invalid type"),
        (object(json!({"attributes": ["a"], "attr_scores": [0.1, 0.2]})), "object 2: 1 attributes, but 2 scores"),
        (object(json!({"feature": one})), "object 2: some objects have a `feature`"),
        ("{\"objects\": [{\"class\": \"car\", \"conf\": NaN}]}".to_owned(), "column"),
        ("{\"objects\": [".to_owned(), "EOF"),
        ("three\tAAAA".to_owned(), "are needed behind the key"),
        (String::new(), "are needed behind the key"),
        ("1\t\u{fffd}".to_owned(), "not whole base64"),
    ] {
        let file = folder.write("x.tsv", format!("a\t[]\nkey\t{payload}\nz\t[]\n"));
        let vinvl = opened(&format!("vinvl:{file}"));
        assert_has(&vinvl.find("key", SIZE).unwrap_err(), &[&file, "line 2 (byte 5)", words]);
        assert_eq!(vinvl.find("z", SIZE).unwrap(), Some(Found::default()), "other rows are not concerned");
    }
}

#[test]
fn labels_that_do_not_belong_to_the_features_are_told() {
    let folder = Folder::new();
    let features = folder.write(
        "features.tsv",
        format!("1\t3\t{0}\n2\t3\t{0}\n3\t3\t{0}\n4\t{1}\n5\t3\t{0}\n6\t3\t{0}\n", matrix(), json!({"objects": labels()})),
    );
    let mut moved = labels();
    moved[1]["rect"] = json!([0, 0, 100, 100]);
    let outside = json!([{"class": "car", "rect": [0, 0, 500, 10], "conf": 0.5}]);
    let text = format!("1\t[]\n2\t{moved}\n4\t{0}\n5\t{outside}\n6\t{{\"bbox\": [], \"objects\": []}}\n", labels());
    let of = folder.write("labels.tsv", text);
    let vinvl = opened(&format!("vinvl:{features},labels={of}"));
    let error = |key| vinvl.find(key, SIZE).unwrap_err();
    assert_has(&error("1"), &[&features, "line 1", "0 objects, but 3 boxes"]);
    assert_has(&error("2"), &[&features, "line 2", "object 2", "by its features"]);
    assert_has(&error("3"), &[&of, &features, "no labels of '3'"]);
    assert_has(&error("4"), &[&features, "line 4", "leave the labels out"]);
    assert_has(&error("5"), &[&of, "line 4", "object 1", "200 x 100"]);
    assert_has(&error("6"), &[&features, "line 6", "0 objects, but 3 boxes"]);
    // Features given as labels.
    let vinvl = opened(&format!("vinvl:{features},labels={features}"));
    assert_has(&vinvl.find("1", SIZE).unwrap_err(), &[&features, "line 1", "a list of objects"]);
}

#[test]
fn a_larger_file_is_read_from_two_threads() {
    let folder = Folder::new();
    let count = 650;
    let text: String = (0..count)
        .map(|i| format!("shard/{i:09}\t2\t{}\n", base64(&[placed(i as f32, BOXES[0]), placed(-1.0, BOXES[1])].concat())))
        .collect();
    assert!(text.len() > 10_000_000);
    let vinvl = opened(&format!("vinvl:{}", folder.write("x.tsv", text)));
    let read = |step: usize| {
        for i in (0..count).map(|i| i * step % count) {
            let (width, rows) = vinvl.find(&format!("{i:09}.jpg"), SIZE).unwrap().unwrap().regions.unwrap();
            assert_eq!((rows[0], rows[width]), (i as f32, -1.0));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| read(7));
        scope.spawn(|| read(333));
    });
}
