//! `softclip results`.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Result, bail};
use softclip_eval::{EvalResult, collect};
use softclip_report::{Cell, Table};

use crate::args::{Results, TableFormat};

/// One table over many results.
pub fn results(args: &Results) -> Result<()> {
    let paths = if args.paths.is_empty() { vec![PathBuf::from("runs")] } else { args.paths.clone() };
    let mut found = collect(&paths)?;
    if !found.others.is_empty() {
        eprintln!("{} JSON files are no results, {} the first", found.others.len(), found.others[0].display());
    }
    if found.results.is_empty() {
        let named: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        bail!("{}: no results; a run keeps them in its folder results/", named.join(", "));
    }
    if args.last {
        found.results = last(found.results);
    }
    let there = metrics(&found.results);
    if let Some(unknown) = args.metrics.iter().find(|name| !there.contains(name)) {
        bail!("--metric {unknown}: no result has it; they have {}", there.join(", "));
    }
    let wanted = if args.metrics.is_empty() { &there } else { &args.metrics };
    match args.format {
        TableFormat::Text => out!("{}", table(&found.results, wanted).to_text()),
        TableFormat::Markdown => out!("{}", table(&found.results, wanted).to_markdown()),
        TableFormat::Csv => out!("{}", table(&found.results, wanted).to_csv()),
        TableFormat::Json => outln!("{}", json(&found.results, wanted)?),
    }
    Ok(())
}

/// All names of metrics, in the order in which they are met.
fn metrics(results: &[(PathBuf, EvalResult)]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (name, _) in results.iter().flat_map(|(_, result)| &result.metrics) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Run and step of what a run's weights are called.
fn run_and_step(result: &EvalResult) -> (&str, u64) {
    let parts = result.pretrained.rsplit_once(" step ").and_then(|(run, step)| Some((run, step.parse().ok()?)));
    parts.unwrap_or((result.pretrained.as_str(), 0))
}

fn last(results: Vec<(PathBuf, EvalResult)>) -> Vec<(PathBuf, EvalResult)> {
    let what = |result: &EvalResult| {
        let EvalResult { model, dataset, task, language, prompts, protocol, data, .. } = result;
        let run = run_and_step(result).0;
        format!("{:?}", (run, model, dataset, task, language, prompts, protocol, &data.source))
    };
    let mut newest: HashMap<String, u64> = HashMap::new();
    for (_, result) in &results {
        let step = newest.entry(what(result)).or_default();
        *step = run_and_step(result).1.max(*step);
    }
    results.into_iter().filter(|(_, result)| newest.get(&what(result)) == Some(&run_and_step(result).1)).collect()
}

fn table(results: &[(PathBuf, EvalResult)], metrics: &[String]) -> Table {
    // CLIP_benchmark's have no prompts; ours of retrieval neither.
    let prompts = results.iter().any(|(_, result)| result.prompts.is_some());
    let heads = ["model", "pretrained", "dataset", "task"].into_iter().chain(prompts.then_some("prompts"));
    let mut table = Table::new(heads.map(str::to_owned).chain(metrics.iter().cloned()));
    for (_, result) in results {
        let texts = [&result.model, &result.pretrained, &result.dataset, &result.task].map(|text| Cell::from(text.clone()));
        let prompts = prompts.then(|| result.prompts.clone().map_or(Cell::Empty, Cell::from));
        let value = |name: &String| {
            let decimals = if name.ends_with("rank") { 1 } else { 4 };
            result.metric(name).map_or(Cell::Empty, |value| Cell::fixed(value, decimals))
        };
        table = table.row(texts.into_iter().chain(prompts).chain(metrics.iter().map(value)));
    }
    table
}

fn json(results: &[(PathBuf, EvalResult)], metrics: &[String]) -> Result<String> {
    let object = |(path, result): &(PathBuf, EvalResult)| {
        let wanted = result.metrics.iter().filter(|(name, _)| metrics.contains(name));
        let metrics: serde_json::Map<String, serde_json::Value> =
            wanted.map(|(name, value)| (name.clone(), (*value).into())).collect();
        serde_json::json!({
            "dataset": result.dataset,
            "model": result.model,
            "pretrained": result.pretrained,
            "task": result.task,
            "language": result.language,
            "metrics": metrics,
            "main_metric": result.main_metric,
            "prompts": result.prompts,
            "protocol": result.protocol,
            "file": path,
        })
    };
    Ok(serde_json::to_string_pretty(&results.iter().map(object).collect::<Vec<_>>())?)
}
