//! Copy detection while training and by itself.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{fails, succeeds};
use world::World;

mod support;
#[path = "support/world.rs"]
mod world;

/// Copies that are their originals to the byte, of the drawn objects.
fn copydays(world: &World) -> PathBuf {
    let folder = world.folder.path().join("copydays");
    for part in ["original", "strong"] {
        fs::create_dir_all(folder.join(part)).unwrap();
    }
    let classes = fs::read_dir(Path::new(&world.at("data")).join("zeroshot")).unwrap().map(|entry| entry.unwrap().path());
    let mut images: Vec<PathBuf> = classes
        .filter(|path| path.is_dir())
        .flat_map(|class| fs::read_dir(class).unwrap().map(|entry| entry.unwrap().path()))
        .collect();
    images.sort();
    assert!(images.len() > 3, "{images:?}");
    for (i, image) in images.iter().enumerate() {
        fs::copy(image, folder.join(format!("original/{}00.jpg", 2000 + i))).unwrap();
        fs::copy(image, folder.join(format!("strong/{}01.jpg", 2000 + i))).unwrap();
    }
    folder
}

#[test]
fn copies_are_found_by_a_run_and_while_it_trains() {
    let world = World::new();
    let folder = copydays(&world);
    let data = format!("copydays:{}", folder.display());
    let eval = format!("eval=[{{task: copy, data: '{data}', scales: [1, 0.5]}}]");
    let args = world.train_args("run", &["--set", &eval]);
    succeeds(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let metrics = fs::read_to_string(Path::new(&world.at("run")).join("metrics.jsonl")).unwrap();
    let last: Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    let command = ["eval", &world.at("run"), "--task", "copy", "--data", &data, "--json", "-"];
    let found = |more: &[&str]| serde_json::from_str::<Value>(&succeeds(&[&command[..], more].concat())).unwrap();
    let scaled = found(&["--scales", "1,0.5"]);
    assert_eq!((&scaled["metrics"]["mAP"], scaled["metrics"]["mAP"].as_f64()), (&last["copy_mAP"], Some(1.0)), "{last}");
    assert!(scaled["protocol"].as_str().unwrap().contains("scales 1, 0.5"), "{scaled}");
    assert_eq!(found(&[])["metrics"]["mP@1"], 1.0);
    // Kept by their scales.
    assert_eq!(fs::read_dir(Path::new(&world.at("run")).join("results")).unwrap().count(), 2);
    let run = world.at("run");
    for (args, status, words) in [
        (["copy", "--data", &data, "--scales", "0"], 2, "from 0.05 to 8"),
        (["retrieval", "--data", &data, "--scales", "0.5"], 2, "--task copy"),
        (["copy", "--data", "copydays:nowhere/", "--scales", "1"], 1, "nowhere/original"),
    ] {
        let message = fails(&[&["eval", &run, "--task"], &args[..]].concat(), status);
        assert!(message.contains(words), "{message}");
    }
}
