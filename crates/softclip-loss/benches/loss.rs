//! Plain against blockwise: time, and peak memory above the inputs. Prints what it measures; asserts nothing.
//!
//! ```text
//! cargo bench -p softclip-loss --bench loss                         time at N = 4,096, D = 512, all losses
//! cargo bench -p softclip-loss --bench loss -- tiles 4096 512       SoftCLIP's time by tile
//! cargo bench -p softclip-loss --bench loss -- memory 32768 512     SoftCLIP's peak memory and time (minutes on few cores)
//! ```

use std::time::Instant;

use softclip_loss::config::{Divergence, LossConfig, SoftClipConfig, TargetGrad};
use softclip_loss::{BlockOptions, LossInputs, Scales, blockwise, plain};
use softclip_tensor::Embeddings;
use tch::{Device, Kind, Tensor};

type Failure = Box<dyn std::error::Error>;

struct Batch {
    sets: [Embeddings; 4],
}

impl Batch {
    /// Four sets of f32 unit rows in which pairs and guides are alike, as after some training.
    fn new(n: i64, d: i64, device: Device) -> Result<Self, Failure> {
        let _no_grad = tch::no_grad_guard();
        tch::manual_seed(0);
        let noise = || Tensor::f_randn([n, d], (Kind::Float, device));
        let base = noise()?;
        let near = |weight: f64| -> Result<Embeddings, Failure> {
            let mut x = noise()?;
            let _ = x.f_add_(&(&base * weight))?;
            Ok(Embeddings::normalize(&x)?)
        };
        Ok(Batch { sets: [near(1.0)?, near(1.0)?, near(0.5)?, near(0.5)?] })
    }

    fn inputs(&self) -> LossInputs<'_> {
        let [image, text, regions, tags] = &self.sets;
        LossInputs { regions: Some(regions), tags: Some(tags), ..LossInputs::new(image, text) }
    }

    /// Blockwise value and gradients; seconds.
    fn blockwise(&self, config: &LossConfig, tile: i64) -> Result<f64, Failure> {
        let start = Instant::now();
        let scales = Scales { bias: Some(-10.0), ..Scales::new(-(0.07f64.ln())) };
        let loss = blockwise(config, &self.inputs(), &scales, &BlockOptions { tile })?;
        softclip_torch::synchronize(self.sets[0].tensor().device())?;
        std::hint::black_box(loss.value);
        Ok(start.elapsed().as_secs_f64())
    }

    /// Plain value and gradients under autograd; seconds.
    fn plain(&self, config: &LossConfig) -> Result<f64, Failure> {
        let leaves = self.sets.each_ref().map(|e| e.tensor().detach().copy().set_requires_grad(true));
        let [image, text, regions, tags] = leaves.each_ref().map(|t| Embeddings::checked(t.shallow_clone()));
        let (image, text, regions, tags) = (image?, text?, regions?, tags?);
        let inputs = LossInputs { regions: Some(&regions), tags: Some(&tags), ..LossInputs::new(&image, &text) };
        let device = image.tensor().device();
        let leaf = |x: f64| Tensor::from(x).to_kind(Kind::Float).to_device(device).set_requires_grad(true);
        let scales = plain::Scales { log_scale: leaf(-(0.07f64.ln())), target_log_scale: None, bias: Some(leaf(-10.0)) };
        let start = Instant::now();
        plain::loss(config, &inputs, &scales)?.value.f_backward()?;
        softclip_torch::synchronize(device)?;
        Ok(start.elapsed().as_secs_f64())
    }
}

fn median(mut run: impl FnMut() -> Result<f64, Failure>, times: usize) -> Result<f64, Failure> {
    run()?;
    let mut seconds = (0..times).map(|_| run()).collect::<Result<Vec<_>, _>>()?;
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[times / 2])
}

fn losses() -> Vec<(&'static str, LossConfig)> {
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

fn compare(n: i64, d: i64, device: Device) -> Result<(), Failure> {
    let batch = Batch::new(n, d, device)?;
    let tile = BlockOptions::for_device(device).tile;
    println!(
        "N = {n}, D = {d}, f32, tile {tile}, {} threads: seconds for value and gradients, median of 3",
        tch::get_num_threads()
    );
    println!("{:<22}{:>9}{:>11}{:>9}", "loss", "plain", "blockwise", "ratio");
    for (name, config) in losses() {
        let plain = median(|| batch.plain(&config), 3)?;
        let blockwise = median(|| batch.blockwise(&config, tile), 3)?;
        println!("{name:<22}{plain:>9.3}{blockwise:>11.3}{:>8.2}x", plain / blockwise);
    }
    Ok(())
}

fn tiles(n: i64, d: i64, device: Device) -> Result<(), Failure> {
    let batch = Batch::new(n, d, device)?;
    for (name, config) in losses().into_iter().filter(|(name, _)| ["clip", "softclip"].contains(name)) {
        for tile in [256, 384, 512, 768, 1024, 1536, 2048, 4096].into_iter().filter(|t| *t <= n) {
            let seconds = median(|| batch.blockwise(&config, tile), 3)?;
            println!("{name:<10} N = {n}, D = {d}, tile {tile:>5}: {seconds:.3} s");
        }
    }
    Ok(())
}

fn memory(n: i64, d: i64, tile: i64, device: Device) -> Result<(), Failure> {
    let batch = Batch::new(n, d, device)?;
    // Kernels and threads allocate at first use.
    Batch::new(tile, d, device)?.blockwise(&losses()[3].1, tile)?;
    softclip_torch::reset_peak_memory(device)?;
    let before = softclip_torch::memory(device);
    let seconds = batch.blockwise(&LossConfig::Softclip(SoftClipConfig::default()), tile)?;
    let after = softclip_torch::memory(device);
    let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
    println!("softclip, N = {n}, D = {d}, f32, tile {tile}: {seconds:.1} s");
    println!(
        "host: inputs and program {:.0} MiB, peak above them {:.0} MiB",
        mib(before.host_rss),
        mib(after.host_peak - before.host_rss)
    );
    if let Some(peak) = after.device_peak {
        println!("device: peak {:.0} MiB, inputs {:.0} MiB", mib(peak), mib((4 * n * d * 4) as u64));
    }
    println!("one N×N matrix would take {:.0} MiB", mib((n * n * 4) as u64));
    Ok(())
}

fn main() -> Result<(), Failure> {
    softclip_torch::init()?;
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let number = |k: usize, default: i64| args.get(k).map_or(Ok(default), |a| a.parse::<i64>());
    let device = softclip_torch::parse_device("auto")?;
    let (n, d) = (number(1, 4096)?, number(2, 512)?);
    match args.first().map(String::as_str) {
        None | Some("time") => compare(n, d, device),
        Some("tiles") => tiles(n, d, device),
        Some("memory") => memory(n, d, number(3, BlockOptions::for_device(device).tile)?, device),
        Some(other) => Err(format!("unknown measurement `{other}`: time, tiles or memory, then N and D").into()),
    }
}
