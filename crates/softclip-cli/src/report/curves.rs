//! Curves of training and of the evaluations in it.

use softclip_report::{Chart, Section};

use super::metric::{is_share, label};
use super::run::Run;

/// Field, title, unit, whether the axis is logarithmic, whether steps are noisy.
const TRAINING: [(&str, &str, &str, bool, bool); 7] = [
    ("loss", "Training loss", "nats", false, true),
    ("lr", "Learning rate", "learning rate", false, false),
    ("logit_scale", "Logit scale", "1/τ", false, false),
    ("grad_norm", "Norm of the gradients, before clipping", "L2 norm", true, true),
    ("target_softness", "Target softness", "mean of 1 − q", false, true),
    ("target_entropy", "Entropy of the targets", "nats", false, true),
    ("samples_per_second", "Speed", "samples a second", false, true),
];

/// Points above which noisy curves are smoothed, as many as are seen apart.
const APART: usize = 300;

/// All curves, each quantity in one chart; `None` where nothing was logged.
pub fn section(runs: &[Run]) -> Option<Section> {
    if runs.iter().all(|run| run.metrics.is_empty()) {
        return None;
    }
    let mut section = Section::new("Training");
    if runs.len() > 1 {
        section =
            section.text("Losses of different names are different sums and are not comparable with each other; evaluations are.");
    }
    if runs.iter().any(|run| window(run) > 1) {
        section = section.text("Noisy quantities are running means over a hundredth of the run.");
    }
    let last = runs.iter().filter_map(|run| Some(run.metrics.curve("train", "loss", "").points.last()?.0)).fold(1.0, f64::max);
    for (field, title, unit, log, noisy) in TRAINING {
        let mut chart = Chart::new(title, "step", unit).x_span(0.0, last);
        chart.log_y = log;
        for run in runs {
            let curve = run.metrics.curve("train", field, &*run.name).colour(run.colour);
            let curve = if noisy { curve.smoothed(window(run)) } else { curve };
            chart = if curve.points.is_empty() { chart } else { chart.curve(curve) };
        }
        // Hard labels have neither softness nor entropy to look at.
        let flat =
            field.starts_with("target_") && chart.curves.iter().flat_map(|curve| &curve.points).all(|point| point.1 == 0.0);
        section = if chart.curves.is_empty() || flat { section } else { section.chart(chart) };
    }
    for chart in evaluations(runs) {
        section = section.chart(chart.x_span(0.0, last));
    }
    Some(section)
}

fn window(run: &Run) -> usize {
    let points = run.metrics.curve("train", "loss", "").points.len();
    if points > APART { points / 100 } else { 1 }
}

fn evaluations(runs: &[Run]) -> Vec<Chart> {
    let mut names: Vec<&str> = Vec::new();
    for name in runs.iter().flat_map(|run| run.metrics.fields("eval")) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let chart = |name: &str| {
        let curves: Vec<_> = runs.iter().map(|run| run.metrics.curve("eval", name, &*run.name).colour(run.colour)).collect();
        let share = is_share(name, curves.iter().flat_map(|curve| &curve.points).map(|point| point.1));
        let unit = if share { "percent" } else { "" };
        curves.into_iter().filter(|curve| !curve.points.is_empty()).fold(
            Chart::new(label(name), "step", unit),
            |chart, mut curve| {
                curve.points.iter_mut().for_each(|point| point.1 *= if share { 100.0 } else { 1.0 });
                chart.curve(curve)
            },
        )
    };
    names.into_iter().map(chart).filter(|chart| !chart.curves.is_empty()).collect()
}
