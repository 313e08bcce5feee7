//! What a trained model's loss compares a batch with, to be looked at.

use std::sync::Arc;

use softclip_data::image::Transform;
use softclip_data::loader::{LoaderOptions, Position, train_batches};
use softclip_data::source::Source;
use softclip_distributed::World;
use softclip_encoders::Mode;
use softclip_loss::{LossConfig, plain};
use softclip_tensor::{Batch, Texts};
use softclip_torch::guard;
use tch::{Device, Kind, Tensor, no_grad};

use crate::category::{Category, CategoryEncoder};
use crate::log::Downloads;
use crate::run::loader_options;
use crate::step::{Encoder, Inputs};
use crate::trained::TrainedModel;
use crate::{Error, Result};

/// A batch of N pairs, what the loss compares it with, and what the model says. Rows are queries and sum to 1, but for the label rows of
/// `text_based` with `blend: targets`. All on the CPU.
#[derive(Debug)]
pub struct BatchTargets {
    /// The samples' keys.
    pub keys: Vec<String>,
    /// As the model sees them, u8 `[N, 3, H, W]`.
    pub images: Tensor,
    /// Targets of image→text and text→image, f64 `[N, N]`.
    pub targets: [Tensor; 2],
    /// The model's softmax at its own temperature, image→text and text→image, f64 `[N, N]`.
    pub predictions: [Tensor; 2],
}

impl TrainedModel {
    /// A batch of `pairs` of `source`, the same for every model that can use the samples: centre crops and first captions of samples
    /// chosen by `seed`, and the loss's own targets for them by this model's embeddings.
    ///
    /// # Errors
    /// Samples lack what the loss needs (tags, regions), there are fewer than `pairs`, a category encoder cannot be opened, or the
    /// device has no memory left.
    pub fn batch_targets(&self, source: Arc<dyn Source>, pairs: usize, seed: u64) -> Result<BatchTargets> {
        let clip = self.model.clip().config();
        let world = World::alone();
        let usual = loader_options(&self.config, clip, Some(self.tokenizer.clone()), &world);
        let transform = Transform::eval(clip.image_size() as u32).with_floor_crop(clip.floor_crop);
        let options =
            LoaderOptions { batch_size: pairs, part: 0..pairs, transform, seed, first_caption: true, prefetch: 1, ..usual };
        let mut batches = train_batches(source, options, Position::default())?;
        let batch = batches.next().transpose()?.ok_or_else(|| self.wrong("the data gave no batch"))?.batch;
        let category = match &batch.texts {
            Some(texts) if self.config.loss.needs().category => Some(self.category(texts)?),
            _ => None,
        };
        guard(|| self.compare(batch, category))?
    }

    fn wrong(&self, why: &str) -> Error {
        Error::Run { path: self.checkpoint.path.clone(), why: why.to_owned() }
    }

    fn category(&self, texts: &Texts) -> Result<Category> {
        let run = self.checkpoint.path.parent().and_then(|checkpoints| checkpoints.parent());
        let run = run.ok_or_else(|| self.wrong("a checkpoint must lie in its run's folder"))?;
        let mut downloads = Downloads::new(false);
        let mut watch = |event: softclip_pretrained::Event<'_>| downloads.see(event);
        CategoryEncoder::open(&self.config.category, run, self.model.device(), &mut watch)?.embed(texts)
    }

    /// The encoders' operators panic where libtorch fails.
    fn compare(&self, batch: Batch, category: Option<Category>) -> Result<BatchTargets> {
        let loss = &self.config.loss;
        let (keys, images) = (batch.keys.clone(), batch.images.shallow_clone());
        let inputs = Inputs { category, ..Inputs::from(batch.to_device(self.model.device())?) };
        let encoder = Encoder { model: &self.model, loss, precision: self.config.train.precision };
        let pairs = images.size()[0];
        let compared = no_grad(|| -> Result<_> {
            let encoded = encoder.encode(&inputs, 0..pairs, Mode::Eval, true)?;
            encoder.compared(&inputs, &encoded)
        })?;
        let beta = compared.row_beta(loss, self.model.kind());
        let detached = |scale: Option<&Tensor>| scale.map(Tensor::detach);
        let scales = plain::Scales {
            log_scale: self.model.clip().logit_scale().detach(),
            target_log_scale: detached(self.model.target_scale()),
            bias: detached(self.model.bias()),
        };
        let targets = plain::targets(loss, &compared.inputs(beta.as_ref()), &scales)?;
        let logits = compared.image.tensor().f_matmul(&compared.text.tensor().tr())? * self.logit_scale();
        let shown = |t: &Tensor| Ok::<_, Error>(t.f_to_kind(Kind::Double)?.f_to_device(Device::Cpu)?);
        let [v2l, l2v] = &targets;
        Ok(BatchTargets {
            keys,
            images,
            targets: [shown(v2l)?, shown(l2v)?],
            predictions: [shown(&logits.softmax(1, Kind::Double))?, shown(&logits.tr().softmax(1, Kind::Double))?],
        })
    }

    /// 1/τ, learned or constant.
    pub fn logit_scale(&self) -> f64 {
        let learned = || self.model.clip().logit_scale().double_value(&[]).exp();
        self.config.loss.constant_tau().map_or_else(learned, f64::recip)
    }

    /// Whether the loss compares with more than the own pair of each row.
    pub fn has_soft_targets(&self) -> bool {
        match &self.config.loss {
            LossConfig::Clip(_) | LossConfig::Siglip(_) => false,
            LossConfig::LabelSmoothing(c) => c.alpha > 0.0,
            LossConfig::Softclip(c) => c.beta > 0.0 && (c.soft > 0.0 || c.lambda > 0.0),
            LossConfig::TextBased(c) => c.alpha > 0.0 && c.blend != softclip_loss::config::Blend::Logits,
        }
    }
}
