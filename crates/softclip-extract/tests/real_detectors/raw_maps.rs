//! The same network without its decoding: what an export without the grid holds.

use std::io::{Cursor, Read, Write};

use zip::write::SimpleFileOptions;

/// YOLOv5's anchors in pixels.
const ANCHORS: [f32; 18] = [10., 13., 16., 30., 33., 23., 30., 61., 62., 45., 59., 119., 116., 90., 156., 198., 373., 326.];

/// A buffer of f32 in a pickle; its numbers are the storage `key`.
fn buffer(name: &str, key: &str, size: &[u8]) -> Vec<u8> {
    let text = |text: &str| [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let int = |n: u8| [b'K', n];
    let ints = |all: &[u8]| [&b"("[..], &all.iter().flat_map(|n| int(*n)).collect::<Vec<u8>>(), b"t"].concat();
    let stride: Vec<u8> = (0..size.len()).map(|i| size[i + 1..].iter().product()).collect();
    let storage = [&b"(("[..], &text("storage"), b"ctorch\nFloatStorage\n", &text(key), &text("cpu"), &int(18), b"tQ"].concat();
    let end = b"\x89ccollections\nOrderedDict\n)RtR";
    [&text(name), &b"ctorch._utils\n_rebuild_tensor_v2\n"[..], &storage, &int(0), &ints(size), &ints(&stride), end].concat()
}

/// Rewrites a decoded YOLOv5 to return the maps of its three levels, with its anchors as buffers.
pub fn without_decoding(file: &[u8]) -> Vec<u8> {
    let mut from = zip::ZipArchive::new(Cursor::new(file)).unwrap();
    let mut to = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let mut root = String::new();
    for i in 0..from.len() {
        let mut entry = from.by_index(i).unwrap();
        let name = entry.name().to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if name.ends_with("/code/__torch__.py") {
            let code = String::from_utf8(bytes).unwrap();
            let changed = code
                .replace("  training : bool\n", "  training : bool\n  anchors : Tensor\n  anchor_grid : Tensor\n")
                .replace(") -> Tensor:", ") -> List[Tensor]:")
                .replace("return torch.cat([_8, _14, _20], 1)", "return [y6, y8, y10]");
            assert!(changed.contains("[y6, y8, y10]") && changed.contains("List[Tensor]:"));
            bytes = changed.into_bytes();
        } else if let Some(folder) = name.strip_suffix("data.pkl") {
            root = folder.to_owned();
            // The attributes end with SETITEMS and BUILD.
            let at = bytes.windows(2).rposition(|pair| pair == b"ub").unwrap();
            let buffers = [buffer("anchors", "cells", &[3, 3, 2]), buffer("anchor_grid", "pixels", &[3, 1, 3, 1, 1, 2])].concat();
            bytes.splice(at..at, buffers);
        } else if name.ends_with(".debug_pkl") {
            continue;
        }
        to.start_file(&name, SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored)).unwrap();
        to.write_all(&bytes).unwrap();
    }
    let cells = ANCHORS.iter().zip((0..18).map(|i| [8.0, 16.0, 32.0][i / 6])).map(|(x, stride)| x / stride).collect::<Vec<f32>>();
    for (key, values) in [("cells", &cells[..]), ("pixels", &ANCHORS)] {
        to.start_file(
            format!("{root}data/{key}"),
            SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored),
        )
        .unwrap();
        to.write_all(&values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
    }
    to.finish().unwrap().into_inner()
}
