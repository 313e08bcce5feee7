//! What a grid found: tables, a plot, a page.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use serde_json::json;
use softclip_report::{Best, Cell, Estimates, Group, Mark, Page, Section, Table};
use softclip_tensor::file::write_atomic;
use softclip_train::ablation::{Entry, Estimate, Plan, Summary, is_rank};

use super::grid::Grid;
use super::words;

pub const PAGE: &str = "report.html";

/// Writes `results.json`, a table a metric as Markdown, everything as one CSV, and the page.
pub fn write(plan: &Plan, summaries: &[Summary], grid: &Grid, out: &Path) -> Result<()> {
    let file = |name: &str, text: String| write_atomic(out.join(name), text.as_bytes());
    file("results.json", format!("{}\n", json(plan, summaries, grid)?))?;
    let tables: Vec<Table> = summaries.iter().map(|summary| table(plan, summary)).collect();
    file("tables.md", tables.iter().map(|table| format!("{}\n", table.to_markdown())).collect())?;
    file("table.csv", tidy(plan, summaries).to_csv())?;
    file(PAGE, page(plan, summaries, tables, grid).render())?;
    Ok(())
}

/// For a terminal.
pub fn text(plan: &Plan, summaries: &[Summary]) -> String {
    let mut text = format!("{}\n", plan.title);
    for summary in summaries {
        let _ = write!(text, "\n{}", table(plan, summary).to_text());
    }
    let _ = writeln!(text, "\n{}", note(plan));
    text
}

pub fn json(plan: &Plan, summaries: &[Summary], grid: &Grid) -> Result<String> {
    let runs = grid.runs.iter().map(|run| {
        json!({"row": plan.rows[run.cell.row].name, "column": plan.columns[run.cell.column].name, "seed": run.cell.seed, "dir": run.dir,
               "finished": run.done, "failed": run.failed})
    });
    let names = |names: Vec<&String>| json!(names);
    let value = json!({
        "title": plan.title,
        "rows": names(plan.rows.iter().map(|row| &row.name).collect()),
        "columns": names(plan.columns.iter().map(|column| &column.name).collect()),
        "seeds": plan.seeds,
        "paper_metric": plan.paper_metric,
        "summaries": summaries,
        "runs": runs.collect::<Vec<_>>(),
    });
    Ok(serde_json::to_string_pretty(&value)?)
}

fn unit(metric: &str) -> &'static str {
    if is_rank(metric) { "" } else { ", percent" }
}

fn spread(estimate: &Estimate, sign: bool) -> String {
    let mean = if sign { format!("{:+.2}", estimate.mean) } else { format!("{:.2}", estimate.mean) };
    estimate.deviation.map_or(mean.clone(), |deviation| format!("{mean} ± {deviation:.2}"))
}

/// A row for each number of runs that belong together, as programs that read tables like it.
fn tidy(plan: &Plan, summaries: &[Summary]) -> Table {
    let mut table = Table::new([
        "metric",
        "row",
        "x",
        "column",
        "runs",
        "last",
        "last_deviation",
        "change",
        "change_deviation",
        "best",
        "best_deviation",
        "paper",
    ]);
    for summary in summaries {
        for (row, entries) in plan.rows.iter().zip(&summary.entries) {
            for (column, entry) in plan.columns.iter().zip(entries) {
                let Some(Entry { last, best, difference, paper }) = entry else { continue };
                let both = |estimate: &Estimate| [estimate.mean.into(), estimate.deviation.into()];
                let mut cells: Vec<Cell> = vec![summary.metric.as_str().into(), row.name.as_str().into(), row.x.into()];
                cells.extend([column.name.as_str().into(), Cell::from(last.runs as f64)]);
                cells.extend(both(last));
                cells.extend(difference.as_ref().map_or([Cell::Empty, Cell::Empty], both));
                cells.extend(both(best));
                cells.push((*paper).into());
                table = table.row(cells);
            }
        }
    }
    table
}

/// A row a row; for each column the last value, its distance from the first row, the best, and the paper's figure.
fn table(plan: &Plan, summary: &Summary) -> Table {
    let several = plan.columns.len() > 1;
    let mut headers = vec![String::new()];
    let mut best = Vec::new();
    for (c, column) in plan.columns.iter().enumerate() {
        let head = |what: &str| if several { format!("{}: {what}", column.name) } else { what.to_owned() };
        best.push((headers.len(), if is_rank(&summary.metric) { Best::Lowest } else { Best::Highest }));
        headers.extend([head("last"), head("change"), head("best"), head("runs")]);
        if figures(plan, summary, c) {
            let of = plan.paper_metric.as_ref().filter(|metric| **metric != summary.metric);
            let of = of.map_or(String::new(), |metric| format!(" ({metric})"));
            headers.extend([head(&format!("paper{of}")), head("paper's change")]);
        }
    }
    let mut table = Table::new(headers).caption(format!("{}{}", summary.metric, unit(&summary.metric)));
    for (column, which) in best {
        table = table.best(column, which);
    }
    for (r, row) in plan.rows.iter().enumerate() {
        let mut cells = vec![Cell::from(row.name.as_str())];
        for c in 0..plan.columns.len() {
            cells.extend(measured(summary.entries[r][c].as_ref()));
            if figures(plan, summary, c) {
                cells.extend(published(plan, r, c));
            }
        }
        table = table.row(cells);
    }
    table
}

fn measured(entry: Option<&Entry>) -> [Cell; 4] {
    let Some(entry) = entry else { return [Cell::Empty, Cell::Empty, Cell::Empty, Cell::fixed(0.0, 0)] };
    let shown = |estimate: &Estimate, sign| Cell::shown(estimate.mean, spread(estimate, sign));
    [
        shown(&entry.last, false),
        entry.difference.as_ref().map_or(Cell::Empty, |difference| shown(difference, true)),
        shown(&entry.best, false),
        Cell::fixed(entry.last.runs as f64, 0),
    ]
}

/// The figure, and how far it is from that of the first row.
fn published(plan: &Plan, row: usize, column: usize) -> [Cell; 2] {
    let figure = plan.figure(row, column);
    let change = figure.zip(plan.figure(0, column)).filter(|_| row > 0).map(|(figure, first)| figure - first);
    [
        figure.map_or(Cell::Empty, |figure| Cell::fixed(figure, 1)),
        change.map_or(Cell::Empty, |change| Cell::shown(change, format!("{change:+.1}"))),
    ]
}

/// The paper's figures stand beside their metric; where it is not measured, beside the first, under their own name.
fn figures(plan: &Plan, summary: &Summary, column: usize) -> bool {
    let theirs = plan.paper_metric.as_ref();
    let beside = theirs.filter(|metric| plan.metrics.contains(metric)).or(plan.metrics.first());
    beside == Some(&summary.metric) && plan.has_figures(column)
}

fn note(plan: &Plan) -> String {
    let mut note =
        "Means over seeds, ± the standard deviation of single runs; last: at the last evaluation, best: at each run's best; \
                    change: from the first row with the same seeds."
            .to_owned();
    let other = plan.paper_metric.as_ref().filter(|metric| !plan.metrics.contains(metric));
    if let (true, Some(metric)) = ((0..plan.columns.len()).any(|c| plan.has_figures(c)), other) {
        let _ = write!(note, " The paper's figures are {metric} on its own data: compare changes, not values.");
    }
    note
}

fn plot(plan: &Plan, summary: &Summary) -> Estimates {
    let mark = |r: usize, c: usize| {
        let entry = summary.entries[r][c].as_ref()?;
        let at = plan.rows[r].x.unwrap_or(r as f64);
        Some(Mark { at, mean: entry.last.mean, deviation: entry.last.deviation, reference: entry.paper })
    };
    let group = |(c, column): (usize, &softclip_train::ablation::Column)| Group {
        name: column.name.clone(),
        marks: (0..plan.rows.len()).filter_map(|r| mark(r, c)).collect(),
    };
    Estimates {
        title: summary.metric.clone(),
        value_label: if is_rank(&summary.metric) { "rank" } else { "percent" }.to_owned(),
        rows: if plan.x.is_some() { Vec::new() } else { plan.rows.iter().map(|row| row.name.clone()).collect() },
        x_label: plan.x.clone().unwrap_or_default(),
        groups: plan.columns.iter().enumerate().map(group).collect(),
    }
}

fn page(plan: &Plan, summaries: &[Summary], tables: Vec<Table>, grid: &Grid) -> Page {
    let mut result = Section::new("Result").text(note(plan));
    for summary in summaries {
        result = result.estimates(plot(plan, summary));
    }
    for table in tables {
        result = result.table(table);
    }
    let mut runs = Table::new(["run", "state", "command"]);
    for run in &grid.runs {
        let state = match (&run.failed, run.done) {
            (Some(why), _) => format!("failed: {why}"),
            (None, true) => "finished".to_owned(),
            (None, false) => "not finished".to_owned(),
        };
        runs = runs.row([run.name.as_str().into(), state.into(), format!("softclip {}", words(&run.command(&[]))).into()]);
    }
    let page = Page::new(plan.title.clone()).footer(format!("softclip {}", env!("CARGO_PKG_VERSION")));
    let page = if plan.about.is_empty() { page } else { page.lead(plan.about.clone()) };
    page.section(result).section(Section::new("Runs").table(runs))
}
