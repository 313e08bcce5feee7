//! A job from images to what the loader reads.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use softclip_data::source::{self, Source};
use softclip_detector::{DetectorConfig, Letterbox, Thresholds};
use softclip_extract::{Backbone, ExtractOptions, Origin, Outcome, Part, extract, import};
use softclip_pretrained::{HubOptions, Pretrained};
use softclip_tensor::Precision;
use tch::Device;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens")).join(name)
}

/// 40 × 20 pixels of blue with a red square of 10 at the left and, for odd numbers, a green one at the right.
fn png(number: usize) -> Vec<u8> {
    let image = image::RgbImage::from_fn(40, 20, |x, y| match (x / 10, y / 10) {
        (0, 0) if number != 4 => image::Rgb([255, 0, 0]),
        (3, 1) if number % 2 == 1 => image::Rgb([0, 255, 0]),
        _ => image::Rgb([0, 0, 255]),
    });
    let mut file = std::io::Cursor::new(Vec::new());
    image.write_to(&mut file, image::ImageFormat::Png).unwrap();
    file.into_inner()
}

fn tar(path: &Path, members: &[(String, Vec<u8>)]) {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    std::fs::write(path, builder.into_inner().unwrap()).unwrap();
}

/// Three shards of five samples; the one with the number 7 is no image, the shard in the middle has a sample without caption too.
fn shards(dir: &Path) -> String {
    for shard in 0..3 {
        let samples = (0..5).flat_map(|i| {
            let number = 5 * shard + i;
            let bytes = if number == 7 { b"\x89PNG of no use".to_vec() } else { png(number) };
            [(format!("{number:03}.png"), bytes), (format!("{number:03}.txt"), b"a caption".to_vec())]
        });
        let mut members: Vec<_> = samples.collect();
        if shard == 1 {
            members.insert(4, ("orphan.png".to_owned(), png(1)));
        }
        tar(&dir.join(format!("{shard:05}.tar")), &members);
    }
    dir.join("*.tar").display().to_string()
}

fn origin() -> Origin {
    let dir = tempfile::tempdir().unwrap();
    let names = dir.path().join("names.txt");
    std::fs::write(&names, "red\ngreen").unwrap();
    let thresholds = Thresholds { confidence: 0.5, ..Thresholds::default() };
    let config = DetectorConfig { classes: Some(names), thresholds, ..DetectorConfig::default() };
    Origin::Detector(Box::new(config.open(&golden("detectors/cells.pt"), true, Device::Cpu).unwrap()), thresholds)
}

fn options(out: &Path) -> ExtractOptions {
    let name = golden("resnet50_small.weights.safetensors").display().to_string();
    let pretrained = Pretrained::open(&name, &HubOptions::from_env().unwrap(), &mut |_| {}).unwrap();
    ExtractOptions {
        letterbox: Letterbox { size: 64, ..Letterbox::default() },
        backbone: Some(Backbone::new(pretrained, Precision::Fp32, Device::Cpu).unwrap()),
        batch_size: 2,
        threads: 2,
        max_bad_share: 0.1,
        ..ExtractOptions::new(out.to_owned(), "the shards".to_owned())
    }
}

fn run(source: &Arc<dyn Source>, options: &ExtractOptions) -> Outcome {
    extract(source, &origin(), options, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

fn names(out: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(out).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn sidecars_hold_what_is_in_the_images_and_the_loader_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let (spec, out) = (shards(dir.path()), dir.path().join("soft"));
    let source = source::open(&spec).unwrap();
    let outcome = run(&source, &options(&out));
    assert_eq!((outcome.sidecars, outcome.samples, outcome.images, outcome.interrupted), (3, 15, 15, false));
    // Of fourteen images all but number 4 have a red square, the odd ones a green one: 7 is no image.
    assert_eq!((outcome.objects, outcome.without_objects, outcome.regions), (13 + 6, 1, 13 + 6));
    assert_eq!(outcome.skipped.values().sum::<usize>(), 1);

    let spec = format!("{spec}+{}", out.join("*.tar").display());
    let with = source::open(&spec).unwrap();
    for i in 0..15 {
        if i == 7 {
            assert!(with.read(i).unwrap().tags.is_none(), "what could not be looked at is not without objects");
            continue;
        }
        let sample = with.read(i).unwrap();
        let expected: &[&str] = if i == 4 {
            &[]
        } else if i % 2 == 1 {
            &["red", "green"]
        } else {
            &["red"]
        };
        assert_eq!(sample.tags.as_ref().unwrap(), expected, "{i}");
        let rois = sample.rois.unwrap();
        assert_eq!((rois.count, rois.dim), (expected.len(), 128 + 4));
        if i == 1 {
            assert_eq!(rois.features[128..132], [0.0, 0.0, 0.25, 0.5]);
            assert_eq!(rois.features[260..264], [0.75, 0.5, 1.0, 1.0]);
            assert!(rois.features[..128] != rois.features[132..260] && rois.features[..128].iter().any(|&x| x > 0.0));
        }
    }
    // Other images under the same keys.
    tar(&dir.path().join("00002.tar"), &[("010.png".into(), png(1)), ("010.txt".into(), b"x".to_vec())]);
    let error = source::open(&spec).err().unwrap().to_string();
    assert!(error.contains("00002.tar") && error.contains("do not belong together"), "{error}");
}

#[test]
fn whole_sidecars_are_never_made_again_and_half_ones_never_count() {
    let dir = tempfile::tempdir().unwrap();
    let (spec, out) = (shards(dir.path()), dir.path().join("soft"));
    let source = source::open(&spec).unwrap();
    let first = options(&out);
    // Stopped in the second shard.
    let stopped = extract(&source, &origin(), &first, &mut |done, of| {
        assert_eq!(of, 15);
        if done >= 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(stopped.unwrap().interrupted);
    assert_eq!(names(&out), [".lock", "00000.sidecar.json", "00000.tar", "manifest.json"]);
    let made = std::fs::metadata(out.join("00000.tar")).unwrap().modified().unwrap();
    // As a kill leaves it: a half file under another name, and a sidecar whose record is not there yet.
    std::fs::write(out.join("00001.tar.partial-12345"), b"half").unwrap();
    std::fs::write(out.join("00002.tar"), b"of no record").unwrap();

    let again = run(&source, &options(&out));
    assert_eq!((again.done_before, again.images, again.interrupted), (1, 10, false));
    assert_eq!(std::fs::metadata(out.join("00000.tar")).unwrap().modified().unwrap(), made);
    assert!(names(&out).iter().all(|name| !name.contains("partial")));
    assert_eq!((again.samples, again.objects), (15, 19), "the report tells of all");

    let straight = dir.path().join("straight");
    run(&source, &ExtractOptions { batch_size: 5, threads: 1, ..options(&straight) });
    // The same to f16's rounding, however images were put together.
    let read = |folder: &Path| source::open(&format!("{spec}+{}", folder.join("*.tar").display())).unwrap();
    let (one, other) = (read(&out), read(&straight));
    for i in (0..15).filter(|&i| i != 7) {
        let (a, b) = (one.read(i).unwrap(), other.read(i).unwrap());
        assert_eq!(a.tags, b.tags);
        let (a, b) = (a.rois.unwrap(), b.rois.unwrap());
        assert_eq!((a.count, a.dim), (b.count, b.dim));
        assert!(a.features.iter().zip(&b.features).all(|(x, y)| (x - y).abs() <= 2e-3 * x.abs().max(1.0)));
    }
    let nothing = run(&source, &options(&out));
    assert_eq!((nothing.done_before, nothing.images), (3, 0));
    // Another job does not mix with it.
    let other = ExtractOptions { tags: 3, ..options(&out) };
    let error = extract(&source, &origin(), &other, &mut |_, _| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(error.contains("tags was 10 and is 3 now"), "{error}");
}

#[test]
fn processes_share_a_job() {
    let dir = tempfile::tempdir().unwrap();
    let (spec, out) = (shards(dir.path()), dir.path().join("soft"));
    let source = source::open(&spec).unwrap();
    // At once: who comes first settles how it is done, and nobody removes what another is writing.
    std::thread::scope(|scope| {
        for rank in 0..4 {
            let (source, out) = (&source, &out);
            scope.spawn(move || {
                let outcome = run(source, &ExtractOptions { part: Part { rank, of: 4 }, ..options(out) });
                assert_eq!(outcome.sidecars, usize::from(rank < 3));
            });
        }
    });
    assert_eq!(run(&source, &options(&out)).done_before, 3);
    let error = ExtractOptions { part: Part { rank: 2, of: 2 }, ..options(&out) }.validate().unwrap_err().to_string();
    assert!(error.contains("ranks are from 0 to 1"), "{error}");
}

#[test]
fn too_many_bad_images_end_a_job() {
    let dir = tempfile::tempdir().unwrap();
    let members = |i: usize| [(format!("{i:03}.png"), b"no image".to_vec()), (format!("{i:03}.txt"), b"x".to_vec())];
    tar(&dir.path().join("a.tar"), &(0..5).flat_map(members).collect::<Vec<_>>());
    let source = source::open(&dir.path().join("a.tar").display().to_string()).unwrap();
    let out = dir.path().join("soft");
    // The limit is a fraction of all samples where these are few: half of five are two.
    let options = ExtractOptions { max_bad_share: 0.5, ..options(&out) };
    let error = extract(&source, &origin(), &options, &mut |_, _| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(error.contains("3 of 3 samples cannot be used") && error.contains("unknown_format 3"), "{error}");
    assert_eq!(names(&out), [".lock", "manifest.json"]);
}

#[test]
fn samples_of_finished_shards_count_for_the_limit_of_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let (spec, out) = (shards(dir.path()), dir.path().join("soft"));
    // One of five in the second of three shards, in a job of 15.
    let source = source::open(&spec).unwrap();
    let options = ExtractOptions { max_bad_share: 0.07, ..options(&out) };
    let stop = |done: usize, _| if done >= 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    assert!(extract(&source, &origin(), &options, &mut { stop }).unwrap().interrupted);
    let options = ExtractOptions { stop: Arc::new(AtomicBool::new(false)), ..options };
    assert_eq!(run(&source, &options).skipped.values().sum::<usize>(), 1);
}

#[test]
fn annotations_that_cannot_be_used_are_part_of_the_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("1.png");
    std::fs::write(&image, png(1)).unwrap();
    std::fs::write(dir.path().join("t.csv"), "image,caption\n1.png,a caption\n").unwrap();
    let json = r#"{"images": [{"id": 1, "file_name": "1.png"}], "categories": [{"id": 1, "name": "car"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]}, {"image_id": 1, "category_id": 9, "bbox": [0, 0, 1, 1]}]}"#;
    std::fs::write(dir.path().join("i.json"), json).unwrap();
    let source = source::open(&format!("csv:{}", dir.path().join("t.csv").display())).unwrap();
    let origin = Origin::Given(import::open(&format!("instances:{}", dir.path().join("i.json").display())).unwrap());
    let options = ExtractOptions { backbone: None, ..options(&dir.path().join("soft")) };
    let outcome = extract(&source, &origin, &options, &mut |_, _| ControlFlow::Continue(())).unwrap();
    assert_eq!((outcome.objects, &outcome.faults["unknown_category"]), (1, &1));
}

#[test]
fn objects_found_before_serve_any_source() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = "image,caption\n".to_owned();
    for i in 0..5 {
        std::fs::write(dir.path().join(format!("{i}.png")), png(i)).unwrap();
        table += &format!("{i}.png,a caption\n");
    }
    let csv = dir.path().join("t.csv");
    std::fs::write(&csv, table).unwrap();
    let lines = dir.path().join("o.jsonl");
    let object = r#"{"name": "car", "attributes": ["red"], "confidence": 0.9, "box": [0, 0, 10, 10]}"#;
    let all = (0..4).map(|i| format!("{{\"key\": \"{i}\", \"objects\": [{}]}}\n", if i == 2 { "" } else { object }));
    std::fs::write(&lines, all.collect::<String>()).unwrap();
    let spec = format!("csv:{}", csv.display());
    let source = source::open(&spec).unwrap();
    let out = dir.path().join("soft");
    let options = ExtractOptions { shard_size: 2, max_bad_share: 0.5, ..options(&out) };
    let origin = Origin::Given(import::open(&format!("lines:{}", lines.display())).unwrap());
    let outcome = extract(&source, &origin, &options, &mut |_, _| ControlFlow::Continue(())).unwrap();
    assert_eq!((outcome.sidecars, outcome.objects, outcome.without_objects), (3, 3, 1));
    assert_eq!(outcome.skipped["missing_tags"], 1, "what the file does not name is not without objects");
    let with = source::open(&format!("{spec},sidecars={}", out.join("*.tar").display())).unwrap();
    let tags: Vec<_> = (0..5).map(|i| with.read(i).unwrap().tags.map(|tags| tags.join(", "))).collect();
    assert_eq!(tags, [Some("red car".into()), Some("red car".into()), Some(String::new()), Some("red car".into()), None]);
    assert_eq!(with.read(0).unwrap().rois.unwrap().dim, 132);

    // Without a network there are tags alone.
    let only = dir.path().join("tags");
    let options = ExtractOptions { backbone: None, out: only.clone(), stop: Arc::new(AtomicBool::new(false)), ..options };
    extract(&source, &origin, &options, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let with = source::open(&format!("{spec},sidecars={}", only.join("*.tar").display())).unwrap();
    let sample = with.read(0).unwrap();
    assert_eq!((sample.tags.unwrap(), sample.rois), (vec!["red car".to_owned()], None));
}

#[test]
fn keys_that_are_no_names_in_tars_are_written_so_that_they_are_found() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("t")).unwrap();
    let place = |name: &str| dir.path().join(name);
    for name in ["a.v2.png", "t/b.png", "c.png"] {
        std::fs::write(place(name), png(1)).unwrap();
    }
    let rows = ["../a.v2.png".to_owned(), "./b.png".to_owned(), place("c.png").display().to_string()];
    let csv = place("t/t.csv");
    std::fs::write(&csv, format!("image,caption\n{}", rows.map(|row| format!("{row},x\n")).concat())).unwrap();
    let spec = format!("csv:{}", csv.display());
    let out = place("soft");
    let outcome = run(&source::open(&spec).unwrap(), &options(&out));
    assert_eq!((outcome.samples, outcome.objects), (3, 6));
    let with = source::open(&format!("{spec},sidecars={}", out.join("*.tar").display())).unwrap();
    assert!((0..3).all(|i| with.read(i).unwrap().tags.unwrap() == ["red", "green"]));
}

#[test]
fn shards_are_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let spec = shards(dir.path());
    let source = source::open(&spec).unwrap();
    let go = |out: &Path| extract(&source, &origin(), &options(out), &mut |_, _| ControlFlow::Continue(()));
    let before = std::fs::read(dir.path().join("00001.tar")).unwrap();
    let error = go(dir.path()).unwrap_err().to_string();
    assert!(error.contains("would replace the shards"), "{error}");
    // Through a link, and a folder of other tars.
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    assert!(go(&link).is_err());
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("x.tar"), b"somebody's").unwrap();
    let error = go(&other).unwrap_err().to_string();
    assert!(error.contains("tars that are no sidecars"), "{error}");
    assert_eq!(std::fs::read(dir.path().join("00001.tar")).unwrap(), before);
    assert!(!dir.path().join("manifest.json").exists());
}

#[test]
fn a_job_that_made_nothing_does_not_stand_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let (spec, out) = (shards(dir.path()), dir.path().join("soft"));
    let source = source::open(&spec).unwrap();
    let wrong = Origin::Detector(
        Box::new(DetectorConfig::default().open(&golden("detectors/cells.pt"), true, Device::Cpu).unwrap()),
        Thresholds::default(),
    );
    let error = extract(&source, &wrong, &options(&out), &mut |_, _| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(error.contains("expected [2, n, 85]"), "{error}");
    assert_eq!(run(&source, &options(&out)).objects, 19);
}

/// A NumPy file of f32 `[rows, 6]`.
fn npy(rows: usize, value: f32) -> Vec<u8> {
    let mut file = softclip_tensor::npy::header(tch::Kind::Float, &[rows, 6]);
    file.extend(std::iter::repeat_n(value.to_le_bytes(), rows * 6).flatten());
    file
}

#[test]
fn two_files_complete_each_other_and_what_they_bring_goes_before_a_network() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = "image,caption\n".to_owned();
    std::fs::create_dir(dir.path().join("regions")).unwrap();
    for i in 0..4 {
        std::fs::write(dir.path().join(format!("{i}.png")), png(i)).unwrap();
        table += &format!("{i}.png,a caption\n");
        if i < 3 {
            std::fs::write(dir.path().join(format!("regions/{i}.npy")), npy(i, i as f32)).unwrap();
        }
    }
    let (csv, lines) = (dir.path().join("t.csv"), dir.path().join("o.jsonl"));
    std::fs::write(&csv, table).unwrap();
    let line = |i: usize| format!("{{\"key\": \"{i}.png\", \"tags\": [{}]}}\n", if i == 1 { "" } else { "\"red car\"" });
    std::fs::write(&lines, (0..4).map(line).collect::<String>()).unwrap();
    let spec = format!("csv:{}", csv.display());
    let source = source::open(&spec).unwrap();
    let arrays = || import::open(&format!("arrays:{}", dir.path().join("regions").display())).unwrap();
    let lines = || import::open(&format!("lines:{}", lines.display())).unwrap();
    for (number, origin) in [import::Both(lines(), arrays()), import::Both(arrays(), lines())].into_iter().enumerate() {
        let out = dir.path().join(format!("soft{number}"));
        let options = ExtractOptions { max_bad_share: 0.5, ..options(&out) };
        let origin = Origin::Given(Box::new(origin));
        let outcome = extract(&source, &origin, &options, &mut |_, _| ControlFlow::Continue(())).unwrap();
        assert_eq!((outcome.regions, outcome.without_objects), (3, 1));
        assert_eq!(outcome.skipped["missing_tags"], 1, "an image must be named by both");
        let with = source::open(&format!("{spec},sidecars={}", out.join("*.tar").display())).unwrap();
        let sample = with.read(2).unwrap();
        assert_eq!((sample.tags.unwrap(), sample.rois.unwrap().features), (vec!["red car".to_owned()], vec![2.0; 12]));
        assert!(with.read(1).unwrap().tags.unwrap().is_empty(), "none found is not none told");
    }
    let out = dir.path().join("alone");
    let origin = Origin::Given(arrays());
    let options = ExtractOptions { max_bad_share: 0.5, ..options(&out) };
    extract(&source, &origin, &options, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let with = source::open(&format!("{spec},sidecars={}", out.join("*.tar").display())).unwrap();
    let sample = with.read(2).unwrap();
    assert_eq!((sample.tags, sample.rois.unwrap().features), (None, vec![2.0; 12]));
}

#[test]
fn an_entry_that_would_serve_two_images_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["a", "b"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
        tar(
            &dir.path().join(folder).join(format!("{folder}.tar")),
            &[("000.png".into(), png(1)), ("000.txt".into(), b"x".to_vec())],
        );
    }
    let lines = dir.path().join("o.jsonl");
    std::fs::write(&lines, r#"{"key": "000", "tags": ["cat"]}"#).unwrap();
    let source = source::open(&dir.path().join("*/*.tar").display().to_string()).unwrap();
    let origin = Origin::Given(import::open(&format!("lines:{}", lines.display())).unwrap());
    let out = dir.path().join("soft");
    let error = extract(&source, &origin, &options(&out), &mut |_, _| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(error.contains("'a/000' and 'b/000' mean the same entry"), "{error}");
}
