//! `softclip bench`.

use std::fmt::Display;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use softclip_distributed::{Environment, World};
use softclip_eval::bench::{Inputs, RecallBench, recall};
use softclip_train::bench::{Captions, StepBench, step_times};

use crate::args::bench::{self as args, Bench};

/// How long a rank may wait for another.
const PATIENCE: Duration = Duration::from_secs(300);

pub fn bench(args: Bench) -> Result<()> {
    match args {
        Bench::Data(args) => print(&softclip_data::bench::image_path(args.images.as_deref(), args.seconds)?, args.json),
        Bench::Step(args) => step(args),
        Bench::Comm(args) => comm(&args),
        Bench::Memory(args) => crate::bench_memory::bench_memory(&args),
        Bench::Nms(args) => print(&softclip_detector::bench::nms(args.runs), args.json),
        Bench::Loss(args) => {
            let device = crate::device(&args.device)?;
            print(&softclip_loss::bench::blockwise_against_plain(&args.n, args.seconds, device)?, args.json)
        }
        Bench::Recall(args) => {
            let inputs = match args.embeddings.as_deref() {
                Some([image, text]) => Inputs::Files(image.clone(), text.clone()),
                _ => Inputs::Made(args.images, args.texts, args.dim),
            };
            let bench = RecallBench { inputs, plain: !args.alone, runs: args.runs, device: crate::device(&args.device)? };
            print(&recall(&bench)?, args.json)
        }
    }
}

/// A report as text or as JSON.
fn print(report: &(impl Display + Serialize), json: bool) -> Result<()> {
    if json {
        outln!("{}", serde_json::to_string_pretty(report)?);
    } else {
        outln!("{}", report.to_string().trim_end());
    }
    Ok(())
}

fn step(args: args::Step) -> Result<()> {
    let bench = StepBench {
        models: args.model,
        batch_size: args.batch_size,
        precision: serde_yaml::from_str(&args.precision).context("--precision: fp32, bf16 or fp16")?,
        tf32: args.tf32,
        steps: args.steps,
        captions: match args.captions {
            args::Captions::Both => Captions::Both,
            args::Captions::Trimmed => Captions::Trimmed,
            args::Captions::Untrimmed => Captions::Untrimmed,
        },
        data: args.data,
        device: crate::device(&args.device)?,
    };
    print(&step_times(&bench)?, args.json)
}

fn comm(args: &args::Comm) -> Result<()> {
    let environment = Environment::from_env()?;
    let world = World::join(&environment, environment.device(&args.device)?, PATIENCE)?;
    let sizes: Vec<_> = args.mib.iter().map(|mib| (mib * f64::from(1 << 20)) as usize).collect();
    let times = softclip_distributed::bench::exchange_times(&world, &sizes, args.repeats)?;
    world.leave()?;
    if world.rank() == 0 { print(&times, args.json) } else { Ok(()) }
}
