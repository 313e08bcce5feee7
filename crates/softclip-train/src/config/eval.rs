//! The list of evaluations that are made while training.

use serde::{Deserialize, Serialize};

/// An evaluation that is repeated while training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalEntry {
    /// What is measured.
    pub task: Task,
    /// On which source; default `data.val`.
    #[serde(default)]
    pub data: Option<String>,
    /// When: `1 epoch`, `500 steps`, or `end`. Default: `end`.
    #[serde(default)]
    pub every: Every,
    /// Prompts of zero-shot classification. Default: `clip` for a published data set, else `simple`.
    #[serde(default)]
    pub prompts: Option<String>,
    /// Names of its classes: a file, or a published data set's name. Default: CLIP's for a published data set, else the source's.
    #[serde(default)]
    pub classnames: Option<String>,
    /// Whose protocol the pairing accuracy follows. Default: the corrected one.
    #[serde(default)]
    pub compat: Option<Compat>,
    /// Scales at which instance retrieval and copy detection see images. Default: 1 alone.
    #[serde(default = "whole")]
    pub scales: Vec<f64>,
}

/// A protocol that is followed with its flaws.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compat {
    /// That of the code of Text-based SoftCLIP's authors.
    Source,
}

fn whole() -> Vec<f64> {
    vec![1.0]
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// R@1, R@5 and R@10, both ways.
    Retrieval,
    /// Accuracy among 128 pairs.
    Pairing,
    /// Top-1 and top-5 of classes named by prompts.
    Zeroshot,
    /// mAP and mP@k on the revisited Oxford and Paris sets.
    Instance,
    /// mAP of finding the originals of altered copies.
    Copy,
}

/// Steps between repetitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Every {
    /// A number of epochs, fractions too.
    Epochs(f64),
    /// A number of steps.
    Steps(u64),
    /// Once, when training is done.
    #[default]
    End,
}

impl TryFrom<String> for Every {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no interval: write `1 epoch`, `500 steps` or `end`");
        let mut words = text.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("end"), None, None) => Ok(Every::End),
            (Some(n), Some("epoch" | "epochs"), None) => match n.parse() {
                Ok(n) if n > 0.0 && f64::is_finite(n) => Ok(Every::Epochs(n)),
                _ => Err(wrong()),
            },
            (Some(n), Some("step" | "steps"), None) => match n.parse() {
                Ok(n) if n > 0 => Ok(Every::Steps(n)),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }
}

impl From<Every> for String {
    fn from(every: Every) -> String {
        match every {
            Every::Epochs(n) => format!("{n} epochs"),
            Every::Steps(n) => format!("{n} steps"),
            Every::End => "end".to_owned(),
        }
    }
}
