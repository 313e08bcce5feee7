//! Images and masks become patches that the rest reads.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use image::{ExtendedColorType, ImageEncoder};
use serde_json::Value;
use softclip_data::patches::{Format, Pairs, PatchError, PatchMap, PatchOptions, PatchReport, SkipCause, SplitBy, write};
use softclip_data::source;

const MAP: &str = "
labels: {roof: [1, '#ff0000'], solar: [[0, 0, 255], 2]}
background: [0]
ignore: [255]
min_present: 0.1
min_labelled: 0.5
classes: {none: bare land, roof: a roof, solar: panels, both: a roof with panels, unknown: anything}
combinations:
  - {present: [], class: none}
  - {present: [roof], class: roof}
  - {present: [solar], class: solar}
  - {present: [solar, roof], class: both}
unlabelled: unknown
template: an aerial photo of {}
";

fn png(pixels: &[u8], width: u32, colour: ExtendedColorType) -> Vec<u8> {
    let height = pixels.len() as u32 * 8 / u32::from(colour.bits_per_pixel()) / width;
    let mut file = Vec::new();
    image::codecs::png::PngEncoder::new(&mut file).write_image(pixels, width, height, colour).unwrap();
    file
}

fn go_on(_: usize, _: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        ["images", "masks"].iter().for_each(|folder| fs::create_dir(world.at(folder)).unwrap());
        world
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.at(name), bytes).unwrap();
    }

    /// A pair of 10 pixels a patch and so many patches beside each other; `mask` tells the value of each pixel by patch and number.
    fn pair(&self, name: &str, patches: u32, mask: impl Fn(u32, u32) -> u8) {
        let width = 10 * patches;
        let shade = name.bytes().fold(7u8, |shade, byte| shade.wrapping_mul(31).wrapping_add(byte));
        let image: Vec<u8> = (0..width * 10).flat_map(|i| [shade, (i % width) as u8, (i / width) as u8]).collect();
        self.put(&format!("images/{name}.png"), &png(&image, width, ExtendedColorType::Rgb8));
        let value = |i: u32| mask(i % width / 10, i / width * 10 + i % 10);
        let values: Vec<u8> = (0..width * 10).map(value).collect();
        self.put(&format!("masks/{name}.png"), &png(&values, width, ExtendedColorType::L8));
    }

    /// Patch i of n pairs: bare land, a roof, panels, both, unlabelled.
    fn pairs(&self, n: usize) {
        let value = |patch, pixel| match (patch, pixel < 50) {
            (0, _) | (1 | 2, true) => 0,
            (1, false) | (3, true) => 1,
            (2, false) | (3, false) => 2,
            _ => 255,
        };
        (0..n).for_each(|i| self.pair(&format!("tile{i}"), 5, value));
    }

    fn map(&self, text: &str) -> Result<PatchMap, PatchError> {
        self.put("map.yaml", text.as_bytes());
        PatchMap::open(&self.at("map.yaml"))
    }

    fn listed(&self) -> Pairs {
        Pairs::in_folders(&self.at("images"), &self.at("masks")).unwrap()
    }

    fn cut(&self, out: &str, options: &PatchOptions) -> Result<PatchReport, PatchError> {
        write(&self.at(out), &self.listed(), &self.map(MAP).unwrap(), options, &mut go_on).map(|report| report.unwrap())
    }

    fn open(&self, spec: &str) -> std::sync::Arc<dyn source::Source> {
        source::open(&spec.replace('@', self.0.path().to_str().unwrap())).unwrap()
    }
}

fn options() -> PatchOptions {
    PatchOptions { size: 10, stride: 10, ..PatchOptions::default() }
}

/// All files below a folder by their paths in it.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Where each patch went.
fn splits(root: &Path) -> BTreeMap<String, String> {
    let files = files(root).into_keys().filter(|path| path.ends_with(".png"));
    files.map(|path| (path.rsplit('/').next().unwrap().to_owned(), path.split('/').next().unwrap().to_owned())).collect()
}

#[test]
fn folders_of_classes_feed_zero_shot_classification() {
    let world = World::new();
    world.pairs(30);
    let report = world.cut("out", &options()).unwrap();
    assert_eq!((report.pairs, report.total(), report.left_out, report.skipped.len()), (30, 150, 0, 0));
    let mut seen = 0;
    for (split, patches) in ["train", "val", "test"].into_iter().zip(report.splits()) {
        let source = world.open(&format!("folder:@/out/{split}"));
        assert_eq!((source.len(), source.faults()), (patches, [].as_slice()), "{split}");
        let names = source.classes().unwrap();
        assert_eq!(names, ["a roof with panels", "bare land", "a roof", "panels", "anything"], "{split}");
        for i in 0..source.len() {
            let sample = source.read(i).unwrap();
            // Each class is one place of the pairs, and the patch is what lies there.
            let (class, patch) = (names[sample.class.unwrap()].as_str(), sample.key.rsplit('_').nth(1).unwrap());
            let expected = ["bare land", "a roof", "panels", "a roof with panels", "anything"];
            let x: usize = patch.parse().unwrap();
            assert_eq!(class, expected[x / 10]);
            let pixels = image::load_from_memory(&sample.image).unwrap().to_rgb8();
            assert_eq!((pixels.dimensions(), pixels.get_pixel(3, 4).0[1..].to_vec()), ((10, 10), vec![x as u8 + 3, 4]));
        }
        seen += source.len();
    }
    assert_eq!(seen, 150);
    let table = report.to_string();
    assert!(table.lines().nth(2).unwrap().starts_with("roof "), "{table}");
    assert!(table.contains("total") && table.contains("30 pairs\n"), "{table}");
    let manifest: Value = serde_json::from_slice(&fs::read(world.at("out/patches.json")).unwrap()).unwrap();
    assert_eq!(manifest["counts"]["classes"][3]["class"], "both");
    assert_eq!((&manifest["map"]["labels"]["roof"][1], &manifest["options"]["seed"]), (&"#ff0000".into(), &0.into()));
    assert_eq!(manifest["sources"].as_array().unwrap().len(), 30);
    assert_eq!(fs::read_to_string(world.at("out/prompts.txt")).unwrap(), "an aerial photo of {}\n");
}

#[test]
fn shards_have_captions_and_tell_where_a_patch_is_from() {
    let world = World::new();
    world.pairs(30);
    let folders = world.cut("folders", &options()).unwrap();
    let report = world.cut("shards", &PatchOptions { format: Format::Shards, jpeg: Some(90), ..options() }).unwrap();
    assert_eq!(report, folders, "the layout changes no class and no split");
    let source = world.open("@/shards/{train,val,test}/00000.tar");
    assert_eq!((source.len(), source.faults()), (150, [].as_slice()));
    let captions: BTreeSet<String> = (0..150).flat_map(|i| source.read(i).unwrap().captions).collect();
    assert!(captions.contains("an aerial photo of a roof with panels") && captions.len() == 5, "{captions:?}");
    let mut tar = tar::Archive::new(fs::File::open(world.at("shards/train/00000.tar")).unwrap());
    let about =
        tar.entries().unwrap().map(Result::unwrap).find(|entry| entry.path().unwrap().ends_with("tile0_30_0.json")).unwrap();
    let about: Value = serde_json::from_reader(about).unwrap();
    assert_eq!(
        (&about["class"], &about["image"], &about["x"], &about["y"]),
        (&"both".into(), &"tile0".into(), &30.into(), &0.into())
    );
    assert_eq!((&about["shares"]["roof"], &about["shares"]["unlabelled"]), (&0.5.into(), &0.0.into()));
}

#[test]
fn more_patches_than_a_shard_holds_go_to_the_next() {
    let world = World::new();
    world.pair("wide", 210, |_, _| 0);
    let all = PatchOptions { stride: 2, split: "0,0,100".parse().unwrap(), format: Format::Shards, ..options() };
    assert_eq!(world.cut("out", &all).unwrap().splits(), [0, 0, 1_046]);
    assert_eq!(world.open("@/out/test/00000.tar").len(), 1_000);
    assert_eq!(world.open("@/out/test/00001.tar").len(), 46);
    assert!(!world.at("out/train").exists());
}

#[test]
fn splits_are_functions_of_names_and_seed_alone() {
    let world = World::new();
    world.pairs(20);
    for (by, name) in [(SplitBy::Image, "image"), (SplitBy::Patch, "patch")] {
        let options = PatchOptions { split_by: by, ..options() };
        let on = |threads: usize, out: &str| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| world.cut(out, &options)).unwrap();
            files(&world.at(out))
        };
        assert_eq!(on(1, &format!("{name}-1")), on(2, &format!("{name}-2")), "{name}");
    }
    let by_image = splits(&world.at("image-1"));
    let sides = |splits: &BTreeMap<String, String>| -> BTreeSet<(String, String)> {
        splits.iter().map(|(patch, split)| (patch.split('_').next().unwrap().to_owned(), split.clone())).collect()
    };
    assert_eq!(sides(&by_image).len(), 20, "no image is on two sides");
    let by_patch = splits(&world.at("patch-1"));
    assert!(sides(&by_patch).len() > 20);
    world.pairs(33);
    world.pair("another", 3, |_, _| 0);
    for (by, before) in [(SplitBy::Image, by_image), (SplitBy::Patch, by_patch)] {
        let out = format!("more-{by:?}");
        world.cut(&out, &PatchOptions { split_by: by, ..options() }).unwrap();
        let after = splits(&world.at(&out));
        assert!(before.iter().all(|(patch, split)| after[patch] == *split), "{by:?}");
        world.cut(&format!("{out}-7"), &PatchOptions { split_by: by, seed: 7, ..options() }).unwrap();
        assert_ne!(after, splits(&world.at(&format!("{out}-7"))), "{by:?}");
    }
}

#[test]
fn shares_count_from_their_limit_on() {
    let world = World::new();
    // 100 pixels a patch; so many of a roof, so many unlabelled: at, and one below, min_present = 0.1 and min_labelled = 0.5.
    let cases = [(10, 0, "roof"), (9, 0, "none"), (10, 50, "roof"), (10, 51, "unknown"), (0, 100, "unknown")];
    world.pair("limits", 5, |patch, pixel| match (pixel, cases[patch as usize]) {
        (pixel, (roof, ..)) if pixel < roof => 1,
        (pixel, (_, unlabelled, _)) if pixel >= 100 - unlabelled => 255,
        _ => 0,
    });
    world.cut("out", &options()).unwrap();
    let mut found: Vec<(usize, String)> = files(&world.at("out"))
        .into_keys()
        .filter(|path| path.ends_with(".png"))
        .map(|path| {
            let parts: Vec<&str> = path.split('/').collect();
            (parts[2].split('_').nth(1).unwrap().parse().unwrap(), parts[1].to_owned())
        })
        .collect();
    found.sort_unstable();
    assert_eq!(found.into_iter().map(|(_, class)| class).collect::<Vec<_>>(), cases.map(|(.., class)| class));

    let left_out = MAP.replace("unlabelled: unknown", "").replace(", unknown: anything", "");
    let map = world.map(&left_out).unwrap();
    let report = write(&world.at("known"), &world.listed(), &map, &options(), &mut go_on).unwrap().unwrap();
    assert_eq!((report.total(), report.left_out), (3, 2));
    assert!(report.to_string().contains("2 patches left out: too little of them is labelled"));
    world.pair("limits", 2, |_, _| 255);
    let error = write(&world.at("none"), &world.listed(), &map, &options(), &mut go_on).unwrap_err();
    assert!(matches!(error, PatchError::Nothing { left_out: 2 }), "{error}");
    assert!(!world.at("none").exists());
}

#[test]
fn masks_are_read_as_they_were_drawn() {
    let world = World::new();
    let image = png(&[99; 10 * 10 * 3], 10, ExtendedColorType::Rgb8);
    let indexed = |colour: u8, depth: u8, rows: Vec<u8>, palette: Option<&[u8]>| {
        // The encoder writes no palettes and no bits: a PNG by hand, stored by zlib.
        let chunk = |kind: &[u8; 4], data: &[u8]| {
            let mut crc = flate2::Crc::new();
            crc.update(kind);
            crc.update(data);
            [&(data.len() as u32).to_be_bytes(), kind.as_slice(), data, &crc.sum().to_be_bytes()].concat()
        };
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut zlib, &rows).unwrap();
        let header = [&10u32.to_be_bytes(), &10u32.to_be_bytes(), [depth, colour, 0, 0, 0].as_slice()].concat();
        let palette = palette.map(|colours| chunk(b"PLTE", colours)).unwrap_or_default();
        let data = zlib.finish().unwrap();
        [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &header), palette, chunk(b"IDAT", &data), chunk(b"IEND", &[])].concat()
    };
    let bits = [0, 0xff, 0xc0].repeat(10);
    let quarters = [0, 0xaa, 0xaa, 0xa0].repeat(10);
    let rgba: Vec<u8> = [0, 0, 255, 0].repeat(100);
    let masks = [
        ("bit", indexed(0, 1, bits, None), "roof"),
        ("quarter", indexed(0, 2, quarters, None), "solar"),
        ("palette", indexed(3, 8, [vec![0], vec![1; 10]].concat().repeat(10), Some(&[9, 9, 9, 255, 0, 0])), "roof"),
        ("rgba", png(&rgba, 10, ExtendedColorType::Rgba8), "solar"),
        ("equal", png(&[1; 300], 10, ExtendedColorType::Rgb8), "roof"),
    ];
    for (name, mask, _) in &masks {
        world.put(&format!("images/{name}.png"), &image);
        world.put(&format!("masks/{name}.png"), mask);
    }
    world.cut("out", &PatchOptions { split: "100,0,0".parse().unwrap(), ..options() }).unwrap();
    for (name, _, class) in &masks {
        assert!(world.at(&format!("out/train/{class}/{name}_0_0.png")).is_file(), "{name}");
    }
}

#[test]
fn what_cannot_be_used_is_counted_named_and_limited() {
    let world = World::new();
    world.pairs(12);
    let small = png(&[0; 5 * 5], 5, ExtendedColorType::L8);
    let mask = png(&[0; 100], 10, ExtendedColorType::L8);
    let image = png(&[0; 300], 10, ExtendedColorType::Rgb8);
    let deep = png(&[0; 200], 10, ExtendedColorType::L16);
    let stray = png(&[[0; 57].as_slice(), &[8], &[0; 42]].concat(), 10, ExtendedColorType::L8);
    let mut jpeg = Vec::new();
    image::codecs::jpeg::JpegEncoder::new(&mut jpeg).write_image(&[0; 300], 10, 10, ExtendedColorType::Rgb8).unwrap();
    // Name, image, mask, cause, and what is said of it.
    type File<'a> = (&'a str, Option<&'a [u8]>);
    let (good, labels): (File, File) = (("png", Some(&image)), ("png", Some(&mask)));
    let cases: [(&str, File, File, SkipCause, &str); 10] = [
        ("a", good, ("png", None), SkipCause::MissingMask, "a.png"),
        ("b", ("png", None), labels, SkipCause::MissingImage, "b.png"),
        ("c", ("png", Some(b"GIF?")), labels, SkipCause::BadImage, "c.png: not an image of a known format"),
        ("d", ("tif", Some(b"II*\0")), labels, SkipCause::BadImage, "convert the image"),
        ("e", good, ("png", Some(&mask[..50])), SkipCause::BadMask, "e.png: the image is cut off"),
        ("f", good, ("jpg", Some(&jpeg)), SkipCause::BadMask, "may change values: masks are PNG or BMP"),
        ("g", good, ("png", Some(&deep)), SkipCause::BadMask, "8 bits a channel"),
        ("h", good, ("png", Some(&small)), SkipCause::SizeMismatch, "10 x 10 pixels, but the mask has 5 x 5"),
        ("i", good, ("png", Some(&stray)), SkipCause::UnlistedValue, "pixel (7, 5) has the value 8 (\"#080808\")"),
        ("j", ("png", Some(&small)), ("png", Some(&small)), SkipCause::TooSmall, "5 x 5 pixels, less than one patch"),
    ];
    for (name, image, mask, ..) in cases {
        for (folder, (extension, bytes)) in [("images", image), ("masks", mask)] {
            bytes.iter().for_each(|bytes| world.put(&format!("{folder}/{name}.{extension}"), bytes));
        }
    }
    world.put("images/a.pgw", b"1.0"); // beside georeferenced images
    world.put("images/.DS_Store", b"");
    let report = world.cut("out", &PatchOptions { max_bad_share: 0.46, ..options() }).unwrap();
    assert_eq!((report.pairs, report.passed_over, report.skipped.len()), (12, 1, 10));
    for (skipped, (name, .., cause, detail)) in report.skipped.iter().zip(cases) {
        assert_eq!((skipped.name.as_str(), skipped.cause), (name, cause));
        assert!(skipped.detail.contains(detail), "{skipped}");
    }
    let (text, names) =
        (report.to_string(), "bad_image 2, bad_mask 3, missing_image 1, missing_mask 1, size_mismatch 1, too_small 1");
    assert!(text.contains(&format!("12 pairs, 10 left out ({names}, unlisted_value 1); 1 other files")), "{text}");
    let manifest: Value = serde_json::from_slice(&fs::read(world.at("out/patches.json")).unwrap()).unwrap();
    assert_eq!(manifest["counts"]["skipped"][8]["cause"], "unlisted_value");
    let error = world.cut("more", &PatchOptions { max_bad_share: 0.45, ..options() }).unwrap_err().to_string();
    assert!(error.starts_with(&format!("10 of 22 pairs cannot be used ({names}")), "{error}");
    assert!(error.contains("the first: a: missing_mask: ") && !world.at("more").exists(), "{error}");
}

#[test]
fn pairs_with_the_same_name_are_left_out_however_they_are_named() {
    let world = World::new();
    world.pairs(2);
    let image = fs::read(world.at("images/tile0.png")).unwrap();
    ["images/x.png", "images/x.bmp", "masks/x.png", "images/a.b.png", "images/a_b.png", "masks/a.b.png", "masks/a_b.png"]
        .iter()
        .for_each(|name| world.put(name, &image));
    let report = world.cut("out", &PatchOptions { max_bad_share: 1.0, ..options() }).unwrap();
    let skipped: Vec<_> = report.skipped.iter().map(|skipped| (skipped.name.as_str(), skipped.cause)).collect();
    let duplicate = SkipCause::DuplicateName;
    assert_eq!((report.pairs, skipped), (2, vec![("a_b", duplicate), ("a_b", duplicate), ("x", duplicate)]));
}

#[test]
fn a_table_pairs_what_is_named_otherwise() {
    let world = World::new();
    world.pairs(2);
    world
        .put("pairs.csv", b"\xef\xbb\xbfid,image,mask\n1, images/tile0.png,masks/tile1.png\n2,images/gone.png,masks/tile1.png\n");
    let pairs = Pairs::from_table(&world.at("pairs.csv")).unwrap();
    let lenient = PatchOptions { max_bad_share: 0.5, split: "0,100,0".parse().unwrap(), ..options() };
    let report = write(&world.at("out"), &pairs, &world.map(MAP).unwrap(), &lenient, &mut go_on).unwrap().unwrap();
    assert_eq!((report.pairs, report.skipped[0].cause), (1, SkipCause::MissingImage));
    assert!(world.at("out/val/roof/images_tile0_10_0.png").is_file());
    for (text, message) in [
        ("image\na.png\n", "no column `mask`: there are image"),
        ("image,mask\n", "no rows"),
        ("image,mask\na.png,\n", "line 2: a cell is empty"),
        ("image,mask\na.png\n", "found record with 1 fields"),
    ] {
        world.put("bad.csv", text.as_bytes());
        let error = Pairs::from_table(&world.at("bad.csv")).unwrap_err().to_string();
        assert!(error.contains("bad.csv: ") && error.contains(message), "{error}");
    }
    let same = Pairs::in_folders(&world.at("images"), &world.at("masks/../images")).unwrap_err().to_string();
    assert!(same.contains("in one folder"), "{same}");
    fs::create_dir(world.at("empty")).unwrap();
    let none = Pairs::in_folders(&world.at("images"), &world.at("empty")).unwrap_err().to_string();
    assert!(none.contains("no image has a mask in"), "{none}");
    assert!(Pairs::in_folders(&world.at("nowhere"), &world.at("masks")).unwrap_err().to_string().contains("nowhere"));
}

#[test]
fn the_folder_is_whole_or_absent_and_only_patches_are_replaced() {
    let world = World::new();
    world.pairs(3);
    let mut stop = |_: usize, _: usize| ControlFlow::Break(());
    let stopped = write(&world.at("out"), &world.listed(), &world.map(MAP).unwrap(), &options(), &mut stop).unwrap();
    assert!(stopped.is_none());
    let left: Vec<_> = fs::read_dir(world.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "images, masks and the map: {left:?}");

    world.cut("out", &options()).unwrap();
    let again = world.cut("out", &options()).unwrap_err().to_string();
    assert!(again.contains("out is not empty") && again.contains("--force"), "{again}");
    let force = PatchOptions { force: true, split: "100,0,0".parse().unwrap(), ..options() };
    world.cut("out", &force).unwrap();
    assert!(!world.at("out/test").exists() && world.at("out/train").is_dir());
    let foreign = world.cut("masks", &force).unwrap_err().to_string();
    assert!(foreign.contains("no patches.json"), "{foreign}");
    world.put("masks/patches.json", b"{}");
    let own = world.cut("masks", &force).unwrap_err().to_string();
    assert!(own.contains("holds the images that are to be cut"), "{own}");
    for (wrong, option) in [
        (PatchOptions { size: 0, ..options() }, "size: 0 pixels"),
        (PatchOptions { stride: 0, ..options() }, "stride: 0 pixels"),
        (PatchOptions { jpeg: Some(101), ..options() }, "jpeg: quality 101"),
        (PatchOptions { max_bad_share: f64::NAN, ..options() }, "max_bad_share: NaN"),
    ] {
        let error = world.cut("new", &wrong).unwrap_err().to_string();
        assert!(error.starts_with(option), "{error}");
    }
    let large = PatchOptions { max_pixels: 499, max_bad_share: 0.5, ..options() };
    let error = world.cut("new", &large).unwrap_err().to_string();
    assert!(error.contains("bad_mask 3") && error.contains("more than the limit of 499"), "{error}");
    assert!(!world.at("new").exists());
}

#[test]
fn a_map_that_contradicts_itself_is_refused_with_the_key() {
    let world = World::new();
    for (from, to, message) in [
        ("min_present", "min_presence", "map.yaml:5: unknown field `min_presence`"),
        (
            "'#ff0000'",
            "'red'",
            "map.yaml:2: labels.roof[1]: invalid value: string \"red\", expected a grey value from 0 to 255, a colour",
        ),
        ("[255]", "[256]", "map.yaml:4: ignore[0]: invalid value: integer `256`"),
        ("[0, 0, 255]", "[0, 0]", "expected a grey value"),
        ("[0, 0, 255]", "[0, 0, 0, 0]", "expected a grey value"),
        ("solar: panels", "roof: panels", "duplicate entry `roof`"),
        ("background: [0]", "background: [0, 2]", "background: 2 (\"#020202\") is listed in labels.solar already"),
        ("ignore: [255]", "ignore: ['#ff0000']", "ignore: \"#ff0000\" is listed in labels.roof already"),
        ("[1, '#ff0000']", "[]", "labels.roof: no value"),
        ("min_present: 0.1", "min_present: 10", "min_present: 10 is no share"),
        ("min_labelled: 0.5", "min_labelled: .nan", "min_labelled: NaN is no share"),
        ("none: bare land", "a/b: bare land", "classes.a/b: the name of a folder"),
        ("none: bare land", "none: ' '", "classes.none: a readable name"),
        ("none: bare land", "none: a roof", "classes.roof: `none` has the same readable name"),
        ("class: none", "class: nothing", "combinations[0]: no class `nothing`: there are none, roof"),
        ("present: [roof]", "present: [house]", "combinations[1]: no label `house`: there are roof, solar"),
        ("[solar, roof]", "[solar, solar]", "combinations[3]: `solar` comes twice"),
        ("[solar, roof]", "[roof]", "combinations[3]: [roof] is listed already"),
        ("  - {present: [roof], class: roof}\n", "", "combinations: [roof] has no class"),
        ("class: both", "class: roof", "classes.both: no combination, `other` or `unlabelled` leads to it"),
        ("unlabelled: unknown", "other: unknown", "other: all combinations are listed"),
        ("ignore: [255]", "", "unlabelled: no patch is ever unlabelled"),
        ("ignore: [255]", "unlisted: road", "unlisted: `road`: error, background, ignore or a label"),
        ("of {}", "of it", "template: one line with one {}"),
        ("roof: [1", "error: [1", "labels.error: this word has a meaning"),
        ("labels: {roof: [1, '#ff0000'], solar: [[0, 0, 255], 2]}", "labels: {}", "labels: 0 of them"),
    ] {
        assert!(MAP.contains(from), "{from}");
        let error = world.map(&MAP.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains("map.yaml") && error.contains(message), "{to}: {error}");
    }
    assert!(PatchMap::open(&world.at("gone.yaml")).unwrap_err().to_string().contains("gone.yaml"));
}

#[test]
fn values_and_combinations_that_are_not_listed_have_a_meaning_if_one_is_given() {
    let world = World::new();
    world.pair("a", 2, |patch, _| if patch == 0 { 77 } else { 0 });
    let only = PatchOptions { split: "100,0,0".parse().unwrap(), ..options() };
    for (i, (unlisted, class)) in [("roof", "roof"), ("background", "none"), ("ignore", "unknown")].into_iter().enumerate() {
        let map = world.map(&format!("{MAP}\nunlisted: {unlisted}")).unwrap();
        write(&world.at(&i.to_string()), &world.listed(), &map, &only, &mut go_on).unwrap();
        assert!(world.at(&format!("{i}/train/{class}/a_0_0.png")).is_file(), "{unlisted}");
    }
    let other =
        MAP.replace("  - {present: [], class: none}\n  - {present: [roof], class: roof}\n", "").replace("roof: a roof, ", "");
    let map = world.map(&format!("{other}\nother: none\nunlisted: roof")).unwrap();
    let report = write(&world.at("other"), &world.listed(), &map, &only, &mut go_on).unwrap().unwrap();
    assert_eq!((report.classes[0].class.as_str(), report.classes[0].counts), ("none", [2, 0, 0]));
    assert_eq!(report.absent(), [("train", "solar"), ("train", "both"), ("train", "unknown")]);
}

#[test]
fn the_shipped_map_is_one() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/patches");
    let map = PatchMap::open(&configs.join("roof-solar.yaml")).unwrap();
    assert_eq!(map.classes().map(|(class, _)| class).collect::<Vec<_>>(), ["none", "roof", "solar", "both", "unknown"]);
}
