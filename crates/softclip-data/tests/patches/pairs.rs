//! Which images and masks are cut, and which are left out.

use std::fs;

use image::{ExtendedColorType, ImageEncoder};
use serde_json::Value;
use softclip_data::patches::{Pairs, PatchOptions, SkipCause, write};

use crate::{MAP, World, go_on, options, png};

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
        ("image,mask\na.png\n", "line 2: 1 cells, the header has 2"),
    ] {
        world.put("bad.csv", text.as_bytes());
        let error = Pairs::from_table(&world.at("bad.csv")).unwrap_err().to_string();
        assert!(error.contains("bad.csv: ") && error.contains(message), "{error}");
    }
    world.put("twice.csv", b"image,mask\nimages/tile0.png,masks/tile0.png\n./images/./tile0.png,masks/tile1.png\n");
    let twice = write(
        &world.at("twice"),
        &Pairs::from_table(&world.at("twice.csv")).unwrap(),
        &world.map(MAP).unwrap(),
        &lenient,
        &mut go_on,
    );
    assert!(twice.unwrap_err().to_string().contains("duplicate_name 2"), "one image by two ways of writing it");
    let same = Pairs::in_folders(&world.at("images"), &world.at("masks/../images")).unwrap_err().to_string();
    assert!(same.contains("in one folder"), "{same}");
    fs::create_dir(world.at("empty")).unwrap();
    let none = Pairs::in_folders(&world.at("images"), &world.at("empty")).unwrap_err().to_string();
    assert!(none.contains("no image has a mask in"), "{none}");
    assert!(Pairs::in_folders(&world.at("nowhere"), &world.at("masks")).unwrap_err().to_string().contains("nowhere"));
}

#[test]
fn names_that_are_no_unicode_or_too_long_cost_no_more_than_their_pair() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let world = World::new();
    world.pairs(1);
    let long = "x".repeat(245);
    for folder in ["images", "masks"] {
        let at = |name: &OsStr| world.at(folder).join(name);
        fs::copy(at(OsStr::new("tile0.png")), at(OsStr::from_bytes(b"caf\xe9.png"))).unwrap();
        fs::copy(at(OsStr::new("tile0.png")), at(OsStr::new(&format!("{long}.png")))).unwrap();
    }
    let report = world.cut("out", &PatchOptions { max_bad_share: 0.5, ..options() }).unwrap();
    assert_eq!((report.pairs, report.skipped.len()), (2, 1));
    assert_eq!((report.skipped[0].cause, report.skipped[0].name.as_str()), (SkipCause::LongName, long.as_str()));
    let manifest: Value = serde_json::from_slice(&fs::read(world.at("out/patches.json")).unwrap()).unwrap();
    assert_eq!(manifest["sources"][0]["name"], "caf\u{fffd}");
    assert!(manifest["sources"][0]["image"].as_str().unwrap().ends_with("images/caf\u{fffd}.png"));
}

#[test]
fn exif_turns_an_image_unless_it_is_to_be_taken_as_stored() {
    let world = World::new();
    // 20 x 10 pixels, white on the left, stored with the orientation "turned by 180 degrees".
    let stored: Vec<u8> = (0..200).flat_map(|i| [if i % 20 < 10 { 255 } else { 0 }; 3]).collect();
    let mut jpeg = Vec::new();
    image::codecs::jpeg::JpegEncoder::new(&mut jpeg).write_image(&stored, 20, 10, ExtendedColorType::Rgb8).unwrap();
    let exif = |orientation: u8| {
        let tiff = [b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".as_slice(), &[orientation], &[0; 6]].concat();
        let length = (2 + 6 + tiff.len() as u16).to_be_bytes();
        [&jpeg[..2], &[0xff, 0xe1], &length, b"Exif\0\0", &tiff, &jpeg[2..]].concat()
    };
    world.put("images/a.jpg", &exif(3));
    world.put("masks/a.png", &png(&[0; 200], 20, ExtendedColorType::L8));
    let left = |out: &str, ignore_exif: bool| {
        let options = PatchOptions { split: "100,0,0".parse().unwrap(), ignore_exif, ..options() };
        let turned = world.cut(out, &options).unwrap().turned;
        let patch = image::open(world.at(&format!("{out}/train/none/a_0_0.png"))).unwrap().to_rgb8();
        (turned, patch.get_pixel(5, 5).0[0] > 128)
    };
    assert_eq!((left("turned", false), left("stored", true)), ((1, false), (0, true)));
    // Sides that change places are told of with the way out.
    world.put("images/a.jpg", &exif(6));
    let error = world.cut("out", &options()).unwrap_err().to_string();
    assert!(error.contains("size_mismatch") && error.contains("--ignore-exif"), "{error}");
    assert_eq!(left("stored-6", true), (0, true));
}

#[test]
fn where_there_is_no_patch_it_is_told_why() {
    let world = World::new();
    world.pairs(2);
    ["masks/tile0.png", "images/tile1.png"].iter().for_each(|name| world.put(name, b"GIF?"));
    let all = PatchOptions { max_bad_share: 1.0, ..options() };
    let error = world.cut("out", &all).unwrap_err().to_string();
    assert_eq!(error, "no patch: 2 pairs cannot be used (bad_image 1, bad_mask 1)");
    let map = world.map(&MAP.replace("unlabelled: unknown", "").replace(", unknown: anything", "")).unwrap();
    world.pair("tile1", 3, |_, _| 255);
    let error = write(&world.at("out"), &world.listed(), &map, &all, &mut go_on).unwrap_err().to_string();
    assert!(error.contains("3 were cut and all left out") && error.contains("; 1 pairs cannot be used (bad_mask 1)"), "{error}");
}
