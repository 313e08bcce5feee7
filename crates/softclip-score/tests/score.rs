//! Tables of pairs to scores: order, errors, formats, equality with the encoders called by hand.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use softclip_data::image::{DecodeOptions, Decoder, Transform};
use softclip_data::rng::RngKey;
use softclip_data::tokenizer::Tokenizer;
use softclip_encoders::{Clip, ClipConfig, Mode};
use softclip_score::Error;
use softclip_score::pairs::{Columns, Table};
use softclip_score::report::Meter;
use softclip_score::score::{Format, Output, Places, Remote, ScoreOptions, Scorer, Summary, refuse_same_file};
use softclip_tensor::{CLIP_MEAN, CLIP_STD, Embeddings, normalize_images};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor, no_grad};

const MODEL: &str = r#"{"embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2}}"#;
const CAPTIONS: [&str; 5] = [
    "a cat",
    "two, of \"\"them\"\" on a beach in the evening",
    "ein Hund läuft",
    "a very long caption that goes on and on beyond all sixteen tokens of context there are here",
    "x",
];

/// A folder of images with a table, and a model.
struct World {
    folder: tempfile::TempDir,
    clip: Clip,
    tokenizer: Tokenizer,
    _vs: VarStore,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for i in 0..6u8 {
            let name = if i % 2 == 0 { format!("{i}.png") } else { format!("{i}.jpg") };
            let pixel = |x: u32, y: u32| image::Rgb([x as u8 * 5, y as u8 * i, (x * y) as u8]);
            image::RgbImage::from_fn(40 + u32::from(i), 50, pixel).save(folder.path().join(name)).unwrap();
        }
        let vs = VarStore::new(Device::Cpu);
        let config = ClipConfig::from_open_clip_json(MODEL).unwrap();
        let clip = softclip_encoders::seeded(5, || Clip::new(&vs.root(), &config)).unwrap();
        World { folder, clip, tokenizer: Tokenizer::clip().unwrap(), _vs: vs }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A table of `n` rows over six images and five captions, some of each more than once.
    fn table(&self, n: usize) -> PathBuf {
        let image = |i: usize| format!("{}.{}", i * i % 6, ["png", "jpg"][i * i % 6 % 2]);
        let rows = (0..n).map(|i| format!("{i},{},\"{}\"\n", image(i), CAPTIONS[i * 7 % 5]));
        self.write("pairs.csv", &format!("id,image,caption\n{}", rows.collect::<String>()))
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.at(name), text).unwrap();
        self.at(name)
    }

    fn score(&self, table: &Path, out: &str, options: &ScoreOptions, remote: Option<Arc<dyn Remote>>) -> (Summary, String) {
        self.score_with_bias(table, out, options, remote, None)
    }

    fn score_with_bias(
        &self,
        table: &Path,
        out: &str,
        options: &ScoreOptions,
        remote: Option<Arc<dyn Remote>>,
        logit_bias: Option<f64>,
    ) -> (Summary, String) {
        let table = Table::open(table, &Columns::default()).unwrap();
        let places = Places { remote, ..Places::beside(table.path()) };
        let mut output = Output::file(&self.at(out), Format::of(Path::new(out)).unwrap(), table.header()).unwrap();
        let scorer = Scorer { logit_bias, ..Scorer::new(&self.clip, &self.tokenizer, Device::Cpu) };
        let mut meter = Meter::start(Device::Cpu);
        let summary = scorer.score(table, places, options, &mut output, &mut meter).unwrap();
        assert!(!self.at(out).exists(), "it has its name before it is whole");
        output.finish().unwrap();
        let text = fs::read_to_string(self.at(out)).unwrap();
        fs::remove_file(self.at(out)).unwrap();
        (summary, text)
    }

    /// The cosine as the encoders give it for one image and one caption.
    fn by_hand(&self, image: &str, caption: &str) -> f64 {
        let transform = Transform::eval(32);
        let mut pixels = vec![0; transform.output_len()];
        let mut decoder = Decoder::new(DecodeOptions::default()).unwrap();
        transform.apply(&fs::read(self.at(image)).unwrap(), RngKey::new(0, 0, 0), &mut decoder, &mut pixels).unwrap();
        let pixels = Tensor::from_slice(&pixels).view([1, 3, 32, 32]);
        let unit = |features: Tensor| Embeddings::normalize(&features).unwrap().into_tensor();
        no_grad(|| {
            let image = normalize_images(&pixels, Kind::Float, CLIP_MEAN, CLIP_STD).unwrap();
            let image = unit(self.clip.encode_image(&image, Mode::Eval).unwrap());
            let text = unit(self.clip.encode_text(&self.tokenizer.encode_batch(&[caption], 16, false).tokens).unwrap());
            (image * text).sum(Kind::Float).double_value(&[])
        })
    }
}

fn options(batch_size: usize) -> ScoreOptions<'static> {
    ScoreOptions { batch_size, threads: 3, ..ScoreOptions::default() }
}

fn records(text: &str) -> Vec<csv::StringRecord> {
    csv::Reader::from_reader(text.as_bytes()).records().map(Result::unwrap).collect()
}

#[test]
fn scores_are_the_encoders_own_in_the_tables_order_for_any_batch_size() {
    let world = World::new();
    let table = world.table(33);
    let scale = world.clip.logit_scale().double_value(&[]).exp();
    for batch_size in [1, 7, 32] {
        let (summary, text) = world.score(&table, "scores.csv", &options(batch_size), None);
        assert_eq!((summary.rows, summary.scored, summary.failed), (33, 33, 0));
        assert!(summary.captions_cut > 0 && !summary.stopped);
        assert!(text.starts_with("id,image,caption,cosine,logit,error\n"));
        let rows = records(&text);
        assert_eq!(rows.len(), 33);
        for (i, row) in rows.iter().enumerate() {
            assert_eq!((&row[0], &row[5]), (i.to_string().as_str(), ""));
            assert_eq!(row[2], CAPTIONS[i * 7 % 5].replace("\"\"", "\""));
            let (cosine, logit): (f64, f64) = (row[3].parse().unwrap(), row[4].parse().unwrap());
            let expected = world.by_hand(&row[1], &row[2]);
            assert!((cosine - expected).abs() < 1e-6, "row {i} of {batch_size}: {cosine} {expected}");
            assert!((logit - scale * cosine).abs() < 1e-5);
        }
    }
}

#[test]
fn a_model_with_a_bias_states_probabilities_in_every_format() {
    let world = World::new();
    let table = world.write("pairs.csv", "image,caption\n0.png,a cat\nnowhere.jpg,a cat\n1.jpg,x\n");
    let scale = world.clip.logit_scale().double_value(&[]).exp();
    let check = |cosine: f64, logit: f64, probability: f64| {
        assert!((logit - (scale * cosine - 10.0)).abs() < 1e-5, "{cosine} {logit}");
        assert!((probability - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-7, "{logit} {probability}");
    };
    let score = |out: &str| world.score_with_bias(&table, out, &options(2), None, Some(-10.0)).1;
    for (out, delimiter) in [("scores.csv", b','), ("scores.tsv", b'\t')] {
        let text = score(out);
        let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(text.as_bytes());
        assert_eq!(reader.headers().unwrap(), vec!["image", "caption", "cosine", "logit", "probability", "error"]);
        let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        for row in [&rows[0], &rows[2]] {
            check(row[2].parse().unwrap(), row[3].parse().unwrap(), row[4].parse().unwrap());
            assert!(row[5].is_empty());
        }
        assert!(rows[1][2].is_empty() && rows[1][4].is_empty() && rows[1][5].contains("no such file"));
    }
    let text = score("scores.jsonl");
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let number = |row: &serde_json::Value, name: &str| row[name].as_f64().unwrap();
    check(number(&rows[0], "cosine"), number(&rows[0], "logit"), number(&rows[0], "probability"));
    assert!(rows[1]["probability"].is_null() && rows[1]["error"].is_string());
    assert!(!world.score(&table, "scores.jsonl", &options(2), None).1.contains("probability"), "softmax states none");
}

#[test]
fn a_column_of_probabilities_is_not_written_twice() {
    let world = World::new();
    let table =
        Table::open(&world.write("pairs.csv", "image,caption,probability\n0.png,a cat,1\n"), &Columns::default()).unwrap();
    let mut output = Output::file(&world.at("scores.csv"), Format::Csv, table.header()).unwrap();
    let scorer = Scorer { logit_bias: Some(0.0), ..Scorer::new(&world.clip, &world.tokenizer, Device::Cpu) };
    let places = Places::beside(table.path());
    let mut meter = Meter::start(Device::Cpu);
    let error = scorer.score(table, places, &ScoreOptions::default(), &mut output, &mut meter).unwrap_err().to_string();
    assert!(error.contains("`probability`") && error.contains("rename"), "{error}");
}

#[test]
fn a_row_that_fails_says_why_and_costs_no_other() {
    let world = World::new();
    world.write("note.jpg", "<html>not found</html>");
    let rows = "image,caption\n0.png,a cat\nnowhere.jpg,a cat\nnote.jpg,\"a \"\"cat\"\"\nin two\"\n.,a cat\n1.jpg,\n0.png\n\
                http://x/1.jpg,a cat\n0.png,a cat\n";
    let table = world.write("pairs.csv", rows);
    let expected = [
        "",
        "nowhere.jpg: no such file",
        "not an image",
        "not a regular file",
        "`caption` is empty",
        "1 cells",
        "not fetched",
        "",
    ];
    for batch_size in [1, 3, 32] {
        let (summary, text) = world.score(&table, "scores.csv", &options(batch_size), None);
        assert_eq!((summary.rows, summary.scored, summary.failed), (8, 2, 6));
        assert_eq!(summary.failures.iter().map(|failure| failure.0).collect::<Vec<_>>(), [3, 4, 6, 7, 8, 9]);
        for (row, part) in records(&text).iter().zip(expected) {
            assert_eq!(row[2].is_empty(), !part.is_empty(), "{row:?}");
            assert_eq!(row[4].is_empty(), part.is_empty(), "{row:?}");
            assert!(row[4].contains(part), "{row:?}: {part}");
        }
    }
    let (_, text) = world.score(&table, "scores.jsonl", &options(3), None);
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 8);
    assert!(rows[0]["cosine"].is_number() && rows[0]["error"].is_null());
    assert_eq!((rows[2]["caption"].as_str(), rows[2]["logit"].is_null()), (Some("a \"cat\"\nin two"), true));
    assert!(rows[2]["error"].as_str().unwrap().contains("note.jpg: not an image"));
}

/// Addresses that are answered from a folder, those with an odd number by a failure.
struct Folder(PathBuf);

impl Remote for Folder {
    fn stream<'a>(
        &'a self,
        urls: Vec<String>,
        _stop: &'a Arc<AtomicBool>,
    ) -> Box<dyn Iterator<Item = Result<Vec<u8>, String>> + 'a> {
        Box::new(urls.into_iter().map(|url| {
            let name = url.rsplit('/').next().unwrap_or_default();
            if name.ends_with("jpg") { Err(format!("{url}: status 404")) } else { Ok(fs::read(self.0.join(name)).unwrap()) }
        }))
    }
}

#[test]
fn addresses_and_files_may_be_mixed() {
    let world = World::new();
    let row = |i: usize| match i % 3 {
        0 => format!("{}.png,a cat\n", i % 2 * 2),
        1 => format!("HTTPS://x/y/{}.png,a cat\n", i % 2 * 2),
        _ => "http://x/1.jpg,a cat\n".to_owned(),
    };
    let table = world.write("pairs.csv", &format!("url,text\n{}", (0..20).map(row).collect::<String>()));
    for batch_size in [1, 4, 32] {
        let remote: Arc<dyn Remote> = Arc::new(Folder(world.folder.path().to_owned()));
        let (summary, text) = world.score(&table, "scores.csv", &options(batch_size), Some(remote));
        assert_eq!((summary.rows, summary.failed), (20, 6));
        for (i, row) in records(&text).iter().enumerate() {
            if i % 3 == 2 {
                assert_eq!(&row[4], "http://x/1.jpg: status 404");
            } else {
                let expected = world.by_hand(&format!("{}.png", i % 2 * 2), "a cat");
                assert!((row[2].parse::<f64>().unwrap() - expected).abs() < 1e-6, "{row:?}");
            }
        }
    }
}

#[test]
fn a_stop_leaves_no_file() {
    let world = World::new();
    let table = Table::open(&world.table(200), &Columns::default()).unwrap();
    let places = Places::beside(table.path());
    let mut output = Output::file(&world.at("scores.csv"), Format::Csv, table.header()).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let progress = |_| stop.store(true, Ordering::Relaxed);
    let options = ScoreOptions { batch_size: 8, stop: Arc::clone(&stop), progress: &progress, ..ScoreOptions::default() };
    let scorer = Scorer::new(&world.clip, &world.tokenizer, Device::Cpu);
    let summary = scorer.score(table, places, &options, &mut output, &mut Meter::start(Device::Cpu)).unwrap();
    assert_eq!((summary.rows, summary.stopped), (8, true));
    let names = || fs::read_dir(world.folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert_eq!(names().filter(|name| name.starts_with("scores.csv.partial-")).count(), 1);
    drop(output);
    assert_eq!(names().filter(|name| name.starts_with("scores")).count(), 0);
}

#[test]
fn what_is_read_is_not_written_over() {
    let world = World::new();
    let table = world.table(1);
    std::os::unix::fs::symlink(&table, world.at("link.csv")).unwrap();
    for output in [table.clone(), world.at("link.csv"), world.folder.path().join(".").join("pairs.csv")] {
        let error = refuse_same_file(&table, &output).unwrap_err();
        assert!(matches!(error, Error::Output { .. }), "{error}");
    }
    refuse_same_file(&table, &world.at("scores.csv")).unwrap();
    assert!(Output::file(&world.at("no/such/folder.csv"), Format::Csv, &[]).is_err());
}
