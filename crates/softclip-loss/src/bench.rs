//! How long the blockwise form takes beside the plain one and how much memory, for `cargo bench` and for a command line. Measures and
//! reports; asserts nothing.

use std::fmt;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use softclip_tensor::Embeddings;
use softclip_torch::{Error as TorchError, Generator, available_memory, keep_freed_memory, peak_above};
use tch::{Device, Kind, Tensor};

use crate::config::{Divergence, LossConfig, SoftClipConfig, TargetGrad};
use crate::error::Error;
use crate::{BlockOptions, LossInputs, Scales, blockwise, plain};

/// D of the embeddings that [`blockwise_against_plain`] measures with.
pub const DIM: i64 = 512;

/// N at which the memory of a plain form is measured to see whether a larger one fits: it grows with N². Its matrices are so large that
/// the C library gives each back at once.
const PROBE: i64 = 3072;

/// The share of the free memory that a plain form may be expected to need.
const MOST: f64 = 0.85;

/// Rounds that are measured at least.
const ROUNDS: usize = 3;

/// The temperature of all measurements.
const TAU: f64 = 0.07;

/// What was measured, on what. As text, a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The device, as `cpu` or `cuda:0`.
    pub device: String,
    /// Threads that libtorch computes with on the CPU.
    pub threads: i64,
    /// D of all sets.
    pub dim: i64,
    /// Edge of the tiles, at most N.
    pub tile: i64,
    /// One measurement for each loss and size.
    pub rows: Vec<Row>,
}

/// One loss at one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The loss and what departs from its defaults.
    pub loss: String,
    /// N.
    pub pairs: i64,
    /// Rounds of one run each.
    pub rounds: usize,
    /// Best time of the plain form under autograd, value and gradients, in seconds; none where its memory is not there.
    pub plain_seconds: Option<f64>,
    /// Best time of the blockwise form, value and gradients, in seconds.
    pub blockwise_seconds: f64,
    /// The most that the plain form took above its inputs, in bytes; expected from a small N where it was not run.
    pub plain_bytes: u64,
    /// The most that the blockwise form took above its inputs, in bytes.
    pub blockwise_bytes: u64,
}

impl Row {
    /// The plain form's time over the blockwise form's: above 1 the blockwise form is faster.
    pub fn ratio(&self) -> Option<f64> {
        self.plain_seconds.map(|s| s / self.blockwise_seconds)
    }

    /// The plain form's memory over the blockwise form's.
    pub fn memory_ratio(&self) -> f64 {
        self.plain_bytes as f64 / self.blockwise_bytes.max(1) as f64
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}, {} threads, D = {}, f32, tiles of {}: best seconds for value and gradients, MiB above the inputs",
            self.device, self.threads, self.dim, self.tile
        )?;
        writeln!(
            f,
            "{:<22}{:>8}{:>9}{:>11}{:>8}{:>12}{:>11}{:>9}{:>8}",
            "loss", "N", "plain", "blockwise", "ratio", "plain MiB", "blockwise", "ratio", "rounds"
        )?;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        for row in &self.rows {
            let figure = |x: Option<f64>, digits: usize, unit: &str| x.map_or("-".to_string(), |x| format!("{x:.digits$}{unit}"));
            let (plain, ratio) = (figure(row.plain_seconds, 4, ""), figure(row.ratio(), 2, "x"));
            // Expected, not measured.
            let about = if row.plain_seconds.is_some() { "" } else { "~" };
            let plain_mib = format!("{about}{:.1}", mib(row.plain_bytes));
            let (blockwise_mib, memory_ratio) = (mib(row.blockwise_bytes), format!("{about}{:.1}x", row.memory_ratio()));
            writeln!(
                f,
                "{:<22}{:>8}{plain:>9}{:>11.4}{ratio:>8}{plain_mib:>12}{blockwise_mib:>11.1}{memory_ratio:>9}{:>8}",
                row.loss, row.pairs, row.blockwise_seconds, row.rounds
            )?;
        }
        Ok(())
    }
}

/// Random unit rows, f32 [N, D], in which pairs and guides are alike, as after some training.
#[derive(Debug)]
pub struct Batch {
    sets: [Embeddings; 4],
}

impl Batch {
    /// Image, text, region and tag embeddings; the same for the same sizes.
    ///
    /// # Errors
    /// Sizes below 0, or too little memory.
    pub fn new(n: i64, d: i64, device: Device) -> Result<Self, Error> {
        let _no_grad = tch::no_grad_guard();
        let random = Generator::new(0);
        let noise = || -> Result<Tensor, Error> { Ok(random.normal([n, d])?.f_to_device(device)?) };
        let base = noise()?;
        let near = |weight: f64| -> Result<Embeddings, Error> {
            let mut x = noise()?;
            let _ = x.f_add_(&base.f_mul_scalar(weight)?)?;
            Ok(Embeddings::normalize(&x)?)
        };
        Ok(Batch { sets: [near(1.0)?, near(1.0)?, near(0.5)?, near(0.5)?] })
    }

    /// Bytes of all sets.
    pub fn bytes(&self) -> u64 {
        self.sets.iter().map(|e| e.tensor().numel() as u64 * 4).sum()
    }

    /// Runs the blockwise form once; seconds for value and gradients.
    ///
    /// # Errors
    /// As [`crate::blockwise`]. Text-based SoftCLIP lacks its sets here.
    pub fn blockwise(&self, config: &LossConfig, tile: i64) -> Result<f64, Error> {
        let [image, text, regions, tags] = &self.sets;
        let inputs = LossInputs { regions: Some(regions), tags: Some(tags), ..LossInputs::new(image, text) };
        let scales = Scales { bias: Some(-10.0), ..Scales::new(-TAU.ln()) };
        let start = Instant::now();
        let loss = blockwise(config, &inputs, &scales, &BlockOptions { tile })?;
        settle(&loss.grads.image)?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// The inputs of one run of the plain form.
    ///
    /// # Errors
    /// Too little memory.
    pub fn leaves<'a>(&self, config: &'a LossConfig) -> Result<Leaves<'a>, Error> {
        let [image, text, regions, tags] = &self.sets;
        let needs = config.needs();
        let leaf = |e: &Embeddings| -> Result<Embeddings, Error> {
            let own = e.tensor().f_detach_copy()?;
            Ok(Embeddings::checked(own.set_requires_grad(true))?)
        };
        let needed = |e: &Embeddings, needed: bool| needed.then(|| leaf(e)).transpose();
        let device = image.tensor().device();
        let scalar = |x: f64| Tensor::from(x).to_kind(Kind::Float).to_device(device).set_requires_grad(true);
        Ok(Leaves {
            config,
            image: leaf(image)?,
            text: leaf(text)?,
            regions: needed(regions, needs.regions)?,
            tags: needed(tags, needs.tags)?,
            scales: plain::Scales { bias: Some(scalar(-10.0)), ..plain::Scales::new(scalar(-TAU.ln())) },
        })
    }
}

/// Copies of those sets that a loss needs, which get gradients.
#[derive(Debug)]
pub struct Leaves<'a> {
    config: &'a LossConfig,
    image: Embeddings,
    text: Embeddings,
    regions: Option<Embeddings>,
    tags: Option<Embeddings>,
    scales: plain::Scales,
}

impl Leaves<'_> {
    /// Runs the plain form and its backward pass; seconds for value and gradients.
    ///
    /// # Errors
    /// As [`plain::loss`], and too little memory for the graph.
    pub fn plain(&self) -> Result<f64, Error> {
        let (regions, tags) = (self.regions.as_ref(), self.tags.as_ref());
        let inputs = LossInputs { regions, tags, ..LossInputs::new(&self.image, &self.text) };
        let start = Instant::now();
        plain::loss(self.config, &inputs, &self.scales)?.value.f_backward()?;
        settle(&self.image.tensor().grad())?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// None where memory ran out.
fn fits<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(Error::Torch(TorchError::OutOfMemory(_))) => Ok(None),
        Err(other) => Err(other),
    }
}

/// Waits for the device by reading a number that depends on all of its work.
fn settle(grad: &Tensor) -> Result<(), Error> {
    std::hint::black_box(grad.f_sum(Kind::Float)?.f_double_value(&[])?);
    Ok(())
}

/// The losses worth comparing, by name: the baselines, and SoftCLIP with what changes its cost.
pub fn losses() -> Vec<(&'static str, LossConfig)> {
    let soft = |change: fn(&mut SoftClipConfig)| {
        let mut c = SoftClipConfig::default();
        change(&mut c);
        LossConfig::Softclip(c)
    };
    vec![
        ("clip", LossConfig::Clip(Default::default())),
        ("label_smoothing", LossConfig::LabelSmoothing(Default::default())),
        ("siglip", LossConfig::Siglip(Default::default())),
        ("softclip", soft(|_| ())),
        ("softclip, detach", soft(|c| c.target_grad = TargetGrad::Detach)),
        ("softclip, kl", soft(|c| c.divergence = Divergence::Kl)),
        ("softclip, js", soft(|c| c.divergence = Divergence::Js)),
        ("softclip, gamma 0.5", soft(|c| c.gamma = 0.5)),
    ]
}

/// CLIP and SoftCLIP at each size N in `sizes`, D = [`DIM`], in f32. Each loss and size is measured for about `seconds` seconds, but in
/// three rounds at least; see [`compare`].
///
/// # Errors
/// A size below 2, or too little memory.
pub fn blockwise_against_plain(sizes: &[i64], seconds: f64, device: Device) -> Result<Report, Error> {
    let chosen: Vec<_> = losses().into_iter().filter(|(name, _)| ["clip", "softclip"].contains(name)).collect();
    compare(&chosen, sizes, DIM, seconds, device)
}

/// Both forms of the given losses at each size. First one run of each, whose memory is measured; then rounds that run each form once, in
/// alternation, so that a machine that slows down slows both: the best round counts. The plain form is left out where it would need
/// more memory than there is. From the rounds on the process keeps what it frees, as training does.
///
/// # Errors
/// A size below 2, or too little memory.
pub fn compare(losses: &[(&str, LossConfig)], sizes: &[i64], dim: i64, seconds: f64, device: Device) -> Result<Report, Error> {
    let tile = BlockOptions::for_device(device).tile;
    let mut needs = Vec::with_capacity(losses.len() * sizes.len());
    for &pairs in sizes {
        for (_, config) in losses {
            needs.push(Need::of(config, pairs, dim, tile, device)?);
        }
    }
    let _ = keep_freed_memory();
    let mut rows = Vec::with_capacity(needs.len());
    for &pairs in sizes {
        let batch = Batch::new(pairs, dim, device)?;
        for ((name, config), need) in losses.iter().zip(&needs[rows.len()..]) {
            let plain = || if need.plain_fits { fits(batch.leaves(config).and_then(|leaves| leaves.plain())) } else { Ok(None) };
            let (mut plain_seconds, mut blockwise_seconds, mut rounds) = (None::<f64>, f64::INFINITY, 0);
            let start = Instant::now();
            while rounds < ROUNDS || start.elapsed().as_secs_f64() < seconds {
                plain_seconds = plain()?.map(|s| plain_seconds.map_or(s, |best| best.min(s)));
                blockwise_seconds = blockwise_seconds.min(batch.blockwise(config, tile)?);
                rounds += 1;
            }
            let (plain_bytes, blockwise_bytes) = (need.plain_bytes, need.blockwise_bytes);
            rows.push(Row {
                loss: (*name).to_owned(),
                pairs,
                rounds,
                plain_seconds,
                blockwise_seconds,
                plain_bytes,
                blockwise_bytes,
            });
        }
    }
    let device = match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        other => format!("{other:?}").to_lowercase(),
    };
    Ok(Report { device, threads: i64::from(tch::get_num_threads()), dim, tile, rows })
}

/// Memory of both forms above their inputs.
struct Need {
    plain_bytes: u64,
    plain_fits: bool,
    blockwise_bytes: u64,
}

impl Need {
    fn of(config: &LossConfig, pairs: i64, dim: i64, tile: i64, device: Device) -> Result<Self, Error> {
        // Threads and libraries take their memory at first use, which is no loss's.
        let few = Batch::new(64, dim, device)?;
        few.leaves(config)?.plain()?;
        few.blockwise(config, 32)?;
        let expected = if pairs > PROBE { Some(expected(config, pairs, dim, device)?) } else { None };
        let batch = Batch::new(pairs, dim, device)?;
        let (_, blockwise_bytes) = peak_above(device, || batch.blockwise(config, tile))?;
        let most = available_memory(device).map(|available| MOST * available as f64);
        let tried = match expected.zip(most) {
            Some((bytes, most)) if bytes as f64 >= most => None,
            _ => fits(plain_bytes(&batch, config, device))?,
        };
        let plain_bytes = match (tried, expected) {
            (Some(bytes), _) | (None, Some(bytes)) => bytes,
            (None, None) => self::expected(config, pairs, dim, device)?,
        };
        Ok(Self { plain_bytes, plain_fits: tried.is_some(), blockwise_bytes })
    }
}

/// What the plain form takes above its inputs.
fn plain_bytes(batch: &Batch, config: &LossConfig, device: Device) -> Result<u64, Error> {
    let leaves = batch.leaves(config)?;
    Ok(peak_above(device, || leaves.plain())?.1)
}

/// What it would take, from the largest N below that fits, if at most [`PROBE`].
fn expected(config: &LossConfig, pairs: i64, dim: i64, device: Device) -> Result<u64, Error> {
    let mut probe = PROBE.min(pairs / 2).max(2);
    loop {
        let measured = Batch::new(probe, dim, device).and_then(|batch| plain_bytes(&batch, config, device));
        // Of no fewer pairs there is a loss.
        let found = if probe == 2 { Some(measured?) } else { fits(measured)? };
        if let Some(bytes) = found {
            return Ok((bytes as f64 * (pairs as f64 / probe as f64).powi(2)) as u64);
        }
        probe = (probe / 2).max(2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_a_row_for_each_loss_and_size() -> Result<(), Error> {
        let report = compare(&losses(), &[8, 16], 4, 0.0, Device::Cpu)?;
        assert_eq!(report.rows.len(), 2 * losses().len());
        assert!(report.rows.iter().all(|r| r.rounds >= ROUNDS && r.blockwise_seconds > 0.0 && r.ratio().is_some()));
        assert_eq!(report.to_string().lines().count(), 2 + report.rows.len());
        Ok(())
    }

    #[test]
    fn the_peak_is_what_was_held_at_once() -> Result<(), Error> {
        // Held until it was looked at: other tests of this process start measurements of their own.
        let (held, peak) = peak_above(Device::Cpu, || Ok::<_, Error>(std::hint::black_box(vec![1u8; 256 << 20])))?;
        // Less than was allocated: the kernel's counters lag behind, and other tests free theirs meanwhile.
        assert!(peak + (64 << 20) >= held.len() as u64, "{peak}");
        Ok(())
    }

    #[test]
    fn plain_forms_that_do_not_fit_are_expected_and_told_apart() {
        let row = |plain_seconds| Row {
            loss: "clip".into(),
            pairs: 16_384,
            rounds: 3,
            plain_seconds,
            blockwise_seconds: 2.0,
            plain_bytes: 40 << 20,
            blockwise_bytes: 2 << 20,
        };
        let rows = vec![row(Some(3.0)), row(None)];
        assert_eq!((rows[0].ratio(), rows[1].ratio(), rows[1].memory_ratio()), (Some(1.5), None, 20.0));
        let table = Report { device: "cpu".into(), threads: 2, dim: 512, tile: 512, rows }.to_string();
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[2].contains(" 20.0x") && lines[3].contains("~20.0x") && lines[3].contains(" - "), "{table}");
    }

    #[test]
    fn memory_that_ran_out_is_told_from_other_errors() {
        let out = || Error::Torch(TorchError::OutOfMemory("CUDA out of memory".into()));
        assert!(matches!(fits::<()>(Err(out())), Ok(None)) && matches!(fits(Ok(3)), Ok(Some(3))));
        assert!(matches!(fits::<()>(Err(Error::BatchTooSmall { rows: 1 })), Err(Error::BatchTooSmall { rows: 1 })));
    }

    #[test]
    fn one_pair_is_refused() {
        assert!(matches!(blockwise_against_plain(&[1], 0.0, Device::Cpu), Err(Error::BatchTooSmall { rows: 1 })));
    }
}
