//! Embedding: right rows under the right keys, whatever interrupts it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use common::{Model, id};
use softclip_score::Result;
use softclip_score::embed::{Dtype, EmbedOptions, Encoder, Entry, Format, Input, Outcome, What, embed};
use softclip_score::search::{Collection, Query, encode};
use softclip_tensor::file::read_safetensors;
use tch::Tensor;

/// Images `0.png`, `1.png`, … of different colours.
fn draw(folder: &Path, names: &[&str]) {
    for (i, name) in names.iter().enumerate() {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let colour = |x: u32, y: u32| image::Rgb([(x * 9) as u8, (y * 7) as u8, (i * 31) as u8]);
        image::RgbImage::from_fn(20 + i as u32, 24, colour).save(path).unwrap();
    }
}

fn options(format: Format) -> EmbedOptions {
    EmbedOptions { format, batch_size: 4, part: 8, workers: 2, ..EmbedOptions::default() }
}

fn all(encoder: &Encoder, input: &Input, out: &Path, options: &EmbedOptions) -> Result<Outcome> {
    embed(encoder, &id("w"), input, out, options, &mut |_, _| ControlFlow::Continue(()))
}

/// Stops when `samples` are done.
fn some(encoder: &Encoder, input: &Input, out: &Path, options: &EmbedOptions, samples: usize) -> Outcome {
    let mut stop = |done, _| if done >= samples { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    embed(encoder, &id("w"), input, out, options, &mut stop).unwrap()
}

fn open(path: &Path, what: What) -> Input {
    Input::open(path.to_str().unwrap(), what).unwrap()
}

fn entries(out: &Path) -> Vec<Entry> {
    fs::read_to_string(out.join("keys.jsonl")).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn rows(out: &Path) -> Tensor {
    read_safetensors(out.join("embeddings.safetensors")).unwrap().remove("embeddings").unwrap()
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())
    };
    fs::read_dir(folder).unwrap().map(entry).collect()
}

#[test]
fn rows_are_the_encoders_and_what_has_none_is_listed() {
    let (model, dir) = (Model::new(), tempfile::tempdir().unwrap());
    let (images, out) = (dir.path().join("images"), dir.path().join("out"));
    draw(&images, &["b.png", "a/2.png", "a/1.PNG", "c.png", ".hidden.png"]);
    fs::write(images.join("a/broken.jpg"), b"<html>").unwrap();
    fs::write(images.join("notes.md"), b"").unwrap();
    let options = EmbedOptions { max_bad_share: 0.5, ..options(Format::Safetensors) };
    let meta = all(&model.encoder(), &open(&images, What::Images), &out, &options).unwrap().meta.unwrap();

    let found = entries(&out);
    let keys: Vec<&str> = found.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["a/1.PNG", "a/2.png", "b.png", "c.png"]);
    assert_eq!(found[3].index, Some(4));
    let queries: Vec<Query> = found.iter().map(|entry| Query::Image(entry.path.clone().unwrap())).collect();
    assert!(difference(&rows(&out), &encode(&model.encoder(), &queries).unwrap()) < 1e-6);
    assert_eq!((meta.rows, meta.plan.dim), (4, 24));
    assert_eq!(meta.skipped, BTreeMap::from([("orphan".to_owned(), 1), ("unknown_format".to_owned(), 1)]));
    let skipped = fs::read_to_string(out.join("skipped.txt")).unwrap();
    assert!(skipped.contains("a/broken.jpg\tunknown_format\t") && skipped.contains("notes.md\torphan\t"), "{skipped}");
    let strict = EmbedOptions { max_bad_share: 0.1, ..options };
    let error = all(&model.encoder(), &open(&images, What::Images), &dir.path().join("strict"), &strict).unwrap_err().to_string();
    assert!(error.contains("samples looked at cannot be used") && error.contains("a/broken.jpg"), "{error}");
}

#[test]
fn captions_and_lines_have_keys_of_their_own() {
    let (model, dir) = (Model::new(), tempfile::tempdir().unwrap());
    let encoder = model.encoder();
    draw(dir.path(), &["x.png", "y.png"]);
    fs::write(dir.path().join("t.csv"), "image,caption\nx.png,a dog\nx.png,a brown dog\ny.png,two cats\n").unwrap();
    fs::write(dir.path().join("lines.txt"), b"\xef\xbb\xbfa dog\r\n\nbad \xff\ntwo cats").unwrap();
    let csv = format!("csv:{}", dir.path().join("t.csv").display());
    let of_source = dir.path().join("source");
    all(&encoder, &Input::open(&csv, What::Texts).unwrap(), &of_source, &options(Format::Safetensors)).unwrap();
    let keys: Vec<String> = entries(&of_source).into_iter().map(|entry| entry.key).collect();
    assert_eq!(keys, ["x.png#0", "x.png#1", "y.png#0"]);
    let texts = ["a dog", "a brown dog", "two cats"].map(|text| Query::Text(text.to_owned()));
    assert!(difference(&rows(&of_source), &encode(&encoder, &texts).unwrap()) < 1e-6);

    let of_lines = dir.path().join("lines");
    let loose = EmbedOptions { max_bad_share: 0.6, ..options(Format::Safetensors) };
    let meta = all(&encoder, &open(&dir.path().join("lines.txt"), What::Texts), &of_lines, &loose).unwrap().meta.unwrap();
    let found: Vec<(String, Option<String>)> = entries(&of_lines).into_iter().map(|entry| (entry.key, entry.text)).collect();
    assert_eq!(found, [("1".to_owned(), Some("a dog".to_owned())), ("4".to_owned(), Some("two cats".to_owned()))]);
    assert_eq!((meta.skipped["empty_caption"], meta.skipped["invalid_utf8"]), (1, 1));
    assert!(difference(&rows(&of_lines), &encode(&encoder, &[texts[0].clone(), texts[2].clone()]).unwrap()) < 1e-6);
}

#[test]
fn an_interruption_changes_no_byte() {
    let (model, dir) = (Model::new(), tempfile::tempdir().unwrap());
    let images = dir.path().join("images");
    let names: Vec<String> = (0..30).map(|i| format!("{i:02}.png")).collect();
    draw(&images, &names.iter().map(String::as_str).collect::<Vec<_>>());
    fs::write(images.join("05.png"), b"broken").unwrap();
    let texts = dir.path().join("t.txt");
    fs::write(&texts, (0..30).map(|i| format!("text {i} {}\n", "of many words ".repeat(i % 5))).collect::<String>()).unwrap();
    for (what, place, format) in [(What::Images, &images, Format::Npy), (What::Texts, &texts, Format::Safetensors)] {
        let (input, options) = (open(place, what), options(format));
        let (whole, broken) = (dir.path().join(format!("{what:?}-whole")), dir.path().join(format!("{what:?}-broken")));
        all(&model.encoder(), &input, &whole, &options).unwrap();
        // Stopped in the middle of a part; then killed within the next, which leaves a half-written file.
        assert_eq!(some(&model.encoder(), &input, &broken, &options, 12).samples, 12);
        assert_eq!(some(&model.encoder(), &input, &broken, &options, 20).before, 12);
        fs::write(broken.join("part-00003.safetensors.partial-1"), b"half").unwrap();
        let outcome = all(&model.encoder(), &input, &broken, &options).unwrap();
        assert_eq!((outcome.before, outcome.samples), (20, 30));
        assert_eq!(files(&broken), files(&whole));
        // Once more: nothing is left to do.
        let again = all(&model.encoder(), &input, &broken, &options).unwrap();
        assert_eq!((again.rows, again.meta), (0, outcome.meta));
        assert_eq!(Collection::open(&broken).unwrap().rows(), if what == What::Images { 29 } else { 30 });
    }
}

#[test]
fn a_damaged_part_is_made_again() {
    let (model, dir) = (Model::new(), tempfile::tempdir().unwrap());
    let texts = dir.path().join("t.txt");
    fs::write(&texts, (0..30).map(|i| format!("text {i}\n")).collect::<String>()).unwrap();
    let (input, options) = (open(&texts, What::Texts), options(Format::Npy));
    let whole = dir.path().join("whole");
    all(&model.encoder(), &input, &whole, &options).unwrap();
    let change = |out: &Path, name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(out.join(name)).unwrap();
        change(&mut bytes);
        fs::write(out.join(name), bytes).unwrap();
    };
    let (first, second) = ("part-00000.safetensors", "part-00001.safetensors");
    // A number that is not finite in the middle of the first rows.
    let nan: &dyn Fn(&mut Vec<u8>) = &|bytes| {
        let at = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        bytes[at + 400..at + 404].copy_from_slice(&f32::NAN.to_le_bytes());
    };
    let flip: &dyn Fn(&mut Vec<u8>) = &|bytes| *bytes.last_mut().unwrap() ^= 1;
    let cut: &dyn Fn(&mut Vec<u8>) = &|bytes| bytes.truncate(bytes.len() / 2);
    let empty: &dyn Fn(&mut Vec<u8>) = &|bytes| bytes.clear();
    for (i, (name, damage, before)) in
        [(first, nan, 0), (first, flip, 0), (second, flip, 8), (second, cut, 8), (first, empty, 0), ("parts.json", cut, 0)]
            .into_iter()
            .enumerate()
    {
        let out = dir.path().join(format!("damaged-{i}"));
        assert_eq!(some(&model.encoder(), &input, &out, &options, 16).samples, 16);
        change(&out, name, damage);
        let outcome = all(&model.encoder(), &input, &out, &options).unwrap();
        assert_eq!((outcome.before, outcome.samples), (before, 30), "{name}");
        assert_eq!(files(&out), files(&whole), "{name}");
    }
}

#[test]
fn a_part_that_is_damaged_during_the_work_is_not_joined() {
    let (model, dir) = (Model::new(), tempfile::tempdir().unwrap());
    let (texts, out) = (dir.path().join("t.txt"), dir.path().join("out"));
    fs::write(&texts, (0..30).map(|i| format!("text {i}\n")).collect::<String>()).unwrap();
    let (input, options) = (open(&texts, What::Texts), options(Format::Npy));
    let mut damage = |done, _| {
        if done == 28 {
            fs::write(out.join("part-00000.safetensors"), b"damaged").unwrap();
        }
        ControlFlow::Continue(())
    };
    let error = embed(&model.encoder(), &id("w"), &input, &out, &options, &mut damage).unwrap_err().to_string();
    assert!(error.contains("part-00000") && error.contains("the same command makes it again"), "{error}");
    assert!(all(&model.encoder(), &input, &out, &options).unwrap().meta.is_some());
}

#[test]
fn other_work_in_a_folder_is_refused() {
    let (model, dir) = (Model::new(), tempfile::tempdir().unwrap());
    let (encoder, out, texts) = (model.encoder(), dir.path().join("out"), dir.path().join("t.txt"));
    fs::write(&texts, "a\nb\nc\nd\ne\nf\n").unwrap();
    let options = options(Format::Npy);
    some(&encoder, &open(&texts, What::Texts), &out, &options, 4);
    let refused = |options: &EmbedOptions, word: &str| {
        let error = all(&encoder, &open(&texts, What::Texts), &out, options).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("choose another --out"), "{error}");
    };
    refused(&EmbedOptions { dtype: Dtype::F16, ..options.clone() }, "`dtype`");
    fs::write(&texts, "a\nb\nc\nd\ne\ng\n").unwrap();
    refused(&options, "`source`");
    fs::write(&texts, "a\nb\nc\nd\ne\nf\n").unwrap();
    all(&encoder, &open(&texts, What::Texts), &out, &options).unwrap();
    refused(&EmbedOptions { format: Format::Safetensors, ..options.clone() }, "embeddings.npy");
    let go_on = &mut |_, _| ControlFlow::Continue(());
    let other = embed(&encoder, &id("v"), &open(&texts, What::Texts), &out, &options, go_on).unwrap_err().to_string();
    assert!(other.contains("`model`"), "{other}");
    // Embeddings that someone else made are not overwritten.
    fs::remove_file(out.join("meta.json")).unwrap();
    refused(&options, "not of this program's making");
    for (spec, what, word) in [("-", What::Images, "--what texts"), (dir.path().to_str().unwrap(), What::Texts, "no captions")] {
        assert!(Input::open(spec, what).err().unwrap().to_string().contains(word));
    }
}
