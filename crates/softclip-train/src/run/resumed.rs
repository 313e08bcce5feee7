//! Log lines about a configuration that has changed since the run that is resumed.

use std::path::Path;

use crate::checkpoint::Checkpoint;
use crate::config::{self, Change, RunConfig};
use crate::schedule::LearningRate;

/// A line for each key that has changed since `checkpoint` was written, and warnings.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub lines: Vec<String>,
    pub warnings: Vec<String>,
}

/// Compares the configuration in the run's folder, with which `checkpoint` was trained, with that of the run that is resumed.
/// `per_epoch` is the number of batches of an epoch.
pub(super) fn changes_since(checkpoint: &Checkpoint, config: &RunConfig, per_epoch: u64) -> Changes {
    let Some(stored) = checkpoint.path.parent().and_then(Path::parent).map(|run| run.join("config.yaml")) else {
        return Changes::default();
    };
    match config::load(&stored, &[]) {
        Ok(before) => describe(&before, config, checkpoint.state.step, per_epoch),
        Err(e) => {
            let warning = format!("{e}: what has changed since step {} cannot be listed", checkpoint.state.step);
            Changes { warnings: vec![warning], ..Changes::default() }
        }
    }
}

fn describe(before: &RunConfig, after: &RunConfig, step: u64, per_epoch: u64) -> Changes {
    let changes = config::changes(before, after);
    let line =
        |change: &Change| format!("changed: {} from {} to {}: {}", change.key, change.before, change.after, change.effect(after));
    let mut found = Changes { lines: changes.iter().map(line).collect(), warnings: Vec::new() };
    let schedule: Vec<&Change> = changes.iter().filter(|change| change.is_schedule()).collect();
    if !schedule.is_empty() && step > 0 {
        let (before, after) = (LearningRate::of(before, per_epoch), LearningRate::of(after, per_epoch));
        // Nothing follows a run that is done.
        if step < after.total {
            let (last, next) = (before.at(step - 1), after.at(step));
            let line = format!("learning rate {} because {}", moves(last, next, step > before.warmup), reason(&before, &after));
            if next > last { found.warnings.push(line) } else { found.lines.push(line) }
        }
    }
    found
}

/// `again` where the rate has been at its peak before.
fn moves(last: f64, next: f64, again: bool) -> String {
    let how = match () {
        () if next > last && again => "back up to",
        () if next > last => "up to",
        () if next < last => "down to",
        () => "on with",
    };
    format!("goes from {last:.1e} {how} {next:.1e}")
}

fn reason(before: &LearningRate, after: &LearningRate) -> String {
    let mut reasons = Vec::new();
    match after.total.cmp(&before.total) {
        std::cmp::Ordering::Greater => reasons.push("the schedule is longer"),
        std::cmp::Ordering::Less => reasons.push("the schedule is shorter"),
        std::cmp::Ordering::Equal => {}
    }
    if after.base != before.base {
        reasons.push(if after.base > before.base { "train.lr is higher" } else { "train.lr is lower" });
    }
    if after.schedule != before.schedule {
        reasons.push("train.schedule is another");
    }
    if after.warmup != before.warmup && reasons.is_empty() {
        reasons.push("train.warmup is another");
    }
    // Another way of writing the same schedule.
    if reasons.is_empty() { "the schedule is the same".to_owned() } else { reasons.join(" and ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: &dyn Fn(&mut RunConfig)) -> RunConfig {
        let text = "{model: {image: rn50}, loss: {name: clip}, train: {lr: 1.0e-3, warmup: 2, steps: 4}}";
        let mut config: RunConfig = serde_yaml::from_str(text).unwrap();
        change(&mut config);
        config
    }

    fn steps(n: u64) -> impl Fn(&mut RunConfig) {
        move |config| config.train.steps = Some(n)
    }

    fn described(before: &dyn Fn(&mut RunConfig), after: &dyn Fn(&mut RunConfig)) -> Changes {
        describe(&with(before), &with(after), 4, 10)
    }

    #[test]
    fn a_longer_schedule_raises_the_learning_rate_and_says_so() {
        let found = described(&|_| {}, &steps(10));
        assert_eq!(found.warnings, ["learning rate goes from 5.0e-4 back up to 8.5e-4 because the schedule is longer"]);
        let [line] = &found.lines[..] else { panic!("{:?}", found.lines) };
        assert!(line.starts_with("changed: train.steps from 4 to 10: the learning rate follows"), "{line}");
    }

    #[test]
    fn other_changes_are_listed_with_their_effect() {
        let lower = described(&steps(10), &|config| {
            steps(10)(config);
            config.train.lr = 1e-4;
        });
        assert!(lower.warnings.is_empty(), "{lower:?}");
        assert_eq!(lower.lines[1], "learning rate goes from 9.6e-4 down to 8.5e-5 because train.lr is lower");
        let higher = described(&steps(10), &|config| {
            steps(20)(config);
            config.train.lr = 1e-2;
        });
        assert_eq!(
            higher.warnings,
            ["learning rate goes from 9.6e-4 back up to 9.7e-3 because the schedule is longer and train.lr is higher"]
        );
        let flip = described(&|_| {}, &|config| config.data.augment.flip = 0.5);
        assert_eq!(flip.lines, ["changed: data.augment.flip from 0.0 to 0.5: applies to the batches that are read from now on"]);
        assert!(flip.warnings.is_empty());
        // A finished run has no next step.
        assert!(described(&steps(10), &steps(4)).warnings.is_empty());
        assert_eq!(described(&|_| {}, &|_| {}).lines, Vec::<String>::new());
    }
}
