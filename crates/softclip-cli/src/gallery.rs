//! What models find, as pictures.

use anyhow::{Context, Result};
use softclip_data::source::Source;
use softclip_eval::{Encoded, top_k};
use softclip_report::{Gallery, GalleryRow, Hit, Picture};
use softclip_tensor::Embeddings;
use tch::Tensor;

/// A model's name and its view of the data set; all of the same samples.
pub struct View {
    pub name: &'static str,
    pub encoded: Encoded,
}

fn texts(view: &View) -> Result<&Embeddings> {
    view.encoded.texts.as_ref().context("the data set has no captions")
}

fn rows(of: &Embeddings, rows: &[i64]) -> Result<Embeddings> {
    Ok(Embeddings::checked(of.tensor().f_index_select(0, &Tensor::from_slice(rows).to_device(of.tensor().device()))?)?)
}

/// Captions spread over the data set, and the images that each model finds for them.
pub fn captions_to_images(source: &dyn Source, views: &[View], queries: usize, k: i64) -> Result<Gallery> {
    let mut gallery = Gallery::new("Caption → images");
    let owner = &views.first().context("no model")?.encoded.owner;
    let chosen: Vec<i64> = (0..queries).map(|i| ((2 * i + 1) * owner.len() / (2 * queries)) as i64).collect();
    let found: Vec<Vec<Vec<(usize, f64)>>> =
        views.iter().map(|view| Ok(top_k(&rows(texts(view)?, &chosen)?, &view.encoded.images, k)?)).collect::<Result<_>>()?;
    for (q, &caption) in chosen.iter().enumerate() {
        let mut row = GalleryRow::new(caption_of(source, &views[0].encoded, caption as usize)?);
        for (view, found) in views.iter().zip(&found) {
            let hit = |(rank, &(image, score)): (usize, &(usize, f64))| {
                let correct = owner[caption as usize] == image as i64;
                Ok(Hit { item: picture(source, &view.encoded, image)?.into(), rank: rank + 1, score, correct })
            };
            row = row.strip(view.name, found[q].iter().enumerate().map(hit).collect::<Result<_>>()?);
        }
        gallery = gallery.query(row);
    }
    Ok(gallery)
}

/// Images spread over the data set, and the captions that each model finds for them.
pub fn images_to_captions(source: &dyn Source, views: &[View], queries: usize, k: i64) -> Result<Gallery> {
    let mut gallery = Gallery::new("Image → captions");
    let first = &views.first().context("no model")?.encoded;
    let chosen: Vec<i64> = (0..queries).map(|i| ((2 * i + 1) * first.indices.len() / (2 * queries)) as i64).collect();
    let found: Vec<Vec<Vec<(usize, f64)>>> =
        views.iter().map(|view| Ok(top_k(&rows(&view.encoded.images, &chosen)?, texts(view)?, k)?)).collect::<Result<_>>()?;
    for (q, &image) in chosen.iter().enumerate() {
        let mut row = GalleryRow::new(picture(source, first, image as usize)?);
        for (view, found) in views.iter().zip(&found) {
            let hit = |(rank, &(caption, score)): (usize, &(usize, f64))| {
                let item = caption_of(source, first, caption)?.into();
                Ok(Hit { item, rank: rank + 1, score, correct: first.owner[caption] == image })
            };
            row = row.strip(view.name, found[q].iter().enumerate().map(hit).collect::<Result<_>>()?);
        }
        gallery = gallery.query(row);
    }
    Ok(gallery)
}

fn caption_of(source: &dyn Source, encoded: &Encoded, caption: usize) -> Result<String> {
    let image = encoded.owner[caption];
    let within = encoded.owner[..caption].iter().filter(|&&owner| owner == image).count();
    let sample = source.read(encoded.indices[image as usize])?;
    sample.captions.into_iter().nth(within).context("the data changed while it was read")
}

fn picture(source: &dyn Source, encoded: &Encoded, image: usize) -> Result<Picture> {
    let sample = source.read(encoded.indices[image])?;
    let alt = sample.captions.first().cloned().unwrap_or_default();
    Ok(Picture::new(sample.image, alt)?)
}
