//! Webdataset shards.

use std::io::Write;

use softclip_data::image::DecodeOptions;
use softclip_data::inspect::inspect;
use softclip_data::source::{SampleErrorKind, SidecarRecord, SourceFaultKind, fingerprint, member_name, open};

use crate::{Folder, error, keys, kinds, npy, png, tar};

#[test]
fn shards_are_read_by_index_with_all_their_members() {
    let folder = Folder::new();
    let npy = npy([1.5, 2.5]);
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

/// A record as extraction writes it, for the samples of `made_from`.
fn record(folder: &Folder, name: &str, made_from: &str) {
    let source = open(made_from).unwrap();
    let bytes = std::fs::metadata(folder.path(&name.replace(".sidecar.json", ".tar"))).unwrap().len();
    let record = SidecarRecord { samples: source.len(), fingerprint: fingerprint(&*source, 0..source.len()), bytes };
    folder.put(name, &serde_json::to_vec(&record).unwrap());
}

#[test]
fn sidecars_with_a_record_may_lack_samples_but_not_belong_to_other_images() {
    let folder = Folder::new();
    let members: [(&str, &[u8]); 6] =
        [("a.png", b"x"), ("a.txt", b"1"), ("b.png", b"xy"), ("b.txt", b"2"), ("c.png", b"x"), ("c.txt", b"3")];
    let main = folder.put("main.tar", &tar(&members));
    let side = folder.put("side.tar", &tar(&[("a.tags.json", br#"["cat"]"#), ("c.tags.json", br#"["dog"]"#)]));
    assert!(error(&format!("{main}+{side}")).to_string().contains("3 keys against 2"), "without a record all are needed");
    record(&folder, "side.sidecar.json", &main);
    let source = open(&format!("{main}+{side}")).unwrap();
    let tags: Vec<_> = (0..3).map(|i| source.read(i).unwrap().tags).collect();
    assert_eq!(tags, [Some(vec!["cat".to_owned()]), None, Some(vec!["dog".to_owned()])]);

    // The same keys, as all folders of img2dataset have them, but another image.
    let other = folder.put("other.tar", &tar(&[&members[..2], &[("b.png", b"xyz")], &members[3..]].concat()));
    let message = error(&format!("{other}+{side}")).to_string();
    assert!(message.contains("as many, but other images") && message.contains("side.tar"), "{message}");
    // Cut by a copy that did not end.
    let whole = std::fs::read(&side).unwrap();
    std::fs::write(&side, &whole[..1024]).unwrap();
    assert!(error(&format!("{main}+{side}")).to_string().contains("copy it again"));
    std::fs::write(&side, &whole).unwrap();
    // A record that was damaged must not pass for none.
    folder.put("side.sidecar.json", b"{");
    assert!(error(&format!("{main}+{side}")).to_string().contains("side.sidecar.json: line 1"));
}

#[test]
fn any_source_takes_sidecars_in_its_order() {
    let folder = Folder::new();
    for (name, bytes) in [("a.v2.png", &b"x"[..]), ("b.png", b"xy"), ("c.png", b"xyz")] {
        folder.put(name, bytes);
    }
    folder.put("t.csv", b"image,caption\na.v2.png,1\nb.png,2\nc.png,3\n");
    let table = folder.path("t.csv");
    let name = |key| format!("{}.tags.json", member_name(key));
    folder.put("side/0.tar", &tar(&[(&name("a.v2.png"), br#"["cat"]"#), (&name("b.png"), br#"["dog"]"#)]));
    folder.put("side/1.tar", &tar(&[(&name("c.png"), br#"[]"#)]));
    let spec = format!("csv:{table},sidecars={}", folder.path("side/{0,1}.tar").replace("{0,1}", "*"));
    let source = open(&spec).unwrap();
    let tags: Vec<_> = (0..3).map(|i| source.read(i).unwrap().tags.unwrap().concat()).collect();
    assert_eq!(tags, ["cat", "dog", ""]);
    std::fs::remove_file(folder.path("side/1.tar")).unwrap();
    assert!(error(&spec).to_string().contains("for 2 samples, and 1 more have none"));
    folder.put("side/1.tar", &tar(&[(&name("d.png"), br#"[]"#)]));
    assert!(error(&spec).to_string().contains("sample 0 is 'c.png' in one and 'd%2Epng' in the other"));
    folder.put("side/1.tar", &tar(&[(&name("c.png"), b"[]"), (&name("d.png"), b"[]")]));
    assert!(error(&spec).to_string().contains("it is for 2 samples, 1 are left"));
}

#[test]
fn captions_come_from_the_list_then_the_text_then_the_one_caption_of_the_json() {
    let folder = Folder::new();
    // img2dataset writes NaN where it knows no number.
    let nan = br#"{"caption": "json", "similarity": NaN}"#;
    let path = folder.put(
        "s.tar",
        &tar(&[
            ("a.png", b"x"),
            ("a.json", br#"{"captions": ["list", null, NaN, " two\n"], "caption": "json", "score": -Infinity}"#),
            ("a.txt", b"text"),
            ("b.png", b"x"),
            ("b.json", br#"{"caption": "json"}"#),
            ("b.txt", b"text"),
            ("c.png", b"x"),
            ("c.json", br#"{"captions": [NaN], "caption": "json"}"#),
            ("d.png", b"x"),
            ("d.json", nan),
            ("e.png", b"x"),
            ("e.json", b"{\"caption\": \"NaN is kept\", \"x\": NaN}"),
            ("f.png", b"x"),
            ("f.json", b"\xef\xbb\xbf{\"caption\": \"marked\"}"),
            ("g.png", b"x"),
            ("g.json", b"{\"caption\": NaN}"),
            ("h.png", b"x"),
            ("h.json", b"{\"caption\": Na}"),
            ("i.png", b"x"),
            ("i.json", b"{\"captions\": 3}"),
            ("i.txt", b"text"),
        ]),
    );
    let source = open(&path).unwrap();
    let captions: Vec<_> = (0..6).map(|i| source.read(i).unwrap().captions.join("|")).collect();
    assert_eq!(captions, ["list|two", "text", "json", "json", "NaN is kept", "marked"]);
    assert_eq!(source.read(6).unwrap_err().kind, SampleErrorKind::MissingCaption);
    assert_eq!(source.read(7).unwrap_err().kind, SampleErrorKind::BadJson);
    assert_eq!(source.read(8).unwrap().captions, ["text"]);
}

#[test]
fn text_members_are_read_as_people_write_them() {
    let folder = Folder::new();
    let members: [(&str, &[u8]); 10] = [
        ("a.png", b"x"),
        ("a.txt", b"\xef\xbb\xbf a red car \r\n"),
        ("b.png", b"x"),
        ("b.txt", b"\xff\xfeu\0t\0f\0"),
        ("c.png", b"x"),
        ("c.txt", b"one\nnul\0inside"),
        ("d.png", b"x"),
        ("d.txt", "\u{3000}\u{a0}\n".as_bytes()),
        ("e.png", b"x"),
        ("e.json", b"\xfe\xff\0{\0}"),
    ];
    let source = open(&folder.put("s.tar", &tar(&members))).unwrap();
    assert_eq!(source.read(0).unwrap().captions, ["a red car"]);
    let causes: Vec<String> = (1..5).map(|i| source.read(i).unwrap_err().to_string()).collect();
    assert!(causes[0].contains("invalid_utf8: .txt: the file is UTF-16: save it as UTF-8"), "{}", causes[0]);
    assert!(causes[1].contains("line 2: a NUL byte"), "{}", causes[1]);
    assert!(causes[2].contains("empty_caption"), "{}", causes[2]);
    assert!(causes[3].contains("bad_json: .json: the file is UTF-16"), "{}", causes[3]);
}

#[test]
fn members_of_a_sample_may_lie_apart() {
    let folder = Folder::new();
    let members: [(&str, &[u8]); 8] = [
        ("b.png", b"image b"),
        ("a.png", b"image a"),
        ("a.txt", b"text a"),
        ("b.txt", b"text b"),
        ("b.tags.json", b"[\"dog\"]"),
        ("c.png", b"image c"),
        // Another sample of the key: its image is not the first one's.
        ("a.png", b"another"),
        ("a.json", b"{\"captions\": [\"another\"]}"),
    ];
    let source = open(&folder.put("s.tar", &tar(&members))).unwrap();
    assert_eq!(keys(&*source), ["s/b", "s/a"]);
    let [b, a] = [0, 1].map(|i| source.read(i).unwrap());
    assert_eq!(
        (b.image.as_slice(), b.captions.concat(), b.tags.unwrap().concat()),
        (&b"image b"[..], "text b".into(), "dog".into())
    );
    assert_eq!((a.image.as_slice(), a.captions.concat()), (&b"image a"[..], "text a".to_owned()));
    assert_eq!(kinds(&*source), [SourceFaultKind::DuplicateKey, SourceFaultKind::MissingCaption]);
}

#[test]
fn where_nothing_is_usable_the_error_says_what_there_is() {
    let folder = Folder::new();
    let say = |members: &[(&str, &[u8])]| {
        let message = error(&folder.put("s.tar", &tar(members))).to_string();
        assert!(!message.chars().any(char::is_control), "{message:?}");
        message
    };
    let message = say(&[("s0.input.jpg", b"x"), ("s0.outputs.txt", b"1")]);
    assert!(message.contains("the first members are s0.input.jpg, s0.outputs.txt"), "{message}");
    assert!(message.contains("s/s0.input.jpg: orphan: passed over: a key ends at the first dot"), "{message}");
    for extension in ["tif", "AVIF", "heic"] {
        let message = say(&[(&format!("a.{extension}"), b"x"), ("a.txt", b"1")]);
        let words = format!("s/a: missing_image: skipped: no image member; its .{} is of a format", extension.to_lowercase());
        assert!(message.contains(&words), "{message}");
    }
    let message = say(&[("a\u{1b}[31m.txt", b"1"), ("b.cls", b"2")]);
    assert!(message.contains(r"a\u{1b}[31m.txt") && message.contains("use wds:FOLDER"), "{message}");

    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, size) in
        [("a.jpg", tar::EntryType::Link, 0), ("b.jpg", tar::EntryType::Symlink, 0), ("a.txt", tar::EntryType::Regular, 1)]
    {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_path(name).unwrap();
        if size == 0 {
            header.set_link_name("../pool/1.jpg").unwrap();
        }
        header.set_cksum();
        builder.append(&header, &b"x"[..size as usize]).unwrap();
    }
    let message = error(&folder.put("s.tar", &builder.into_inner().unwrap())).to_string();
    assert!(message.contains("a.jpg: orphan: passed over: a hard link") && message.contains("--hard-dereference"), "{message}");
    assert!(message.contains("tar --dereference"), "{message}");
}

#[test]
fn lines_are_captions_only_where_the_data_set_says_retrieval() {
    let folder = Folder::new();
    let bytes = tar(&[("a.png", b"x"), ("a.txt", b"one\ntwo\r\n\nthree\n")]);
    let captions = |place: &str| open(&folder.put(place, &bytes)).unwrap().read(0).unwrap().captions;
    let whole = ["one\ntwo\r\n\nthree"];
    let lines = ["one", "two", "three"];
    assert_eq!(captions("set/test/0.tar"), whole);
    folder.put("set/dataset_type.txt", b"zeroshot_classification\n");
    assert_eq!(captions("set/test/0.tar"), whole);
    folder.put("set/dataset_type.txt", b"retrieval\n");
    assert_eq!(captions("set/test/0.tar"), lines);
    assert_eq!(captions("set/0.tar"), lines);
    assert_eq!(captions("set/a/b/0.tar"), whole);
}

#[test]
fn an_image_whose_key_would_end_before_its_last_dots_is_reported() {
    let folder = Folder::new();
    let members: [(&str, &[u8]); 6] =
        [("a.png", b"x"), ("a.txt", b"1"), ("d/IMG.v2.jpg", b"x"), ("d/IMG.v2.txt", b"2"), ("a.cls", b"3"), ("._a.png", b"4")];
    let source = open(&folder.put("s.tar", &tar(&members))).unwrap();
    assert_eq!((keys(&*source), kinds(&*source)), (vec!["s/a".to_owned()], vec![SourceFaultKind::Orphan]));
    let fault = source.faults()[0].to_string();
    assert_eq!(fault, "s/d/IMG.v2.jpg: orphan: passed over: a key ends at the first dot");
}

#[test]
fn a_file_with_a_plus_or_braces_in_its_name_is_one_shard() {
    let folder = Folder::new();
    for name in ["a+b.tar", "{0..3}.tar"] {
        let path = folder.put(name, &tar(&[("x.png", b"x"), ("x.txt", b"1")]));
        assert_eq!(open(&path).unwrap().len(), 1, "{name}");
    }
}
