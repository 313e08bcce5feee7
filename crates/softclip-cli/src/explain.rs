//! `softclip explain`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use softclip_eval::{HeatMap, grad_cam, grad_cam_layer};
use softclip_report::heat::{Heat, overlay};
use softclip_report::{Page, Panels, Picture, Section, encode};
use softclip_score::embed::Encoder;
use softclip_tensor::file::write_atomic;
use softclip_tensor::{Embeddings, Precision};
use tch::{Device, Tensor};

use crate::args::explain::Explain;

/// English words that name nothing to be seen.
const PASSED_OVER: [&str; 40] = [
    "a", "an", "the", "of", "on", "in", "at", "to", "by", "for", "from", "with", "and", "or", "as", "is", "are", "was", "were",
    "be", "it", "its", "his", "her", "their", "this", "that", "these", "those", "there", "near", "next", "into", "over", "under",
    "up", "down", "while", "some", "who",
];

/// What one model sees.
pub struct View {
    name: String,
    layer: String,
    /// `[side, side, 3]`.
    pixels: Vec<u8>,
    side: u32,
    /// Of the whole text, then of each word.
    pub maps: Vec<HeatMap>,
}

pub fn explain(args: &Explain) -> Result<()> {
    let words = words(args);
    if words.is_empty() {
        bail!("no word to look for: name some with --words");
    }
    if !args.prompt.contains("{}") {
        usage!("--prompt '{}': it has no {{}} for the word", args.prompt);
    }
    let device = crate::device(&args.device)?;
    let bytes = std::fs::read(&args.image).with_context(|| format!("cannot read {}", args.image.display()))?;
    let views: Vec<View> = args.models.iter().map(|name| view(name, &bytes, &words, args, device)).collect::<Result<_>>()?;
    if args.out.extension().is_some_and(|e| e.eq_ignore_ascii_case("html")) {
        write_atomic(&args.out, page(args, &words, &views)?.render().as_bytes())?;
    } else {
        for (i, view) in views.iter().enumerate() {
            let folder =
                if views.len() == 1 { args.out.clone() } else { args.out.join(format!("{}-{}", i + 1, plain(&view.name))) };
            save(&folder, &words, view)?;
        }
    }
    for view in &views {
        outln!("{} ({})", view.name, view.layer);
        for (name, map) in std::iter::once(args.text.as_str()).chain(words.iter().map(String::as_str)).zip(&view.maps) {
            outln!("{:>9.4}  {name}", map.cosine);
        }
    }
    Ok(())
}

/// The words that are asked for, or those of the text that name something; each once.
fn words(args: &Explain) -> Vec<String> {
    if args.words.is_empty() { naming(&args.text) } else { asked(&args.words) }
}

/// Words as they were asked for, without white space around them; each once, and none that is empty.
pub fn asked(words: &[String]) -> Vec<String> {
    each_once(words.iter().map(|word| word.trim().to_owned()).collect())
}

/// The words of a text that name something; each once.
pub fn naming(text: &str) -> Vec<String> {
    let bare = text.split_whitespace().map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
    each_once(bare.filter(|word| !PASSED_OVER.contains(&word.to_lowercase().as_str())).map(str::to_owned).collect())
}

fn each_once(all: Vec<String>) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in all {
        if !word.is_empty() && !words.contains(&word) {
            words.push(word);
        }
    }
    words
}

fn view(name: &str, bytes: &[u8], words: &[String], args: &Explain, device: Device) -> Result<View> {
    let model = crate::model::open(name, device)?;
    let mut texts = vec![args.text.clone()];
    texts.extend(words.iter().map(|word| args.prompt.replace("{}", word)));
    let encoder = Encoder { decode: args.decoding.limit(model.decode()), ..model.encoder(device, Some(Precision::Fp32)) };
    see(name, &encoder, bytes, &texts, args.layer.as_deref()).with_context(|| format!("{}: {name}", args.image.display()))
}

/// What a model sees of each text in an image file.
pub fn see(name: &str, encoder: &Encoder, bytes: &[u8], texts: &[String], layer: Option<&str>) -> Result<View> {
    let crop = encoder.crop(bytes)?;
    let side = encoder.transform().size();
    let planes = Tensor::f_from_slice(&crop)?.f_view([3, i64::from(side), i64::from(side)].as_slice())?;
    let pixels = Vec::<u8>::try_from(planes.f_permute([1, 2, 0])?.f_contiguous()?.f_flatten(0, -1)?)?;
    let rows = Embeddings::checked(encoder.texts(texts)?)?;
    let layer = layer.map_or_else(|| grad_cam_layer(encoder.clip), str::to_owned);
    let maps = grad_cam(encoder.clip, &planes, &rows, &layer)?;
    Ok(View { name: name.to_owned(), layer, pixels, side, maps })
}

/// The photograph and a map of each text over it, with their cosines; `names` are those of the texts.
pub fn panels(view: &View, names: &[&str]) -> Result<Vec<(Picture, String)>> {
    let seen = Picture::new(encode(&view.pixels, view.side, view.side, false)?, "the photograph, as cut for the model")?;
    let mut row = vec![(seen, format!("{0} × {0} pixels", view.side))];
    for (name, map) in names.iter().zip(&view.maps) {
        let picture = Picture::new(drawn(view, map, false)?, format!("{name}: where {} sees it", view.name))?;
        // All dark, which would look like a mistake.
        let dark = if map.map.f_max()?.double_value(&[]) > 0.0 { "" } else { ", no place raises it" };
        row.push((picture, format!("cosine {:.3}{dark}", map.cosine)));
    }
    Ok(row)
}

/// A map over what the model sees.
fn drawn(view: &View, map: &HeatMap, png: bool) -> Result<Vec<u8>> {
    let values = Vec::<f32>::try_from(map.map.f_flatten(0, -1)?)?;
    let width = map.map.size().last().copied().unwrap_or(0) as usize;
    Ok(overlay(&view.pixels, view.side, view.side, Heat { values: &values, width }, png)?)
}

fn page(args: &Explain, words: &[String], views: &[View]) -> Result<Page> {
    let columns = ["what the model sees", "the whole text"].into_iter().chain(words.iter().map(String::as_str));
    let mut panels = Panels::new(columns).scale("nothing", "most");
    for view in views {
        let names: Vec<&str> = std::iter::once("the whole text").chain(words.iter().map(String::as_str)).collect();
        panels = panels.row(&view.name, self::panels(view, &names)?);
    }
    let layers: Vec<String> = views.iter().map(|view| format!("{}: {}", view.name, view.layer)).collect();
    let panels = panels.caption(format!(
        "Grad-CAM: bright is what raises the cosine with the text. Each map is scaled to its own maximum: brightness does not compare \
         between pictures, cosines do within a model. Words are encoded as “{}”. Layers: {}.",
        args.prompt,
        layers.join(", ")
    ));
    let title = format!("Where is “{}”?", args.text);
    let image = args.image.file_name().unwrap_or_default().display();
    Ok(Page::new(title)
        .lead(format!("What in {image} speaks for the text and for its words."))
        .section(Section::new("Words").panels(panels)))
}

fn save(folder: &Path, words: &[String], view: &View) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    write_atomic(folder.join("image.png"), &encode(&view.pixels, view.side, view.side, true)?)?;
    let names =
        std::iter::once("text".to_owned()).chain(words.iter().enumerate().map(|(i, word)| format!("{}-{}", i + 1, plain(word))));
    for (name, map) in names.zip(&view.maps) {
        write_atomic(folder.join(format!("{name}.png")), &drawn(view, map, true)?)?;
    }
    Ok(())
}

/// A file's name out of a word or a model's name.
fn plain(text: &str) -> String {
    let parts: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty()).collect();
    parts.join("-").chars().take(60).collect()
}
