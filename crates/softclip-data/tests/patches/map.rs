//! What masks and maps mean.

use std::path::Path;

use image::ExtendedColorType;
use softclip_data::patches::{PatchError, PatchMap, PatchOptions, write};

use crate::{MAP, World, files, go_on, options, png};

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
    assert!(matches!(error, PatchError::Nothing { left_out: 2, bad: 0, .. }), "{error}");
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

#[test]
fn a_map_may_begin_with_a_mark_and_is_parsed_within_bounds() {
    let world = World::new();
    assert_eq!(
        world.map(&format!("\u{feff}{MAP}")).unwrap().classes().collect::<Vec<_>>(),
        world.map(MAP).unwrap().classes().collect::<Vec<_>>()
    );
    for (text, words) in [
        (format!("labels: {}", "[".repeat(100_000)), "map.yaml:1: more than 256 brackets are open"),
        ("labels:\n  a: [1\0]\n".to_owned(), "map.yaml: line 2: a NUL byte"),
        (MAP.encode_utf16().flat_map(u16::to_le_bytes).map(char::from).collect(), "map.yaml: the file is UTF-16"),
    ] {
        let message = world.map(&text).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
}
