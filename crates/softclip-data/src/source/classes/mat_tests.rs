//! Files that scipy wrote (`tests/goldens/make_mat.py`), whole and damaged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Value, integers, parse, read};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/mat").join(name)
}

#[test]
fn every_kind_of_variable_is_read() {
    let found = read(&golden("kinds.mat")).unwrap();
    let numbers = |values: &[f64]| Value::Numbers(values.to_vec());
    let expected = [
        ("bytes", numbers(&[-128.0, 127.0])),
        // Column by column.
        ("words", numbers(&[1.0, 3.0, 2.0, 65535.0])),
        ("long", numbers(&[-2147483648.0, 2147483647.0])),
        ("longer", numbers(&[1099511627776.0])),
        ("single", numbers(&[0.5, -2.0])),
        ("double", numbers(&[0.1])),
        ("empty", numbers(&[])),
        ("text", Value::Text("grün".to_owned())),
        ("cells", Value::Cells(vec![Value::Text("a".to_owned()), numbers(&[7.0])])),
        ("complex", Value::Other),
    ];
    assert_eq!(found, BTreeMap::from(expected.map(|(name, value)| (name.to_owned(), value))));
}

#[test]
fn structs_have_their_fields_of_each_element() {
    let Some(Value::Structs(fields)) = read(&golden("meta.mat")).unwrap().remove("synsets") else { panic!("no struct") };
    let wnids: Vec<&Value> = fields["WNID"].iter().collect();
    let text = |text: &str| Value::Text(text.to_owned());
    assert_eq!(wnids, [&text("n02119789"), &text("n02100735"), &text("n01440764"), &text("n02118333")]);
    assert_eq!(fields["num_children"][3], Value::Numbers(vec![1.0]));
}

#[test]
fn lists_of_labels_are_whole_numbers_compressed_or_not() {
    assert_eq!(integers(&golden("imagelabels.mat"), "labels").unwrap(), [77, 1, 102, 1, 3]);
    assert_eq!(integers(&golden("setid.mat"), "tstid").unwrap(), [5, 3, 4]);
    for (file, name, words) in [
        ("setid.mat", "none", "no variable 'none'"),
        ("kinds.mat", "text", "'text' holds no numbers"),
        ("kinds.mat", "double", "'double': 0.1 is no count"),
        ("kinds.mat", "bytes", "-128 is no count"),
        ("absent.mat", "x", "absent.mat"),
    ] {
        let message = integers(&golden(file), name).unwrap_err().to_string();
        assert!(message.contains(words) && message.contains(file), "{message}");
    }
}

#[test]
fn a_cut_or_altered_file_is_an_error_or_another_file_and_never_a_panic() {
    for name in ["kinds.mat", "setid.mat", "meta.mat"] {
        let whole = std::fs::read(golden(name)).unwrap();
        let variables = parse(&whole).unwrap().len();
        for end in 0..whole.len() {
            // Only between two variables is a cut file a whole one.
            assert!(parse(&whole[..end]).map_or(0, |found| found.len()) < variables || end + 8 > whole.len(), "{name} at {end}");
        }
        for at in 0..whole.len() {
            for flip in [1, 0x80, 0xff] {
                let mut altered = whole.clone();
                altered[at] ^= flip;
                let _ = parse(&altered);
            }
        }
    }
}

#[test]
fn other_files_are_named_for_what_they_are() {
    let mut newer = vec![0; 600];
    newer[..22].copy_from_slice(b"MATLAB 7.3 MAT-file, x");
    newer[512..516].copy_from_slice(b"\x89HDF");
    assert!(parse(&newer).unwrap_err().contains("version 7.3"));
    let mut foreign = std::fs::read(golden("kinds.mat")).unwrap();
    foreign[124..128].copy_from_slice(&[1, 0, b'M', b'I']);
    assert!(parse(&foreign).unwrap_err().contains("big-endian"));
    assert!(parse(b"labels: 1 2 3").unwrap_err().contains("level 5"));
}

/// A file of level 5 with a variable of `len` bytes as numbers, compressed.
fn packed(name: &str, len: usize, byte: impl Fn(usize) -> u8) -> Vec<u8> {
    let element = |kind: u32, data: &[u8]| {
        let padding = vec![0; data.len().next_multiple_of(8) - data.len()];
        [&kind.to_le_bytes(), &(data.len() as u32).to_le_bytes(), data, &padding].concat()
    };
    let data: Vec<u8> = (0..len).map(byte).collect();
    let shape = [1u32.to_le_bytes(), (len as u32).to_le_bytes()].concat();
    let flags = [9u32.to_le_bytes(), [0; 4]].concat();
    let matrix = element(14, &[element(6, &flags), element(5, &shape), element(1, name.as_bytes()), element(2, &data)].concat());
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut zlib, &matrix).unwrap();
    let zlib = zlib.finish().unwrap();
    let header = [vec![b' '; 124], vec![0, 1, b'I', b'M']].concat();
    [header, 15u32.to_le_bytes().to_vec(), (zlib.len() as u32).to_le_bytes().to_vec(), zlib].concat()
}

#[test]
fn compressed_variables_take_no_more_than_labels_need() {
    let Value::Numbers(found) = &parse(&packed("labels", 9_000, |i| (i / 100) as u8)).unwrap()["labels"] else {
        panic!("no numbers")
    };
    assert_eq!((found.len(), found[8_999]), (9_000, 89.0));
    // A list of one label is fine as long as it is short.
    assert!(parse(&packed("labels", 1 << 19, |_| 1)).is_ok());
    assert!(parse(&packed("labels", 16 << 20, |_| 0)).unwrap_err().contains("no list of labels"));
    // Several variables count together.
    let noise = |i: usize| {
        let mixed = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 60) as u8
    };
    let mut four = packed("a", 9 << 20, noise);
    for name in ["b", "c", "d"] {
        four.extend_from_slice(&packed(name, 9 << 20, noise)[super::HEADER..]);
    }
    assert!(parse(&four).unwrap_err().contains("more than 32 MiB"), "{:?}", parse(&four).map(|found| found.len()));
    assert!(parse(&vec![0; (32 << 20) + 1]).unwrap_err().contains("larger than 32 MiB"));
}
