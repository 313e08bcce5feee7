//! How long recall takes beside the plain way and how much memory, for a command line. Measures and reports; asserts nothing.

use std::f64::consts::TAU;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use softclip_data::rng::{RngKey, Stream};
use softclip_tensor::Embeddings;
use softclip_tensor::npy::read_header;
use softclip_torch::{available_memory, guard, memory, peak_above};
use tch::{Device, Kind, Tensor, no_grad};

use crate::{EvalError, Retrieval, retrieval};

/// The share of the free memory that the plain form may be expected to need.
const MOST: f64 = 0.85;
/// Bytes of the plain form for each pair of an image and a text: similarities, sorted ones and their places.
const PLAIN: u64 = 16;
/// Rows that are made or read at a time.
const PART: i64 = 4096;

/// What is measured.
#[derive(Clone, Debug)]
pub struct RecallBench {
    /// Where embeddings come from.
    pub inputs: Inputs,
    /// Whether the plain form is measured, too.
    pub plain: bool,
    /// Runs of each form, of which the shortest counts.
    pub runs: usize,
    /// Where they lie.
    pub device: Device,
}

/// Embeddings; text i of T belongs to image ⌊i·M/T⌋ of M.
#[derive(Clone, Debug)]
pub enum Inputs {
    /// Random ones, texts near their image: M, T, D.
    Made(i64, i64, i64),
    /// Files of NumPy's, f32 `[M, D]` and `[T, D]`.
    Files(PathBuf, PathBuf),
}

/// What was measured. Seconds and bytes; as text, a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecallReport {
    /// The device, as `cpu` or `cuda:0`.
    pub device: String,
    /// Threads that it is computed with on the CPU, by libtorch and beside it.
    pub threads: usize,
    /// M.
    pub images: i64,
    /// T.
    pub texts: i64,
    /// D.
    pub dim: i64,
    /// Of the shortest run.
    pub seconds: f64,
    /// The most that a run took above its inputs.
    pub bytes: u64,
    /// Of the plain form: the whole matrix, sorted both ways. None if it was left out, or its memory is not there.
    pub plain_seconds: Option<f64>,
    /// The most that it took above its inputs.
    pub plain_bytes: Option<u64>,
    /// The most that the whole process had resident, inputs and libraries among it, before the plain form ran.
    pub process_bytes: u64,
    /// What was found.
    pub found: Retrieval,
    /// Whether the plain form found the same recalls; those of equal or nearly equal similarities may differ.
    pub plain_agrees: Option<bool>,
}

impl fmt::Display for RecallReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let Self { device, threads, images, texts, dim, .. } = self;
        writeln!(f, "R@1, R@5, R@10 both ways, {images} images, {texts} texts, D = {dim}; {device}, {threads} threads")?;
        writeln!(f, "{:<30}{:>10}{:>20}", "", "seconds", "MiB above inputs")?;
        writeln!(f, "{:<30}{:>10.3}{:>20.1}", "softclip", self.seconds, mib(self.bytes))?;
        match (self.plain_seconds, self.plain_bytes) {
            (Some(seconds), Some(bytes)) => {
                writeln!(f, "{:<30}{seconds:>10.3}{:>20.1}", "whole matrix, sorted", mib(bytes))?;
                let (time, memory) = (seconds / self.seconds, bytes as f64 / self.bytes.max(1) as f64);
                writeln!(f, "{:<30}{time:>9.1}x{memory:>19.1}x", "ratio")?;
            }
            _ => writeln!(f, "{:<30}{:>10}{:>20}", "whole matrix, sorted", "-", "-")?,
        }
        let recall = |of: &crate::Direction| of.recall.map(|r| format!("{:.2}", r * 100.0)).join(", ");
        let (to_image, to_text) = (recall(&self.found.text_to_image), recall(&self.found.image_to_text));
        writeln!(f, "text to image {to_image} %; image to text {to_text} %; process {:.0} MiB", mib(self.process_bytes))
    }
}

/// Measures recall, and the plain form in the same process after it, with as many threads as libtorch is set to.
///
/// # Errors
/// Sizes below 1, fewer texts than images, no run, files that are not there or not such arrays, too little memory, or no threads.
pub fn recall(bench: &RecallBench) -> Result<RecallReport, EvalError> {
    // What is counted beside libtorch would take all cores.
    let threads = rayon::ThreadPoolBuilder::new().num_threads(tch::get_num_threads().max(1) as usize).build();
    let threads = threads.map_err(|e| EvalError::Input(format!("the threads that count do not start: {e}")))?;
    threads.install(|| measured(bench))
}

fn measured(bench: &RecallBench) -> Result<RecallReport, EvalError> {
    let device = bench.device;
    let (image, text) = no_grad(|| guard(|| inputs(&bench.inputs, device)))??;
    let (m, t) = (image.rows(), text.rows());
    if m < 1 || t < m || bench.runs < 1 {
        let found = format!("{m} images, {t} texts, {} runs", bench.runs);
        return Err(EvalError::Input(format!("at least one image, as many texts and one run are needed, found {found}")));
    }
    let owner: Vec<i64> = (0..t).map(|i| (i128::from(i) * i128::from(m) / i128::from(t)) as i64).collect();
    let runs = |run: &dyn Fn() -> Result<Retrieval, EvalError>| -> Result<Runs, EvalError> {
        let (mut best, mut most, mut process, mut last) = (f64::INFINITY, 0, 0, None);
        for _ in 0..bench.runs {
            let ((found, seconds), bytes) = peak_above(device, || -> Result<_, EvalError> {
                let start = Instant::now();
                Ok((run()?, start.elapsed().as_secs_f64()))
            })?;
            // The next run resets the peak.
            (best, most, process) = (best.min(seconds), most.max(bytes), process.max(memory(device).host_peak));
            last = Some(found);
        }
        let found = last.ok_or_else(|| EvalError::Input("no run".to_owned()))?;
        Ok(Runs { found, seconds: best, bytes: most, process })
    };
    let first = memory(device).host_peak;
    let ours = runs(&|| retrieval(&image, &text, &owner))?;
    let fits = available_memory(device).is_none_or(|free| ((m * t) as u64 * PLAIN) as f64 <= MOST * free as f64);
    let plain = match bench.plain && fits {
        true => Some(runs(&|| no_grad(|| guard(|| whole_matrix(&image, &text, &owner)))?)?),
        false => None,
    };
    let recalls = |of: &Retrieval| [of.text_to_image.recall, of.image_to_text.recall];
    Ok(RecallReport {
        device: match device {
            Device::Cuda(index) => format!("cuda:{index}"),
            other => format!("{other:?}").to_lowercase(),
        },
        threads: rayon::current_num_threads(),
        images: m,
        texts: t,
        dim: image.dim(),
        seconds: ours.seconds,
        bytes: ours.bytes,
        plain_seconds: plain.as_ref().map(|plain| plain.seconds),
        plain_bytes: plain.as_ref().map(|plain| plain.bytes),
        process_bytes: first.max(ours.process),
        plain_agrees: plain.as_ref().map(|plain| recalls(&plain.found) == recalls(&ours.found)),
        found: ours.found,
    })
}

/// What several runs found, the shortest one's seconds, and the most bytes above the inputs and of the whole process.
struct Runs {
    found: Retrieval,
    seconds: f64,
    bytes: u64,
    process: u64,
}

/// What a user of tensors would write: all similarities, sorted, and where the right ones stand.
fn whole_matrix(image: &Embeddings, text: &Embeddings, owner: &[i64]) -> Result<Retrieval, EvalError> {
    let (m, t) = (image.rows(), text.rows());
    let owner = Tensor::from_slice(owner).to_device(image.tensor().device());
    let scores = text.tensor().f_matmul(&image.tensor().tr())?; // [texts, images]
    let rank =
        |right: Tensor| -> Result<Vec<i64>, EvalError> { Ok(Vec::try_from(right.to_kind(Kind::Int8).argmax(1, false) + 1)?) };
    let order = scores.f_argsort(1, true)?;
    let to_image = rank(order.f_eq_tensor(&owner.unsqueeze(1))?)?;
    drop(order);
    let order = scores.tr().f_argsort(1, true)?;
    drop(scores);
    let owners = owner.f_index_select(0, &order.f_flatten(0, -1)?)?.f_view([m, t])?;
    let own = Tensor::arange(m, (Kind::Int64, image.tensor().device())).unsqueeze(1);
    let to_text = rank(owners.f_eq_tensor(&own)?)?;
    Ok(Retrieval::of_ranks(to_image, to_text))
}

fn inputs(of: &Inputs, device: Device) -> Result<(Embeddings, Embeddings), EvalError> {
    let (image, text) = match of {
        Inputs::Made(m, t, d) => made(*m, *t, *d)?,
        Inputs::Files(image, text) => (read(image)?, read(text)?),
    };
    Ok((Embeddings::checked(image.f_to_device(device)?)?, Embeddings::checked(text.f_to_device(device)?)?))
}

/// Unit rows, each text about four standard deviations nearer to its image than to others.
fn made(m: i64, t: i64, d: i64) -> Result<(Tensor, Tensor), EvalError> {
    if m < 1 || t < m || d < 1 {
        return Err(EvalError::Input(format!("--images {m} --texts {t} --dim {d}: at least one image and as many texts")));
    }
    let unit = |rows: &Tensor| -> Result<(), EvalError> {
        for from in (0..rows.size()[0]).step_by(PART as usize) {
            let mut part = rows.f_narrow(0, from, PART.min(rows.size()[0] - from))?;
            let norm = part.f_norm_scalaropt_dim(2, [1i64].as_slice(), true)?;
            let _ = part.f_div_(&norm)?;
        }
        Ok(())
    };
    let image = normal(m, d, 0)?;
    unit(&image)?;
    let text = normal(t, d, 1)?;
    for from in (0..t).step_by(PART as usize) {
        let n = PART.min(t - from);
        let owner: Vec<i64> = (from..from + n).map(|i| (i128::from(i) * i128::from(m) / i128::from(t)) as i64).collect();
        let _ = text.f_narrow(0, from, n)?.f_add_(&image.f_index_select(0, &Tensor::from_slice(&owner))?.f_mul_scalar(4.0)?)?;
    }
    unit(&text)?;
    Ok((image, text))
}

/// Normal numbers `[rows, d]`, another set for each `which`. Not libtorch's, whose generator all threads share: the same whatever else
/// draws.
fn normal(rows: i64, d: i64, which: u64) -> Result<Tensor, EvalError> {
    let all = Tensor::f_empty([rows, d], (Kind::Float, Device::Cpu))?;
    for from in (0..rows).step_by(PART as usize) {
        let n = PART.min(rows - from);
        let mut numbers = vec![0f32; (n * d) as usize];
        numbers.par_chunks_mut(d as usize).enumerate().for_each(|(i, row)| {
            let mut rng = RngKey::new(0, which, from as u64 + i as u64).rng(Stream::Synthetic);
            for pair in row.chunks_mut(2) {
                // Box and Muller: two numbers of two.
                let (radius, angle) = ((-2.0 * (1.0 - rng.unit()).ln()).sqrt(), TAU * rng.unit());
                pair.iter_mut().zip([angle.cos(), angle.sin()]).for_each(|(x, part)| *x = (radius * part) as f32);
            }
        });
        all.f_narrow(0, from, n)?.f_copy_(&Tensor::from_slice(&numbers).f_view([n, d])?)?;
    }
    Ok(all)
}

/// A file of NumPy's, without a second copy of it in memory.
fn read(path: &Path) -> Result<Tensor, EvalError> {
    let bad = |why: String| EvalError::Input(format!("{}: {why}", path.display()));
    let mut file = File::open(path).map_err(|e| bad(e.to_string()))?;
    let header = read_header(&mut file).map_err(bad)?;
    let &[rows, dim] = header.shape.as_slice() else {
        return Err(bad(format!("shape {:?} instead of rows × numbers", header.shape)));
    };
    let length = file.metadata().map_err(|e| bad(e.to_string()))?.len();
    if header.kind != Kind::Float || header.data_len().map(|n| (n + header.length) as u64) != Some(length) || rows * dim == 0 {
        return Err(bad(format!(
            "expected f32 [rows, numbers], whole, found {:?} {:?} in {length} bytes",
            header.kind, header.shape
        )));
    }
    let all = Tensor::f_empty([rows as i64, dim as i64], (Kind::Float, Device::Cpu))?;
    let mut bytes = Vec::new();
    for from in (0..rows).step_by(PART as usize) {
        let n = (PART as usize).min(rows - from);
        bytes.resize(n * dim * 4, 0);
        file.read_exact(&mut bytes).map_err(|e| bad(e.to_string()))?;
        let numbers: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let part = Tensor::f_from_slice(&numbers)?.f_view([n as i64, dim as i64])?;
        all.f_narrow(0, from as i64, n as i64)?.f_copy_(&part)?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_find_the_same_and_files_serve_as_well() -> Result<(), EvalError> {
        let bench = RecallBench { inputs: Inputs::Made(40, 100, 16), plain: true, runs: 1, device: Device::Cpu };
        tch::set_num_threads(1);
        let report = recall(&bench)?;
        assert_eq!(report.threads, 1, "nothing computes with more");
        assert_eq!((report.images, report.texts, report.dim, report.plain_agrees), (40, 100, 16, Some(true)));
        assert!(report.found.text_to_image.recall[2] > 0.3 && report.to_string().contains("ratio"), "{report}");
        let folder = tempfile::tempdir().map_err(|e| EvalError::Input(e.to_string()))?;
        let (image, text) = made(40, 100, 16)?;
        let file = |name: &str, rows: &Tensor| -> Result<PathBuf, EvalError> {
            let numbers: Vec<f32> = Vec::try_from(rows.flatten(0, -1))?;
            let shape: Vec<usize> = rows.size().iter().map(|&side| side as usize).collect();
            let mut bytes = softclip_tensor::npy::header(Kind::Float, &shape);
            bytes.extend(numbers.iter().flat_map(|x| x.to_le_bytes()));
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).map_err(|e| EvalError::Input(e.to_string()))?;
            Ok(path)
        };
        let inputs = Inputs::Files(file("image.npy", &image)?, file("text.npy", &text)?);
        let again = recall(&RecallBench { inputs, plain: false, ..bench.clone() })?;
        assert_eq!((again.found, again.plain_seconds), (report.found, None));
        assert!(recall(&RecallBench { inputs: Inputs::Made(3, 2, 4), ..bench }).is_err());
        Ok(())
    }
}
