//! `softclip bench`.

use std::time::Duration;

use anyhow::{Context, Result};
use softclip_distributed::{Environment, World};
use softclip_train::bench::{StepBench, step_time};

use crate::args::Bench;

/// How long a rank may wait for another.
const PATIENCE: Duration = Duration::from_secs(300);

pub fn bench(args: Bench) -> Result<()> {
    match args {
        Bench::Data { images, seconds } => outln!("{}", softclip_data::bench::image_path(images.as_deref(), seconds)?),
        Bench::Step { model, batch_size, precision, steps, device } => {
            let precision = serde_yaml::from_str(&precision).context("--precision: fp32, bf16 or fp16")?;
            let device = crate::device(&device)?;
            outln!(
                "CLIP training steps on {device:?}, {precision:?}; captions of 10 to 30 tokens, the shortest of {steps} steps"
            );
            for model in model {
                outln!("{}", step_time(&StepBench { model, batch_size, precision, steps, device })?);
            }
        }
        Bench::Comm { mib, repeats } => {
            let world = World::join(&Environment::from_env()?, tch::Device::Cpu, PATIENCE)?;
            let sizes: Vec<_> = mib.iter().map(|mib| (mib * f64::from(1 << 20)) as usize).collect();
            let times = softclip_distributed::bench::exchange_times(&world, &sizes, repeats)?;
            if world.rank() == 0 {
                outln!("{times}");
            }
        }
        Bench::Memory(args) => crate::bench_memory::bench_memory(&args)?,
        Bench::Nms { runs } => out!("{}", softclip_detector::bench::nms(runs)),
        Bench::Loss { n, seconds } => {
            let device = softclip_torch::parse_device("auto")?;
            outln!("{}", softclip_loss::bench::blockwise_against_plain(&n, seconds, device)?);
        }
    }
    Ok(())
}
