//! What differs between the configuration that a run was trained with and the one that it is resumed with.

use serde_json::Value;

use super::RunConfig;

/// A key whose value changed, with both values as JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// `train.steps`.
    pub key: String,
    /// The value of the training so far.
    pub before: Value,
    /// The value from now on.
    pub after: Value,
}

impl Change {
    /// Whether the learning rate of each step follows from this key.
    pub fn is_schedule(&self) -> bool {
        matches!(self.key.as_str(), "train.lr" | "train.steps" | "train.epochs" | "train.warmup" | "train.schedule")
    }

    /// Returns what the change means for a run that is resumed.
    pub fn effect(&self, after: &RunConfig) -> &'static str {
        match self.key.as_str() {
            "train.lr" | "train.steps" | "train.epochs" | "train.warmup" | "train.schedule" => {
                "the learning rate follows the new schedule from the next step on"
            }
            "train.tau" if after.loss.constant_tau().is_none() => "no effect, because the temperature is in the checkpoint",
            "train.tau" | "loss.tau" => "the temperature is set to it",
            "train.image_tower.freeze_after" | "train.text_tower.freeze_after" => {
                "what is learned follows it from the next step on"
            }
            "train.log_every" | "train.checkpoint_every" | "train.keep_checkpoints" => "logging and checkpoints only",
            "train.chunk_size" | "train.recompute" | "train.precision" | "train.tf32" => {
                "memory, speed and rounding from the next step on"
            }
            "data.workers" | "data.prefetch" | "data.trim" => "speed only",
            "data.max_bad_share" => "the limit applies to the samples that are read from now on",
            "data.train" => "the following batches are read from the new source; it must hold the same samples in the same order",
            "model.init" => "no effect, because the weights are in the checkpoint",
            key if key.starts_with("train.") => "applies from the next step on",
            key if key.starts_with("data.") => "applies to the batches that are read from now on",
            key if key.starts_with("loss.") => {
                "the loss changes from the next step on; AdamW's moments are those of the previous one"
            }
            key if key.starts_with("category.") => "the soft targets change from the next step on",
            key if key.starts_with("model.") => "the weights of the checkpoint are used with it",
            _ => "applies to the evaluations from now on",
        }
    }
}

/// Returns every key whose value differs between two configurations, in the order of the configuration.
pub fn changes(before: &RunConfig, after: &RunConfig) -> Vec<Change> {
    // A configuration is plain values: it cannot fail to be turned into JSON.
    let value = |config: &RunConfig| serde_json::to_value(config).unwrap_or_default();
    let mut found = Vec::new();
    compare("", &value(before), &value(after), &mut found);
    found
}

fn compare(key: &str, before: &Value, after: &Value, found: &mut Vec<Change>) {
    match (before.as_object(), after.as_object()) {
        (Some(a), Some(b)) => {
            let join = |inner: &str| if key.is_empty() { inner.to_owned() } else { format!("{key}.{inner}") };
            let added = b.keys().filter(|inner| !a.contains_key(*inner));
            for inner in a.keys().chain(added) {
                let of = |map: &serde_json::Map<String, Value>| map.get(inner).cloned().unwrap_or_default();
                compare(&join(inner), &of(a), &of(b), found);
            }
        }
        _ if before == after => {}
        _ => found.push(Change { key: key.to_owned(), before: before.clone(), after: after.clone() }),
    }
}
