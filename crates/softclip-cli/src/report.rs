//! `softclip report`: a page about runs.

mod curves;
mod distribution;
mod gallery;
mod metric;
mod run;
mod tables;
mod targets;
mod view;
mod words;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use softclip_data::source::{self, Source};
use softclip_report::{Page, Section};
use softclip_tensor::file::write_atomic;
use softclip_train::stop_on_signals;
use tch::Device;

use self::gallery::Galleries;
use self::run::{Run, names};
use self::view::{Look, View, Views, look};
use crate::args::Report;
use crate::explain;

/// What a page is to be about.
pub struct Request {
    /// Runs' folders.
    pub runs: Vec<PathBuf>,
    /// What they are called; the folders' names where there is none.
    pub names: Vec<String>,
    /// The title, instead of the runs' names.
    pub title: Option<String>,
    /// Under the title.
    pub lead: Option<String>,
    /// The data, instead of the runs' own.
    pub data: Option<String>,
    /// Queries of each direction of retrieval.
    pub queries: usize,
    /// Pairs of the batch of soft targets.
    pub pairs: usize,
    /// Words to look for in images; those of their captions where there is none.
    pub words: Vec<String>,
    pub device: Device,
}

/// Whether it was interrupted.
pub fn report(args: &Report) -> Result<bool> {
    let words = explain::asked(&args.words);
    if words.is_empty() && !args.words.is_empty() {
        usage!("--words: no word in it");
    }
    let request = Request {
        names: names(&args.runs),
        runs: args.runs.clone(),
        title: None,
        lead: None,
        data: args.data.clone(),
        queries: usize::from(args.queries),
        pairs: usize::from(args.pairs),
        words,
        device: crate::device(&args.device)?,
    };
    let stop = stop_on_signals()?;
    let path = args.out.clone().unwrap_or_else(|| match &args.runs[..] {
        [run] => run.join("report").join("index.html"),
        _ => PathBuf::from("report.html"),
    });
    let Some(page) = page(&request, &stop)? else { return Ok(true) };
    write(&path, &page)?;
    outln!("{}", path.display());
    Ok(false)
}

/// Writes the page; the file is whole or as it was.
pub fn write(path: &Path, page: &Page) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    Ok(write_atomic(path, page.render().as_bytes())?)
}

/// The page; `None` if it was told to stop.
pub fn page(request: &Request, stop: &AtomicBool) -> Result<Option<Page>> {
    let runs: Vec<Run> = request
        .runs
        .iter()
        .zip(&request.names)
        .enumerate()
        .map(|(colour, (dir, name))| Run::read(dir, name.clone(), colour))
        .collect::<Result<_>>()?;
    let title = request.title.clone().unwrap_or_else(|| request.names.join(", "));
    let mut page = Page::new(title).section(tables::summary(&runs)).section(tables::results(&runs));
    if let Some(lead) = &request.lead {
        page = page.lead(lead);
    }
    if let Some(mut training) = curves::section(&runs) {
        if let Some(table) = tables::best_and_last(&runs) {
            training = training.table(table);
        }
        page = page.section(training);
    }
    let page = match data(request, &runs)? {
        Ok((spec, source)) => match seen(page, request, &runs, &spec, &source, stop)? {
            Some(page) => page,
            None => return Ok(None),
        },
        Err(why) => page.section(Section::new("Models").text(format!(
            "What the models find, how their probabilities and cosines are distributed, and their soft targets are not on this page: \
             {why}"
        ))),
    };
    // The last look before writing.
    Ok((!stop.load(Ordering::Relaxed)).then(|| page.footer(format!("Written by softclip {}.", env!("CARGO_PKG_VERSION")))))
}

type Opened = (String, Arc<dyn Source>);

/// The data to look at, or why there is none. Data that was asked for must be there.
fn data(request: &Request, runs: &[Run]) -> Result<std::result::Result<Opened, String>> {
    if let Some(spec) = &request.data {
        let source = source::open(spec)?;
        return match captioned(spec, source) {
            Ok(opened) => Ok(Ok(opened)),
            Err(_) => bail!("--data {spec}: it has classes and no captions; pages take pairs"),
        };
    }
    let mut named: Vec<&str> = runs.iter().filter_map(|run| run.setting("data.val")).collect();
    named.sort_unstable();
    named.dedup();
    let [spec] = named[..] else {
        let why = if named.is_empty() { "the runs name no validation data" } else { "the runs name different validation data" };
        return Ok(Err(format!("{why}; softclip report --data SOURCE takes some.")));
    };
    Ok(match source::open(spec) {
        Ok(source) => captioned(spec, source),
        Err(e) => Err(format!("the runs' validation data cannot be read ({e}); softclip report --data SOURCE takes other.")),
    })
}

fn captioned(spec: &str, source: Arc<dyn Source>) -> std::result::Result<Opened, String> {
    match source.classes() {
        Some(_) => Err(format!("{spec} has classes and no captions; softclip report --data SOURCE takes pairs.")),
        None => Ok((spec.to_owned(), source)),
    }
}

/// The sections that the models make; `None` if it was told to stop.
fn seen(
    mut page: Page,
    request: &Request,
    runs: &[Run],
    spec: &str,
    source: &Arc<dyn Source>,
    stop: &AtomicBool,
) -> Result<Option<Page>> {
    let (batch_spec, batch) = batch_source(runs, spec, source);
    let photos = words::photos(source.as_ref(), &request.words);
    let (device, pairs) = (request.device, request.pairs);
    let place = Look { source: Arc::clone(source), batch: (Arc::clone(&batch), pairs), photos: &photos, device, stop };
    let Some(Views { views, seen, words, missing }) = look(runs, &place)? else { return Ok(None) };
    let stopped = || stop.load(Ordering::Relaxed);
    if let Some(first) = views.first() {
        page = page.section(retrieved(spec, source, &views, first, request.queries)?);
        for section in [distribution::probabilities, distribution::similarities] {
            if stopped() {
                return Ok(None);
            }
            page = page.section(section(&views)?);
        }
    }
    if stopped() {
        return Ok(None);
    }
    if !seen.is_empty() {
        page = page.section(targets::section(batch.as_ref(), &batch_spec, &seen)?);
    }
    if !words.is_empty() && !photos.is_empty() {
        page = page.section(words::section(&photos, &words)?);
    }
    if !missing.is_empty() {
        page = page.section(missing.into_iter().fold(Section::new("Not shown"), Section::text));
    }
    Ok(Some(page))
}

fn retrieved(spec: &str, source: &Arc<dyn Source>, views: &[View], first: &View, queries: usize) -> Result<Section> {
    let (images, captions) = (first.encoded.indices.len(), first.encoded.owner.len());
    let mut section = Section::new("Retrieval").text(format!(
        "Queries spread over {spec}, {images} images with {captions} captions: the first ten that each model finds among all, with their \
         ranks and cosines. What belongs to the query is framed; where it is not among the ten, it follows behind the dots with its rank."
    ));
    if let Some(mut galleries) = Galleries::new(source.as_ref(), views) {
        section = section.gallery(galleries.captions_to_images(queries)?).gallery(galleries.images_to_captions(queries)?);
    }
    Ok(section)
}

/// Where the batch of soft targets comes from: the data, or the data that a run was trained on where only that has what the runs' losses
/// need, which tags and regions are.
fn batch_source(runs: &[Run], spec: &str, source: &Arc<dyn Source>) -> Opened {
    let guided = runs.iter().any(|run| matches!(run.setting("loss.name"), Some("softclip" | "text_based")));
    let has = |source: &Arc<dyn Source>| source.read(0).is_ok_and(|sample| sample.tags.is_some());
    if guided && !has(source) {
        let trained_on = runs.iter().filter_map(|run| run.setting("data.train"));
        let opened = trained_on.filter_map(|spec| Some((spec.to_owned(), source::open(spec).ok()?)));
        if let Some(found) = opened.into_iter().find(|(_, source)| has(source)) {
            return found;
        }
    }
    (spec.to_owned(), Arc::clone(source))
}
