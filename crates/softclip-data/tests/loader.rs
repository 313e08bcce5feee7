//! Batches: the same whatever the threads do, and whole whatever the data are.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use softclip_data::image::DecodeOptions;
use softclip_data::image::{Augment, Transform};
use softclip_data::inspect::inspect;
use softclip_data::loader::{
    LoadError, LoaderOptions, Position, RegionShape, TagList, TagSentence, TrainItem, eval_batches, train_batches,
};
use softclip_data::source::{Rois, Sample, SampleError, SampleErrorKind, Source, SourceFault, SourceFaultKind};
use softclip_data::tokenizer::Tokenizer;
use softclip_tensor::tch::{IndexOp, Tensor};

/// Images of one colour each, some of them broken, some slow.
#[derive(Default)]
struct Made {
    len: usize,
    broken: Vec<usize>,
    /// Samples that a defect of the source concerns.
    panics: Vec<usize>,
    /// How many samples indexing left out.
    left_out: Vec<SourceFault>,
    reads: AtomicUsize,
}

impl Source for Made {
    fn len(&self) -> usize {
        self.len
    }

    fn key(&self, index: usize) -> String {
        format!("k{index}")
    }

    fn read(&self, index: usize) -> Result<Sample, SampleError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        assert!(!self.panics.contains(&index), "a defect of the source");
        std::thread::sleep(std::time::Duration::from_micros(((index * 7919) % 13) as u64 * 50));
        if self.broken.contains(&index) {
            return Err(SampleError::new(self.key(index), SampleErrorKind::EmptyCaption, "as the test wants"));
        }
        let pixels: Vec<u8> = (0..24 * 20 * 3).map(|i| (i * 7 + index * 31) as u8).collect();
        let mut image = Vec::new();
        let encoder = image::codecs::png::PngEncoder::new(&mut image);
        image::ImageEncoder::write_image(encoder, &pixels, 24, 20, image::ExtendedColorType::Rgb8).unwrap();
        let captions = (0..3).map(|c| format!("caption {c} of image {index}{}", " x".repeat(index % 5))).collect();
        let count = index % 3;
        let rois = Rois { count, dim: 4, features: vec![index as f32; count * 4] };
        let tags = (0..count).map(|i| format!("tag{i}")).collect();
        Ok(Sample { key: self.key(index), image, captions, tags: Some(tags), rois: Some(rois), class: None })
    }

    fn describe(&self) -> String {
        format!("made: {} samples", self.len)
    }

    fn faults(&self) -> &[SourceFault] {
        &self.left_out
    }
}

fn source(len: usize, broken: &[usize]) -> Arc<dyn Source> {
    Arc::new(Made { len, broken: broken.to_vec(), ..Made::default() })
}

fn options(batch_size: usize, workers: usize) -> LoaderOptions {
    let transform = Transform::train(16, Augment { flip: 0.5, ..Augment::default() });
    LoaderOptions { workers, seed: 3, tags: Some(TagSentence::new("an image")), ..LoaderOptions::new(batch_size, transform) }
}

fn take(source: Arc<dyn Source>, options: LoaderOptions, from: Position, n: usize) -> Vec<TrainItem> {
    train_batches(source, options, from).unwrap().take(n).map(|item| item.unwrap()).collect()
}

fn same(a: &TrainItem, b: &TrainItem) -> bool {
    let tags = |item: &TrainItem| item.batch.tags.as_ref().unwrap().sentences.tokens.shallow_clone();
    a.position == b.position
        && a.batch.keys == b.batch.keys
        && a.batch.images == b.batch.images
        && a.batch.tokens.tokens == b.batch.tokens.tokens
        && a.batch.tokens.lengths == b.batch.tokens.lengths
        && tags(a) == tags(b)
}

#[test]
fn batches_do_not_depend_on_the_number_of_threads() {
    let broken = [5, 17, 40];
    let one = take(source(70, &broken), options(20, 1), Position::default(), 7);
    for workers in [2, 5] {
        let many = take(source(70, &broken), options(20, workers), Position::default(), 7);
        assert!(one.iter().zip(&many).all(|(a, b)| same(a, b)), "{workers}");
    }
    let positions: Vec<(u64, u64)> = one.iter().map(|item| (item.position.epoch, item.position.batch)).collect();
    assert_eq!(positions, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]);
    assert!(one.iter().all(|item| item.batch.len() == 20));
}

#[test]
fn loading_goes_on_from_any_position_with_the_same_batches() {
    let whole = take(source(50, &[3]), options(16, 3), Position::default(), 8);
    for from in [1, 3, 5] {
        let rest = take(source(50, &[3]), options(16, 2), whole[from].position, 8 - from);
        assert!(whole[from..].iter().zip(&rest).all(|(a, b)| same(a, b)), "{from}");
    }
}

#[test]
fn an_epoch_uses_each_sample_once_and_epochs_augment_anew() {
    let items = take(source(48, &[]), options(16, 2), Position::default(), 6);
    let epoch = |range: std::ops::Range<usize>| {
        let mut keys: Vec<String> = items[range].iter().flat_map(|item| item.batch.keys.clone()).collect();
        keys.sort();
        keys.dedup();
        keys.len()
    };
    assert_eq!((epoch(0..3), epoch(3..6)), (48, 48));
    let image = |range: std::ops::Range<usize>| -> Tensor {
        let found = items[range].iter().find_map(|item| {
            let at = item.batch.keys.iter().position(|key| key == "k7")?;
            Some(item.batch.images.i(at as i64))
        });
        found.unwrap()
    };
    assert_ne!(image(0..3), image(3..6));
}

#[test]
fn texts_are_those_of_the_tokens() {
    let tokenizer = Tokenizer::clip().unwrap();
    let form = TagSentence { list: TagList::DistinctSorted, neutral: String::new() };
    let asked = LoaderOptions { texts: Some(form.clone()), tags: Some(form), ..options(16, 3) };
    for item in take(source(40, &[]), asked, Position::default(), 4) {
        let batch = item.batch;
        let texts = batch.texts.unwrap();
        for (texts, tokens) in [(&texts.captions, &batch.tokens), (&texts.sentences, &batch.tags.as_ref().unwrap().sentences)] {
            assert_eq!(tokenizer.encode_batch(texts, 77, true).tokens, tokens.tokens);
        }
        assert_eq!(texts.present, Vec::<bool>::try_from(&batch.tags.unwrap().present).unwrap());
        for (sentence, key) in texts.sentences.iter().zip(&batch.keys) {
            let index: usize = key[1..].parse().unwrap();
            assert_eq!(sentence, ["", "tag0", "tag0, tag1"][index % 3]);
        }
    }
    assert!(take(source(40, &[]), options(16, 1), Position::default(), 1)[0].batch.texts.is_none(), "only where asked for");
}

#[test]
fn rows_are_trimmed_to_the_longest_caption_or_padded_to_the_context() {
    let trimmed = take(source(40, &[]), options(8, 2), Position::default(), 1);
    let tokens = &trimmed[0].batch.tokens;
    assert_eq!(tokens.tokens.size()[1], *tokens.lengths.iter().max().unwrap());
    let whole = take(source(40, &[]), LoaderOptions { trim: false, ..options(8, 2) }, Position::default(), 1);
    assert_eq!(whole[0].batch.tokens.tokens.size(), [8, 77]);
    let width = tokens.tokens.size()[1];
    assert_eq!(whole[0].batch.tokens.tokens.narrow(1, 0, width), tokens.tokens);
}

#[test]
fn a_tokenizer_that_is_given_makes_the_tokens_and_pads_them() {
    let folder = tempfile::tempdir().unwrap();
    Tokenizer::clip().unwrap().save(folder.path()).unwrap();
    let tokenizer = Some(Tokenizer::from_folder(folder.path()).unwrap());
    let with = |tokenizer| {
        let options = LoaderOptions { trim: false, tokenizer, ..options(8, 2) };
        take(source(40, &[]), options, Position::default(), 1).remove(0).batch
    };
    let (own, given) = (with(None), with(tokenizer));
    for (own, given) in [(&own.tokens, &given.tokens), (&own.tags.unwrap().sentences, &given.tags.unwrap().sentences)] {
        // The same tokens, padded with the end of a text instead of 0.
        assert_eq!(given.tokens, own.tokens.masked_fill(&own.tokens.eq(0), 49_407));
        assert_eq!((&given.lengths, own.tokens.i((0, -1)).int64_value(&[])), (&own.lengths, 0));
    }
}

#[test]
fn regions_are_padded_and_masked() {
    let options = LoaderOptions { regions: Some(RegionShape { count: 3, dim: 4 }), ..options(8, 2) };
    let items = take(source(24, &[]), options, Position::default(), 1);
    let regions = items[0].batch.regions.as_ref().unwrap();
    // Both come from as many detections.
    assert_eq!(regions.present(), items[0].batch.tags.as_ref().unwrap().present);
    assert_eq!(regions.features.size(), [8, 3, 4]);
    for (i, key) in items[0].batch.keys.iter().enumerate() {
        let index: i64 = key[1..].parse().unwrap();
        let count = index % 3;
        let mask = Vec::<bool>::try_from(regions.mask.i(i as i64)).unwrap();
        assert_eq!(mask, (0..3).map(|r| r < count).collect::<Vec<_>>());
        let sum = regions.features.i(i as i64).sum(softclip_tensor::tch::Kind::Float).double_value(&[]);
        assert_eq!(sum, (count * 4 * index) as f64);
    }
}

#[test]
fn unreadable_samples_are_replaced_and_counted_once() {
    let broken = [0, 9, 33];
    let mut batches = train_batches(source(64, &broken), options(16, 2), Position::default()).unwrap();
    for item in batches.by_ref().take(8) {
        let keys = item.unwrap().batch.keys;
        assert!(keys.len() == 16 && broken.iter().all(|i| !keys.contains(&format!("k{i}"))));
    }
    assert_eq!((batches.health().bad(), batches.health().seen()), (3, 64));
    assert_eq!(batches.health().summary(), "empty_caption 3");
}

#[test]
fn too_many_unreadable_samples_stop_with_causes_and_an_example() {
    let broken: Vec<usize> = (0..300).filter(|i| i % 3 == 0).collect();
    let mut batches = train_batches(source(300, &broken), options(50, 2), Position::default()).unwrap();
    let error = batches.find_map(Result::err).unwrap();
    let LoadError::TooManyBad { bad, .. } = &error else { panic!("{error}") };
    assert!(*bad > 20, "{bad}");
    let message = error.to_string();
    assert!(message.contains("max_bad_share") && message.contains("empty_caption") && message.contains("sample 'k"), "{message}");
}

#[test]
fn a_panic_costs_its_sample_and_not_the_run() {
    let made = || Arc::new(Made { len: 64, panics: vec![5, 40], ..Made::default() });
    let mut batches = train_batches(made(), options(16, 3), Position::default()).unwrap();
    let keys: Vec<String> = batches.by_ref().take(4).flat_map(|item| item.unwrap().batch.keys).collect();
    assert_eq!(keys.len(), 64);
    assert_eq!(batches.health().summary(), "panic 2");
    let mut examples: Vec<String> = batches.health().examples().iter().map(ToString::to_string).collect();
    examples.sort();
    assert_eq!(examples, ["sample 'k40': panic: a defect of the source", "sample 'k5': panic: a defect of the source"]);
    let report = inspect(&*made(), DecodeOptions::default(), 77, |_| {}).unwrap();
    assert_eq!((report.usable, report.unusable["panic"]), (62, 2));
}

#[test]
fn panics_without_end_are_an_error_and_not_a_wait_without_end() {
    let source = Arc::new(Made { len: 40, panics: (0..40).collect(), ..Made::default() });
    let mut batches = train_batches(source, options(8, 3), Position::default()).unwrap();
    let error = batches.next().unwrap().unwrap_err();
    assert!(error.to_string().contains("panic"), "{error}");
}

#[test]
fn samples_that_indexing_left_out_count_against_the_limit() {
    let fault = |kind, i: usize| SourceFault { kind, place: format!("f{i}"), detail: "left out".to_owned() };
    let made = |lost: usize| {
        let lost = (0..lost).map(|i| fault(SourceFaultKind::MissingImage, i));
        let harmless = (0..50).map(|i| fault(SourceFaultKind::Orphan, i));
        Arc::new(Made { len: 36, left_out: harmless.chain(lost).collect(), ..Made::default() })
    };
    let train = |lost| train_batches(made(lost), options(8, 1), Position::default()).err();
    let eval = |lost| eval_batches(made(lost), options(8, 1)).err();
    assert!(train(4).is_none() && eval(4).is_none());
    for error in [train(5), eval(5)] {
        let message = error.unwrap().to_string();
        let words = ["left out 5 of 41 samples", "share of 0.1", "max_bad_share", "f0: missing_image"];
        assert!(words.iter().all(|words| message.contains(words)), "{message}");
    }
}

#[test]
fn no_more_batches_are_made_ahead_than_asked_for() {
    let source = Arc::new(Made { len: 400, ..Made::default() });
    let batches = eval_batches(source.clone(), LoaderOptions { prefetch: 3, ..options(16, 4) }).unwrap();
    // Until the threads have nothing more to do.
    let mut reads = 0;
    while reads == 0 || reads != source.reads.load(Ordering::Relaxed) {
        reads = source.reads.load(Ordering::Relaxed);
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    assert_eq!(reads, 3 * 16);
    drop(batches);
}

#[test]
fn a_pass_keeps_the_order_with_all_captions_and_leaves_out_what_is_broken() {
    let options = LoaderOptions { tags: None, ..options(16, 3) };
    let mut pass = eval_batches(source(37, &[4, 30]), options).unwrap();
    assert_eq!(pass.batches(), 3);
    let batches: Vec<_> = pass.by_ref().map(|batch| batch.unwrap()).collect();
    let indices: Vec<usize> = batches.iter().flat_map(|batch| batch.indices.clone()).collect();
    assert_eq!(indices, (0..37).filter(|i| ![4, 30].contains(i)).collect::<Vec<_>>());
    assert_eq!(batches[0].images.size(), [15, 3, 16, 16]);
    assert_eq!(batches[0].owner, (0..15).flat_map(|i| [i; 3]).collect::<Vec<i64>>());
    assert_eq!(batches[0].tokens.len(), 45);
    assert_eq!(pass.health().summary(), "empty_caption 2");
}

#[test]
fn options_that_do_not_fit_are_refused() {
    for size in [0, 41] {
        let error = train_batches(source(40, &[]), options(size, 1), Position::default()).err().unwrap();
        assert!(error.to_string().contains(&format!("batch_size is {size}")), "{error}");
    }
}
