//! Data sets of every layout, whole and damaged.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write;
use std::path::Path;

use softclip_data::image::DecodeOptions;
use softclip_data::inspect::inspect;
use softclip_data::source::{SampleErrorKind, Source, SourceError, SourceFaultKind, open};

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
fn shards_are_read_by_index_with_all_their_members() {
    let folder = Folder::new();
    let npy = [
        b"\x93NUMPY\x01\x00".as_slice(),
        &64u16.to_le_bytes(),
        format!("{:<64}", "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }").as_bytes(),
        &[1.5f32.to_le_bytes(), 2.5f32.to_le_bytes()].concat(),
    ]
    .concat();
    let members: Vec<(&str, &[u8])> = vec![
        ("a.png", b"image a"),
        ("a.txt", b"a caption"),
        ("b.jpg", b"image b"),
        ("b.json", br#"{"captions": ["one", "two", " "], "width": 3}"#),
        ("b.txt", b"not used"),
        ("b.tags.json", br#"["dog", "dog"]"#),
        ("b.rois.npy", &npy),
        ("c.x/d.JPEG", b"image c"),
        ("c.x/d.json", br#"{"caption": "three"}"#),
    ];
    let plain = folder.put("s-00.tar", &tar(&members));
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zipped.write_all(&tar(&members)).unwrap();
    folder.put("s-01.tar.gz", &zipped.finish().unwrap());
    let source = open(&format!("{plain}::{}", folder.path("s-01.tar.gz"))).unwrap();
    assert_eq!(keys(&*source), ["s-00/a", "s-00/b", "s-00/c.x/d", "s-01/a", "s-01/b", "s-01/c.x/d"]);
    assert!(source.faults().is_empty());
    for shard in [0, 3] {
        let [a, b, c] = [0, 1, 2].map(|i| source.read(shard + i).unwrap());
        assert_eq!((a.image.as_slice(), a.captions), (b"image a".as_slice(), vec!["a caption".to_owned()]));
        assert_eq!(b.captions, ["one", "two"]);
        assert_eq!(b.tags.unwrap(), ["dog", "dog"]);
        assert_eq!(b.rois.unwrap().features, [1.5, 2.5]);
        assert_eq!(c.captions, ["three"]);
    }
    assert!(source.read(6).is_err());
}

#[test]
fn a_cut_shard_serves_what_is_whole_and_says_where_it_ends() {
    let folder = Folder::new();
    let bytes = tar(&[("a.png", &png()), ("a.txt", b"a caption"), ("b.png", &[7; 5000]), ("b.txt", b"another")]);
    for cut in [2600, 3000, 6000, 7000] {
        let source = open(&folder.put("cut.tar", &bytes[..cut])).unwrap();
        assert_eq!(keys(&*source)[0], "cut/a", "{cut}");
        assert!(kinds(&*source).contains(&SourceFaultKind::TruncatedShard), "{cut}: {:?}", source.faults());
        assert!(source.faults().iter().any(|fault| fault.place.contains("cut.tar, byte")));
        assert!(source.read(0).is_ok());
    }
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    zipped.write_all(&bytes).unwrap();
    let zipped = zipped.finish().unwrap();
    let source = open(&folder.put("cut.tar.gz", &zipped[..3000])).unwrap();
    assert_eq!((source.len(), kinds(&*source)[0]), (1, SourceFaultKind::TruncatedShard));
    let message = error(&folder.put("text.tar", &[b'x'; 4000])).to_string();
    assert!(message.contains("not a tar"), "{message}");
    let message = error(&folder.put("empty.tar", b"")).to_string();
    assert!(message.contains("no usable sample"), "{message}");
}

#[test]
fn samples_that_lack_something_are_counted_by_cause() {
    let folder = Folder::new();
    let image = png();
    let path = folder.put(
        "bad.tar",
        &tar(&[
            ("good.png", &image),
            ("good.txt", b"fine"),
            ("blank.png", &image),
            ("blank.txt", b" \n"),
            ("latin.png", &image),
            ("latin.txt", b"caf\xe9"),
            ("zero.png", b""),
            ("zero.txt", b"nothing to see"),
            ("json.png", &image),
            ("json.json", b"{\"captions\": [1]}"),
            ("cut.png", &image[..image.len() / 2]),
            ("cut.txt", b"half"),
            ("noise.jpg", b"no image at all"),
            ("noise.txt", b"text"),
            ("rois.png", &image),
            ("rois.txt", b"text"),
            ("rois.rois.npy", b"no array"),
            ("alone.png", &image),
            ("text.txt", b"no image"),
            ("good.png", &image),
        ]),
    );
    let source = open(&path).unwrap();
    assert_eq!(source.len(), 8);
    use {SampleErrorKind as E, SourceFaultKind as F};
    let mut found = kinds(&*source);
    found.sort();
    assert_eq!(found, [F::DuplicateKey, F::MissingImage, F::MissingCaption]);
    let cause = |i: usize| source.read(i).err().map(|e| e.kind);
    let causes: Vec<_> = (0..8).map(cause).collect();
    let expected =
        [None, Some(E::EmptyCaption), Some(E::InvalidUtf8), Some(E::EmptyImage), Some(E::BadJson), None, None, Some(E::BadRois)];
    assert_eq!(causes, expected);
    assert!(source.read(2).unwrap_err().to_string().starts_with("sample 'bad/latin': invalid_utf8: "));

    let report = inspect(&*source, DecodeOptions::default(), 77, |_| {}).unwrap();
    assert_eq!((report.samples, report.usable, report.captions), (8, 1, 1));
    let unusable: Vec<(&str, usize)> = report.unusable.iter().map(|(k, &n)| (k.as_str(), n)).collect();
    assert_eq!(
        unusable,
        [
            ("bad_json", 1),
            ("bad_rois", 1),
            ("empty_caption", 1),
            ("empty_image", 1),
            ("invalid_utf8", 1),
            ("truncated_image", 1),
            ("unknown_format", 1)
        ]
    );
    assert_eq!(report.width.unwrap().max, 40);
    let text = report.to_string();
    assert!(text.contains("usable        1 of 8 samples") && text.contains("missing_caption 1"), "{text}");
}

#[test]
fn sidecars_are_zipped_by_key_and_a_mismatch_is_refused() {
    let folder = Folder::new();
    let main = folder.put("main.tar", &tar(&[("a.png", b"x"), ("a.txt", b"1"), ("b.png", b"x"), ("b.txt", b"2")]));
    let side = folder.put("side.tar", &tar(&[("a.tags.json", br#"["cat"]"#), ("b.tags.json", br#"[]"#)]));
    let source = open(&format!("{main}+{side}")).unwrap();
    assert_eq!(source.read(0).unwrap().tags.unwrap(), ["cat"]);
    assert_eq!(source.read(1).unwrap().tags.unwrap(), [] as [&str; 0]);
    let other = folder.put("other.tar", &tar(&[("a.tags.json", b"[]"), ("c.tags.json", b"[]")]));
    let message = error(&format!("{main}+{other}")).to_string();
    assert!(message.contains("sample 1 is 'b' in one and 'c' in the other"), "{message}");
    let short = folder.put("short.tar", &tar(&[("a.tags.json", b"[]")]));
    assert!(error(&format!("{main}+{short}")).to_string().contains("2 keys against 1"));
}

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
    assert_eq!(names(""), ["a", "b", "c"]);
    assert_eq!(names(",test"), ["b"]);
    assert_eq!(names(",split=train+restval"), ["a", "c"]);
    let message = error(&format!("karpathy:{file},{images},val")).to_string();
    assert!(message.contains("no split 'val' (it has restval, test, train)"), "{message}");
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
fn class_folders_give_ids_and_names() {
    let folder = Folder::new();
    for name in ["n02/b.png", "n01/a.png", "n01/c.txt"] {
        folder.put(&format!("val/{name}"), b"x");
    }
    folder.put("val/classnames.tsv", b"n01\ttench\n");
    let archive = folder.put("v/val.tar", &tar(&[("n02/b.png", b"x"), ("n01/a.png", b"x")]));
    folder.put("v/classnames.tsv", b"n01\ttench\n");
    for place in [folder.path("val"), archive] {
        let source = open(&format!("folder:{place}")).unwrap();
        assert_eq!(source.classes().unwrap(), ["tench", "n02"]);
        assert_eq!(keys(&*source), ["n01/a", "n02/b"]);
        assert_eq!([0, 1].map(|i| source.read(i).unwrap().class), [Some(0), Some(1)]);
    }
}

#[test]
fn what_cannot_be_understood_is_said() {
    let folder = Folder::new();
    let here = folder.0.path().display().to_string();
    for (spec, words) in [
        ("".to_owned(), "nothing is named"),
        ("s3://bucket/x.tar".to_owned(), "download the shards first"),
        ("imagenet:x".to_owned(), "unknown kind of data set"),
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
