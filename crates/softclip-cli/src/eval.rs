//! `softclip eval`.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, Result, bail};
use softclip_data::source;
use softclip_eval::{EvalOptions, EvalResult, InstanceSet, PairingProtocol, Prompts, Task as Protocol, evaluate_instances};
use softclip_tensor::Precision;
use softclip_train::evaluate;
use tch::Device;

use crate::args::{Compat, Decoding, Eval, Task};
use crate::model::{self, Opened};

/// Evaluates a model; in a run the result is kept.
pub fn eval(args: &Eval) -> Result<()> {
    let device = crate::device(&args.device)?;
    if args.compat.is_some() && args.task != Task::Pairing {
        bail!("--compat: only --task pairing has another protocol than ours");
    }
    if args.scales != [1.0] && !matches!(args.task, Task::Instance | Task::Copy) {
        bail!("--scales: only --task instance and --task copy see images at several scales");
    }
    if args.task != Task::Zeroshot && (args.prompts.is_some() || args.classnames.is_some() || args.per_class) {
        bail!("--prompts, --classnames and --per-class go with --task zeroshot");
    }
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
    let result = of_model(&args.model, &task, &args.data, device, usize::from(args.batch_size), precision, args.decoding)?;
    match &args.json {
        Some(path) if path.as_os_str() == "-" => outln!("{}", result.to_json()?),
        Some(path) => {
            evaluate::write(path, &result)?;
            out!("{result}");
        }
        None => out!("{result}"),
    }
    if args.per_class && args.json.as_deref() != Some(Path::new("-")) {
        out!("\n{}", result.per_class());
    }
    Ok(())
}

/// Evaluates the newest checkpoint of a run, or the one named, or a pretrained model.
pub fn of_model(
    name: &str,
    task: &Protocol,
    data: &str,
    device: Device,
    batch_size: usize,
    precision: Option<Precision>,
    decoding: Decoding,
) -> Result<EvalResult> {
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
                evaluate::write(&evaluate::path(folder, task, data, step), &result)?;
            }
        }
    }
    Ok(result)
}
