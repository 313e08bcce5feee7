//! What models find, as pictures.

use std::collections::HashMap;

use anyhow::{Context, Result};
use softclip_data::source::Source;
use softclip_eval::{Encoded, top_k};
use softclip_report::{Gallery, GalleryRow, Hit, Picture};
use softclip_score::search::thumbnail;
use softclip_tensor::Embeddings;
use tch::Tensor;

use super::view::View;

/// What is found that is shown.
const FIRST: usize = 10;
/// Longer side of the pictures, in pixels.
const SIDE: u32 = 160;

/// Candidates with their scores, the best first.
type Ranking = Vec<(usize, f64)>;

/// Galleries of a source that all views have encoded, with the pictures that are shown already.
pub struct Galleries<'a> {
    source: &'a dyn Source,
    views: &'a [View],
    encoded: &'a Encoded,
    pictures: HashMap<usize, Picture>,
}

impl<'a> Galleries<'a> {
    /// `None` without a view.
    pub fn new(source: &'a dyn Source, views: &'a [View]) -> Option<Self> {
        Some(Galleries { source, views, encoded: &views.first()?.encoded, pictures: HashMap::new() })
    }

    /// Captions spread over the data set, and the images that each model finds for them.
    pub fn captions_to_images(&mut self, queries: usize) -> Result<Gallery> {
        let mut gallery = Gallery::new("Caption → images");
        let owner = &self.encoded.owner;
        let chosen = spread(queries, owner.len());
        let found = self.found(&chosen, |view| Ok((texts(view)?, &view.encoded.images)))?;
        for (q, &caption) in chosen.iter().enumerate() {
            let mut row = GalleryRow::new(self.caption(caption)?);
            for (view, found) in self.views.iter().zip(&found) {
                let hits = shown(&found[q], |image| owner[caption] == image as i64);
                let hits = hits
                    .into_iter()
                    .map(|(rank, image, score, correct)| Ok(Hit { item: self.picture(image)?.into(), rank, score, correct }));
                row = row.keyed_strip(&*view.name, view.colour, hits.collect::<Result<_>>()?);
            }
            gallery = gallery.query(row);
        }
        Ok(gallery)
    }

    /// Images spread over the data set, and the captions that each model finds for them.
    pub fn images_to_captions(&mut self, queries: usize) -> Result<Gallery> {
        let mut gallery = Gallery::new("Image → captions");
        let owner = &self.encoded.owner;
        let chosen = spread(queries, self.encoded.indices.len());
        let found = self.found(&chosen, |view| Ok((&view.encoded.images, texts(view)?)))?;
        for (q, &image) in chosen.iter().enumerate() {
            let mut row = GalleryRow::new(self.picture(image)?);
            for (view, found) in self.views.iter().zip(&found) {
                let hits = shown(&found[q], |caption| owner[caption] == image as i64);
                let hits = hits
                    .into_iter()
                    .map(|(rank, caption, score, correct)| Ok(Hit { item: self.caption(caption)?.into(), rank, score, correct }));
                row = row.keyed_strip(&*view.name, view.colour, hits.collect::<Result<_>>()?);
            }
            gallery = gallery.query(row);
        }
        Ok(gallery)
    }

    /// All candidates of each chosen query with their scores, best first, for each view.
    fn found(&self, chosen: &[usize], sets: impl Fn(&View) -> Result<(&Embeddings, &Embeddings)>) -> Result<Vec<Vec<Ranking>>> {
        let index: Vec<i64> = chosen.iter().map(|&row| row as i64).collect();
        let of = |view: &View| {
            let (queries, candidates) = sets(view)?;
            let index = Tensor::from_slice(&index).to_device(queries.tensor().device());
            let rows = Embeddings::checked(queries.tensor().f_index_select(0, &index)?)?;
            Ok(top_k(&rows, candidates, candidates.rows())?)
        };
        self.views.iter().map(of).collect()
    }

    fn caption(&self, caption: usize) -> Result<String> {
        let image = self.encoded.owner[caption];
        let within = self.encoded.owner[..caption].iter().filter(|&&owner| owner == image).count();
        let sample = self.source.read(self.encoded.indices[image as usize])?;
        sample.captions.into_iter().nth(within).context("the data changed while it was read")
    }

    fn picture(&mut self, image: usize) -> Result<Picture> {
        if let Some(picture) = self.pictures.get(&image) {
            return Ok(picture.clone());
        }
        let sample = self.source.read(self.encoded.indices[image])?;
        let alt = sample.captions.first().cloned().unwrap_or_default();
        let picture = Picture::new(thumbnail(&sample.image, SIDE, Default::default())?, alt)?;
        self.pictures.insert(image, picture.clone());
        Ok(picture)
    }
}

fn texts(view: &View) -> Result<&Embeddings> {
    view.encoded.texts.as_ref().context("the data set has no captions")
}

/// `n` of `of` things, or all, at equal distances.
fn spread(n: usize, of: usize) -> Vec<usize> {
    let n = n.min(of);
    (0..n).map(|i| (2 * i + 1) * of / (2 * n)).collect()
}

/// Rank, candidate, score and whether it belongs to the query: the first ten, and behind them the first right one if it is not among them.
fn shown(found: &[(usize, f64)], correct: impl Fn(usize) -> bool) -> Vec<(usize, usize, f64, bool)> {
    let all = found.iter().enumerate().map(|(i, &(candidate, score))| (i + 1, candidate, score, correct(candidate)));
    let mut hits: Vec<_> = all.clone().take(FIRST).collect();
    if !hits.iter().any(|hit| hit.3) {
        hits.extend(all.skip(FIRST).find(|hit| hit.3));
    }
    hits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_spread_over_the_data() {
        assert_eq!(spread(2, 8), [2, 6]);
        assert_eq!(spread(5, 3), [0, 1, 2]);
        assert!(spread(3, 0).is_empty());
    }

    #[test]
    fn a_right_one_beyond_the_first_is_shown_with_its_rank() {
        let found: Vec<(usize, f64)> = (0..30).map(|i| (29 - i, 1.0 - i as f64 / 30.0)).collect();
        let hits = shown(&found, |candidate| candidate == 5 || candidate == 2);
        assert_eq!((hits.len(), hits[10].0, hits[10].1, hits[10].3), (11, 25, 5, true));
        let hits = shown(&found, |candidate| candidate == 28);
        assert_eq!((hits.len(), hits[1].0, hits[1].3), (10, 2, true));
        assert_eq!(shown(&found[..3], |_| false).len(), 3);
    }
}
