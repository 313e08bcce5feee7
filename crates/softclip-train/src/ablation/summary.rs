//! What the runs of a grid measured, as rows and columns.

use serde::Serialize;

use super::{Cell, Plan};

/// What one run measured of one metric, in the unit in which it is told: percent, or a rank.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Value {
    /// At its last evaluation.
    pub last: f64,
    /// The best of all its evaluations.
    pub best: f64,
}

impl Value {
    /// From a run's curve of `metric`, points (step, value); `None` if there is no point.
    pub fn of(points: &[(f64, f64)], metric: &str) -> Option<Self> {
        let unit = if is_rank(metric) { 1.0 } else { 100.0 };
        let better = |a: f64, b: f64| if is_rank(metric) == (b < a) { b } else { a };
        let values = || points.iter().map(|point| point.1 * unit);
        Some(Self { last: values().next_back()?, best: values().reduce(better)? })
    }
}

/// Whether `metric` counts ranks, of which a small one is good; all others are shares, told in percent.
pub fn is_rank(metric: &str) -> bool {
    metric.ends_with("rank")
}

/// A mean over seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Standard deviation of single runs (by n − 1); `None` of a single run.
    pub deviation: Option<f64>,
    /// Runs.
    pub runs: usize,
}

impl Estimate {
    /// `None` of nothing.
    pub fn of(values: &[f64]) -> Option<Self> {
        let runs = values.len();
        let mean = values.iter().sum::<f64>() / runs as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (runs > 1).then(|| (squares / (runs - 1) as f64).sqrt());
        (runs > 0).then_some(Self { mean, deviation, runs })
    }
}

/// A row in a column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// At the runs' last evaluations.
    pub last: Estimate,
    /// At each run's best.
    pub best: Estimate,
    /// How far its last evaluations are from the first row's with the same seeds; `None` for the first row, and without a seed that both
    /// have finished.
    pub difference: Option<Estimate>,
    /// The paper's figure, where it is of this metric.
    pub paper: Option<f64>,
}

/// One metric of a whole grid.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Its name.
    pub metric: String,
    /// By row and column; `None` where no run is finished.
    pub entries: Vec<Vec<Option<Entry>>>,
}

impl Summary {
    /// Of the metric with the number `metric` in the plan. `measured` are the finished runs with what they measured of it.
    pub fn of(plan: &Plan, metric: usize, measured: &[(&Cell, Value)]) -> Self {
        let name = plan.metrics.get(metric);
        let of = |row: usize, column: usize| -> Vec<(u64, Value)> {
            measured
                .iter()
                .filter(|(cell, _)| (cell.row, cell.column) == (row, column))
                .map(|(cell, value)| (cell.seed, *value))
                .collect()
        };
        let entry = |row: usize, column: usize| {
            let runs = of(row, column);
            let first = of(0, column);
            let paired: Vec<f64> = runs
                .iter()
                .filter_map(|(seed, value)| Some(value.last - first.iter().find(|(other, _)| other == seed)?.1.last))
                .collect();
            let estimate = |value: fn(&Value) -> f64| Estimate::of(&runs.iter().map(|(_, v)| value(v)).collect::<Vec<_>>());
            Some(Entry {
                last: estimate(|v| v.last)?,
                best: estimate(|v| v.best)?,
                difference: Estimate::of(&paired).filter(|_| row > 0),
                paper: plan.figure(row, column).filter(|_| plan.paper_metric.is_some() && plan.paper_metric.as_ref() == name),
            })
        };
        let entries = (0..plan.rows.len()).map(|r| (0..plan.columns.len()).map(|c| entry(r, c)).collect()).collect();
        Self { metric: name.cloned().unwrap_or_default(), entries }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        serde_yaml::from_str(
            "title: T\nmetrics: [acc1, mean_rank]\npaper_metric: acc1\nseeds: [0, 1]\ncolumns: [{name: A, config: x}, {name: B, config: x, paper: A}]\n\
             rows: [{name: a, paper: {A: 7}}, {name: b}]",
        )
        .unwrap()
    }

    #[test]
    fn last_and_best_in_the_unit_that_people_tell() {
        let points = [(1.0, 0.25), (2.0, 0.5), (3.0, 0.375)];
        assert_eq!(Value::of(&points, "acc1"), Some(Value { last: 37.5, best: 50.0 }));
        assert_eq!(Value::of(&points, "text_median_rank"), Some(Value { last: 0.375, best: 0.25 }));
        assert_eq!(Value::of(&[], "acc1"), None);
    }

    #[test]
    fn differences_are_between_runs_of_one_seed() {
        let plan = plan();
        let cells = plan.cells(&[]);
        let value = |last| Value { last, best: last + 1.0 };
        let find = |row, column, seed| cells.iter().find(|c| (c.row, c.column, c.seed) == (row, column, seed)).unwrap();
        // Seed 1 is worse for both rows: the difference does not spread as the values do.
        let runs = [((0, 0, 0), 10.0), ((0, 0, 1), 20.0), ((1, 0, 0), 13.0), ((1, 0, 1), 25.0), ((1, 1, 0), 4.0)];
        let measured: Vec<(&Cell, Value)> = runs.iter().map(|&((r, c, s), v)| (find(r, c, s), value(v))).collect();
        let summary = Summary::of(&plan, 0, &measured);
        let b = summary.entries[1][0].as_ref().unwrap();
        assert_eq!((b.last.mean, b.best.mean, b.last.runs), (19.0, 20.0, 2));
        assert!((b.last.deviation.unwrap() - 72f64.sqrt()).abs() < 1e-12);
        let difference = b.difference.as_ref().unwrap();
        assert!((difference.mean - 4.0).abs() < 1e-12 && (difference.deviation.unwrap() - 2f64.sqrt()).abs() < 1e-12);
        let a = summary.entries[0][0].as_ref().unwrap();
        assert_eq!((a.difference.clone(), a.paper), (None, Some(7.0)));
        assert_eq!(summary.entries[0][1], None);
        let lone = summary.entries[1][1].as_ref().unwrap();
        assert_eq!((lone.last.deviation, lone.difference.clone()), (None, None));
        assert_eq!(Summary::of(&plan, 1, &measured).entries[0][0].as_ref().unwrap().paper, None);
    }
}
