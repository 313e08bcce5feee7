//! `softclip bench memory`.

use std::process::Command;

use anyhow::{Context, Result};
use softclip_train::bench_memory::{MemoryCase, MemoryOutcome, MemoryRow, cases, check, measure, measure_in};

use crate::args::BenchMemory;

pub fn bench_memory(args: &BenchMemory) -> Result<()> {
    let device = crate::device(&args.device)?;
    if let Some(case) = &args.case {
        let case = serde_json::from_str(case).context("--case")?;
        let outcome = match measure(&case, device) {
            Ok(measured) => MemoryOutcome::Done(measured),
            Err(e) => MemoryOutcome::Failed { why: e.to_string().lines().next().unwrap_or_default().to_owned() },
        };
        outln!("{}", serde_json::to_string(&outcome)?);
        return Ok(());
    }
    let precision = serde_yaml::from_str(&args.precision).context("--precision: fp32, bf16 or fp16")?;
    let cases = cases(&args.model, &args.batch_size, args.chunk_size, precision, args.tf32, args.steps);
    cases.iter().try_for_each(check)?;
    if !args.json {
        let tf32 = if args.tf32 { " with TF32" } else { "" };
        outln!("CLIP training steps on {device:?}, {precision:?}{tf32}; peak: beside what is resident between steps");
        outln!("{}", MemoryRow::heading());
    }
    let mut rows = Vec::new();
    for case in cases {
        let outcome = measure_in(child(args, &case)?)?;
        let row = MemoryRow { case, outcome };
        if !args.json {
            outln!("{row}");
        }
        rows.push(row);
    }
    if args.json {
        outln!("{}", serde_json::to_string_pretty(&rows)?);
    }
    Ok(())
}

/// This program, to measure one case.
fn child(args: &BenchMemory, case: &MemoryCase) -> Result<Command> {
    let mut child = Command::new(std::env::current_exe().context("where this program lies")?);
    child.args(["bench", "memory", "--device", &args.device.device, "--case", &serde_json::to_string(case)?]);
    if let Some(threads) = args.device.threads {
        child.args(["--threads", &threads.to_string()]);
    }
    Ok(child)
}
