//! One optimizer step.
//!
//! The loss works on detached embeddings and returns its own gradients; the encoders run backward from these. So one path serves
//! whole batches, and batches in chunks whose embeddings alone are kept (gradient caching: Gao et al. 2021).

mod options;

use std::ops::Range;

use softclip_encoders::Mode;
use softclip_loss::config::TargetGrad;
use softclip_loss::{BlockOptions, Diagnostics, Gradients, LossConfig, LossInputs, Scales, blockwise};
use softclip_tensor::{Batch, Embeddings, Precision, Regions, Tags, TokenRows};
use softclip_torch::{AdamW, Autocast, GradScaler, channels_last, clip_grad_norm, guard};
use tch::{Kind, Tensor, no_grad};

pub use self::options::StepOptions;
use crate::category::Category;
use crate::init::{is_image, is_projection, is_text};
use crate::model::Model;
use crate::{Error, Result, optim};

/// A batch on the model's device.
#[derive(Debug)]
pub struct Inputs {
    /// u8 `[N, 3, H, W]`, or normalised floats.
    pub images: Tensor,
    /// Captions, i64 `[N, L]`.
    pub tokens: TokenRows,
    /// Tag sentences.
    pub tags: Option<Tags>,
    /// Region features.
    pub regions: Option<Regions>,
    /// The frozen encoder's embeddings, for `text_based`.
    pub category: Option<Category>,
}

impl From<Batch> for Inputs {
    /// Without category embeddings, which no batch brings along.
    fn from(batch: Batch) -> Self {
        let Batch { images, tokens, tags, regions, .. } = batch;
        Self { images, tokens, tags, regions, category: None }
    }
}

/// What a step found.
#[derive(Debug)]
pub struct StepReport {
    /// The loss.
    pub loss: f64,
    /// Its parts before their weights.
    pub parts: Vec<(&'static str, f64)>,
    /// Targets and collapse.
    pub diagnostics: Diagnostics,
    /// L2 norm of all gradients before clipping.
    pub grad_norm: f64,
    /// 1/τ after the step; the loss's own where it is constant.
    pub logit_scale: f64,
    /// fp16 overflowed: the weights are as they were, the scale of the loss is halved.
    pub overflowed: bool,
}

/// Model, loss and optimizer.
#[derive(Debug)]
pub struct Trainer {
    model: Model,
    loss: LossConfig,
    options: StepOptions,
    adamw: AdamW,
    scaler: Option<GradScaler>,
    params: Vec<Tensor>,
    image_frozen: bool,
}

/// Embeddings of some pairs; region and tag embeddings where the loss needs them.
struct Encoded {
    image: Embeddings,
    text: Embeddings,
    regions: Option<Embeddings>,
    tags: Option<Embeddings>,
}

impl Trainer {
    /// An optimizer over all that `model` learns.
    ///
    /// # Errors
    /// The device has no memory left.
    pub fn new(model: Model, loss: LossConfig, options: StepOptions) -> Result<Self> {
        // What never learns has no moments.
        freeze(&model, &options, 0);
        let (image_lr, text_lr) = (options.image_tower.lr_scale, options.text_tower.lr_scale);
        let adamw = AdamW::new(optim::groups(model.parameters(), options.weight_decay, image_lr, text_lr), options.adam)?;
        let scaler = (options.precision == Precision::Fp16).then(|| GradScaler::new(model.device())).transpose()?;
        let params = adamw.params();
        let image_frozen = options.image_tower.is_frozen(0);
        if loss.constant_tau().is_some() {
            // Has moments all the same, so that a run may go on with a learned one, or the other way round.
            let _ = model.clip().logit_scale().set_requires_grad(false);
        }
        Ok(Self { model, loss, options, adamw, scaler, params, image_frozen })
    }

    /// The network.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// To load weights into.
    pub fn model_mut(&mut self) -> &mut Model {
        &mut self.model
    }

    /// The optimizer's moments and steps, and the loss scale of fp16, by name.
    pub fn optimizer_tensors(&self) -> Vec<(String, Tensor)> {
        let mut tensors = self.adamw.state_tensors();
        tensors.extend(self.scaler.iter().flat_map(GradScaler::state_tensors));
        tensors
    }

    /// Takes them back.
    ///
    /// # Errors
    /// Names or shapes differ.
    pub fn load_optimizer(&mut self, tensors: &std::collections::BTreeMap<String, Tensor>) -> Result<()> {
        let (of_scaler, of_adamw) = tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
            .partition(|(name, _)| name.starts_with("scaler."));
        self.adamw.load_state(&of_adamw)?;
        if let Some(scaler) = &mut self.scaler {
            scaler.load_state(&of_scaler)?;
        }
        Ok(())
    }

    /// Freezes what is frozen in the step with this number, from 0; for good.
    pub fn freeze(&mut self, step: u64) {
        self.image_frozen = freeze(&self.model, &self.options, step);
    }

    /// One step at learning rate `lr`.
    ///
    /// # Errors
    /// Inputs of the wrong shape, lack of memory, or a loss or gradient that is not finite; the weights are as before then.
    pub fn step(&mut self, inputs: &Inputs, lr: f64) -> Result<StepReport> {
        guard(|| self.step_or_panic(inputs, lr))?
    }

    /// The encoders' operators panic where libtorch fails.
    fn step_or_panic(&mut self, inputs: &Inputs, lr: f64) -> Result<StepReport> {
        self.adamw.zero_grad();
        let n = inputs.images.size()[0];
        let loss = match self.options.chunk_size.filter(|&chunk| chunk < n) {
            None => {
                let encoded = self.encode(inputs, 0..n, Mode::Train, true)?;
                let loss = self.loss_of(inputs, &encoded.detach())?;
                self.backward(&encoded, &loss.grads, 0..n, true)?;
                loss
            }
            Some(chunk) => self.chunked(inputs, n, chunk)?,
        };
        let (grad_norm, overflowed) = self.update(lr)?;
        let (parts, diagnostics) = (loss.parts, loss.diagnostics);
        let learned = || self.model.clip().logit_scale().double_value(&[]).exp();
        let logit_scale = self.loss.constant_tau().map_or_else(learned, f64::recip);
        Ok(StepReport { loss: loss.value, parts, diagnostics, grad_norm, logit_scale, overflowed })
    }

    /// The embeddings of all chunks without their graphs, the loss, then each chunk again with its graph.
    fn chunked(&self, inputs: &Inputs, n: i64, chunk: i64) -> Result<softclip_loss::Loss> {
        let ranges: Vec<Range<i64>> = (0..n).step_by(chunk as usize).map(|from| from..n.min(from + chunk)).collect();
        let first = |range: &Range<i64>| no_grad(|| self.encode(inputs, range.clone(), Mode::TrainKeepStatistics, true));
        let encoded: Vec<Encoded> = ranges.iter().map(first).collect::<Result<_>>()?;
        let loss = self.loss_of(inputs, &Encoded::cat(&encoded)?)?;
        drop(encoded);
        for (i, range) in ranges.into_iter().enumerate() {
            let encoded = self.encode(inputs, range.clone(), Mode::Train, !self.detaches())?;
            self.backward(&encoded, &loss.grads, range, i == 0)?;
        }
        Ok(loss)
    }

    /// `guides`: regions and tags too, where the loss needs them.
    fn encode(&self, inputs: &Inputs, range: Range<i64>, mode: Mode, guides: bool) -> Result<Encoded> {
        let clip = self.model.clip();
        let (from, n) = (range.start, range.end - range.start);
        let _autocast = Autocast::enter(self.model.device(), self.options.precision)?;
        let images = inputs.images.narrow(0, from, n);
        let images = match images.kind() {
            Kind::Uint8 => clip.normalize_images(&images)?,
            _ => images,
        };
        let mode = match self.image_frozen || self.options.frozen_norm {
            true => Mode::TrainFrozenNorm,
            false => mode,
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
    fn detaches(&self) -> bool {
        matches!(&self.loss, LossConfig::Softclip(config) if config.target_grad == TargetGrad::Detach)
    }

    fn loss_of(&self, inputs: &Inputs, encoded: &Encoded) -> Result<softclip_loss::Loss> {
        let value = |tensor: Option<&Tensor>| tensor.map(|tensor| tensor.double_value(&[]));
        let scales = Scales {
            target_log_scale: value(self.model.target_scale()),
            bias: value(self.model.bias()),
            ..Scales::new(self.model.clip().logit_scale().double_value(&[]))
        };
        let row_beta = self.row_beta(inputs);
        let category = inputs.category.as_ref().filter(|_| self.loss.needs().category);
        let category = category.map(|category| category.to_kind(encoded.image.tensor().kind())).transpose()?;
        let loss_inputs = LossInputs {
            category: category.as_ref().map(|category| &category.sentences),
            category_text: category.as_ref().map(|category| &category.captions),
            regions: encoded.regions.as_ref(),
            tags: encoded.tags.as_ref(),
            row_beta: row_beta.as_ref(),
            ..LossInputs::new(&encoded.image, &encoded.text)
        };
        let options = BlockOptions::for_device(self.model.device());
        Ok(blockwise(&self.loss, &loss_inputs, &scales, &options)?)
    }

    /// β of each pair, 0 for a pair without detections; `None` where all have some.
    fn row_beta(&self, inputs: &Inputs) -> Option<Tensor> {
        let LossConfig::Softclip(config) = &self.loss else { return None };
        let needs = self.loss.needs();
        let regions = inputs.regions.as_ref().filter(|_| needs.regions).map(Regions::present);
        let tags = inputs.tags.as_ref().filter(|_| needs.tags).map(|tags| tags.present.shallow_clone());
        let present = [regions, tags].into_iter().flatten().reduce(|a, b| a.logical_and(&b))?;
        let all = present.all().int64_value(&[]) == 1;
        (!all).then(|| present.to_kind(self.model.kind()) * config.beta)
    }

    /// Runs the encoders backward from the loss's gradients: those of Σ x·g, whose derivative by x is g.
    fn backward(&self, encoded: &Encoded, grads: &Gradients, range: Range<i64>, with_scales: bool) -> Result<()> {
        let part =
            |x: &Embeddings, g: &Tensor| (x.tensor() * g.narrow(0, range.start, range.end - range.start)).sum(None::<Kind>);
        let mut sum = part(&encoded.image, &grads.image) + part(&encoded.text, &grads.text);
        let guides = [(&encoded.regions, &grads.regions), (&encoded.tags, &grads.tags)];
        for (x, g) in guides.into_iter().filter_map(|(x, g)| Some((x.as_ref()?, g.as_ref()?))) {
            sum += part(x, g);
        }
        if with_scales {
            let scales = [
                (Some(self.model.clip().logit_scale()), Some(grads.log_scale)),
                (self.model.target_scale(), grads.target_log_scale),
                (self.model.bias(), grads.bias),
            ];
            for (scale, g) in scales.into_iter().filter_map(|(scale, g)| Some((scale?, g?))) {
                sum += scale * g;
            }
        }
        if let Some(scaler) = &self.scaler {
            sum *= scaler.scale();
        }
        // Of a later chunk nothing may be left to learn, where both towers are frozen with their projections.
        if sum.requires_grad() {
            sum.f_backward()?;
        }
        Ok(())
    }

    /// Clips, steps, clamps. The norm, and whether fp16 overflowed.
    fn update(&mut self, lr: f64) -> Result<(f64, bool)> {
        if let Some(scaler) = &mut self.scaler {
            scaler.unscale(&self.params)?;
        }
        let norm = clip_grad_norm(&self.params, self.options.grad_clip)?;
        if !norm.is_finite() && self.scaler.is_none() {
            return Err(Error::NonFinite { why: format!("the gradients' norm is {norm}"), row: None });
        }
        self.adamw.step(lr, self.scaler.as_ref())?;
        let mut overflowed = false;
        if let Some(scaler) = &mut self.scaler {
            overflowed = scaler.overflowed();
            scaler.update()?;
        }
        let most = self.options.max_logit_scale.ln();
        let learned = self.loss.constant_tau().is_none().then(|| self.model.clip().logit_scale());
        for scale in [learned, self.model.target_scale()].into_iter().flatten() {
            no_grad(|| scale.shallow_clone().f_clamp_(0.0, most).map(drop))?;
        }
        Ok((norm, overflowed))
    }
}

/// Stops the towers' parameters that are frozen in this step from learning; whether the image tower is.
fn freeze(model: &Model, options: &StepOptions, step: u64) -> bool {
    let (image, text) = (&options.image_tower, &options.text_tower);
    for (tower, is_of) in [(image, is_image as fn(&str) -> bool), (text, is_text)] {
        if !tower.is_frozen(step) {
            continue;
        }
        for (name, tensor) in model.parameters() {
            if is_of(&name) && (tower.freeze_projection || !is_projection(&name)) {
                let _ = tensor.set_requires_grad(false);
            }
        }
    }
    image.is_frozen(step)
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
    fn detach(&self) -> Self {
        let detach = |x: &Option<Embeddings>| x.as_ref().map(Embeddings::detach);
        Self { image: self.image.detach(), text: self.text.detach(), regions: detach(&self.regions), tags: detach(&self.tags) }
    }

    fn cat(chunks: &[Self]) -> Result<Self> {
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
