//! `softclip score`.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use softclip_data::fetch::FetchOptions;
use softclip_score::pairs::{Columns, Job, Table};
use softclip_score::report::{Meter, Stage};
use softclip_score::score::{Fetch, Format, Naming, Output, Places, ScoreOptions, Scorer, Summary, refuse_same_file};
use softclip_train::stop_on_signals;
use tch::Device;

use crate::args::{self, Score};

/// Scores a table of pairs.
pub fn score(args: &Score) -> Result<ExitCode> {
    let stop = stop_on_signals()?;
    let job = if Job::is(&args.table) { Some(Job::open(&args.table)?) } else { None };
    job.iter().flat_map(Job::warnings).for_each(|warning| tracing::warn!("{}: {warning}", args.table.display()));
    let device = device(args, job.as_ref())?;
    let mut meter = Meter::start(device);
    let path = job.as_ref().map_or(args.table.as_path(), |job| &job.csv_path);
    let (image, caption) = (args.image_column.clone(), args.caption_column.clone());
    let columns = Columns { image, caption, plain_quotes: args.no_quotes };
    let table = Table::open(path, &columns)?;
    let mut output = output(args, &table)?;
    let model = args.model.as_ref().or(job.as_ref().and_then(|job| job.pretrained_model.as_ref()));
    let model = model.context("no model: name one with --model")?;
    let precision = serde_yaml::from_str(&args.precision).context("--precision: fp32, bf16 or fp16")?;
    let fetch = Arc::new(Fetch::new(fetch_options(args))?);
    let places = places(args, job.as_ref(), path, Arc::clone(&fetch));
    let model = meter.time(Stage::Load, || crate::model::open(model, device))??;
    let scorer = Scorer { precision, logit_bias: model.logit_bias(), ..Scorer::new(model.clip(), model.tokenizer(), device) };
    let bar = crate::bar("scoring");
    bar.set_length(table.rows().unwrap_or(0));
    let batch_size = args.batch_size.or(job.as_ref().and_then(|job| job.batch_size)).filter(|&n| n > 0);
    let options = ScoreOptions {
        batch_size: batch_size.map_or(if device == Device::Cpu { 32 } else { 256 }, usize::from),
        threads: args.threads.map_or(0, usize::from),
        decode: args.decoding.limit(model.decode()),
        stop: Arc::clone(&stop),
        progress: &|rows| bar.set_position(rows),
    };
    let scored = scorer.score(table, places, &options, &mut output, &mut meter);
    bar.finish_and_clear();
    let summary = match scored {
        // As with `| head`: who reads the scores has all that it wants.
        Err(softclip_score::Error::ReaderClosed) => return Ok(ExitCode::SUCCESS),
        scored => scored?,
    };
    if summary.stopped {
        let kept = if args.out.is_some() { ", and nothing is written" } else { "" };
        tracing::info!("stopped: {} rows were done{kept}", summary.rows);
        return Ok(ExitCode::from(crate::INTERRUPTED));
    }
    output.finish()?;
    let report = meter.report(&summary);
    tracing::info!("{}", report.to_string().trim_end());
    if let Some(path) = &args.report {
        softclip_tensor::file::write_atomic(path, &serde_json::to_vec_pretty(&report)?)?;
    }
    Ok(verdict(&summary, &fetch, args.strict))
}

fn device(args: &Score, job: Option<&Job>) -> Result<Device> {
    let of_job = match job.and_then(|job| job.use_cuda) {
        Some(false) => "cpu",
        // The script computes on the CPU where there is no GPU.
        Some(true) | None => "auto",
    };
    let device = args.device.clone().unwrap_or_else(|| of_job.to_owned());
    crate::device(&args::Device { device, threads: args.threads })
}

/// Where scores go: made before the model is opened, so that what is wrong shows at once.
fn output(args: &Score, table: &Table) -> Result<Output> {
    let given = args.format.map(|format| match format {
        args::Format::Csv => Format::Csv,
        args::Format::Tsv => Format::Tsv,
        args::Format::Jsonl => Format::Jsonl,
    });
    for path in args.out.iter().chain(&args.report) {
        refuse_same_file(table.path(), path)?;
        refuse_same_file(&args.table, path)?;
    }
    let Some(path) = &args.out else { return Ok(Output::stdout(given.unwrap_or(Format::Csv), table.header())?) };
    if path.is_dir() {
        bail!("{}: it is a folder: name a file", path.display());
    }
    let format = given.or_else(|| Format::of(path));
    let format = format.with_context(|| format!("{}: neither .csv, .tsv nor .jsonl: name the --format", path.display()))?;
    Ok(Output::file(path, format, table.header())?)
}

fn fetch_options(args: &Score) -> FetchOptions {
    let (args, defaults) = (&args.fetch, FetchOptions::default());
    FetchOptions {
        threads: usize::from(args.fetch_threads),
        total_timeout: Duration::from_secs(args.fetch_timeout.into()),
        retries: args.fetch_retries.into(),
        allow_private: args.allow_private,
        user_agent: args.user_agent.clone().unwrap_or(defaults.user_agent.clone()),
        disallowed_directives: args.disallowed_header_directives.iter().filter(|d| !d.trim().is_empty()).cloned().collect(),
        max_host_timeouts: args.max_host_timeouts.into(),
        ..defaults
    }
}

fn places(args: &Score, job: Option<&Job>, table: &Path, fetch: Arc<Fetch>) -> Places {
    let beside = Places::beside(table);
    let (naming, root) = match job.and_then(|job| job.image_path.as_ref()) {
        Some(_) if job.is_some_and(Job::images_are_urls) => (Naming::Url, None),
        Some(folder) => (Naming::Local, Some(folder.into())),
        None => (Naming::Auto, None),
    };
    let naming = match args.images {
        Some(args::Images::Auto) => Naming::Auto,
        Some(args::Images::Local) => Naming::Local,
        Some(args::Images::Url) => Naming::Url,
        None => naming,
    };
    Places { naming, root: args.image_root.clone().or(root).unwrap_or(beside.root), remote: Some(fetch) }
}

/// Tells of rows without a score, and whether they are a failure.
fn verdict(summary: &Summary, fetch: &Fetch, strict: bool) -> ExitCode {
    if summary.rows == 0 {
        tracing::warn!("the table has no rows");
    }
    if summary.failed > 0 {
        tracing::warn!("{} of {} rows have no score (column `error`):", summary.failed, summary.rows);
        summary.failures.iter().for_each(|(line, why)| tracing::info!("  line {line}: {why}"));
        let more = summary.failed - summary.failures.len() as u64;
        if more > 0 {
            tracing::info!("  and {more} more");
        }
    }
    let causes = fetch.failures();
    if !causes.is_empty() {
        let each: Vec<String> = causes.iter().map(|(cause, n)| format!("{cause} {n}")).collect();
        tracing::warn!("addresses that gave no image file: {}", each.join(", "));
    }
    if causes.contains_key("private address") {
        tracing::info!("  --allow-private also fetches from addresses that are not public");
    }
    let failed = if strict { summary.failed > 0 } else { summary.failed > 0 && summary.scored == 0 };
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
