//! One optimizer step.
//!
//! The loss works on detached embeddings and returns its own gradients; the encoders run backward from these. So one path serves
//! whole batches, batches in chunks whose embeddings alone are kept (gradient caching: Gao et al. 2021), and batches of which each
//! rank has a part: embeddings are gathered, the loss is that of the whole batch, and each rank runs backward from its own rows'
//! gradients. W ranks find what one process with the whole batch would, to rounding, but for BatchNorm, which each rank has of its own.

mod encode;
mod options;
mod phases;
mod ranks;

use std::ops::Range;

use softclip_data::rng::{RngKey, Stream};
use softclip_distributed::World;
use softclip_encoders::Mode;
use softclip_loss::{BlockOptions, Diagnostics, Gradients, LossConfig, Scales, blockwise_among};
use softclip_tensor::{Batch, Embeddings, Precision, Regions, Tags, TokenRows};
use softclip_torch::{AdamW, GradScaler, RandomState, clip_grad_norm, guard};
use tch::{Kind, Tensor, no_grad};

use self::encode::Encoded;
pub(crate) use self::encode::Encoder;
pub use self::options::StepOptions;
use self::phases::Clock;
pub use self::phases::Phases;
use self::ranks::{Among, Averager, total_rows};
use crate::category::Category;
use crate::init::{is_image, is_projection, is_text};
use crate::model::Model;
use crate::{Error, Result, optim};

/// A batch on the model's device; one of several ranks has its [part](softclip_distributed::part) of the batch.
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
    /// Where the time went.
    pub phases: Phases,
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
    named: Vec<(String, Tensor)>,
    /// Whether the image and the text tower are frozen.
    frozen: [bool; 2],
    world: World,
    averager: Averager,
    exact_phases: bool,
}

impl Trainer {
    /// An optimizer over all that `model` learns, in one process.
    ///
    /// # Errors
    /// The device has no memory left.
    pub fn new(model: Model, loss: LossConfig, options: StepOptions) -> Result<Self> {
        Self::among(model, loss, options, World::alone())
    }

    /// One of the ranks of `world` that train a model together. All begin with rank 0's weights after [`Trainer::follow`].
    ///
    /// # Errors
    /// The device has no memory left.
    pub fn among(model: Model, loss: LossConfig, options: StepOptions, world: World) -> Result<Self> {
        let model = model.with_recompute(options.recompute);
        // What never learns has no moments.
        let frozen = freeze(&model, &options, 0);
        let (image_lr, text_lr) = (options.image_tower.lr_scale, options.text_tower.lr_scale);
        let adamw = AdamW::new(optim::groups(model.parameters(), options.weight_decay, image_lr, text_lr), options.adam)?;
        let scaler = (options.precision == Precision::Fp16).then(|| GradScaler::new(model.device())).transpose()?;
        let (params, named) = (adamw.params(), model.parameters());
        if loss.constant_tau().is_some() {
            // Has moments all the same, so that a run may go on with a learned one, or the other way round.
            let _ = model.clip().logit_scale().set_requires_grad(false);
        }
        let averager = Averager::default();
        let exact_phases = false;
        Ok(Self { model, loss, options, adamw, scaler, params, named, frozen, world, averager, exact_phases })
    }

    /// Waits for the device at the end of each of a step's phases, so that their times are true on a GPU too; it slows steps down.
    pub fn time_phases(&mut self) {
        self.exact_phases = true;
    }

    /// The ranks.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Takes rank 0's weights and optimizer state, whatever this rank has.
    ///
    /// # Errors
    /// The ranks have not the same model, or one is gone.
    pub fn follow(&mut self) -> Result<()> {
        if self.world.size() == 1 {
            return Ok(());
        }
        let weights: Vec<Tensor> = self.model.tensors().into_iter().map(|(_, tensor)| tensor).collect();
        self.world.broadcast(&weights)?;
        // Counts of steps lie on the CPU: all is sent from where ranks exchange, and taken back as from a file.
        let device = self.world.device();
        let states = self.optimizer_tensors().into_iter();
        let states = states.map(|(name, tensor)| Ok((name, tensor.f_to_device(device)?.f_detach_copy()?)));
        let states = states.collect::<Result<std::collections::BTreeMap<_, _>>>()?;
        self.world.broadcast(&states.values().map(Tensor::shallow_clone).collect::<Vec<_>>())?;
        self.load_optimizer(&states)
    }

    /// Makes the running statistics of batch norm, which each rank collects from its own samples, the mean of all ranks'.
    ///
    /// # Errors
    /// A rank is gone.
    pub fn share_statistics(&self) -> Result<()> {
        let statistics = self.model.tensors().into_iter();
        let statistics = statistics.filter(|(name, _)| name.ends_with("running_mean") || name.ends_with("running_var"));
        Ok(self.world.average(&statistics.map(|(_, tensor)| tensor).collect::<Vec<_>>())?)
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
        let before =
            std::mem::replace(&mut self.frozen, [&self.options.image_tower, &self.options.text_tower].map(|t| t.is_frozen(step)));
        if before != self.frozen {
            self.averager.reset();
        }
        freeze(&self.model, &self.options, step);
    }

    /// Starts libtorch's generator anew where the network draws from it: what a step draws follows from these numbers and the rank,
    /// whatever came before.
    #[expect(clippy::disallowed_methods, reason = "patch dropout draws on the GPU, from that device's default generator")]
    pub fn seed(&self, seed: u64, step: u64) {
        if self.draws() {
            let key = RngKey::new(seed, step, self.world.rank() as u64);
            tch::manual_seed(key.rng(Stream::Network).next_u64() as i64);
        }
    }

    /// Whether the network draws random numbers in training.
    fn draws(&self) -> bool {
        self.model.clip().config().patch_dropout() > 0.0
    }

    /// One step at learning rate `lr`. What it reports is of the whole batch.
    ///
    /// # Errors
    /// Inputs of the wrong shape, lack of memory, or a loss or gradient that is not finite; the weights are as before then. Among ranks
    /// also: they do not do the same, or one is gone.
    pub fn step(&mut self, inputs: &Inputs, lr: f64) -> Result<StepReport> {
        guard(|| self.step_or_panic(inputs, lr))?
    }

    /// The encoders' operators panic where libtorch fails.
    fn step_or_panic(&mut self, inputs: &Inputs, lr: f64) -> Result<StepReport> {
        let mut clock = Clock::start(self.exact_phases.then(|| self.model.device()));
        self.adamw.zero_grad();
        self.averager.prepare()?;
        clock.optimizer()?;
        let n = inputs.images.size()[0];
        let loss = match self.options.chunk_size.filter(|&chunk| chunk < n) {
            None => {
                let encoded = self.encode(inputs, 0..n, Mode::Train, true)?;
                clock.forward()?;
                let loss = self.loss_of(inputs, &encoded)?;
                clock.loss()?;
                self.backward(&encoded, &loss.grads, 0..n, true)?;
                clock.backward()?;
                loss
            }
            Some(chunk) => self.chunked(inputs, n, chunk, &mut clock)?,
        };
        let (grad_norm, overflowed) = self.update(lr)?;
        clock.optimizer()?;
        let (parts, diagnostics) = (loss.parts, loss.diagnostics);
        let learned = || self.model.clip().logit_scale().double_value(&[]).exp();
        let logit_scale = self.loss.constant_tau().map_or_else(learned, f64::recip);
        Ok(StepReport { loss: loss.value, parts, diagnostics, grad_norm, logit_scale, overflowed, phases: clock.phases() })
    }

    /// The embeddings of all chunks without their graphs, the loss, then each chunk again with its graph and the same random numbers.
    fn chunked(&mut self, inputs: &Inputs, n: i64, chunk: i64, clock: &mut Clock) -> Result<softclip_loss::Loss> {
        let ranges: Vec<Range<i64>> = (0..n).step_by(chunk as usize).map(|from| from..n.min(from + chunk)).collect();
        // All threads share the generators: they are left alone where the network does not draw.
        let first = |range: &Range<i64>| -> Result<(Encoded, Option<RandomState>)> {
            let random = self.draws().then(|| RandomState::save(self.model.device())).transpose()?;
            Ok((no_grad(|| self.encode(inputs, range.clone(), Mode::TrainKeepStatistics, true))?, random))
        };
        let first: Vec<_> = ranges.iter().map(first).collect::<Result<_>>()?;
        let (encoded, random): (Vec<_>, Vec<_>) = first.into_iter().unzip();
        clock.forward()?;
        let loss = self.loss_of(inputs, &Encoded::cat(&encoded)?)?;
        drop(encoded);
        clock.loss()?;
        for (range, random) in ranges.into_iter().zip(random) {
            let again = || self.encode(inputs, range.clone(), Mode::Train, !self.encoder().detaches());
            let encoded = random.as_ref().map_or_else(|| Ok(again()), |random| random.replay(again))??;
            clock.forward()?;
            let last = range.end == n;
            self.backward(&encoded, &loss.grads, range, last)?;
            clock.backward()?;
        }
        Ok(loss)
    }

    fn encoder(&self) -> Encoder<'_> {
        Encoder { model: &self.model, loss: &self.loss, precision: self.options.precision }
    }

    fn encode(&self, inputs: &Inputs, range: Range<i64>, mode: Mode, guides: bool) -> Result<Encoded> {
        let mode = match self.frozen[0] || self.options.frozen_norm {
            true => Mode::TrainFrozenNorm,
            false => mode,
        };
        self.encoder().encode(inputs, range, mode, guides)
    }

    /// The loss of the whole batch.
    fn loss_of(&self, inputs: &Inputs, encoded: &Encoded) -> Result<softclip_loss::Loss> {
        let value = |tensor: Option<&Tensor>| tensor.map(|tensor| tensor.double_value(&[]));
        let scales = Scales {
            target_log_scale: value(self.model.target_scale()),
            bias: value(self.model.bias()),
            ..Scales::new(self.model.clip().logit_scale().double_value(&[]))
        };
        let total = total_rows(&self.world, encoded.image.rows())?;
        let all = self.encoder().compared(inputs, encoded)?.gather(&self.world, total)?;
        let beta = all.row_beta(&self.loss, self.model.kind());
        let options = BlockOptions::for_device(self.model.device());
        Ok(blockwise_among(&self.loss, &all.inputs(beta.as_ref()), &scales, &options, &Among(&self.world))?)
    }

    /// Runs the encoders backward from the loss's gradients: those of Σ x·g, whose derivative by x is g. `range` is of this rank's rows.
    fn backward(&mut self, encoded: &Encoded, grads: &Gradients, range: Range<i64>, last: bool) -> Result<()> {
        let total = grads.image.size()[0];
        let from = self.world.part(total as usize).start as i64 + range.start;
        let part = |x: &Embeddings, g: &Tensor| (x.tensor() * g.narrow(0, from, range.end - range.start)).sum(None::<Kind>);
        let mut sum = part(&encoded.image, &grads.image) + part(&encoded.text, &grads.text);
        let guides = [(&encoded.regions, &grads.regions), (&encoded.tags, &grads.tags)];
        for (x, g) in guides.into_iter().filter_map(|(x, g)| Some((x.as_ref()?, g.as_ref()?))) {
            sum += part(x, g);
        }
        // The ranks' gradients are averaged where those of their rows add up.
        sum *= self.world.size() as f64;
        if last {
            // These are the whole batch's on every rank.
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
        // Nothing may be left to learn, where both towers are frozen with their projections.
        if !sum.requires_grad() {
            return Ok(());
        }
        if last {
            return self.averager.backward(&self.world, &self.named, &sum);
        }
        Ok(sum.f_backward()?)
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

/// Stops the towers' parameters that are frozen in this step from learning; whether the image and the text tower are.
fn freeze(model: &Model, options: &StepOptions, step: u64) -> [bool; 2] {
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
    [image, text].map(|tower| tower.is_frozen(step))
}
