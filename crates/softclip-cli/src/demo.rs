//! `softclip demo`: from nothing to a page that compares CLIP and SoftCLIP.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use softclip_data::synth::{self, SynthOptions};
use softclip_eval::{EvalResult, Prompts, Task};
use softclip_tensor::file::write_atomic;
use softclip_train::{Resume, RunOptions, config, interruptible, stop_on_signals, train};

use crate::args::{Decoding, Demo};
use crate::report::{self, Request};

/// Name, run's folder, configuration.
const MODELS: [(&str, &str, &str); 2] = [
    ("CLIP", "demo-clip", include_str!("../../../configs/demo-clip.yaml")),
    ("SoftCLIP", "demo-softclip", include_str!("../../../configs/demo-softclip.yaml")),
];

const LEAD: &str = "Two models with the same towers, data, seed and number of steps. Scenes hold several objects, so that captions partly \
                    fit other scenes too: that is what soft targets are for.";

const IMAGE_R: [&str; 3] = ["image_retrieval_recall@1", "image_retrieval_recall@5", "image_retrieval_recall@10"];
const TEXT_R: [&str; 3] = ["text_retrieval_recall@1", "text_retrieval_recall@5", "text_retrieval_recall@10"];

struct Scores {
    name: &'static str,
    retrieval: EvalResult,
    zeroshot: EvalResult,
    run: PathBuf,
}

/// Whether it was interrupted.
pub fn demo(args: &Demo) -> Result<bool> {
    let start = Instant::now();
    let device = crate::device(&args.device)?;
    let stop = stop_on_signals()?;
    let data = args.out.join("data");
    interruptible(|| draw(&data, args.images))?;
    let mut scores = Vec::new();
    for (name, folder, _) in MODELS {
        tracing::info!("\n{name}");
        let mut config = config::load(&write_configs(&args.out)?.join(format!("{folder}.yaml")), &[])?;
        config.data.train = Some(format!("{}/shards/train-*.tar", data.display()));
        config.data.val = Some(format!("{}/shards/val-*.tar", data.display()));
        config.train.steps = args.steps.or(config.train.steps);
        let dir = args.out.join(folder);
        let options = RunOptions { dir: dir.clone(), resume: Resume::Auto, device, quiet: false, stop: Arc::clone(&stop) };
        if train(&config, &options)?.interrupted {
            return Ok(true);
        }
        let run = dir.to_str().context("--out: not a path of UTF-8")?;
        let eval = |task, data: String| {
            let evaluated = crate::eval::of_model(run, &task, &data, device, 128, None, Decoding { max_pixels: None })?;
            evaluated.save();
            anyhow::Ok(evaluated.result)
        };
        scores.push(Scores {
            name,
            retrieval: eval(Task::Retrieval, format!("{}/shards/val-*.tar", data.display()))?,
            zeroshot: eval(Task::Zeroshot(Prompts::named("simple")?), format!("folder:{}/zeroshot", data.display()))?,
            run: dir.clone(),
        });
    }
    let path = args.out.join("report.html");
    let request = Request {
        runs: scores.iter().map(|s| s.run.clone()).collect(),
        names: scores.iter().map(|s| s.name.to_owned()).collect(),
        title: Some("CLIP and SoftCLIP on drawn scenes".to_owned()),
        lead: Some(LEAD.to_owned()),
        data: Some(format!("{}/shards/val-*.tar", data.display())),
        queries: 6,
        pairs: 20,
        words: Vec::new(),
        device,
    };
    let Some(page) = report::page(&request, &stop)? else { return Ok(true) };
    report::write(&path, &page)?;
    print_table(&scores);
    outln!("\n{:.0} s in all. The page with curves and retrieved images: {}", start.elapsed().as_secs_f64(), path.display());
    Ok(false)
}

fn draw(data: &Path, images: usize) -> Result<()> {
    let options = SynthOptions { images, ..SynthOptions::default() };
    let bar = crate::bar("drawing scenes");
    let report = synth::write(data, &options, &|done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    tracing::info!(
        "{} scenes to train on, {} to evaluate, five captions each: {}",
        report.images,
        report.val_images,
        data.display()
    );
    Ok(())
}

/// The demo's configurations as files that can be changed and run again.
fn write_configs(out: &Path) -> Result<PathBuf> {
    let folder = out.join("configs");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (_, name, text) in MODELS {
        write_atomic(folder.join(format!("{name}.yaml")), text.as_bytes())?;
    }
    Ok(folder)
}

/// Percentages of a model, or of guessing.
fn percents(retrieval: impl Fn(&str) -> Option<f64>, zeroshot: impl Fn(&str) -> Option<f64>) -> Vec<f64> {
    let value = |value: Option<f64>| 100.0 * value.unwrap_or(f64::NAN);
    let recalls = IMAGE_R.iter().chain(&TEXT_R).map(|name| value(retrieval(name)));
    recalls.chain([value(zeroshot("acc1")), value(zeroshot("acc5"))]).collect()
}

fn table_rows(scores: &[Scores]) -> Vec<(String, Vec<f64>)> {
    let of = |s: &Scores| (s.name.to_owned(), percents(|name| s.retrieval.metric(name), |name| s.zeroshot.metric(name)));
    let mut rows: Vec<(String, Vec<f64>)> = scores.iter().map(of).collect();
    if let Some(first) = scores.first() {
        let chance = |result: &EvalResult, name: &str| result.chance.get(name).copied();
        rows.push(("chance".to_owned(), percents(|name| chance(&first.retrieval, name), |name| chance(&first.zeroshot, name))));
    }
    rows
}

fn print_table(scores: &[Scores]) {
    outln!("\n{:<10} {:>21}   {:>21}   {:>14}", "", "text → image", "image → text", "zero-shot");
    outln!(
        "{:<10} {:>6} {:>6} {:>7}   {:>6} {:>6} {:>7}   {:>6} {:>7}",
        "",
        "R@1",
        "R@5",
        "R@10",
        "R@1",
        "R@5",
        "R@10",
        "top-1",
        "top-5"
    );
    for (name, v) in table_rows(scores) {
        outln!(
            "{name:<10} {:>6.1} {:>6.1} {:>7.1}   {:>6.1} {:>6.1} {:>7.1}   {:>6.1} {:>7.1}",
            v[0],
            v[1],
            v[2],
            v[3],
            v[4],
            v[5],
            v[6],
            v[7]
        );
    }
}
