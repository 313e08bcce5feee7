//! What an evaluation found, with all that is needed to understand it later.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use softclip_tensor::file::write_atomic;

use crate::EvalError;

/// One evaluation. Metrics have CLIP_benchmark's names: `image_retrieval_recall@5` is text → image, `text_retrieval_recall@5`
/// image → text, `acc1`, `acc5`, `mean_per_class_recall`; instance retrieval has `mAP_easy`, `mP@5_hard` and so on. All are shares in [0, 1], ranks count from 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalResult {
    /// `retrieval`, `pairing`, `zeroshot`, `instance` or `copy`.
    pub task: String,
    /// What was evaluated.
    pub model: String,
    /// On what.
    pub dataset: Dataset,
    /// By name, in order.
    pub metrics: Vec<(String, f64)>,
    /// What guessing would give, by name.
    pub chance: BTreeMap<String, f64>,
    /// Templates, for zero-shot classification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts: Option<String>,
    /// How it was measured, where there is more than one way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The model's configuration.
    pub config: serde_json::Value,
    /// Seconds, reading and encoding among them.
    pub seconds: f64,
    /// Device and number type.
    pub device: String,
    /// Of this program.
    pub version: String,
}

/// What was evaluated on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dataset {
    /// As named.
    pub source: String,
    /// Images used.
    pub images: usize,
    /// Captions used.
    pub texts: usize,
    /// Classes.
    pub classes: usize,
    /// What could not be used, by cause: samples that do not load, and what indexing left out.
    pub skipped: BTreeMap<String, usize>,
}

impl EvalResult {
    /// A metric by its name.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.iter().find(|(other, _)| other == name).map(|(_, value)| *value)
    }

    /// Writes JSON; metrics as one object.
    ///
    /// # Errors
    /// The folder is not writable.
    pub fn write(&self, path: &Path) -> Result<(), EvalError> {
        Ok(write_atomic(path, format!("{}\n", self.to_json()?).as_bytes())?)
    }

    /// As a JSON text; metrics as one object.
    ///
    /// # Errors
    /// Never in practice: all parts have a form in JSON.
    pub fn to_json(&self) -> Result<String, EvalError> {
        let failed = |e: serde_json::Error| EvalError::Input(format!("the result has no form in JSON: {e}"));
        let mut value = serde_json::to_value(self).map_err(failed)?;
        let metrics = self.metrics.iter().map(|(name, value)| (name.clone(), serde_json::Value::from(*value)));
        value["metrics"] = serde_json::Value::Object(metrics.collect());
        serde_json::to_string_pretty(&value).map_err(failed)
    }
}

impl fmt::Display for EvalResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Dataset { source, images, texts, classes, skipped } = &self.dataset;
        write!(f, "{} on {source}: {images} images", self.task)?;
        if *texts > 0 {
            write!(f, ", {texts} captions")?;
        }
        if *classes > 0 {
            write!(f, ", {classes} classes")?;
        }
        if let Some(prompts) = &self.prompts {
            write!(f, ", prompts {prompts}")?;
        }
        writeln!(f, "; {:.1} s", self.seconds)?;
        for (name, value) in &self.metrics {
            // Ranks are numbers, everything else a share.
            let shown = if name.ends_with("rank") { format!("{value:.1}") } else { format!("{:.2} %", value * 100.0) };
            write!(f, "  {name:<28} {shown:>9}")?;
            match self.chance.get(name) {
                Some(chance) => writeln!(f, "   chance {:.2} %", chance * 100.0)?,
                None => writeln!(f)?,
            }
        }
        if let Some(protocol) = &self.protocol {
            writeln!(f, "  protocol {protocol}")?;
        }
        if !skipped.is_empty() {
            let each: Vec<String> = skipped.iter().map(|(cause, n)| format!("{cause} {n}")).collect();
            writeln!(f, "  left out: {}", each.join(", "))?;
        }
        Ok(())
    }
}
