//! Text-based SoftCLIP from images, captions and tags: its frozen encoder, what that keeps on disk, and runs.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/pretrained.rs"]
mod pretrained;
#[allow(dead_code)]
mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use softclip_data::tokenizer::Tokenizer;
use softclip_tensor::Texts;
use softclip_train::config::{self, CategoryConfig, Pool, RunConfig, Untagged};
use softclip_train::{CategoryEncoder, TrainedModel, checkpoint, train};
use support::{options, shard};
use tch::{Device, Kind, Tensor};

/// A BERT that reads letter by letter.
fn bert(folder: &Path, name: &str) -> PathBuf {
    let letters: Vec<String> = ('a'..='z').chain('0'..='9').flat_map(|c| [c.to_string(), format!("##{c}")]).collect();
    let words: Vec<&str> =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ","].into_iter().chain(letters.iter().map(String::as_str)).collect();
    pretrained::bert(&folder.join(name), &words, 64)
}

fn open(config: &CategoryConfig, run: &Path) -> CategoryEncoder {
    CategoryEncoder::open(config, run, Device::Cpu, &mut |_| {}).unwrap()
}

fn category(encoder: &Path) -> CategoryConfig {
    CategoryConfig { encoder: Some(encoder.display().to_string()), batch_size: 3, ..CategoryConfig::default() }
}

fn texts(sentences: &[&str], captions: &[&str]) -> Texts {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    Texts { present: sentences.iter().map(|s| !s.is_empty()).collect(), sentences: owned(sentences), captions: owned(captions) }
}

fn off(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn each_distinct_text_is_encoded_once_whoever_asks() {
    let folder = tempfile::tempdir().unwrap();
    let config = category(&bert(folder.path(), "bert"));
    let run = folder.path().join("run");
    let batch = texts(&["dog, cat", "", "dog, cat", ""], &["a dog", "nothing", "dog, cat", "a red dog"]);
    let mut first = open(&config, &run);
    let found = first.embed(&batch).unwrap();
    assert_eq!(first.encoded(), 5, "two sentences, one of them empty, and three other captions");
    let (c, d) = (found.sentences.tensor(), found.captions.tensor());
    assert_eq!((c.size(), d.size(), c.kind(), c.requires_grad()), (vec![4, 12], vec![4, 12], Kind::Float, false));
    assert!(c.get(0) == c.get(2) && c.get(0) == d.get(2) && c.get(1) == c.get(3) && c.get(0) != c.get(1));
    assert!(off(&c.square().sum_dim_intlist(1, false, Kind::Float), &Tensor::ones([4], (Kind::Float, Device::Cpu))) < 1e-6);
    // The same bits from memory, from disk, and while another process writes.
    let mut second = open(&config, &run);
    for encoder in [&mut first, &mut second] {
        let before = encoder.encoded();
        let again = encoder.embed(&batch).unwrap();
        assert_eq!((encoder.encoded() - before, again.sentences.tensor() == c, again.captions.tensor() == d), (0, true, true));
    }
    // Alone or in company, to rounding.
    let alone = open(&config, &folder.path().join("other")).embed(&texts(&["dog, cat"], &["a red dog"])).unwrap();
    assert!(off(&alone.sentences.tensor().get(0), &c.get(0)) < 1e-6 && off(&alone.captions.tensor().get(0), &d.get(3)) < 1e-6);
}

#[test]
fn another_encoder_pooling_or_context_never_hits() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (bert(folder.path(), "one"), bert(folder.path(), "other"));
    let clip = pretrained::clip(folder.path());
    let shared = folder.path().join("cache");
    let base = |encoder: &Path| CategoryConfig { cache: Some(shared.clone()), ..category(encoder) };
    let batch = texts(&["dog"], &["a dog"]);
    let encoded = |config: &CategoryConfig| {
        let mut encoder = open(config, folder.path());
        encoder.embed(&batch).unwrap();
        encoder.encoded()
    };
    let all = [
        base(&one),
        base(&other),
        CategoryConfig { pool: Some(Pool::Mean), ..base(&one) },
        CategoryConfig { pool: Some(Pool::Class), ..base(&one) },
        CategoryConfig { context_length: Some(4), ..base(&one) },
        base(&clip),
    ];
    for (i, config) in all.iter().enumerate() {
        assert_eq!(encoded(config), 2, "{config:?}");
        assert_eq!(fs::read_dir(&shared).unwrap().count(), i + 1);
    }
    all.iter().for_each(|config| assert_eq!(encoded(config), 0, "{config:?}"));
    // What does not change vectors does not make a new cache; a vocabulary does.
    assert_eq!(encoded(&CategoryConfig { batch_size: 1, untagged: Untagged::Hard, ..base(&one) }), 0);
    let vocabulary = fs::read_to_string(one.join("vocab.txt")).unwrap();
    fs::write(one.join("vocab.txt"), vocabulary.replace("\nz\n", "\nZ\n")).unwrap();
    assert_eq!(encoded(&base(&one)), 2);
}

#[test]
fn a_pair_without_tags_has_the_neutral_sentence_or_no_similarity() {
    let folder = tempfile::tempdir().unwrap();
    let neutral = category(&bert(folder.path(), "bert"));
    let hard = CategoryConfig { untagged: Untagged::Hard, ..neutral.clone() };
    let batch = texts(&["dog", ""], &["a dog", "a cat"]);
    let embed = |config: &CategoryConfig| open(config, folder.path()).embed(&batch).unwrap();
    let norms = |config: &CategoryConfig| {
        let found = embed(config);
        [&found.sentences, &found.captions].map(|x| x.tensor().get(1).norm().double_value(&[]))
    };
    assert!(norms(&neutral).iter().all(|norm| (norm - 1.0).abs() < 1e-6));
    assert_eq!(norms(&hard), [0.0; 2]);
    let mut encoder = open(&hard, &folder.path().join("another"));
    encoder.embed(&batch).unwrap();
    assert_eq!(encoder.encoded(), 2, "what is taken for nothing is not encoded");
    // Its labels are its own pair, and the other's are theirs.
    for symmetrize in [false, true] {
        let loss = format!("{{name: text_based, blend: targets_normalized, symmetrize: {symmetrize}}}");
        let found = embed(&hard);
        let inputs = softclip_loss::LossInputs {
            category: Some(&found.sentences),
            category_text: Some(&found.captions),
            ..softclip_loss::LossInputs::new(&found.captions, &found.captions)
        };
        let (loss, scales) = (serde_yaml::from_str(&loss).unwrap(), softclip_loss::Scales::new(0.0));
        let found = softclip_loss::blockwise(&loss, &inputs, &scales, &Default::default()).unwrap();
        assert_eq!(found.diagnostics.target_softness, 0.0);
    }
}

#[test]
fn encoders_that_cannot_serve_are_refused_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let bert = bert(folder.path(), "bert");
    let refused = |config: CategoryConfig| {
        CategoryEncoder::open(&config, folder.path(), Device::Cpu, &mut |_| {}).err().unwrap().to_string()
    };
    let told = refused(CategoryConfig { pool: Some(Pool::Eot), ..category(&bert) });
    assert!(told.starts_with("category.pool: ") && told.contains("pooler, class and mean"), "{told}");
    let told = refused(CategoryConfig { context_length: Some(65), ..category(&bert) });
    assert!(told.starts_with("category.context_length: 65 tokens") && told.contains("reads 64"), "{told}");
    let mut tensors = softclip_tensor::file::read_safetensors(bert.join("model.safetensors")).unwrap();
    tensors.retain(|name, _| !name.contains("pooler"));
    let tensors: Vec<(String, Tensor)> = tensors.into_iter().map(|(name, t)| (name, t.copy())).collect();
    softclip_tensor::file::write_safetensors(bert.join("model.safetensors"), &tensors, &Default::default()).unwrap();
    let told = refused(category(&bert));
    assert!(told.starts_with("category.pool: ") && told.contains("write class or mean"), "{told}");
    let told = refused(category(&folder.path().join("none")));
    assert!(told.contains("none"), "{told}");
    let told = refused(CategoryConfig { batch_size: 0, ..category(&bert) });
    assert!(told.starts_with("category.batch_size: 0"), "{told}");
    let mut encoder = open(&CategoryConfig { pool: Some(Pool::Mean), ..category(&bert) }, folder.path());
    let told = encoder.embed(&texts(&["dog", "cat"], &["a dog"])).unwrap_err().to_string();
    assert!(told.contains("category sentences: 2 of them, 1 captions"), "{told}");
}

#[test]
fn clips_tower_reads_a_category_at_the_end_token_of_another_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::from_folder(&bert(folder.path(), "bert")).unwrap();
    let clip = pretrained::clip_with(&folder.path().join("clip"), &tokenizer);
    // As older files of Hugging Face's are, which say nothing of the end.
    let config = fs::read_to_string(clip.join("config.json")).unwrap();
    assert!(config.contains("\"eos_token_id\": 3"), "{config}");
    fs::write(clip.join("config.json"), config.replace("\"eos_token_id\": 3", "\"eos_token_id\": 2")).unwrap();
    let found = open(&category(&clip), folder.path()).embed(&texts(&["z a"], &["z b"])).unwrap();
    // Read at the largest token, z, nothing that comes behind it would count.
    assert!(off(found.sentences.tensor(), found.captions.tensor()) > 1e-3);
}

/// A shard of `n` images, each of a colour, with one caption and a list of tags, every fifth of them empty.
fn tagged(folder: &Path, n: usize) -> PathBuf {
    let mut builder = tar::Builder::new(Vec::new());
    let mut put = |name: String, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    for i in 0..n {
        let pixels: Vec<u8> = (0..24 * 20).flat_map(|_| [(i * 83) as u8, (i * 151) as u8, (i * 29) as u8]).collect();
        let mut image = Vec::new();
        let encoder = image::codecs::png::PngEncoder::new(&mut image);
        image::ImageEncoder::write_image(encoder, &pixels, 24, 20, image::ExtendedColorType::Rgb8).unwrap();
        put(format!("{i:04}.png"), &image);
        put(format!("{i:04}.txt"), format!("picture {i}").as_bytes());
        let tags = ["dog", "cat", "person", "car"];
        let tags: Vec<&str> = (0..i % 5).map(|k| tags[(i + k) % 4]).collect();
        put(format!("{i:04}.tags.json"), serde_json::to_string(&tags).unwrap().as_bytes());
    }
    let path = folder.join("tagged.tar");
    fs::write(&path, builder.into_inner().unwrap()).unwrap();
    path
}

/// Two epochs of six steps each over 40 pairs.
fn configuration(folder: &Path, sets: &[&str]) -> Result<RunConfig, config::ConfigError> {
    let (data, encoder) = (folder.join("tagged.tar"), folder.join("bert"));
    let text = format!(
        "model:\n  image: {{kind: vit, image_size: 16, patch_size: 8, width: 16, layers: 1, heads: 2}}\n  \
         text: {{context_length: 12, vocab_size: 49408, width: 16, heads: 2, layers: 1}}\n  embed_dim: 8\n\
         loss: {{name: text_based, blend: targets_normalized, symmetrize: true, tau: 0.1, alpha: 0.3}}\n\
         category: {{encoder: {}, pool: mean, batch_size: 4}}\n\
         data: {{train: {}, workers: 2, tags: distinct_sorted, neutral_tags: \"\"}}\n\
         train: {{steps: 12, batch_size: 6, lr: 0.01, weight_decay: 0, warmup: 0, schedule: const, checkpoint_every: 4, log_every: 1}}\n",
        encoder.display(),
        data.display()
    );
    let path = folder.join("run.yaml");
    fs::write(&path, text).unwrap();
    config::load(&path, &sets.iter().map(|set| (*set).to_owned()).collect::<Vec<_>>())
}

fn logged(run: &Path, name: &str) -> Vec<f64> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["kind"] == "train").map(|line| line[name].as_f64().unwrap()).collect()
}

fn bytes(run: &Path, step: u64) -> [Vec<u8>; 3] {
    let folder = run.join(format!("checkpoints/step-{step:08}"));
    [checkpoint::MODEL, checkpoint::OPTIMIZER, checkpoint::STATE].map(|name| fs::read(folder.join(name)).unwrap())
}

/// The one file of a cache with this extension.
fn cached(run: &Path, extension: &str) -> PathBuf {
    let folder = fs::read_dir(run.join("category")).unwrap().next().unwrap().unwrap().path();
    folder.join(format!("0000.{extension}"))
}

#[test]
fn a_run_learns_and_its_second_epoch_encodes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    tagged(folder.path(), 36);
    bert(folder.path(), "bert");
    let source = shard(folder.path(), 130).display().to_string();
    let pairing = format!("eval=[{{task: pairing, data: {source}, compat: source}}, {{task: pairing, data: {source}}}]");
    let config = configuration(folder.path(), &["train.steps=30", &pairing]).unwrap();
    let run = folder.path().join("run");
    let outcome = train(&config, &options(&run)).unwrap();
    let (loss, encoded) = (logged(&run, "loss"), logged(&run, "category_encoded"));
    assert!(loss[29] < loss[0] * 0.9, "{loss:?}");
    // 36 captions; of i % 5 tags from four places on, 1 + 4 × 4 sentences at most as sets.
    let first: f64 = encoded[..6].iter().sum();
    assert!((36.0..=36.0 + 17.0).contains(&first) && encoded[6..].iter().all(|&n| n == 0.0), "{encoded:?}");
    assert!(
        logged(&run, "logit_scale").iter().all(|scale| (scale - 10.0).abs() < 1e-9),
        "the constant, and not what is not used"
    );
    assert!(logged(&run, "target_softness").iter().all(|share| (0.1..0.9).contains(share)));
    let trained = TrainedModel::open(&run, Device::Cpu).unwrap();
    let scale = trained.model.clip().logit_scale().double_value(&[]);
    assert!((scale - 10f64.ln()).abs() < 1e-6, "a score's logit is by the temperature of the training: {scale}");

    // The two protocols stand beside each other, each with what it is.
    let protocols: Vec<&str> = outcome.results.iter().map(|result| result.protocol.as_deref().unwrap()).collect();
    assert!(protocols[0].starts_with("source: every caption") && protocols[1].starts_with("corrected: "), "{protocols:?}");
    let score = outcome.results[0].metric("pairing_source").unwrap();
    assert!((0.0..=1.0).contains(&score) && outcome.results[1].metric("pairing_image_to_text").is_some());
    // 260 captions are two whole blocks, and a short one.
    assert!((outcome.results[0].chance["pairing_source"] - 2.0 / 3.0 / 128.0).abs() < 1e-12);
    assert_eq!(fs::read_dir(run.join("results")).unwrap().count(), 2);
}

#[test]
fn resumed_with_its_cache_it_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    tagged(folder.path(), 40);
    bert(folder.path(), "bert");
    let config = configuration(folder.path(), &[]).unwrap();
    let whole = folder.path().join("whole");
    train(&config, &options(&whole)).unwrap();

    // Stopped after five steps.
    let stopped = folder.path().join("stopped");
    let mut five = config.clone();
    five.train.steps = Some(5);
    train(&five, &options(&stopped)).unwrap();
    assert_eq!(train(&config, &options(&stopped)).unwrap().step, 12);
    assert_eq!(bytes(&whole, 12), bytes(&stopped, 12));

    // Killed in the fifth step, while the cache was written: the checkpoint is that of the fourth.
    for (extension, cut) in [("keys", 5), ("keys", 24), ("vectors", 7)] {
        let killed = folder.path().join(format!("killed-{extension}-{cut}"));
        train(&five, &options(&killed)).unwrap();
        fs::remove_dir_all(killed.join("checkpoints/step-00000005")).unwrap();
        let file = fs::OpenOptions::new().write(true).open(cached(&killed, extension)).unwrap();
        file.set_len(file.metadata().unwrap().len() - cut).unwrap();
        train(&config, &options(&killed)).unwrap();
        assert_eq!(bytes(&whole, 12), bytes(&killed, 12), "{extension} {cut}");
        for extension in ["keys", "vectors"] {
            assert_eq!(fs::read(cached(&whole, extension)).unwrap(), fs::read(cached(&killed, extension)).unwrap());
        }
    }
}

#[test]
fn a_constant_temperature_is_what_the_weights_say_whatever_was_learned_before() {
    let folder = tempfile::tempdir().unwrap();
    tagged(folder.path(), 40);
    let hard = ["loss.alpha=0", "loss.blend=targets", "category.encoder=null"];
    let run = folder.path().join("run");
    // Learned, so that there are moments; constant, once with 1/τ below 1, which no learned one is; and learned again.
    for (i, tau) in ["null", "2", "0.3", "null"].into_iter().enumerate() {
        let (tau, steps) = (format!("loss.tau={tau}"), format!("train.steps={}", 3 * (i + 1)));
        let config = configuration(folder.path(), &[&hard[..], &[&tau, &steps]].concat()).unwrap();
        train(&config, &options(&run)).unwrap();
        let scale = TrainedModel::open(&run, Device::Cpu).unwrap().model.clip().logit_scale().double_value(&[]) as f32;
        match config.loss.constant_tau() {
            Some(tau) => assert_eq!(scale, tau.recip().ln() as f32, "{i}"),
            None => assert!(logged(&run, "logit_scale").windows(2).skip(3 * i).all(|pair| pair[0] != pair[1]), "{i}"),
        }
    }
}

#[test]
fn the_hard_rows_need_no_encoder() {
    let folder = tempfile::tempdir().unwrap();
    tagged(folder.path(), 40);
    let config = configuration(folder.path(), &["loss.alpha=0", "loss.blend=targets", "category.encoder=null"]).unwrap();
    let run = folder.path().join("run");
    train(&config, &options(&run)).unwrap();
    assert!(!run.join("category").exists());
    let lines = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    assert!(!lines.contains("category_encoded"));
}

#[test]
fn sections_that_do_not_fit_are_refused_by_their_key() {
    let folder = tempfile::tempdir().unwrap();
    tagged(folder.path(), 4);
    for (sets, says) in [
        (&["category.encoder=null"][..], "category.encoder: text_based compares"),
        (&["category.untagged=hard", "loss.blend=logits"], "category.untagged: hard makes labels hard"),
        (&["category.untagged=hard", "loss.blend=targets", "loss.alpha=1"], "category.untagged: hard leaves"),
        (&["category.batch_size=0"], "category.batch_size: 0 is out of range, write a number from 1 to"),
        (&["category.context_length=1"], "category.context_length: 1 is out of range, write a number from 2 to"),
        (&["category.poolers=mean"], "unknown field `poolers`"),
        (&["train.tau=0.2"], "train.tau: 0.2 is not loss.tau, 0.1"),
        (&["loss.tau=0.001"], "loss.tau: 0.001 is a scale of 1000"),
        (&["eval=[{task: retrieval, compat: source}]"], "compat: only task: pairing"),
        (&["data.tags=some"], "unknown variant `some`"),
    ] {
        let error = configuration(folder.path(), sets).unwrap_err().to_string();
        assert!(error.contains(says), "{sets:?}: {error}");
    }
    // Data without lists of tags.
    bert(folder.path(), "bert");
    let untagged = shard(folder.path(), 24);
    let config = configuration(folder.path(), &[&format!("data.train={}", untagged.display())]).unwrap();
    let error = train(&config, &options(&folder.path().join("run"))).unwrap_err().to_string();
    assert!(error.contains("missing_tags"), "{error}");
}
