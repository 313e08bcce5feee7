//! Tars with holes, damaged headers and ends in the middle: nothing is lost without a word.

use std::io::Write;

use softclip_data::source::{Source, SourceFaultKind, open};

use crate::{Folder, error, keys, kinds, png, tar};

/// A tar of `n` samples `s0.png`, `s0.txt`, …
fn samples(n: usize) -> Vec<u8> {
    let image = png();
    let members: Vec<(String, Vec<u8>)> = (0..n)
        .flat_map(|i| [(format!("s{i}.png"), image.clone()), (format!("s{i}.txt"), format!("caption {i}").into_bytes())])
        .collect();
    let members: Vec<(&str, &[u8])> = members.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    tar(&members)
}

/// Position of the header of the member `name`.
fn header(bytes: &[u8], name: &str) -> usize {
    let starts = |block: &&[u8]| block.starts_with(name.as_bytes()) && block[name.len()] == 0;
    bytes.chunks(512).position(|block| starts(&block)).unwrap() * 512
}

fn losses(source: &dyn Source) -> usize {
    kinds(source).iter().filter(|kind| kind.loses_sample()).count()
}

fn messages(source: &dyn Source) -> String {
    source.faults().iter().map(|fault| format!("{fault}\n")).collect()
}

fn fixed_checksum(bytes: &mut [u8], at: usize) {
    let block = &mut bytes[at..at + 512];
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn each_lost_sample_is_counted_once_whatever_is_damaged() {
    let folder = Folder::new();
    let whole = samples(6);
    let (image, text, next) = (header(&whole, "s2.png"), header(&whole, "s2.txt"), header(&whole, "s3.png"));
    type Damage = (&'static str, fn(&mut [u8]), std::ops::Range<usize>, usize);
    let zero: fn(&mut [u8]) = |bytes| bytes.fill(0);
    let noise: fn(&mut [u8]) = |bytes| bytes.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 7 + 3) as u8);
    let flip: fn(&mut [u8]) = |bytes| bytes[100] ^= 1;
    let cases: [Damage; 9] = [
        ("zeroed image header", zero, image..image + 512, 1),
        ("zeroed text header", zero, text..text + 512, 1),
        ("damaged image header", flip, image..image + 512, 1),
        ("damaged text header", noise, text..text + 512, 1),
        ("a whole sample of zeros", zero, image..next, 1),
        ("a text member of zeros", zero, text..next, 1),
        ("a hole over two samples", zero, text..next + 512, 2),
        ("noise over two samples", noise, text..next + 1024, 2),
        ("a whole sample of noise", noise, image..next, 1),
    ];
    for (name, damage, range, lost) in cases {
        let mut bytes = whole.clone();
        damage(&mut bytes[range.clone()]);
        let source = open(&folder.put("damaged.tar", &bytes)).unwrap();
        let found = messages(&*source);
        assert_eq!((source.len(), losses(&*source)), (6 - lost, lost), "{name}: {found}");
        assert!(found.contains(&format!("damaged.tar, byte {}", range.start)), "{name}: {found}");
        assert!((0..source.len()).all(|i| source.read(i).is_ok()), "{name}");
        assert!(keys(&*source).contains(&"damaged/s5".to_owned()), "{name}: the end is read");
    }
}

#[test]
fn damage_is_reported_with_its_place_and_length() {
    let folder = Folder::new();
    let mut bytes = samples(4);
    let at = header(&bytes, "s1.png");
    let next = header(&bytes, "s1.txt");
    bytes[at..at + 512].fill(0);
    let source = open(&folder.put("a.tar", &bytes)).unwrap();
    let fault = source.faults()[0].to_string();
    let expected = format!(
        "a.tar, byte {at}: damaged_shard: {} bytes are damaged and not read; reading continues at byte {next}",
        next - at
    );
    assert!(fault.ends_with(&expected), "{fault}");

    // The last members, up to the end of the file.
    let mut bytes = samples(4);
    let at = header(&bytes, "s3.txt");
    bytes[at..at + 512].fill(0xff);
    let source = open(&folder.put("a.tar", &bytes)).unwrap();
    let found = messages(&*source);
    assert_eq!((source.len(), losses(&*source)), (3, 1), "{found}");
    assert!(found.contains("1024 bytes are damaged and not read, and no member follows"), "{found}");
}

#[test]
fn joined_tars_are_read_to_their_end() {
    let folder = Folder::new();
    let one = tar(&[("a.png", b"x"), ("a.txt", b"1"), ("b.png", b"x")]);
    let two = tar(&[("c.png", b"x"), ("c.txt", b"3"), ("b.txt", b"another's")]);
    // As GNU tar and Python fill archives up, and without.
    let filled = |bytes: &[u8]| [bytes, &vec![0; bytes.len().next_multiple_of(10240) - bytes.len()]].concat();
    for (one, two) in [(one.clone(), two.clone()), (filled(&one), filled(&two))] {
        let source = open(&folder.put("joined.tar", &[one, two].concat())).unwrap();
        assert_eq!(keys(&*source), ["joined/a", "joined/c"]);
        // Members of two archives make no sample.
        let mut found = kinds(&*source);
        found.sort();
        use SourceFaultKind as F;
        assert_eq!(found, [F::EndMark, F::DuplicateKey, F::MissingCaption], "{}", messages(&*source));
    }
    // Zeros at the end are padding, unless there are more than any tar is filled up with.
    for zeros in [0, 512, 1000, 10_240] {
        let source = open(&folder.put("padded.tar", &[samples(2), vec![0; zeros]].concat())).unwrap();
        assert_eq!((source.len(), source.faults()), (2, &[][..]), "{zeros}");
    }
    let source = open(&folder.put("unfinished.tar", &[samples(2), vec![0; 3 << 20]].concat())).unwrap();
    assert_eq!((source.len(), kinds(&*source)), (2, vec![SourceFaultKind::TruncatedShard]));
    assert!(messages(&*source).contains("may be incomplete"), "{}", messages(&*source));
}

#[test]
fn a_file_that_ends_anywhere_says_so() {
    let folder = Folder::new();
    let bytes = samples(3);
    let whole = bytes.len() - 1024;
    for cut in (512..whole).step_by(97).chain((512..=whole).step_by(512)) {
        let spec = folder.put("cut.tar", &bytes[..cut]);
        match open(&spec) {
            Ok(source) => {
                assert!(kinds(&*source).contains(&SourceFaultKind::TruncatedShard), "{cut}: {}", messages(&*source));
                // Where all are whole, a cut file still says that more may be lost.
                let most = if source.len() == 3 { 4 } else { 3 };
                assert!(source.len() + losses(&*source) <= most, "{cut}: {}", messages(&*source));
            }
            Err(e) => assert!(e.to_string().contains("cut.tar, byte"), "{cut}: {e}"),
        }
    }
    let source = open(&folder.put("cut.tar", &bytes[..whole - 507])).unwrap();
    let found = messages(&*source);
    assert!(found.contains("'s2.txt' should end at byte") && found.contains("517 bytes are not read"), "{found}");
}

#[test]
fn wrong_sizes_do_not_hide_what_follows() {
    let folder = Folder::new();
    for (name, size) in [
        ("negative", [0xff; 12]),
        ("beyond 64 bits", [0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("2^63", [0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("2^64 - 1", [0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("8 GiB", *b"77777777777\0"),
        ("no number", *b"x0000000012\0"),
    ] {
        let mut bytes = samples(4);
        let at = header(&bytes, "s1.png");
        bytes[at + 124..at + 136].copy_from_slice(&size);
        fixed_checksum(&mut bytes, at);
        let source = open(&folder.put("size.tar", &bytes)).unwrap();
        let found = messages(&*source);
        assert_eq!((source.len(), losses(&*source)), (3, 1), "{name}: {found}");
        assert!(found.contains(&format!("byte {at}")), "{name}: {found}");
    }
    // What base 256 is for is read.
    let mut bytes = samples(2);
    let at = header(&bytes, "s1.txt");
    bytes[at + 124..at + 136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    fixed_checksum(&mut bytes, at);
    let source = open(&folder.put("size.tar", &bytes)).unwrap();
    assert_eq!((source.read(1).unwrap().captions.concat(), source.faults().len()), ("caption 1".to_owned(), 0));
}

#[test]
fn a_long_name_that_damage_took_is_not_made_up() {
    let folder = Folder::new();
    let long = |i: usize, end: &str| format!("{}{i}.{end}", "long/".repeat(30));
    let image = png();
    let members: Vec<(String, &[u8])> =
        (0..4).flat_map(|i| [(long(i, "png"), image.as_slice()), (long(i, "txt"), b"a caption")]).collect();
    let members: Vec<(&str, &[u8])> = members.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
    let whole = tar(&members);
    let source = open(&folder.put("long.tar", &whole)).unwrap();
    assert_eq!((source.len(), source.faults().len()), (4, 0));
    // Headers, in order: an extension with the name, then the member itself. The fifth is the extension of the second image.
    let headers: Vec<usize> = (0..whole.len()).step_by(512).filter(|&at| whole[at + 257..].starts_with(b"ustar")).collect();
    assert_eq!(headers.len(), 16);
    let (extension, data, member) = (headers[4], headers[4] + 512, headers[5]);
    for (name, range) in [
        ("the extension", extension..data),
        ("its data", data..member),
        ("both", extension..member),
        ("the member", member..member + 512),
    ] {
        for fill in [0, 0x55] {
            let mut bytes = whole.clone();
            bytes[range.clone()].fill(fill);
            let source = open(&folder.put("long.tar", &bytes)).unwrap();
            // Other letters in the name are another name: that cannot be known.
            if name == "its data" && fill != 0 {
                continue;
            }
            let found = messages(&*source);
            assert_eq!((source.len(), losses(&*source)), (3, 1), "{name}, {fill}: {found}");
            assert!(keys(&*source).iter().all(|key| key.starts_with("long/long/") && key.len() > 150), "{name}, {fill}");
        }
    }
}

#[test]
fn damaged_gzip_streams_serve_what_is_whole() {
    let folder = Folder::new();
    let gzip = |bytes: &[u8]| {
        let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        zipped.write_all(bytes).unwrap();
        zipped.finish().unwrap()
    };
    let (one, two) = (samples(2), tar(&[("t.png", b"x"), ("t.txt", b"1")]));
    let source = open(&folder.put("two.tar.gz", &[gzip(&one), gzip(&two)].concat())).unwrap();
    assert_eq!((source.len(), kinds(&*source)), (3, vec![SourceFaultKind::EndMark]));
    let source = open(&folder.put("tail.tar.gz", &[gzip(&one), b"signature".to_vec()].concat())).unwrap();
    assert_eq!((source.len(), kinds(&*source)), (2, vec![SourceFaultKind::TruncatedShard]));
    assert!(messages(&*source).contains("9 of "), "{}", messages(&*source));
    let source = open(&folder.put("zeros.tar.gz", &[gzip(&one), vec![0; 4096]].concat())).unwrap();
    assert_eq!((source.len(), source.faults().len()), (2, 0));
    let message = error(&folder.put("cut.tar.gz", &gzip(&one)[..60])).to_string();
    assert!(message.contains("cut.tar.gz") && message.contains("gzip"), "{message}");
}

#[test]
fn no_mutation_loses_a_sample_without_a_word() {
    let folder = Folder::new();
    let whole = samples(8);
    let mut state = 7u64;
    // Numerical Recipes' generator: the upper bits are good enough to choose places.
    let mut below = |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    for round in 0..600 {
        let mut bytes = whole.clone();
        let at = below(bytes.len());
        let end = (at + 1 + below(2000)).min(bytes.len());
        let kind = below(5);
        match kind {
            0 => bytes.truncate(at),
            1 => bytes[at..end].fill(0),
            2 => bytes[at..end].iter_mut().for_each(|byte| *byte = byte.wrapping_mul(31) ^ 0x5a),
            3 => bytes[at] ^= 1 << below(8),
            _ => drop(bytes.drain(at..end)),
        }
        // A tar that ends in zeros where it had a sample is a shorter tar. Zeros that fill a record are an end mark, which is
        // reported and costs no sample.
        let shortened = kind == 1 && bytes[at..].iter().all(|byte| *byte == 0);
        let Ok(source) = open(&folder.put("m.tar", &bytes)) else { continue };
        let losses = losses(&*source);
        let read = (0..source.len()).filter(|&i| source.read(i).is_ok()).count();
        let unreadable = source.len() - read;
        let reported = losses > 0 || kinds(&*source).contains(&SourceFaultKind::EndMark);
        assert!(source.len() == 8 || reported || shortened, "{round}: {} of 8, {kind} at {at} to {end}", source.len());
        assert!(source.len() + losses <= 9, "{round}: {unreadable} unreadable, {}", messages(&*source));
    }
}

/// What people name instead of a tar.
#[test]
fn what_is_no_tar_is_named_with_what_to_do() {
    let folder = Folder::new();
    let cases: [(&[u8], &str); 8] = [
        (b"\x28\xb5\x2f\xfd\x04\x00\x1b\x5b\x31\x6d", "zstd -d"),
        (b"\xfd7zXZ\0\0\x04", "xz -dk"),
        (b"BZh91AY&SY", "bzip2 -dk"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n", "git lfs pull"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
        (b"PK\x03\x04\x14\0", "zip archive"),
        (b"\x1b]0;title\x07\x9b31m", "not a tar"),
        (b"{\"message\": \"Not found\"}", "JSON"),
    ];
    for (bytes, words) in cases {
        let message = error(&folder.put("x.tar", bytes)).to_string();
        assert!(message.contains(words) && message.contains("x.tar"), "{message} / {words}");
        assert!(!message.chars().any(char::is_control), "{message:?}");
    }
    let message = error(&folder.put("x.tar", b"")).to_string();
    assert!(message.contains("x.tar, byte 0: truncated_shard: the file is empty (0 bytes)"), "{message}");
    let message = error(&folder.put("x.tar", &[0; 10240])).to_string();
    assert!(message.contains("it has no members"), "{message}");
}
