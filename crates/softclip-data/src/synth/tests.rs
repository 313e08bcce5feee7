//! The folder as a whole.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;

use super::*;
use crate::source;

fn small() -> SynthOptions {
    SynthOptions { images: 21, val_images: 5, zeroshot_per_class: 2, size: 48, seed: 4, samples_per_shard: 8 }
}

fn quiet(_: usize, _: usize) {}

/// Relative path to contents, of all files.
fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn options_determine_every_byte() {
    let place = tempfile::tempdir().unwrap();
    let [one, two, other] = ["one", "two", "deep/er/other"].map(|name| place.path().join(name));
    let seen = RefCell::new(Vec::new());
    let report = write(&one, &small(), &|done, total| seen.borrow_mut().push((done, total))).unwrap();
    write(&two, &small(), &quiet).unwrap();
    write(&other, &SynthOptions { seed: 5, ..small() }, &quiet).unwrap();

    let (first, second, third) = (contents(&one), contents(&two), contents(&other));
    assert!(first == second);
    assert!(first.keys().eq(third.keys()));
    let same: Vec<_> = first.iter().filter(|(path, bytes)| third[*path] == **bytes).map(|(path, _)| path).collect();
    assert_eq!(same, [Path::new("zeroshot/classnames.tsv")]);

    // 26 images, 4 shards, 4 annotation files, 64 zero-shot images, their table, the manifest.
    assert_eq!(first.len(), 26 + 4 + 4 + 64 + 1 + 1);
    assert_eq!((report.images, report.val_images, report.zeroshot_images), (21, 5, 64));
    assert_eq!((report.classes, report.captions, report.shards), (32, 130, 4));
    assert!((26..=104).contains(&report.objects) && !report.already_there);
    let seen = seen.into_inner();
    assert_eq!((seen.first(), seen.last()), (Some(&(0, 90)), Some(&(90, 90))));
    assert!(seen.is_sorted());
    let left: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn shards_and_coco_files_say_the_same() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("data");
    write(&dir, &small(), &quiet).unwrap();
    let dir = dir.display();
    let shards = source::open(&format!("{dir}/shards/train-{{00000..00002}}.tar")).unwrap();
    let coco = source::open(&format!(
        "coco:{dir}/annotations/captions_train.json,{dir}/images/train,instances={dir}/annotations/instances_train.json"
    ))
    .unwrap();
    assert_eq!((shards.len(), coco.len()), (21, 21));
    assert!(shards.faults().is_empty() && coco.faults().is_empty());
    for i in 0..21 {
        let (a, b) = (shards.read(i).unwrap(), coco.read(i).unwrap());
        assert_eq!((&a.image, &a.captions, &a.tags), (&b.image, &b.captions, &b.tags));
        assert_eq!(a.captions.len(), 5);
        let (rois, tags) = (a.rois.unwrap(), a.tags.unwrap());
        assert_eq!((rois.count, rois.dim), (tags.len(), 112));
        assert!(tags.iter().all(|tag| a.captions.iter().any(|caption| caption.contains(tag))));
    }
    let zeroshot = source::open(&format!("folder:{dir}/zeroshot")).unwrap();
    let classes = zeroshot.classes().unwrap();
    assert_eq!((zeroshot.len(), classes.len()), (64, 32));
    assert!(classes.contains(&"red circle".to_owned()));
}

#[test]
fn instances_are_where_the_region_features_say() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("data");
    write(&dir, &small(), &quiet).unwrap();
    let text = fs::read(dir.join("annotations/instances_val.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(json["categories"].as_array().unwrap().len(), 64);
    assert_eq!(json["images"][4]["file_name"], "000000000005.jpg");
    let shard = source::open(&format!("{}/shards/val-00000.tar", dir.display())).unwrap();
    let rows: Vec<Vec<f32>> = (0..5)
        .flat_map(|i| shard.read(i).unwrap().rois.unwrap().features.chunks(112).map(<[f32]>::to_vec).collect::<Vec<_>>())
        .collect();
    let annotations = json["annotations"].as_array().unwrap();
    assert_eq!(rows.len(), annotations.len());
    for (row, annotation) in rows.iter().zip(annotations) {
        let [x, y, w, h] = [0, 1, 2, 3].map(|i| annotation["bbox"][i].as_f64().unwrap() as f32);
        let corners = [x, y, x + w, y + h].map(|at| at / 48.0);
        assert!(row[108..].iter().zip(corners).all(|(a, b)| (a - b).abs() < 1e-3));
        assert!(annotation["area"].as_f64().unwrap() <= f64::from(w * h) && annotation["iscrowd"] == 0);
    }
}

#[test]
fn tar_headers_name_no_time_and_no_owner() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("data");
    write(&dir, &small(), &quiet).unwrap();
    let mut tar = tar::Archive::new(fs::File::open(dir.join("shards/val-00000.tar")).unwrap());
    let mut names = Vec::new();
    for entry in tar.entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.mtime().unwrap(), header.uid().unwrap(), header.mode().unwrap()), (0, 0, 0o644));
        names.push(entry.path().unwrap().display().to_string());
    }
    let key = "000000000001";
    assert_eq!(names[..4], [".jpg", ".json", ".tags.json", ".rois.npy"].map(|end| format!("{key}{end}")));
    assert_eq!(names.len(), 20);
}

#[test]
fn arrays_begin_at_a_multiple_of_64_bytes() {
    for rows in [0, 1, 4, 1000] {
        let values = vec![half::f16::ONE; rows * 112];
        let bytes = super::files::npy(&values, 112);
        assert!((bytes.len() - 2 * values.len()).is_multiple_of(64));
        assert_eq!(bytes[bytes.len() - 2 * values.len() - 1], b'\n');
    }
}

#[test]
fn what_is_there_is_kept() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("data");
    fs::create_dir(&dir).unwrap(); // an empty folder is fine
    let report = write(&dir, &small(), &quiet).unwrap();
    let before = contents(&dir);

    let again = write(&dir, &small(), &|_, _| panic!("nothing to draw")).unwrap();
    assert_eq!(again, SynthReport { already_there: true, ..report });

    let error = write(&dir, &SynthOptions { images: 22, ..small() }, &quiet).unwrap_err();
    assert!(matches!(error, SynthError::Occupied { .. }) && error.to_string().contains("other options"), "{error}");
    assert!(contents(&dir) == before);

    fs::remove_file(dir.join("shards/val-00000.tar")).unwrap();
    let error = write(&dir, &small(), &quiet).unwrap_err().to_string();
    assert!(error.contains("lacks shards/val-00000.tar"), "{error}");

    let photos = place.path().join("photos");
    fs::create_dir(&photos).unwrap();
    fs::write(photos.join("a.jpg"), b"mine").unwrap();
    let error = write(&photos, &small(), &quiet).unwrap_err().to_string();
    assert!(error.contains("has no synth.json") && error.contains("another folder"), "{error}");
    assert_eq!(contents(&photos).len(), 1);
}

#[test]
fn failing_leaves_nothing_behind() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    fs::write(&file, b"mine").unwrap();
    for dir in [file.join("data"), file.clone()] {
        let error = write(&dir, &small(), &quiet).unwrap_err();
        assert!(matches!(error, SynthError::Io { .. }) && error.to_string().contains("file"), "{error}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"mine");

    // Something appears under the name while drawing.
    let dir = place.path().join("late");
    let appear = |done, _| {
        if done == 90 {
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("a.txt"), b"mine").unwrap();
        }
    };
    assert!(matches!(write(&dir, &small(), &appear).unwrap_err(), SynthError::Io { .. }));
    assert_eq!(contents(place.path()).len(), 2);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
}

#[test]
fn options_out_of_range_are_named() {
    let place = tempfile::tempdir().unwrap();
    let cases = [
        (SynthOptions { images: 0, ..small() }, "images is 0: at least 1"),
        (SynthOptions { size: 31, ..small() }, "size is 31: 32 to 2048"),
        (SynthOptions { samples_per_shard: 0, ..small() }, "samples_per_shard is 0"),
    ];
    for (options, words) in cases {
        let error = write(&place.path().join("data"), &options, &quiet).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let dir = place.path().join("least");
    let least = SynthOptions { images: 1, val_images: 0, zeroshot_per_class: 0, size: 32, ..small() };
    let report = write(&dir, &least, &quiet).unwrap();
    assert_eq!((report.shards, report.classes), (1, 0));
    assert!(!dir.join("zeroshot").exists());
    assert!(write(&dir, &least, &quiet).unwrap().already_there);
}
