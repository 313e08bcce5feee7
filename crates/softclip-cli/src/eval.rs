//! `softclip eval`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use softclip_data::source;
use softclip_eval::{
    EvalOptions, EvalResult, InstanceSet, PUBLISHED, PairingProtocol, Prompts, Task as Protocol, evaluate_instances,
};
use softclip_io::closest;
use softclip_tensor::Precision;
use softclip_train::evaluate;
use tch::Device;

use crate::args::{Compat, Decoding, Eval, Task};
use crate::model::{self, Opened};

/// Evaluates a model; in a run the result is kept.
pub fn eval(args: &Eval) -> Result<()> {
    if args.compat.is_some() && args.task != Task::Pairing {
        usage!("--compat: only --task pairing has another protocol than ours");
    }
    if args.scales != [1.0] && !matches!(args.task, Task::Instance | Task::Copy) {
        usage!("--scales: only --task instance and --task copy see images at several scales");
    }
    if args.task != Task::Zeroshot && (args.prompts.is_some() || args.classnames.is_some() || args.per_class) {
        usage!("--prompts, --classnames and --per-class go with --task zeroshot");
    }
    check_name("--prompts", args.prompts.as_deref(), &["clip", "simple", "imagenet80", "imagenet7"])?;
    check_name("--classnames", args.classnames.as_deref(), &PUBLISHED.map(|set| set.name))?;
    let device = crate::device(&args.device)?;
    let task = match args.task {
        Task::Retrieval => Protocol::Retrieval,
        Task::Pairing => Protocol::Pairing(match args.compat {
            Some(Compat::Source) => PairingProtocol::Source,
            None => PairingProtocol::Corrected,
        }),
        Task::Zeroshot => {
            let source = source::open(&args.data)?;
            Protocol::Zeroshot(Prompts::suited(source.as_ref(), args.prompts.as_deref(), args.classnames.as_deref())?)
        }
        Task::Instance => Protocol::Instance(args.scales.clone()),
        Task::Copy => Protocol::Copy(args.scales.clone()),
    };
    let precision = args.precision.as_deref().map(serde_yaml::from_str::<Precision>).transpose().context("--precision")?;
    let evaluated = of_model(&args.model, &task, &args.data, device, usize::from(args.batch_size), precision, args.decoding)?;
    let result = &evaluated.result;
    // Printed first: a folder that cannot be written must not cost the result.
    let json_only = args.json.as_deref() == Some(Path::new("-"));
    match json_only {
        true => outln!("{}", result.to_json()?),
        false => out!("{result}"),
    }
    if args.per_class && !json_only {
        out!("\n{}", result.per_class());
    }
    evaluated.save();
    match &args.json {
        Some(path) if !json_only => Ok(evaluate::write(path, result)?),
        _ => Ok(()),
    }
}

/// Refuses a name that is no file and is nearly one of `known`.
fn check_name(flag: &str, name: Option<&str>, known: &[&str]) -> Result<()> {
    let Some(name) = name.filter(|name| !known.contains(name) && !Path::new(name).exists()) else { return Ok(()) };
    match closest(name, known.iter().copied()) {
        Some(meant) => usage!("{flag} {name}: no such file, and not a name that is known; did you mean `{meant}`?"),
        None => Ok(()),
    }
}

/// A result, and where a run keeps it.
pub struct Evaluated {
    pub result: EvalResult,
    /// None of a pretrained model.
    path: Option<PathBuf>,
}

impl Evaluated {
    /// Keeps the result in its run. Where that is not possible there is a warning, since the result is known.
    pub fn save(&self) {
        let Some(path) = &self.path else { return };
        if let Err(e) = evaluate::write(path, &self.result) {
            tracing::warn!("the result is not kept in its run, {}: {e}; --json FILE writes it elsewhere", path.display());
        }
    }
}

/// Evaluates the newest checkpoint of a run, or the one named, or a pretrained model. Nothing is written yet.
pub fn of_model(
    name: &str,
    task: &Protocol,
    data: &str,
    device: Device,
    batch_size: usize,
    precision: Option<Precision>,
    decoding: Decoding,
) -> Result<Evaluated> {
    // Before the model: a missing file should be told at once.
    let pictures = InstanceSet::of(task, data)?;
    let model = model::open(name, device)?;
    let mut options = EvalOptions {
        batch_size,
        precision: precision.unwrap_or(model.precision()),
        decode: decoding.limit(model.decode()),
        tokenizer: Some(model.tokenizer().clone()),
        ..EvalOptions::new(device)
    };
    if let Opened::Run(trained) = &model {
        options.workers = trained.config.data.workers;
        options.max_bad_share = trained.config.data.max_bad_share;
    }
    let bar = crate::bar("encoding");
    let done = |n: usize, of: usize| {
        bar.set_length(of as u64);
        bar.set_position(n as u64);
        ControlFlow::Continue(())
    };
    let mut result = match &pictures {
        Some(set) => evaluate_instances(model.clip(), set, task, &options, &done)?,
        None => softclip_eval::evaluate(model.clip(), source::open(data)?, data, task, &options, &done)?,
    };
    bar.finish_and_clear();
    let mut path = None;
    match &model {
        Opened::Pretrained(_) => {
            result.model = name.to_owned();
            result.pretrained = model.lasting_name()?;
            result.config = serde_json::to_value(model.clip().config())?;
        }
        Opened::Run(trained) => {
            let (run, step) = (Path::new(name), trained.checkpoint.state.step);
            result.config = serde_json::to_value(&trained.config)?;
            let folder = if run.join("config.yaml").is_file() { Some(run) } else { run.parent().and_then(Path::parent) };
            if let Some(folder) = folder {
                (result.model, result.pretrained) = evaluate::weights(folder, step);
                path = Some(evaluate::path(folder, task, data, step));
            }
        }
    }
    Ok(Evaluated { result, path })
}
