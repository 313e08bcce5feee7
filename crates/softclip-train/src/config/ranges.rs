//! Ranges of the numbers in a configuration. Ranges of the network's sizes are those of [`softclip_encoders::ClipConfig::validate`], ranges
//! of the loss's constants those of [`softclip_loss::LossConfig::validate`].

use std::ops::Bound::{self, Excluded, Included};
use std::ops::RangeBounds;

use super::{CategoryConfig, ConfigError, RunConfig};

/// The largest number of steps of any kind.
const MAX_STEPS: u64 = 1_000_000_000_000;
/// The largest number of pairs of a batch.
const MAX_BATCH: u64 = 1 << 24;
/// The largest number of loader threads and of batches that are prepared in advance.
const MAX_THREADS: u64 = 1024;
/// About the largest f32, in which libtorch computes.
const MAX_F32: f64 = 3.4e38;

/// How a number is shown.
trait Shown: PartialOrd {
    fn shown(&self) -> String;
}

impl Shown for u64 {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for f64 {
    fn shown(&self) -> String {
        let plain = *self == 0.0 || !self.is_finite() || (1e-4..1e7).contains(&self.abs());
        if plain { self.to_string() } else { format!("{self:e}") }
    }
}

struct Number<T> {
    key: &'static str,
    value: T,
    from: Bound<T>,
    to: Bound<T>,
    /// Why nothing else makes sense, or nothing.
    why: &'static str,
}

impl<T: Shown> Number<T> {
    /// NaN is in no range.
    fn check(&self) -> Result<(), ConfigError> {
        if (self.from.as_ref(), self.to.as_ref()).contains(&self.value) {
            return Ok(());
        }
        let from = match &self.from {
            Excluded(from) => format!("above {}", from.shown()),
            Included(from) => format!("from {}", from.shown()),
            Bound::Unbounded => String::new(),
        };
        let to = match &self.to {
            Excluded(to) => format!(" to below {}", to.shown()),
            Included(to) => format!(" to {}", to.shown()),
            Bound::Unbounded => String::new(),
        };
        let reason = if self.why.is_empty() { String::new() } else { format!(": {}", self.why) };
        let why = format!("{} is out of range, write a number {from}{to}{reason}", self.value.shown());
        Err(ConfigError::Value { key: self.key.to_owned(), why })
    }
}

fn real(key: &'static str, value: f64, from: Bound<f64>, to: f64) -> Number<f64> {
    Number { key, value, from, to: Included(to), why: "" }
}

fn whole(key: &'static str, value: u64, from: u64, to: u64) -> Number<u64> {
    Number { key, value, from: Included(from), to: Included(to), why: "" }
}

impl RunConfig {
    /// Checks that every number is in its range.
    pub(super) fn validate_ranges(&self) -> Result<(), ConfigError> {
        self.reals().iter().try_for_each(Number::check)?;
        self.wholes().iter().try_for_each(Number::check)?;
        self.category.validate_ranges()
    }

    fn reals(&self) -> Vec<Number<f64>> {
        let (t, d) = (&self.train, &self.data);
        let below_1 = |key, value| Number { key, value, from: Included(0.0), to: Excluded(1.0), why: "" };
        vec![
            real("data.share", d.share, Excluded(0.0), 1.0),
            real("data.max_bad_share", d.max_bad_share, Included(0.0), 1.0),
            real("train.epochs", t.epochs, Excluded(0.0), 1e6),
            real("train.lr", t.lr, Excluded(0.0), MAX_F32),
            below_1("train.beta1", t.beta1),
            below_1("train.beta2", t.beta2.unwrap_or(0.0)),
            real("train.eps", t.eps.unwrap_or(1.0), Excluded(0.0), 1.0),
            real("train.weight_decay", t.weight_decay, Included(0.0), 1e6),
            real("train.warmup", t.warmup, Included(0.0), MAX_STEPS as f64),
            real("train.grad_clip", t.grad_clip.unwrap_or(1.0), Excluded(0.0), MAX_F32),
            real("train.tau", self.tau(), Included(1e-6), 1e6),
            real("train.max_logit_scale", t.max_logit_scale, Excluded(0.0), 1e6),
            real("train.image_tower.lr_scale", t.image_tower.lr_scale, Excluded(0.0), 1e6),
            real("train.text_tower.lr_scale", t.text_tower.lr_scale, Excluded(0.0), 1e6),
        ]
    }

    fn wholes(&self) -> Vec<Number<u64>> {
        let (t, d) = (&self.train, &self.data);
        let contrast = "a single pair cannot be contrasted";
        vec![
            Number { why: contrast, ..whole("train.batch_size", t.batch_size as u64, 2, MAX_BATCH) },
            whole("train.chunk_size", t.chunk_size.unwrap_or(1) as u64, 1, MAX_BATCH),
            whole("train.steps", t.steps.unwrap_or(1), 1, MAX_STEPS),
            whole("train.log_every", t.log_every, 1, MAX_STEPS),
            whole("train.checkpoint_every", t.checkpoint_every.unwrap_or(1), 1, MAX_STEPS),
            whole("train.keep_checkpoints", t.keep_checkpoints as u64, 1, 1_000_000),
            whole("train.image_tower.freeze_after", t.image_tower.freeze_after.unwrap_or(0), 0, MAX_STEPS),
            whole("train.text_tower.freeze_after", t.text_tower.freeze_after.unwrap_or(0), 0, MAX_STEPS),
            whole("data.max_regions", d.max_regions as u64, 1, 10_000),
            whole("data.workers", d.workers as u64, 0, MAX_THREADS),
            whole("data.prefetch", d.prefetch as u64, 0, MAX_THREADS),
            whole("data.decode.max_pixels", d.decode.max_pixels, 1, 1 << 34),
        ]
    }
}

impl CategoryConfig {
    /// Checks that every number is in its range.
    pub(crate) fn validate_ranges(&self) -> Result<(), ConfigError> {
        let tokens = self.context_length.unwrap_or(2) as u64;
        whole("category.batch_size", self.batch_size as u64, 1, MAX_BATCH).check()?;
        Number { why: "a start and an end token need 2", ..whole("category.context_length", tokens, 2, MAX_BATCH) }.check()
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::tests::message;

    #[test]
    fn numbers_out_of_range_are_refused_with_key_value_and_range() {
        for (set, expected) in [
            (
                "data.workers=9223372036854775807",
                "data.workers: 9223372036854775807 is out of range, write a number from 0 to 1024",
            ),
            ("data.prefetch=100000", "data.prefetch: 100000 is out of range"),
            ("data.max_regions=0", "data.max_regions: 0 is out of range, write a number from 1 to 10000"),
            ("data.share=0", "data.share: 0 is out of range, write a number above 0 to 1"),
            ("data.max_bad_share=1.5", "data.max_bad_share: 1.5 is out of range, write a number from 0 to 1"),
            ("data.decode.max_pixels=0", "data.decode.max_pixels: 0 is out of range"),
            ("train.batch_size=1", "train.batch_size: 1 is out of range, write a number from 2 to 16777216: a single pair"),
            ("train.batch_size=18446744073709551615", "train.batch_size: 18446744073709551615 is out of range"),
            ("train.beta2=1.5", "train.beta2: 1.5 is out of range, write a number from 0 to below 1"),
            ("train.lr=.nan", "train.lr: NaN is out of range"),
            ("train.lr=1e300", "train.lr: 1e300 is out of range, write a number above 0 to 3.4e38"),
            ("train.epochs=.inf", "train.epochs: inf is out of range"),
            ("train.epochs=1e300", "train.epochs: 1e300 is out of range"),
            ("train.eps=0", "train.eps: 0 is out of range"),
            ("train.warmup=-1", "train.warmup: -1 is out of range"),
            ("train.steps=0", "train.steps: 0 is out of range"),
            ("train.log_every=0", "train.log_every: 0 is out of range"),
            ("train.tau=1e-300", "train.tau: 1e-300 is out of range, write a number from 1e-6 to 1000000"),
            ("train.image_tower.lr_scale=0", "train.image_tower.lr_scale: 0 is out of range"),
            ("train.text_tower.freeze_after=18446744073709551615", "train.text_tower.freeze_after: 18446744073709551615 is out"),
            ("category.batch_size=0", "category.batch_size: 0 is out of range"),
            ("category.context_length=1", "category.context_length: 1 is out of range"),
            ("loss={name: label_smoothing, alpha: 2}", "loss.alpha: 2 is outside of [0, 1]"),
            ("loss={name: softclip, mu: 1e300}", "loss.mu: "),
            ("eval=[{task: retrieval, data: x, every: inf epochs}]", "eval[0].every: `inf epochs` is no interval"),
            (
                "model.text={context_length: 77, vocab_size: 49408, width: 512, heads: 8, layers: 100000000000}",
                "model.text.layers: 100000000000 is ",
            ),
            (
                "model.image={kind: vit, image_size: 32, patch_size: 8, width: 32, layers: 1, heads: 2, mlp_ratio: 1e308}",
                "model.image.mlp_ratio: ",
            ),
            ("model.embed_dim=9223372036854775807", "model.embed_dim: 9223372036854775807 is "),
            ("model.image_size=9223372036854775744", "model.image.image_size: 9223372036854775744 is "),
            ("model.context_length=9223372036854775807", "model.text.context_length: 9223372036854775807 is "),
        ] {
            let message = message("model: {image: vit_b_32}\nloss: {name: clip}\n", &[set]);
            assert!(message.starts_with(&format!("--set {set}: {expected}")), "{set}: {message}");
        }
    }
}
