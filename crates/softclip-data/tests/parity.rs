//! Images and tokens against Pillow, torchvision, open_clip and transformers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod vocabularies;

use std::collections::BTreeMap;
use std::path::Path;

use softclip_data::image::{Augment, DecodeOptions, Decoder, Region, Transform};
use softclip_data::rng::RngKey;
use softclip_data::tokenizer::Tokenizer;
use softclip_tensor::tch::{Kind, Tensor};
use softclip_tensor::{CLIP_MEAN, CLIP_STD, file::read_safetensors, normalize_images};

const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens");

/// Prints the row and checks it.
fn parity(row: &str, error: f64, tolerance: f64) {
    println!("PARITY | data | {row} | max_rel_err {error:.2e} | tol {tolerance:.0e}");
    assert!(error <= tolerance, "{row}: {error} > {tolerance}");
}

struct Golden {
    name: String,
    bytes: Vec<u8>,
    step: usize,
}

struct Goldens {
    images: Vec<Golden>,
    tensors: BTreeMap<String, Tensor>,
}

impl Goldens {
    fn read() -> Self {
        let path = |name: &str| Path::new(GOLDENS).join(name);
        let index: serde_json::Value = serde_json::from_slice(&std::fs::read(path("images.json")).unwrap()).unwrap();
        let image = |(name, entry): (&String, &serde_json::Value)| Golden {
            name: name.clone(),
            bytes: std::fs::read(path(entry["file"].as_str().unwrap())).unwrap(),
            step: entry["decoded_step"].as_u64().unwrap() as usize,
        };
        let images: Vec<Golden> = index.as_object().unwrap().iter().map(image).collect();
        assert_eq!(images.len(), 14);
        Goldens { images, tensors: read_safetensors(path("images.safetensors")).unwrap() }
    }

    fn bytes(&self, key: &str) -> Vec<u8> {
        Vec::try_from(self.tensors[key].flatten(0, -1)).unwrap()
    }
}

/// As the goldens are made: all pixels, orientation as stored.
fn decoder() -> Decoder {
    Decoder::new(DecodeOptions { apply_exif: false, dct_scaling: false, ..DecodeOptions::default() }).unwrap()
}

/// (largest, mean) absolute difference.
fn differences(a: &[u8], b: &[u8]) -> (f64, f64) {
    assert_eq!(a.len(), b.len());
    let each = || a.iter().zip(b).map(|(&a, &b)| f64::from(a.abs_diff(b)));
    (each().fold(0.0, f64::max), each().sum::<f64>() / a.len() as f64)
}

/// Every `step`-th pixel of rows and columns of `[height, width, 3]`.
fn every(step: usize, pixels: &[u8], width: usize) -> Vec<u8> {
    let row = |row: &[u8]| row.chunks_exact(3).step_by(step).flatten().copied().collect::<Vec<_>>();
    pixels.chunks_exact(width * 3).step_by(step).flat_map(row).collect()
}

/// `[3, S, S]` to `[S, S, 3]`.
fn interleaved(planes: &[u8]) -> Vec<u8> {
    let n = planes.len() / 3;
    (0..n).flat_map(|i| [planes[i], planes[n + i], planes[2 * n + i]]).collect()
}

#[test]
fn every_format_decodes_to_the_pixels_of_pillow() {
    let goldens = Goldens::read();
    let mut decoder = decoder();
    for Golden { name, bytes, step } in &goldens.images {
        let image = decoder.decode(bytes).unwrap();
        let sample = every(*step, image.pixels, image.width as usize);
        let (most, _) = differences(&sample, &goldens.bytes(&format!("{name}.decoded")));
        let expected = Vec::<f64>::try_from(&goldens.tensors[&format!("{name}.decoded_mean")]).unwrap();
        for (channel, expected) in expected.into_iter().enumerate() {
            let sum: u64 = image.pixels.iter().skip(channel).step_by(3).map(|&x| u64::from(x)).sum();
            let mean = sum as f64 / f64::from(image.width * image.height);
            assert!((mean - expected).abs() < 1e-9, "{name}, channel {channel}: {mean} {expected}");
        }
        parity(&format!("decode {name}"), most, 0.0);
    }
}

/// Largest difference at most 1, mean below 0.01, in 255ths; a golden of few pixels is a sample, so three standard errors more.
fn close(row: &str, found: &[u8], expected: &[u8]) {
    let (most, mean) = differences(found, expected);
    parity(&format!("{row} (max, in 255ths)"), most, 1.0);
    parity(&format!("{row} (mean, in 255ths)"), mean, 0.01 + 3.0 * (0.01 / found.len() as f64).sqrt());
}

#[test]
fn evaluation_crops_are_those_of_torchvision_over_pillow() {
    let goldens = Goldens::read();
    let mut decoder = decoder();
    let mut eval = |size: u32, bytes: &[u8]| {
        let transform = Transform::eval(size);
        let mut out = vec![0; transform.output_len()];
        transform.apply(bytes, RngKey::new(0, 0, 0), &mut decoder, &mut out).unwrap();
        out
    };
    for Golden { name, bytes, .. } in &goldens.images {
        let small = interleaved(&eval(64, bytes));
        close(&format!("resize and crop 64 {name}"), &small, &goldens.bytes(&format!("{name}.out64")));
        let planes = eval(224, bytes);
        let large = interleaved(&planes);
        close(&format!("resize and crop 224 {name}"), &every(8, &large, 224), &goldens.bytes(&format!("{name}.out224_s8")));
        if name == "landscape_420" {
            let rows = &large[100 * 224 * 3..116 * 224 * 3];
            close("resize and crop 224 landscape_420, rows 100 to 115", rows, &goldens.bytes("landscape_420.out224_rows"));
        }
        // One 255th, and what float32 adds.
        let pixels = Tensor::from_slice(&planes).view([1, 3, 224, 224]);
        let normalised = normalize_images(&pixels, Kind::Float, CLIP_MEAN, CLIP_STD).unwrap().squeeze_dim(0);
        let sample = normalised.slice(1, 0, 224, 16).slice(2, 0, 224, 16);
        let off = (sample - &goldens.tensors[&format!("{name}.normalised_s16")]).abs().max().double_value(&[]);
        parity(&format!("normalised {name}"), off, 1.0 / 255.0 / 0.26 + 1e-5);
        let mean = normalised.to_kind(Kind::Double).mean_dim([1i64, 2].as_slice(), false, Kind::Double);
        let off = (mean - &goldens.tensors[&format!("{name}.normalised_mean")]).abs().max().double_value(&[]);
        parity(&format!("normalised {name}, mean"), off, 0.01 / 255.0 / 0.26);
    }
}

#[test]
fn crops_by_a_given_box_are_those_of_torchvision_over_pillow() {
    let goldens = Goldens::read();
    let mut decoder = decoder();
    for name in ["landscape_420", "rgb", "tiny_40x30"] {
        let bytes = &goldens.images.iter().find(|g| g.name == name).unwrap().bytes;
        let boxes = Vec::<i64>::try_from(goldens.tensors[&format!("{name}.rrc_boxes")].flatten(0, -1)).unwrap();
        let expected = goldens.bytes(&format!("{name}.rrc64"));
        for (i, (b, expected)) in boxes.chunks_exact(4).zip(expected.chunks_exact(64 * 64 * 3)).enumerate() {
            let [top, left, height, width] = [b[0], b[1], b[2], b[3]].map(|x| x as f64);
            let region = Region { left, top, width, height, cropped_first: true };
            let found = decoder.resize(bytes, 64, 64, |_, _| region).unwrap();
            close(&format!("crop to a box, 64, {name} {i}"), found, expected);
        }
    }
}

#[test]
fn random_boxes_are_distributed_as_those_of_torchvision() {
    let sample = &Goldens::read().tensors["rrc_sample_boxes"];
    let theirs: Vec<[f64; 4]> = Vec::<i64>::try_from(sample.flatten(0, -1))
        .unwrap()
        .chunks_exact(4)
        .map(|b| [b[0], b[1], b[2], b[3]].map(|x| x as f64))
        .collect();
    let augment = Augment::default();
    let ours: Vec<[f64; 4]> = (0..4000)
        .map(|index| augment.region(640, 480, RngKey::new(0, 0, index)))
        .map(|r| [r.top, r.left, r.height, r.width])
        .collect();
    for (i, what) in ["top", "left", "height", "width"].into_iter().enumerate() {
        let mean = |boxes: &[[f64; 4]]| boxes.iter().map(|b| b[i]).sum::<f64>() / boxes.len() as f64;
        let deviation = (theirs.iter().map(|b| (b[i] - mean(&theirs)).powi(2)).sum::<f64>() / theirs.len() as f64).sqrt();
        let range = |boxes: &[[f64; 4]]| boxes.iter().fold((f64::MAX, f64::MIN), |(a, z), b| (a.min(b[i]), z.max(b[i])));
        // In standard errors of the mean of their 200.
        parity(
            &format!("random boxes, mean {what}, standard errors"),
            (mean(&ours) - mean(&theirs)).abs() / (deviation / 200f64.sqrt()),
            3.0,
        );
        let ((low, high), (their_low, their_high)) = (range(&ours), range(&theirs));
        assert!(low <= their_low && high >= their_high, "{what}: {low} to {high} does not cover {their_low} to {their_high}");
        assert!(
            low >= their_low - 2.0 * deviation && high <= their_high + 2.0 * deviation,
            "{what}: {low} to {high} against {their_low} to {their_high}"
        );
    }
}

#[derive(serde::Deserialize)]
struct TokenRow {
    text: String,
    /// open_clip's, without start and end.
    clip: Vec<i64>,
    /// transformers' with CLIP's vocabulary, where they differ from open_clip's.
    hf_clip: Option<Vec<i64>>,
    bert: Vec<i64>,
    roberta: Vec<i64>,
}

fn token_rows() -> Vec<TokenRow> {
    let bytes = std::fs::read(Path::new(GOLDENS).join("tokenizers.json")).unwrap();
    let mut golden: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    serde_json::from_value(golden["rows"].take()).unwrap()
}

/// Counts the texts whose tokens are not those expected.
fn equal_tokens(row: &str, tokenizer: &Tokenizer, expected: impl Fn(TokenRow) -> Vec<i64>) {
    let rows = token_rows();
    assert_eq!(rows.len(), 241);
    let mut wrong = 0;
    for row in rows {
        let (text, found) = (row.text.clone(), tokenizer.encode(&row.text, usize::MAX));
        let expected = expected(row);
        if found != expected {
            println!("{text:?}: {:?} instead of {:?}", tokenizer.decode(&found), tokenizer.decode(&expected));
            wrong += 1;
        }
    }
    parity(row, f64::from(wrong), 0.0);
}

/// Between CLIP's start and end.
fn around(tokens: Vec<i64>) -> Vec<i64> {
    [vec![49_406], tokens, vec![49_407]].concat()
}

#[test]
fn every_text_has_the_tokens_of_open_clip() {
    let tokenizer = Tokenizer::clip().unwrap();
    equal_tokens("tokens of 241 texts, number that differ", &tokenizer, |row| around(row.clip));
}

#[test]
fn every_text_has_the_tokens_of_transformers() {
    let bert = Tokenizer::from_folder(vocabularies::bert().path()).unwrap();
    equal_tokens("tokens of 241 texts, BERT, number that differ", &bert, |row| row.bert);
    let roberta = Tokenizer::from_folder(vocabularies::roberta().path()).unwrap();
    equal_tokens("tokens of 241 texts, RoBERTa, number that differ", &roberta, |row| row.roberta);

    let folder = tempfile::tempdir().unwrap();
    Tokenizer::clip().unwrap().save(folder.path()).unwrap();
    let expected = |row: TokenRow| around(row.hf_clip.unwrap_or(row.clip));
    let clip = Tokenizer::from_folder(folder.path()).unwrap();
    equal_tokens("tokens of 241 texts, CLIP of a saved tokenizer.json, number that differ", &clip, expected);
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let clip = Tokenizer::from_folder(folder.path()).unwrap();
    equal_tokens("tokens of 241 texts, CLIP of a saved vocab.json, number that differ", &clip, expected);
}

#[test]
fn token_rows_of_77_are_those_of_open_clip() {
    let golden = read_safetensors(Path::new(GOLDENS).join("tokenizers_clip77.safetensors")).unwrap();
    let rows = token_rows();
    let texts: Vec<&str> =
        Vec::<i64>::try_from(&golden["rows"]).unwrap().into_iter().map(|i| rows[i as usize].text.as_str()).collect();
    let found = Tokenizer::clip().unwrap().encode_batch(&texts, 77, false);
    let different = found.tokens.ne_tensor(&golden["ids"].to_kind(Kind::Int64)).sum(Kind::Int64).int64_value(&[]);
    parity("tokens in rows of 77, number that differ", different as f64, 0.0);
}
