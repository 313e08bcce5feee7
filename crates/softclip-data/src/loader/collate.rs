//! Rows into tensors.

use softclip_tensor::tch::Tensor;
use softclip_tensor::{Batch, Regions, Tags, Texts, TokenRows};

use super::row::Row;
use super::{EvalBatch, LoadError, LoaderOptions, RegionShape};
use crate::source::SampleError;
use crate::tokenizer::Tokenizer;

/// A part of a batch, as one thread made it.
#[derive(Default)]
pub(super) struct Chunk {
    pub(super) pixels: Vec<u8>,
    pub(super) rows: Vec<Row>,
    pub(super) bad: Vec<SampleError>,
}

/// A whole batch.
pub(super) struct Made {
    pub(super) number: u64,
    pub(super) rows: usize,
    pub(super) bad: Vec<SampleError>,
    images: Tensor,
    tokens: TokenRows,
    tags: Option<Tags>,
    regions: Option<Regions>,
    list: Vec<Row>,
}

pub(super) fn collate(
    number: u64,
    chunks: Vec<Chunk>,
    options: &LoaderOptions,
    tokenizer: &Tokenizer,
) -> Result<Made, LoadError> {
    let side = i64::from(options.transform.size());
    let mut pixels = Vec::with_capacity(chunks.iter().map(|chunk| chunk.pixels.len()).sum());
    let (mut list, mut bad) = (Vec::new(), Vec::new());
    for chunk in chunks {
        pixels.extend_from_slice(&chunk.pixels);
        list.extend(chunk.rows);
        bad.extend(chunk.bad);
    }
    let images = Tensor::from_slice(&pixels).view([list.len() as i64, 3, side, side]);
    let captions: Vec<&[i64]> = list.iter().flat_map(|row| row.captions.iter().map(Vec::as_slice)).collect();
    let token_rows = |rows: &[&[i64]]| tokenizer.rows(rows, options.context_length, options.trim);
    let tokens = token_rows(&captions);
    let tags = options.tags.is_some().then(|| tags(&list, token_rows)).transpose()?;
    let regions = options.regions.map(|shape| regions(&list, shape)).transpose()?;
    Ok(Made { number, rows: list.len(), bad, images, tokens, tags, regions, list })
}

fn tags(list: &[Row], token_rows: impl Fn(&[&[i64]]) -> TokenRows) -> Result<Tags, LoadError> {
    let all: Vec<&(Vec<i64>, bool)> = list.iter().filter_map(|row| row.tags.as_ref()).collect();
    let rows: Vec<&[i64]> = all.iter().map(|tags| tags.0.as_slice()).collect();
    let present: Vec<bool> = all.iter().map(|tags| tags.1).collect();
    Ok(Tags::new(token_rows(&rows), Tensor::from_slice(&present))?)
}

fn regions(list: &[Row], shape: RegionShape) -> Result<Regions, LoadError> {
    let mut features = Vec::with_capacity(list.len() * shape.count * shape.dim);
    let mut mask = Vec::with_capacity(list.len() * shape.count);
    for (of_row, present) in list.iter().filter_map(|row| row.regions.as_ref()) {
        features.extend_from_slice(of_row);
        mask.extend((0..shape.count).map(|i| i < *present));
    }
    let (n, count, dim) = (list.len() as i64, shape.count as i64, shape.dim as i64);
    let features = Tensor::from_slice(&features).view([n, count, dim]);
    Ok(Regions::new(features, Tensor::from_slice(&mask).view([n, count]))?)
}

impl Made {
    pub(super) fn into_batch(self) -> Result<Batch, LoadError> {
        let (mut keys, mut texts) = (Vec::with_capacity(self.list.len()), None);
        for row in self.list {
            keys.push(row.key);
            if let Some((caption, sentence, present)) = row.texts {
                let texts = texts.get_or_insert_with(Texts::default);
                texts.captions.push(caption);
                texts.sentences.push(sentence);
                texts.present.push(present);
            }
        }
        let batch = Batch::new(self.images, self.tokens, keys, self.tags, self.regions)?;
        Ok(match texts {
            Some(texts) => batch.with_texts(texts)?,
            None => batch,
        })
    }

    pub(super) fn into_eval(self) -> EvalBatch {
        let owner = self.list.iter().zip(0..).flat_map(|(row, i)| row.captions.iter().map(move |_| i)).collect();
        EvalBatch {
            images: self.images,
            tokens: self.tokens,
            owner,
            indices: self.list.iter().map(|row| row.index).collect(),
            classes: self.list.iter().map(|row| row.class).collect(),
            bad: self.bad,
        }
    }
}
