//! `softclip ablate`.

mod child;
mod grid;
mod tell;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use softclip_io::did_you_mean;
use softclip_report::read_metrics_jsonl;
use softclip_train::ablation::{self, Plan, Summary, Value};

use self::grid::{Grid, Run};
use crate::args::Ablate;

pub fn ablate(args: &Ablate) -> Result<ExitCode> {
    let mut plan = ablation::load(&args.plan, &args.metrics, &args.seeds)?;
    let config = args.config.as_deref();
    if let Some(config) = config {
        plan = plan.starting_from(&std::path::absolute(config).with_context(|| format!("--config {}", config.display()))?);
    }
    let name = args.plan.file_stem().unwrap_or_default();
    let out = args.out.clone().unwrap_or_else(|| Path::new("runs/ablations").join(name));
    let mut grid = Grid::open(&plan, &args.sets, &out)?;
    if args.dry_run {
        for run in &grid.runs {
            let state = if run.done { "finished" } else { "to do" };
            outln!("{state}: softclip {}", words(&run.command(&[])));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let interrupted = grid.run(&child::Resources::of(args)?)?;
    let mut missing = Vec::new();
    let summaries = summaries(&plan, &grid, &mut missing);
    let failed: Vec<&Run> = grid.runs.iter().filter(|run| run.failed.is_some()).collect();
    tell::write(&plan, &summaries, &grid, &out)?;
    match args.json {
        true => outln!("{}", tell::json(&plan, &summaries, &grid)?),
        false => out!("{}", tell::text(&plan, &summaries)),
    }
    tracing::info!("all runs, tables and {} are in {}", tell::PAGE, out.display());
    for run in &failed {
        tracing::error!("{}: {}", run.dir.display(), run.failed.as_deref().unwrap_or_default());
    }
    missing.iter().for_each(|e| tracing::error!("{e:#}"));
    Ok(match (interrupted, failed.is_empty() && missing.is_empty()) {
        (true, _) => ExitCode::from(crate::INTERRUPTED),
        (false, true) => ExitCode::SUCCESS,
        // The metrics were named on the command line, and nothing else is wrong.
        (false, false) if failed.is_empty() && !args.metrics.is_empty() => ExitCode::from(crate::usage::STATUS),
        (false, false) => ExitCode::FAILURE,
    })
}

/// What finished runs measured, a summary a metric; `missing` gets what some did not.
fn summaries(plan: &Plan, grid: &Grid, missing: &mut Vec<anyhow::Error>) -> Vec<Summary> {
    let mut summaries = Vec::new();
    for (m, name) in plan.metrics.iter().enumerate() {
        let mut measured = Vec::new();
        for run in grid.runs.iter().filter(|run| run.done) {
            match value(&run.dir, name) {
                Ok(value) => measured.push((&run.cell, value)),
                Err(e) => missing.push(e),
            }
        }
        summaries.push(Summary::of(plan, m, &measured));
    }
    summaries
}

fn value(run: &Path, metric: &str) -> Result<Value> {
    let path = run.join("metrics.jsonl");
    let metrics = read_metrics_jsonl(&path)?;
    let curve = metrics.curve("eval", metric, metric);
    let points: Vec<(f64, f64)> = curve.points;
    match Value::of(&points, metric) {
        Some(value) => Ok(value),
        None => {
            let has = metrics.fields("eval");
            let has =
                if has.is_empty() { "no evaluation: the configuration's `eval` is empty".to_owned() } else { has.join(", ") };
            let meant = did_you_mean(metric, metrics.fields("eval"));
            bail!("{}: the metric `{metric}` is not there, name another with --metric; there is {has}{meant}", path.display())
        }
    }
}

/// As one would type it.
fn words(command: &[String]) -> String {
    let plain = |word: &String| !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || "-_./=:,+@%".contains(c));
    let quoted = |word: &String| if plain(word) { word.clone() } else { format!("'{}'", word.replace('\'', "'\\''")) };
    command.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// Where a run of the grid says that it is finished, and with which configuration.
fn mark(dir: &Path) -> PathBuf {
    dir.join("ablation.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_can_be_pasted_into_a_shell() {
        let command = ["train", "a.yaml", "--set", "data.train={0..3}.tar", "it's"].map(str::to_owned);
        assert_eq!(words(&command), r"train a.yaml --set 'data.train={0..3}.tar' 'it'\''s'");
    }
}
