//! `softclip results`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use softclip_eval::{EvalResult, collect};
use softclip_io::did_you_mean;
use softclip_report::{Cell, Table};

use crate::args::{Results, TableFormat};

/// The most damaged files that are named.
const TOLD: usize = 5;

/// One table over many results.
pub fn results(args: &Results) -> Result<()> {
    let paths = if args.paths.is_empty() { vec![PathBuf::from("runs")] } else { args.paths.clone() };
    let mut found = collect(&paths)?;
    if !found.others.is_empty() {
        tracing::info!("{} JSON files are no results, {} the first", found.others.len(), found.others[0].display());
    }
    for damaged in found.damaged.iter().take(TOLD) {
        tracing::warn!("{damaged}; it is passed over");
    }
    if found.damaged.len() > TOLD {
        tracing::warn!("{} more are passed over likewise", found.damaged.len() - TOLD);
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
        let meant = did_you_mean(unknown, there.iter().map(String::as_str));
        usage!("--metric {unknown}: no result has it; they have {}{meant}", there.join(", "));
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

/// The run's folder, of a file in its `results/`.
fn run_of(path: &Path) -> Option<PathBuf> {
    let folder = path.canonicalize().ok()?.parent()?.to_owned();
    (folder.file_name()? == "results").then(|| folder.parent().map(Path::to_owned))?
}

fn last(results: Vec<(PathBuf, EvalResult)>) -> Vec<(PathBuf, EvalResult)> {
    let what = |(path, result): &(PathBuf, EvalResult)| {
        let EvalResult { model, dataset, task, language, prompts, protocol, data, .. } = result;
        // A run may have been evaluated under several paths.
        let run = run_of(path).unwrap_or_else(|| PathBuf::from(run_and_step(result).0));
        format!("{:?}", (run, model, dataset, task, language, prompts, protocol, &data.source))
    };
    let mut newest: HashMap<String, u64> = HashMap::new();
    for found in &results {
        let step = newest.entry(what(found)).or_default();
        *step = run_and_step(&found.1).1.max(*step);
    }
    results.into_iter().filter(|found| newest.get(&what(found)) == Some(&run_and_step(&found.1).1)).collect()
}

/// Whether one task was done on several splits of one data set, or on several data of one name.
fn sources_differ(results: &[(PathBuf, EvalResult)]) -> bool {
    let mut first: HashMap<(&str, &str), &str> = HashMap::new();
    let ours = results.iter().map(|(_, result)| result).filter(|result| !result.data.source.is_empty());
    ours.into_iter().any(|result| {
        let source = result.data.source.as_str();
        *first.entry((result.dataset.as_str(), result.task.as_str())).or_insert(source) != source
    })
}

fn table(results: &[(PathBuf, EvalResult)], metrics: &[String]) -> Table {
    // CLIP_benchmark's have no prompts; ours of retrieval neither.
    let prompts = results.iter().any(|(_, result)| result.prompts.is_some());
    let sources = sources_differ(results);
    let heads = ["model", "pretrained", "dataset", "task"].into_iter();
    let heads = heads.chain(sources.then_some("data")).chain(prompts.then_some("prompts"));
    let mut table = Table::new(heads.map(str::to_owned).chain(metrics.iter().cloned()));
    for (_, result) in results {
        let texts = [&result.model, &result.pretrained, &result.dataset, &result.task].map(|text| Cell::from(text.clone()));
        let source = sources.then(|| Cell::from(result.data.source.clone()));
        let prompts = prompts.then(|| result.prompts.clone().map_or(Cell::Empty, Cell::from));
        let value = |name: &String| {
            let decimals = if name.ends_with("rank") { 1 } else { 4 };
            result.metric(name).map_or(Cell::Empty, |value| Cell::fixed(value, decimals))
        };
        table = table.row(texts.into_iter().chain(source).chain(prompts).chain(metrics.iter().map(value)));
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
            "data": result.data.source,
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

#[cfg(test)]
mod tests {
    use super::*;
    use softclip_eval::Data;

    fn result(pretrained: &str, source: &str) -> EvalResult {
        let data = Data { source: source.to_owned(), ..Data::default() };
        EvalResult { dataset: "dtd".to_owned(), pretrained: pretrained.to_owned(), data, ..EvalResult::default() }
    }

    #[test]
    fn a_run_that_was_named_in_two_ways_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let results = folder.path().join("run/results");
        std::fs::create_dir_all(&results).unwrap();
        let found = [("1.json", "run step 2"), ("2.json", "/there/run step 4"), ("3.json", "./run step 3")];
        let found = found.map(|(name, pretrained)| {
            std::fs::write(results.join(name), "").unwrap();
            (results.join(name), result(pretrained, "x"))
        });
        let kept: Vec<String> = last(found.to_vec()).into_iter().map(|(_, result)| result.pretrained).collect();
        assert_eq!(kept, ["/there/run step 4"]);
    }

    #[test]
    fn data_has_a_column_where_splits_differ() {
        let of = |sources: &[&str]| -> Vec<_> { sources.iter().map(|s| (PathBuf::new(), result("p", s))).collect() };
        assert!(
            table(&of(&["dtd:x", "dtd:x,split=val1"]), &[])
                .to_csv()
                .starts_with("model,pretrained,dataset,task,data\r\n,p,dtd,,dtd:x")
        );
        assert!(!sources_differ(&of(&["dtd:x", "dtd:x", ""])));
    }
}
