//! Tables of a page: the runs, what differs, the best and the last of each evaluation, results.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use softclip_report::{Best, Cell, Section, Table};

use super::metric::{is_share, label, lower_is_better};
use super::run::{Outcome, Run};

/// The runs, and what of their configurations differs.
pub fn summary(runs: &[Run]) -> Section {
    let heads = ["run", "loss", "steps", "batch size", "pairs seen", "seconds of training", "last training loss"];
    let mut table = Table::new(heads).caption(
        "Seconds of training are steps by the samples a second that were logged: evaluations and checkpoints are not counted. Losses of \
         different names are different sums.",
    );
    for run in runs {
        let batch = run.number("train.batch_size");
        let losses = run.metrics.curve("train", "loss", "");
        let last = losses.points.last();
        let pairs = last.zip(batch).map(|(last, batch)| last.0 * batch);
        table = table.row([
            run.cell(),
            run.setting("loss.name").map_or(Cell::Empty, Cell::from),
            last.map(|last| last.0).into(),
            batch.into(),
            pairs.into(),
            seconds(run).map_or(Cell::Empty, |seconds| Cell::fixed(seconds, 0)),
            last.map(|last| last.1).into(),
        ]);
    }
    let section = Section::new("Runs").table(table);
    if runs.len() > 1 { section.table(differences(runs)) } else { section }
}

/// Seconds that the steps took.
fn seconds(run: &Run) -> Option<f64> {
    let batch = run.number("train.batch_size")?;
    let speeds = run.metrics.curve("train", "samples_per_second", "").points;
    let befores = std::iter::once(0.0).chain(speeds.iter().map(|point| point.0));
    let spans = speeds.iter().zip(befores).filter(|((_, speed), _)| *speed > 0.0);
    (!speeds.is_empty()).then(|| spans.map(|((step, speed), before)| (step - before) * batch / speed).sum())
}

fn differences(runs: &[Run]) -> Table {
    let keys: BTreeSet<&String> = runs.iter().flat_map(|run| run.config.keys()).collect();
    let mut table = Table::new(std::iter::once("key").chain(runs.iter().map(|run| run.name.as_str())));
    for key in keys {
        let values: Vec<Option<&Value>> = runs.iter().map(|run| run.config.get(key).filter(|value| !value.is_null())).collect();
        if values.iter().any(|value| *value != values[0]) {
            table = table.row(std::iter::once(Cell::from(key.as_str())).chain(values.into_iter().map(setting)));
        }
    }
    let caption =
        if table.rows.is_empty() { "The runs' configurations are the same." } else { "What of the configurations differs." };
    table.caption(caption)
}

fn setting(value: Option<&Value>) -> Cell {
    match value {
        None => Cell::Empty,
        Some(Value::String(text)) => text.as_str().into(),
        Some(Value::Number(n)) => n.as_f64().into(),
        Some(other) => other.to_string().into(),
    }
}

/// The best and the last value of each evaluation while training: both, as the best one was chosen by looking at the data.
pub fn best_and_last(runs: &[Run]) -> Option<Table> {
    let mut names: Vec<&str> = Vec::new();
    for name in runs.iter().flat_map(|run| run.metrics.fields("eval")) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut table = Table::new(["metric", "run", "best", "at step", "last", "last step"]);
    for name in names {
        let curves: Vec<_> = runs.iter().map(|run| run.metrics.curve("eval", name, "").points).collect();
        let share = is_share(name, curves.iter().flatten().map(|point| point.1));
        let shown = |value: f64| if share { Cell::fixed(100.0 * value, 1) } else { value.into() };
        for (run, points) in runs.iter().zip(curves) {
            let better = |a: f64, b: f64| if lower_is_better(name) { a < b } else { a > b };
            // Of equal ones the first.
            let best = points.iter().copied().reduce(|best, point| if better(point.1, best.1) { point } else { best });
            let (Some(best), Some(last)) = (best, points.last()) else { continue };
            let unit = if share { ", %" } else { "" };
            let name = format!("{}{unit}", label(name));
            table = table.row([name.into(), run.cell(), shown(best.1), best.0.into(), shown(last.1), last.0.into()]);
        }
    }
    (!table.rows.is_empty())
        .then(|| table.caption("Evaluations while training. The best one is known only by having looked at the data."))
}

/// What the runs' results hold, a table for each task and data as it was named: other splits are other data.
pub fn results(runs: &[Run]) -> Section {
    let mut groups: BTreeMap<[&str; 4], Vec<(&Run, &Outcome)>> = BTreeMap::new();
    for run in runs {
        for outcome in &run.results {
            groups.entry([&outcome.task, &outcome.dataset, &outcome.source, &outcome.how]).or_default().push((run, outcome));
        }
    }
    let mut section = Section::new("Results");
    if groups.is_empty() {
        section = section.text("The runs have no results yet: softclip eval RUN --task … --data … makes some.");
    }
    for (what, rows) in groups {
        section = section.table(outcomes(what, &rows));
    }
    section
}

fn outcomes([task, dataset, source, how]: [&str; 4], rows: &[(&Run, &Outcome)]) -> Table {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flat_map(|(_, outcome)| &outcome.metrics) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let value = |outcome: &Outcome, name: &str| outcome.metrics.iter().find(|(n, _)| n == name).map(|(_, value)| *value);
    let shares: Vec<bool> =
        names.iter().map(|name| is_share(name, rows.iter().filter_map(|(_, outcome)| value(outcome, name)))).collect();
    let head = |(name, share): (&&str, &bool)| format!("{}{}", label(name), if *share { ", %" } else { "" });
    let heads = ["run", "step"].into_iter().map(str::to_owned).chain(names.iter().zip(&shares).map(head));
    let mut table = Table::new(heads);
    let cell = |value: Option<f64>, share: bool| match value {
        Some(value) if share => Cell::fixed(100.0 * value, 1),
        other => other.into(),
    };
    for (run, outcome) in rows {
        let step = outcome.step.map(|step| step as f64).into();
        let metrics = names.iter().zip(&shares).map(|(name, share)| cell(value(outcome, name), *share));
        table = table.row([run.cell(), step].into_iter().chain(metrics));
    }
    for (column, name) in names.iter().enumerate() {
        table = table.best(column + 2, if lower_is_better(name) { Best::Lowest } else { Best::Highest });
    }
    if let Some((_, outcome)) = rows.iter().find(|(_, outcome)| !outcome.chance.is_empty()) {
        let chance = names.iter().zip(&shares).map(|(name, share)| cell(outcome.chance.get(*name).copied(), *share));
        table = table.reference(["chance".into(), Cell::Empty].into_iter().chain(chance));
    }
    let counts = rows.iter().map(|(_, outcome)| outcome.counts.as_str()).find(|counts| !counts.is_empty());
    let parts = [Some(task), Some(dataset), Some(source).filter(|source| *source != dataset), counts, Some(how)];
    let parts = parts.into_iter().flatten().filter(|part| !part.is_empty());
    table.caption(format!("{}. Press a heading to sort.", parts.collect::<Vec<_>>().join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use softclip_report::Page;

    #[test]
    fn splits_of_a_data_set_have_tables_of_their_own_and_guessing_is_never_the_best() {
        let of = |source: &str, acc1: f64| Outcome {
            task: "zeroshot_classification".to_owned(),
            dataset: "dtd".to_owned(),
            source: source.to_owned(),
            how: "clip".to_owned(),
            counts: String::new(),
            step: None,
            metrics: vec![("acc1".to_owned(), acc1)],
            chance: BTreeMap::from([("acc1".to_owned(), 0.75)]),
        };
        let run = |name: &str, colour, results| Run {
            name: name.to_owned(),
            dir: std::path::PathBuf::new(),
            colour,
            config: BTreeMap::new(),
            metrics: softclip_report::Metrics::default(),
            results,
        };
        let runs = [run("a", 0, vec![of("dtd:x,split=val1", 0.5), of("dtd:x", 0.25)]), run("b", 1, vec![of("dtd:x", 0.3)])];
        let html = Page::new("t").section(results(&runs)).render();
        assert_eq!(html.matches("<figure class=\"table\">").count(), 2);
        assert!(html.contains("dtd:x,split=val1") && html.contains("<strong>30.0</strong>"), "{html}");
        assert!(!html.contains("<strong>75.0</strong>"), "{html}");
    }
}
