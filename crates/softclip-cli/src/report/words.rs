//! Where models see words in photographs.

use anyhow::Result;
use softclip_data::source::Source;
use softclip_report::{Panels, Section};
use softclip_score::embed::Encoder;
use softclip_tensor::Precision;
use softclip_train::TrainedModel;
use tch::Device;

use crate::explain;

/// Photographs that are shown, and words of each.
const PHOTOS: usize = 4;
const WORDS: usize = 4;
/// As `softclip explain` asks for a word.
const PROMPT: &str = "a photo of a {}";

/// A photograph, its caption, and the words to look for.
pub struct Photo {
    image: Vec<u8>,
    caption: String,
    words: Vec<String>,
}

/// Photographs spread over `source` that can be read, with the words asked for or those of their captions.
pub fn photos(source: &dyn Source, asked: &[String]) -> Vec<Photo> {
    let n = PHOTOS.min(source.len());
    let samples = (0..n).filter_map(|i| source.read((2 * i + 1) * source.len() / (2 * n)).ok());
    let photo = |sample: softclip_data::source::Sample| {
        let caption = sample.captions.into_iter().next()?;
        let words = if asked.is_empty() { explain::naming(&caption).into_iter().take(WORDS).collect() } else { asked.to_vec() };
        Some(Photo { image: sample.image, caption, words })
    };
    samples.filter_map(photo).collect()
}

/// What a run's model sees in each photograph.
pub fn see(name: &str, trained: &TrainedModel, photos: &[Photo], device: Device) -> Result<Vec<explain::View>> {
    let (clip, decode) = (trained.model.clip(), trained.config.data.decode);
    let encoder = Encoder { clip, tokenizer: &trained.tokenizer, decode, device, precision: Precision::Fp32 };
    let see = |photo: &Photo| {
        let words = photo.words.iter().map(|word| PROMPT.replace("{}", word));
        let texts: Vec<String> = std::iter::once(photo.caption.clone()).chain(words).collect();
        explain::see(name, &encoder, &photo.image, &texts, None)
    };
    photos.iter().map(see).collect()
}

/// A row a run under each photograph's caption.
pub fn section(photos: &[Photo], runs: &[(String, usize, Vec<explain::View>)]) -> Result<Section> {
    let mut section = Section::new("Words").text(format!(
        "Grad-CAM: bright is what raises the cosine of the image with the caption, or with the word as “{PROMPT}”. Each map is scaled to its \
         own maximum: brightness does not compare between pictures, cosines do within a model."
    ));
    for (i, photo) in photos.iter().enumerate() {
        let words = photo.words.iter().map(String::as_str);
        let names: Vec<&str> = std::iter::once("the caption").chain(words).collect();
        let mut panels = Panels::new(std::iter::once("what the model sees").chain(names.iter().copied()))
            .caption(format!("“{}”", photo.caption))
            .scale("nothing", "most");
        for (name, colour, seen) in runs {
            if let Some(view) = seen.get(i) {
                panels = panels.keyed_row(name, *colour, explain::panels(view, &names)?);
            }
        }
        section = section.panels(panels);
    }
    Ok(section)
}
