//! What an evaluation found, with all that is needed to understand it later.

mod collect;
mod per_class;
mod read;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use softclip_tensor::file::write_atomic;

use crate::EvalError;

pub use collect::{Collected, collect};

/// One evaluation. As JSON the first fields are those of CLIP_benchmark, so that its users can read it; the others are ours and
/// empty where CLIP_benchmark wrote the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvalResult {
    /// The data set's short name: CLIP_benchmark's where it has one (`imagenet1k`, `mscoco_captions`), else made of its path.
    pub dataset: String,
    /// What was evaluated: a run's name, or a pretrained model's.
    pub model: String,
    /// Which weights: a run and its step, or what opens the same pretrained weights again.
    #[serde(default)]
    pub pretrained: String,
    /// `zeroshot_classification`, `zeroshot_retrieval`, `pairing`, `instance_retrieval` or `copy_detection`.
    pub task: String,
    /// Language of captions and prompts.
    #[serde(default = "english")]
    pub language: String,
    /// By name, in order. Names are CLIP_benchmark's where it has them: `image_retrieval_recall@5` is text → image,
    /// `text_retrieval_recall@5` image → text, `acc1`, `acc5`, `mean_per_class_recall`; instance retrieval has `mAP_easy`,
    /// `mP@5_hard` and so on. All are shares in [0, 1], ranks count from 1.
    #[serde(with = "read::metrics")]
    pub metrics: Vec<(String, f64)>,
    /// The names that classes were looked for by, in the order of class ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classnames: Vec<String>,
    /// The templates that they were put into.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<String>,
    /// What was evaluated on.
    #[serde(default)]
    pub data: Data,
    /// The metric that publications give for the data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main_metric: Option<String>,
    /// What guessing would give, by name.
    #[serde(default)]
    pub chance: BTreeMap<String, f64>,
    /// How it was measured, where there is more than one way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The set or file of prompts, for zero-shot classification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<String>,
    /// Each class, in the order of class ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassScore>,
    /// The most frequent confusions, the most frequent first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confusions: Vec<Confusion>,
    /// The model's configuration.
    #[serde(default)]
    pub config: serde_json::Value,
    /// Seconds, reading and encoding among them.
    #[serde(default)]
    pub seconds: f64,
    /// Device and number type.
    #[serde(default)]
    pub device: String,
    /// Of this program.
    #[serde(default)]
    pub version: String,
}

fn english() -> String {
    "en".to_owned()
}

/// What was evaluated on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Data {
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

/// How one class was recognised.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// Its name, as prompts have it; where several classes have one name, with the data set's key behind it.
    pub class: String,
    /// Images of it.
    pub images: usize,
    /// Those that it was the first choice for.
    pub right: usize,
    /// Their share; none without images.
    pub recall: Option<f64>,
    /// The class that its images were taken for most often, if any was taken for another.
    pub most_wrong: Option<String>,
}

/// One class taken for another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Confusion {
    /// What the images show.
    pub truth: String,
    /// What they were taken for.
    pub predicted: String,
    /// How many.
    pub count: usize,
}

impl EvalResult {
    /// A metric by its name.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.iter().find(|(other, _)| other == name).map(|(_, value)| *value)
    }

    /// Writes JSON.
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
        serde_json::to_string_pretty(self).map_err(|e| EvalError::Input(format!("the result has no form in JSON: {e}")))
    }

    /// Reads a result, also one that CLIP_benchmark wrote. Metrics that are no number, such as its NaN for a top-5 accuracy of four
    /// classes, are left out.
    ///
    /// # Errors
    /// The file cannot be read, or is not such a result.
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        let wrong = |why: String| EvalError::Read { path: path.to_owned(), why };
        let text = softclip_io::read_text(path).map_err(|e| wrong(e.to_string()))?;
        serde_json::from_str(&read::without_nan(&text)).map_err(|e| wrong(format!("no result of an evaluation: {e}")))
    }
}

impl fmt::Display for EvalResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Data { source, images, texts, classes, skipped } = &self.data;
        write!(f, "{} on {}", self.task, self.dataset)?;
        if *source != self.dataset {
            write!(f, " ({source})")?;
        }
        write!(f, ": {images} images")?;
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
            if let Some(chance) = self.chance.get(name) {
                write!(f, "   chance {:.2} %", chance * 100.0)?;
            }
            writeln!(f, "{}", if self.main_metric.as_ref() == Some(name) { "   (main)" } else { "" })?;
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
