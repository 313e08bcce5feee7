//! Real photographs and captions: run where `SOFTCLIP_DATA` names the folder that holds them, skipped elsewhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use softclip_data::image::DecodeOptions;
use softclip_data::inspect::{Inspection, inspect};
use softclip_data::source;

/// What is found in the source whose spec has `{}` for the folder, if the folder is known.
fn inspected(spec: &str) -> Option<Inspection> {
    let Ok(folder) = std::env::var("SOFTCLIP_DATA") else {
        println!("skipped: SOFTCLIP_DATA does not name a folder with photographs");
        return None;
    };
    let source = source::open(&spec.replace("{}", &folder)).unwrap();
    Some(inspect(source.as_ref(), DecodeOptions::default(), 77, |_| ()).unwrap())
}

#[test]
fn shards_of_photographs_are_whole() {
    let Some(found) = inspected("{}/photos-vi/train/{00000..00004}.tar") else { return };
    assert_eq!((found.samples, found.usable), (2441, 2441), "{found}");
    assert!(found.captions >= 5 * found.usable, "{found}");
}

#[test]
fn coco_has_captions_and_tags() {
    let Some(found) = inspected(
        "coco:{}/coco-mini/annotations/captions_val2017.json,{}/coco-mini/val2017.tar,\
         instances={}/coco-mini/annotations/instances_val2017.json",
    ) else {
        return;
    };
    assert_eq!((found.usable, found.with_tags), (79, 79), "{found}");
}

#[test]
fn a_class_is_a_folder_in_a_tar() {
    let Some(found) = inspected("folder:{}/imagenet-samples/images.tar") else { return };
    assert_eq!((found.usable, found.classes), (1000, Some(1000)), "{found}");
}
