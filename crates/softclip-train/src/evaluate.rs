//! Evaluations as a configuration names them.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use softclip_data::source::{self, Source};
use softclip_data::tokenizer::Tokenizer;
use softclip_encoders::Clip;
use softclip_eval::{
    EvalError, EvalOptions, EvalResult, InstanceSet, PairingProtocol, Prompts, Task as Protocol, evaluate_instances, suits,
};
use tch::Device;

use crate::config::{Compat, ConfigError, EvalEntry, Every, RunConfig, Task};
use crate::{Error, Result};

/// An evaluation that is repeated while training, its data and prompts opened.
pub struct Planned {
    /// What its metrics are logged under: the task, and the data set where several entries have the task.
    pub name: String,
    every: Every,
    task: Protocol,
    spec: String,
    data: Data,
}

/// What is evaluated on.
enum Data {
    Source(Arc<dyn Source>),
    Pictures(InstanceSet),
}

/// All evaluations of a configuration. Their data and prompts are opened now: a wrong path is better known before training than after.
///
/// # Errors
/// A source or file of prompts cannot be read, or does not suit the task.
pub fn plan(config: &RunConfig) -> Result<Vec<Planned>> {
    let mut planned: Vec<Planned> = (0..).zip(&config.eval).map(|(i, entry)| one(i, entry, config)).collect::<Result<_>>()?;
    let tasks: Vec<String> = planned.iter().map(|p| p.name.clone()).collect();
    for p in &mut planned {
        if tasks.iter().filter(|task| **task == p.name).count() > 1 {
            p.name = slug(&p.task, &p.spec).replace('-', "_");
        }
    }
    Ok(planned)
}

fn one(i: usize, entry: &EvalEntry, config: &RunConfig) -> Result<Planned> {
    let spec = entry.data.clone().or(config.data.val.clone()).ok_or_else(|| {
        let why = "no data to evaluate on: --set data.val=SOURCE, or name some here".to_owned();
        ConfigError::Value { key: format!("eval.{i}.data"), why }
    })?;
    let eval = |source| Error::eval(&spec, source);
    let task = match entry.task {
        Task::Retrieval => Protocol::Retrieval,
        Task::Pairing => Protocol::Pairing(match entry.compat {
            Some(Compat::Source) => PairingProtocol::Source,
            None => PairingProtocol::Corrected,
        }),
        Task::Zeroshot => {
            let source = source::open(&spec)?;
            let prompts = Prompts::suited(source.as_ref(), entry.prompts.as_deref(), entry.classnames.as_deref());
            let task = Protocol::Zeroshot(prompts.map_err(eval)?);
            suits(source.as_ref(), &spec, &task).map_err(eval)?;
            return Ok(Planned { name: named(&task).to_owned(), every: entry.every, task, spec, data: Data::Source(source) });
        }
        Task::Instance => Protocol::Instance(entry.scales.clone()),
        Task::Copy => Protocol::Copy(entry.scales.clone()),
    };
    let data = match InstanceSet::of(&task, &spec).map_err(eval)? {
        Some(set) => Data::Pictures(set),
        None => {
            let source = source::open(&spec)?;
            suits(source.as_ref(), &spec, &task).map_err(eval)?;
            Data::Source(source)
        }
    };
    Ok(Planned { name: named(&task).to_owned(), every: entry.every, task, spec, data })
}

impl Planned {
    /// Whether it is to be made after `step` of `total` steps.
    pub fn is_due(&self, step: u64, total: u64, batches_per_epoch: u64) -> bool {
        is_due(self.every, step, total, batches_per_epoch)
    }

    /// Where `run` keeps its result of `step`.
    pub fn path(&self, run: &Path, step: u64) -> PathBuf {
        path(run, &self.task, &self.spec, step)
    }

    /// Measures; `None` if `go_on`, asked now and then, said no.
    ///
    /// # Errors
    /// Reading or encoding the data.
    pub fn measure(
        &self,
        clip: &Clip,
        tokenizer: Option<&Tokenizer>,
        config: &RunConfig,
        device: Device,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<EvalResult>> {
        let options = EvalOptions {
            precision: config.train.precision,
            batch_size: config.train.batch_size.min(256),
            decode: config.data.decode,
            workers: config.data.workers,
            max_bad_share: config.data.max_bad_share,
            tokenizer: tokenizer.cloned(),
            ..EvalOptions::new(device)
        };
        let go_on = |_, _| if go_on() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        let found = match &self.data {
            Data::Source(source) => softclip_eval::evaluate(clip, Arc::clone(source), &self.spec, &self.task, &options, &go_on),
            Data::Pictures(set) => evaluate_instances(clip, set, &self.task, &options, &go_on),
        };
        match found {
            Ok(result) => Ok(Some(EvalResult { config: serde_json::to_value(config).unwrap_or_default(), ..result })),
            Err(EvalError::Stopped) => Ok(None),
            Err(e) => Err(Error::eval(&self.spec, e)),
        }
    }
}

/// Whether an evaluation is to be made after `step` of `total` steps.
pub fn is_due(every: Every, step: u64, total: u64, batches_per_epoch: u64) -> bool {
    let interval = match every {
        Every::End => return step == total,
        Every::Steps(n) => n,
        Every::Epochs(n) => ((n * batches_per_epoch as f64).round() as u64).max(1),
    };
    step == total || (step > 0 && step.is_multiple_of(interval))
}

/// Where a run keeps a result: task, data, prompts and step in its name.
pub fn path(run: &Path, task: &Protocol, spec: &str, step: u64) -> PathBuf {
    run.join("results").join(format!("{}-step-{step:08}.json", slug(task, spec)))
}

/// What results call a run's weights after `step`: the model's name, and the run with the step.
pub fn weights(run: &Path, step: u64) -> (String, String) {
    let absolute = std::path::absolute(run).unwrap_or_else(|_| run.to_owned());
    let name = absolute.file_name().map_or_else(|| run.display().to_string(), |name| name.to_string_lossy().into_owned());
    (name, format!("{} step {step}", run.display()))
}

/// The task, and whose where there are two of the name.
fn named(task: &Protocol) -> &'static str {
    match task {
        Protocol::Pairing(PairingProtocol::Source) => "pairing_source",
        _ => task.name(),
    }
}

/// Task, data and prompts as a part of a file's name; different ones have different names.
fn slug(task: &Protocol, spec: &str) -> String {
    let mut parts = vec![named(task).to_owned(), words(spec)];
    if let Protocol::Zeroshot(prompts) = task {
        let classes = prompts.classes.as_ref().filter(|classes| !classes.own);
        parts.extend(Some(prompts.name.as_str()).filter(|name| *name != "simple").map(words));
        parts.extend(classes.map(|classes| format!("classes-{}", words(&classes.name))));
    }
    if let Protocol::Instance(scales) | Protocol::Copy(scales) = task
        && scales != &[1.0]
    {
        parts.push(words(&format!("{scales:?}")));
    }
    parts.join("-")
}

/// The last five words of a path, which tell more than the first. A checksum stands for what is left out or looks the same afterwards:
/// only a scheme's colon and slashes between words are replaced without one.
fn words(path: &str) -> String {
    let parts: Vec<&str> = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()).collect();
    let kept = parts[parts.len().saturating_sub(5)..].join("-");
    let plain = parts.concat();
    let schemed = parts.split_first().map(|(scheme, rest)| format!("{scheme}:{}", rest.join("/")));
    if parts.len() <= 5 && (path == plain || schemed.as_deref() == Some(path)) {
        return kept;
    }
    let sum = Sha256::digest(path.as_bytes());
    format!("{kept}-{:02x}{:02x}{:02x}", sum[0], sum[1], sum[2])
}

/// Writes a result as JSON.
///
/// # Errors
/// The folder is not writable.
pub fn write(path: &Path, result: &EvalResult) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    result.write(path).map_err(|source| Error::eval(&result.data.source, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use softclip_eval::ClassNames;

    #[test]
    fn results_of_different_evaluations_have_different_names() {
        let name = |task: &Protocol, spec: &str| path(Path::new("run"), task, spec, 7).display().to_string();
        assert_eq!(name(&Protocol::Retrieval, "csv:a/b"), "run/results/retrieval-csv-a-b-step-00000007.json");
        let alike = ["folder:a/b", "folder:a-b", "folder:a/b/", "folder:/a/b", "folder:a//b", "folder:a b", "folder/a/b"];
        let names: std::collections::BTreeSet<String> = alike.iter().map(|spec| name(&Protocol::Retrieval, spec)).collect();
        assert_eq!(names.len(), alike.len());
        let long = |a: &str| name(&Protocol::Retrieval, &format!("karpathy:{a}/dataset.json,images/folder,split=test"));
        assert_ne!(long("coco"), long("flickr"));
        let pairing = |protocol, spec| name(&Protocol::Pairing(protocol), spec);
        let source = pairing(PairingProtocol::Source, "x");
        assert_eq!(source, "run/results/pairing_source-x-step-00000007.json");
        ["x", "x/source", "source/x"].iter().for_each(|spec| assert_ne!(pairing(PairingProtocol::Corrected, spec), source));
        let instance = |scales: &[f64]| name(&Protocol::Instance(scales.to_vec()), "x");
        assert_eq!(instance(&[1.0]), "run/results/instance-x-step-00000007.json");
        assert_ne!(instance(&[1.0, 0.5]), instance(&[1.0, 0.7]));
        let zeroshot = |prompts| name(&Protocol::Zeroshot(Prompts::named(prompts).unwrap()), "folder:x");
        assert_ne!(zeroshot("simple"), zeroshot("imagenet80"));
        // Names of a published set are told where they are not the data's own.
        let classes = |set: &str, own| {
            let classes = Some(ClassNames { own, ..ClassNames::named(set).unwrap() });
            name(&Protocol::Zeroshot(Prompts { classes, ..Prompts::named("simple").unwrap() }), "folder:x")
        };
        assert_eq!(classes("dtd", true), zeroshot("simple"));
        assert!(classes("dtd", false) != zeroshot("simple") && classes("dtd", false) != classes("pets", false));
    }
}
