#![allow(missing_docs, clippy::unwrap_used)]
use softclip_loss::bench::Batch;
use softclip_loss::config::{Divergence, LossConfig, SoftClipConfig};
use tch::Device;
#[test]
fn mem() {
    let tile = 4096i64;
    let batch = Batch::new(8192, 8, Device::Cpu).unwrap();
    for (name, gamma, div) in [
        ("default", 1.0, Divergence::SymmetricKl),
        ("gamma", 0.5, Divergence::SymmetricKl),
        ("kl", 1.0, Divergence::Kl),
        ("js", 1.0, Divergence::Js),
        ("js gamma", 0.5, Divergence::Js),
    ] {
        let c = LossConfig::Softclip(SoftClipConfig { gamma, divergence: div, ..Default::default() });
        softclip_torch::reset_peak_memory(Device::Cpu).unwrap();
        let before = softclip_torch::memory(Device::Cpu);
        batch.blockwise(&c, tile).unwrap();
        let after = softclip_torch::memory(Device::Cpu);
        println!(
            "{name}: {:.2} tile²  (rss {} -> peak {})",
            (after.host_peak - before.host_rss) as f64 / (4 * tile * tile) as f64,
            before.host_rss,
            after.host_peak
        );
    }
}
