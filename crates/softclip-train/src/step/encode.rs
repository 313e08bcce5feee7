//! From a batch to what its loss compares.

use std::ops::Range;

use softclip_encoders::Mode;
use softclip_loss::LossConfig;
use softclip_loss::config::TargetGrad;
use softclip_tensor::{Embeddings, Precision, Regions};
use softclip_torch::{Autocast, channels_last};
use tch::{Kind, Tensor, no_grad};

use super::Inputs;
use super::ranks::Compared;
use crate::Result;
use crate::model::Model;

/// A network that encodes what a loss asks for.
pub(crate) struct Encoder<'a> {
    pub model: &'a Model,
    pub loss: &'a LossConfig,
    pub precision: Precision,
}

/// Embeddings of some pairs; region and tag embeddings where the loss needs them.
pub(crate) struct Encoded {
    pub image: Embeddings,
    pub text: Embeddings,
    pub regions: Option<Embeddings>,
    pub tags: Option<Embeddings>,
}

impl Encoder<'_> {
    /// `guides`: regions and tags too, where the loss needs them.
    pub fn encode(&self, inputs: &Inputs, range: Range<i64>, mode: Mode, guides: bool) -> Result<Encoded> {
        let clip = self.model.clip();
        let (from, n) = (range.start, range.end - range.start);
        let _autocast = Autocast::enter(self.model.device(), self.precision)?;
        let images = inputs.images.narrow(0, from, n);
        let images = match images.kind() {
            Kind::Uint8 => clip.normalize_images(&images)?,
            _ => images,
        };
        let image = unit(&clip.encode_image(&channels_last(&images), mode)?)?;
        let text = unit(&clip.encode_text(&inputs.tokens.narrow(from, n).tokens)?)?;
        let needs = self.loss.needs();
        let guides = || -> Result<(Option<Embeddings>, Option<Embeddings>)> {
            let regions = inputs.regions.as_ref().filter(|_| guides && needs.regions);
            let regions = regions.map(|r| unit(&clip.encode_regions(&r.narrow(from, n))?)).transpose()?;
            let tags = inputs.tags.as_ref().filter(|_| guides && needs.tags);
            let tags = tags.map(|t| unit(&clip.encode_text(&t.sentences.narrow(from, n).tokens)?)).transpose()?;
            Ok((regions, tags))
        };
        let (regions, tags) = if self.detaches() { no_grad(guides)? } else { guides()? };
        Ok(Encoded { image, text, regions, tags })
    }

    /// Whether no gradient flows through the targets.
    pub fn detaches(&self) -> bool {
        matches!(&self.loss, LossConfig::Softclip(config) if config.target_grad == TargetGrad::Detach)
    }

    /// What the loss compares, without graph.
    pub fn compared(&self, inputs: &Inputs, encoded: &Encoded) -> Result<Compared> {
        let needs = self.loss.needs();
        let kind = encoded.image.tensor().kind();
        let category = inputs.category.as_ref().filter(|_| needs.category);
        let category = category.map(|category| category.to_kind(kind)).transpose()?;
        let (category, category_text) = category.map(|c| (c.sentences, c.captions)).unzip();
        let regions = inputs.regions.as_ref().filter(|_| needs.regions).map(Regions::present);
        let tags = inputs.tags.as_ref().filter(|_| needs.tags).map(|tags| tags.present.shallow_clone());
        let Encoded { image, text, regions: r, tags: a } = encoded.detach();
        let present = [regions, tags].into_iter().flatten().reduce(|a, b| a.logical_and(&b));
        Ok(Compared { image, text, regions: r, tags: a, category, category_text, present })
    }
}

/// Features in the loss's number type, of unit length.
fn unit(features: &Tensor) -> Result<Embeddings> {
    let features = match features.kind() {
        Kind::Half | Kind::BFloat16 => features.to_kind(Kind::Float),
        _ => features.shallow_clone(),
    };
    Ok(Embeddings::normalize(&features)?)
}

impl Encoded {
    pub fn detach(&self) -> Self {
        let detach = |x: &Option<Embeddings>| x.as_ref().map(Embeddings::detach);
        Self { image: self.image.detach(), text: self.text.detach(), regions: detach(&self.regions), tags: detach(&self.tags) }
    }

    pub fn cat(chunks: &[Self]) -> Result<Self> {
        let all = |pick: fn(&Self) -> &Embeddings| Embeddings::cat(&chunks.iter().map(pick).collect::<Vec<_>>());
        let cat = |pick: fn(&Self) -> Option<&Embeddings>| {
            let rows: Vec<&Embeddings> = chunks.iter().filter_map(pick).collect();
            (!rows.is_empty()).then(|| Embeddings::cat(&rows)).transpose()
        };
        Ok(Self {
            image: all(|chunk| &chunk.image)?,
            text: all(|chunk| &chunk.text)?,
            regions: cat(|chunk| chunk.regions.as_ref())?,
            tags: cat(|chunk| chunk.tags.as_ref())?,
        })
    }
}
