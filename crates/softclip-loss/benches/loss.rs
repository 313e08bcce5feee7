//! Plain against blockwise: time, and peak memory above the inputs. Prints what it measures; asserts nothing.
//!
//! ```text
//! cargo bench -p softclip-loss --bench loss                           CLIP and SoftCLIP at N = 1,024 and 4,096, D = 512
//! cargo bench -p softclip-loss --bench loss -- --losses 4096 512      all losses
//! cargo bench -p softclip-loss --bench loss -- --tiles 4096 512       CLIP's and SoftCLIP's time by tile
//! cargo bench -p softclip-loss --bench loss -- --memory 32768 512     SoftCLIP's peak memory and time, once (minutes on few cores)
//! ```
//!
//! The numbers after a flag are N and D and may be left out; `--memory` takes the tile as a third.
#![allow(clippy::print_stdout)]

use softclip_loss::BlockOptions;
use softclip_loss::bench::{Batch, blockwise_against_plain, compare, losses};
use softclip_loss::config::{LossConfig, SoftClipConfig};
use softclip_torch::peak_above;
use tch::Device;

type Failure = Box<dyn std::error::Error>;

/// Seconds for each loss and size.
const BUDGET: f64 = 3.0;

fn tiles(n: i64, d: i64, device: Device) -> Result<(), Failure> {
    let batch = Batch::new(n, d, device)?;
    for (name, config) in losses().into_iter().filter(|(name, _)| ["clip", "softclip"].contains(name)) {
        for tile in [256, 384, 512, 768, 1024, 1536, 2048, 4096].into_iter().filter(|t| *t <= n) {
            let mut best = f64::INFINITY;
            for _ in 0..3 {
                best = best.min(batch.blockwise(&config, tile)?);
            }
            println!("{name:<10} N = {n}, D = {d}, tile {tile:>5}: {best:.3} s");
        }
    }
    Ok(())
}

fn memory(n: i64, d: i64, tile: i64, device: Device) -> Result<(), Failure> {
    let config = LossConfig::Softclip(SoftClipConfig::default());
    // Threads and libraries take their memory at first use; so few rows leave nothing behind that a tile could reuse.
    Batch::new(64, d, device)?.blockwise(&config, 32)?;
    let batch = Batch::new(n, d, device)?;
    let (seconds, above) = peak_above(device, || batch.blockwise(&config, tile))?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("softclip, N = {n}, D = {d}, f32, tile {tile}, {} threads: {seconds:.1} s", tch::get_num_threads());
    println!("{:.0} MiB above the inputs' {:.0} MiB", mib(above), mib(batch.bytes()));
    println!("one N×N matrix would take {:.0} MiB", mib((n * n * 4) as u64));
    Ok(())
}

fn main() -> Result<(), Failure> {
    softclip_torch::init()?;
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let number = |k: usize, default: i64| args.get(k).map_or(Ok(default), |a| a.parse::<i64>());
    let device = softclip_torch::parse_device("auto")?;
    let d = number(2, 512)?;
    match args.first().map(|a| a.trim_start_matches("--")) {
        None => println!("{}", blockwise_against_plain(&[1024, 4096], BUDGET, device)?),
        Some("losses") => println!("{}", compare(&losses(), &[number(1, 4096)?], d, BUDGET, device)?),
        Some("tiles") => tiles(number(1, 4096)?, d, device)?,
        Some("memory") => memory(number(1, 32_768)?, d, number(3, BlockOptions::for_device(device).tile)?, device)?,
        Some(other) => return Err(format!("unknown measurement `{other}`: --losses, --tiles or --memory, then N and D").into()),
    }
    Ok(())
}
