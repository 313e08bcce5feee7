//! The image path against a plain one, in the same run, on the same JPEGs, one core each.
//!
//! `cargo bench -p softclip-data` and `softclip bench data` print this.

use std::fmt;
use std::hint::black_box;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use image::imageops::FilterType;
use serde::Serialize;

use crate::image::{Augment, DecodeOptions, Decoder, ImageError, Transform};
use crate::rng::{RngKey, Stream};

/// Result size of all measurements, in pixels a side.
pub const SIZE: u32 = 224;

/// The most images that are held in memory.
const IMAGES: usize = 256;

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The photos cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Folder or tar.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No JPEG is there.
    #[error("{}: no .jpg or .jpeg file in it", .0.display())]
    NoImages(PathBuf),
    /// An image cannot be used.
    #[error("{key}: {source}")]
    Image {
        /// File name.
        key: String,
        /// Why.
        source: ImageError,
    },
    /// The plain path cannot decode an image.
    #[error("{key}: the image crate says: {why}")]
    Plain {
        /// File name.
        key: String,
        /// Why.
        why: String,
    },
}

/// One way from a JPEG to 3 × 224 × 224 bytes.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was run.
    pub path: &'static str,
    /// Images a second on one core, evaluation: shorter side to 224, centre.
    pub eval: f64,
    /// Images a second on one core, training: random crop of 90 to 100 % of the area.
    pub train: f64,
}

/// What [`image_path`] measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where the JPEGs come from.
    pub source: String,
    /// How many there are.
    pub images: usize,
    /// Means of width, height and bytes.
    pub mean_size: [f64; 3],
    /// softclip, softclip without scaling in the DCT, the plain path.
    pub rows: [Row; 3],
}

impl Report {
    /// How many times as fast softclip is as the plain path: (evaluation, training).
    pub fn ratio(&self) -> (f64, f64) {
        let [ours, _, plain] = &self.rows;
        (ours.eval / plain.eval, ours.train / plain.train)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [width, height, bytes] = self.mean_size;
        writeln!(
            f,
            "{}: {} JPEGs, {width:.0} x {height:.0} px and {:.0} kB on average, to {SIZE} px; images a second on one core",
            self.source,
            self.images,
            bytes / 1e3
        )?;
        writeln!(f, "{:<44} {:>8} {:>8}", "", "eval", "train")?;
        for row in &self.rows {
            writeln!(f, "{:<44} {:>8.0} {:>8.0}", row.path, row.eval, row.train)?;
        }
        let (eval, train) = self.ratio();
        write!(f, "{:<44} {eval:>7.1}x {train:>7.1}x", "ratio, first to last")
    }
}

/// Measures for about `seconds`, on the JPEGs of a folder or tar, or on synthetic ones of 640 × 480 pixels.
///
/// # Errors
/// The photos cannot be read or decoded, or there are none.
pub fn image_path(photos: Option<&Path>, seconds: f64) -> Result<Report, BenchError> {
    let files = match photos {
        Some(path) => read(path)?,
        None => synthetic()?,
    };
    let decoder = |dct_scaling| {
        Decoder::new(DecodeOptions { dct_scaling, ..DecodeOptions::default() })
            .map_err(|source| BenchError::Image { key: "decoder".into(), source })
    };
    let (mut scaled, mut full) = (decoder(true)?, decoder(false)?);
    let mean_size = mean_size(&files, &mut full)?;
    let (eval, train) = (Transform::eval(SIZE), Transform::train(SIZE, Augment::default()));
    let mut out = vec![0; eval.output_len()];

    let mut clocks: [Clock; 6] = std::array::from_fn(|_| Clock { best: vec![Duration::MAX; files.len()] });
    let end = Instant::now() + Duration::from_secs_f64(seconds.max(0.0));
    // All ways take turns on each image, so that a busy machine slows all alike. Every image at least three times.
    let mut rounds = 0;
    for (i, file) in files.iter().enumerate().cycle() {
        let key = RngKey::new(0, 0, i as u64);
        let image = |source| BenchError::Image { key: file.key.clone(), source };
        clocks[0].time(i, || eval.apply(&file.bytes, key, &mut scaled, &mut out)).map_err(image)?;
        clocks[1].time(i, || train.apply(&file.bytes, key, &mut scaled, &mut out)).map_err(image)?;
        clocks[2].time(i, || eval.apply(&file.bytes, key, &mut full, &mut out)).map_err(image)?;
        clocks[3].time(i, || train.apply(&file.bytes, key, &mut full, &mut out)).map_err(image)?;
        let plain = |e: image::ImageError| BenchError::Plain { key: file.key.clone(), why: e.to_string() };
        clocks[4].time(i, || plain_eval(&file.bytes, &mut out)).map_err(plain)?;
        clocks[5].time(i, || plain_train(&file.bytes, key, &mut out)).map_err(plain)?;
        rounds += usize::from(i + 1 == files.len());
        if rounds >= 3 && Instant::now() > end {
            break;
        }
    }
    let row = |path, first: usize| Row { path, eval: clocks[first].rate(), train: clocks[first + 1].rate() };
    let rows = [row("softclip", 0), row("softclip, all pixels decoded", 2), row("image crate: decode, crop, resize, planes", 4)];
    let source = photos.map_or_else(|| "synthetic".to_owned(), |path| path.display().to_string());
    Ok(Report { source, images: files.len(), mean_size, rows })
}

/// The shortest time of each image: what else the machine does only ever adds.
struct Clock {
    best: Vec<Duration>,
}

impl Clock {
    fn time<T>(&mut self, image: usize, f: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = black_box(f());
        self.best[image] = self.best[image].min(start.elapsed());
        result
    }

    fn rate(&self) -> f64 {
        self.best.len() as f64 / self.best.iter().sum::<Duration>().as_secs_f64()
    }
}

fn plain_eval(bytes: &[u8], out: &mut [u8]) -> Result<(), image::ImageError> {
    let image = image::load_from_memory(bytes)?;
    planes(&image.resize_to_fill(SIZE, SIZE, FilterType::CatmullRom).to_rgb8(), out);
    Ok(())
}

fn plain_train(bytes: &[u8], key: RngKey, out: &mut [u8]) -> Result<(), image::ImageError> {
    let image = image::load_from_memory(bytes)?;
    let region = Augment::default().region(image.width(), image.height(), key);
    let [left, top, width, height] = [region.left, region.top, region.width, region.height].map(|x| x as u32);
    planes(&image.crop_imm(left, top, width, height).resize_exact(SIZE, SIZE, FilterType::CatmullRom).to_rgb8(), out);
    Ok(())
}

fn planes(image: &image::RgbImage, out: &mut [u8]) {
    let plane = (SIZE * SIZE) as usize;
    for (i, pixel) in image.pixels().enumerate() {
        for channel in 0..3 {
            out[channel * plane + i] = pixel.0[channel];
        }
    }
}

struct Jpeg {
    key: String,
    bytes: Vec<u8>,
}

fn mean_size(files: &[Jpeg], decoder: &mut Decoder) -> Result<[f64; 3], BenchError> {
    let mut sum = [0.0; 3];
    for file in files {
        let image = decoder.decode(&file.bytes).map_err(|source| BenchError::Image { key: file.key.clone(), source })?;
        let each = [f64::from(image.width), f64::from(image.height), file.bytes.len() as f64];
        sum.iter_mut().zip(each).for_each(|(sum, x)| *sum += x);
    }
    Ok(sum.map(|x| x / files.len() as f64))
}

fn read(path: &Path) -> Result<Vec<Jpeg>, BenchError> {
    let io = |source| BenchError::Io { path: path.to_owned(), source };
    let is_jpeg = |name: &Path| name.extension().is_some_and(|e| e.eq_ignore_ascii_case("jpg") || e.eq_ignore_ascii_case("jpeg"));
    let mut files = Vec::new();
    if path.is_dir() {
        let mut names: Vec<PathBuf> = std::fs::read_dir(path).map_err(io)?.flatten().map(|entry| entry.path()).collect();
        names.sort();
        for name in names.into_iter().filter(|name| is_jpeg(name)).take(IMAGES) {
            files.push(Jpeg { bytes: std::fs::read(&name).map_err(io)?, key: name.display().to_string() });
        }
    } else {
        let mut archive = tar::Archive::new(std::io::BufReader::new(std::fs::File::open(path).map_err(io)?));
        for entry in archive.entries().map_err(io)? {
            let mut entry = entry.map_err(io)?;
            let name = entry.path().map_err(io)?.into_owned();
            if is_jpeg(&name) && files.len() < IMAGES {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).map_err(io)?;
                files.push(Jpeg { key: name.display().to_string(), bytes });
            }
        }
    }
    if files.is_empty() { Err(BenchError::NoImages(path.to_owned())) } else { Ok(files) }
}

/// Sixteen images of 640 × 480, quality 90, 4:2:0: smooth shading, edges and a little noise, as photographs have.
fn synthetic() -> Result<Vec<Jpeg>, BenchError> {
    (0..16)
        .map(|index| {
            let key = format!("synthetic-{index}");
            let bytes = encode(&texture(640, 480, index), 640, 480)
                .map_err(|e| BenchError::Image { key: key.clone(), source: ImageError::Corrupt(e.to_string()) })?;
            Ok(Jpeg { key, bytes })
        })
        .collect()
}

fn encode(pixels: &[u8], width: usize, height: usize) -> turbojpeg::Result<Vec<u8>> {
    let image = turbojpeg::Image { pixels, width, pitch: 3 * width, height, format: turbojpeg::PixelFormat::RGB };
    Ok(turbojpeg::compress(image, 90, turbojpeg::Subsamp::Sub2x2)?.to_vec())
}

/// Waves of halving length and amplitude, a dozen discs with sharp edges, and noise: `[height, width, 3]`.
fn texture(width: usize, height: usize, index: u64) -> Vec<u8> {
    let mut rng = RngKey::new(0, 0, index).rng(Stream::Synthetic);
    let waves: Vec<[f64; 4]> = (0..18)
        .map(|i| {
            let frequency = 0.012 * 1.45f64.powi(i / 2);
            let angle = rng.uniform(0.0, std::f64::consts::TAU);
            [frequency * angle.cos(), frequency * angle.sin(), rng.uniform(0.0, 6.0), 38.0 / 1.35f64.powi(i / 2)]
        })
        .collect();
    let discs: Vec<[f64; 6]> = (0..12)
        .map(|_| {
            let mut between = |low: f64, high: f64| rng.uniform(low, high);
            let (w, h) = (width as f64, height as f64);
            [
                between(0.0, w),
                between(0.0, h),
                between(12.0, 90.0),
                between(-70.0, 70.0),
                between(-70.0, 70.0),
                between(-70.0, 70.0),
            ]
        })
        .collect();
    let mut pixels = Vec::with_capacity(width * height * 3);
    for i in 0..width * height {
        let (x, y) = ((i % width) as f64, (i / width) as f64);
        let light: f64 = waves.iter().map(|[u, v, phase, height]| height * (u * x + v * y + phase).sin()).sum();
        let mut colour = [118.0 + light, 112.0 + 0.9 * light, 104.0 + 0.8 * light];
        for [cx, cy, radius, shift @ ..] in &discs {
            if (x - cx).hypot(y - cy) < *radius {
                colour.iter_mut().zip(shift).for_each(|(c, s)| *c += s);
            }
        }
        let noise = rng.uniform(-5.0, 5.0);
        pixels.extend(colour.map(|c| (c + noise).clamp(0.0, 255.0) as u8));
    }
    pixels
}
