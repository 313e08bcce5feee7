//! What a step does among ranks: embeddings of the whole batch for the loss, gradients averaged while backward runs.

use std::fmt;

use softclip_distributed::World;
use softclip_loss::{LossConfig, LossInputs, Ranks, RanksError};
use softclip_tensor::Embeddings;
use softclip_torch::{BucketSizes, Ddp, Reduce};
use tch::{Kind, Tensor};

use crate::Result;

/// The world as the loss wants it.
pub(super) struct Among<'a>(pub &'a World);

impl Among<'_> {
    fn reduce(&self, tensor: &Tensor, reduce: Reduce) -> softclip_loss::Result<()> {
        self.0.all_reduce(tensor, reduce).map_err(|e| softclip_loss::Error::Ranks(RanksError::from(e)))
    }
}

impl Ranks for Among<'_> {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn sum(&self, tensor: &Tensor) -> softclip_loss::Result<()> {
        self.reduce(tensor, Reduce::Sum)
    }

    fn max(&self, tensor: &Tensor) -> softclip_loss::Result<()> {
        self.reduce(tensor, Reduce::Max)
    }
}

/// All that a loss compares, without graph. First of this rank's pairs, then of all ranks'.
pub(crate) struct Compared {
    pub image: Embeddings,
    pub text: Embeddings,
    pub regions: Option<Embeddings>,
    pub tags: Option<Embeddings>,
    pub category: Option<Embeddings>,
    pub category_text: Option<Embeddings>,
    /// bool `[N]`: pairs that have what their soft target is made of.
    pub present: Option<Tensor>,
}

impl Compared {
    /// As the loss takes them, with β of each pair where they differ.
    pub fn inputs<'a>(&'a self, row_beta: Option<&'a Tensor>) -> LossInputs<'a> {
        LossInputs {
            category: self.category.as_ref(),
            category_text: self.category_text.as_ref(),
            regions: self.regions.as_ref(),
            tags: self.tags.as_ref(),
            row_beta,
            ..LossInputs::new(&self.image, &self.text)
        }
    }

    /// β of each pair in `kind`, 0 for one without what its soft target is made of; `None` where all have it, or the loss has no β.
    pub fn row_beta(&self, loss: &LossConfig, kind: Kind) -> Option<Tensor> {
        let (LossConfig::Softclip(config), Some(present)) = (loss, &self.present) else { return None };
        let all = present.all().int64_value(&[]) == 1;
        (!all).then(|| present.to_kind(kind) * config.beta)
    }

    /// Those of the whole batch of `total` pairs, in one exchange.
    pub fn gather(self, world: &World, total: usize) -> Result<Self> {
        if world.size() == 1 {
            return Ok(self);
        }
        let Self { image, text, regions, tags, category, category_text, present } = self;
        let kind = image.tensor().kind();
        let sets = [Some(image), Some(text), regions, tags, category, category_text];
        let mut columns: Vec<Tensor> = sets.iter().flatten().map(|set| set.tensor().shallow_clone()).collect();
        columns.extend(present.as_ref().map(|present| present.to_kind(kind).unsqueeze(1)));
        let all = world.gather_parts(&Tensor::f_cat(&columns, 1)?, total)?;
        let mut from = 0;
        let mut take = |width: i64| {
            from += width;
            all.f_narrow(1, from - width, width)?.f_contiguous()
        };
        let mut sets = sets.into_iter().map(|set| set.map(|set| take(set.dim())).transpose()).collect::<Vec<_>>().into_iter();
        let mut next =
            || -> Result<Option<Embeddings>> { Ok(sets.next().unwrap_or(Ok(None))?.map(Embeddings::trusted).transpose()?) };
        let (image, text) = (next()?, next()?);
        let (regions, tags, category, category_text) = (next()?, next()?, next()?, next()?);
        let (Some(image), Some(text)) = (image, text) else {
            return Err(softclip_torch::Error::Invalid("embeddings were lost among ranks".to_owned()).into());
        };
        let present = present.map(|_| take(1)).transpose()?.map(|column| column.view([-1]).ne(0.0));
        Ok(Self { image, text, regions, tags, category, category_text, present })
    }
}

/// Averages gradients over the ranks: bucket by bucket during backward, once it is known which parameters backward reaches.
#[derive(Default)]
pub(super) struct Averager {
    ddp: Option<Ddp>,
    /// Parameters of the reducer.
    covered: usize,
}

impl fmt::Debug for Averager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Averager").field("covered", &self.covered).finish_non_exhaustive()
    }
}

impl Averager {
    /// Before the first forward pass of a step.
    pub fn prepare(&mut self) -> Result<()> {
        self.ddp.as_mut().map_or(Ok(()), |ddp| Ok(ddp.prepare_for_forward()?))
    }

    /// Before other parameters than so far are learned.
    pub fn reset(&mut self) {
        self.ddp = None;
    }

    /// The last backward pass of a step; those before only accumulate. Afterwards all ranks have the mean gradient of `params`.
    pub fn backward(&mut self, world: &World, params: &[(String, Tensor)], sum: &Tensor) -> Result<()> {
        let Some(group) = world.group() else { return Ok(sum.f_backward()?) };
        match &mut self.ddp {
            Some(ddp) => ddp.backward(|| sum.f_backward())?,
            None => sum.f_backward()?,
        }
        let reached: Vec<(String, Tensor)> = params
            .iter()
            .filter(|(_, param)| param.requires_grad() && param.grad().defined())
            .map(|(name, param)| (name.clone(), param.shallow_clone()))
            .collect();
        if self.ddp.is_some() && reached.len() == self.covered {
            return Ok(());
        }
        if self.ddp.take().is_some() {
            // What the reducer averaged is the same on all ranks, so that averaging it again changes nothing.
            self.covered = 0;
        }
        let grads: Vec<Tensor> = reached.iter().map(|(_, param)| param.grad()).collect();
        world.average(&grads)?;
        self.covered = reached.len();
        self.ddp = Some(Ddp::new(group, &reached, BucketSizes::default())?);
        Ok(())
    }
}

/// How many pairs the whole batch has, of which this rank has `n`.
pub(super) fn total_rows(world: &World, n: i64) -> Result<usize> {
    Ok(world.total(&[n as f64])?.first().map_or(n as usize, |&total| total as usize))
}
