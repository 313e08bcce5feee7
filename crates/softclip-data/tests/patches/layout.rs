//! Folders, shards, splits, and what they replace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use serde_json::Value;
use softclip_data::patches::{Format, Pairs, PatchMap, PatchOptions, SplitBy, write};

use crate::{MAP, World, files, go_on, options};

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
    // What is not of this command's making, or a map that lies in its folder, is never removed.
    world.put("out/notes.txt", b"");
    let error = world.cut("out", &force).unwrap_err().to_string();
    assert!(error.contains("holds notes.txt") && world.at("out/notes.txt").exists(), "{error}");
    fs::remove_file(world.at("out/notes.txt")).unwrap();
    fs::copy(world.at("map.yaml"), world.at("out/train/map.yaml")).unwrap();
    let map = PatchMap::open(&world.at("out/train/map.yaml")).unwrap();
    let error = write(&world.at("out"), &world.listed(), &map, &force, &mut go_on).unwrap_err().to_string();
    assert!(error.contains("holds the map") && world.at("out/train/map.yaml").exists(), "{error}");
    for nameless in ["", ".", "/", "x/.."] {
        let error = write(Path::new(nameless), &world.listed(), &map, &options(), &mut |_, _| unreachable!());
        assert!(error.unwrap_err().to_string().contains("has no name"), "{nameless}");
    }
    let foreign = world.cut("masks", &force).unwrap_err().to_string();
    assert!(foreign.contains("no patches.json"), "{foreign}");
    world.put("masks/patches.json", b"{}");
    let own = world.cut("masks", &force).unwrap_err().to_string();
    assert!(own.contains("holds tile"), "{own}");
    let within = world.at("out/train");
    ["images", "masks"].iter().for_each(|folder| fs::rename(world.at(folder), within.join(folder)).unwrap());
    let pairs = Pairs::in_folders(&within.join("images"), &within.join("masks")).unwrap();
    let own = write(&world.at("out"), &pairs, &world.map(MAP).unwrap(), &force, &mut go_on).unwrap_err().to_string();
    assert!(own.contains("holds the images that are to be cut"), "{own}");
    ["images", "masks"].iter().for_each(|folder| fs::rename(within.join(folder), world.at(folder)).unwrap());
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
