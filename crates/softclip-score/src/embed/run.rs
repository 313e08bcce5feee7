//! The work itself: batches of the input, encoded in order, into parts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, Seek};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use softclip_data::loader::{LoadError, LoaderOptions, eval_batches};
use softclip_data::source::{SampleError, SampleErrorKind, Source};
use tch::{Kind, Tensor};

use super::files::Rest;
use super::input::From;
use super::parts::{Part, Parts};
use super::{EmbedOptions, Encoder, Entry, Input, Progress, What};
use crate::error::{Error, Result};

/// A slow machine keeps what it has this often. Where parts end makes no difference to the rows.
const AT_LEAST_EVERY: Duration = Duration::from_secs(60);
/// Samples that the limit on bad ones is not applied to at first.
const LEAST: usize = 200;

/// What is done with a stretch of samples.
struct Done {
    entries: Vec<Entry>,
    rows: Option<Tensor>,
    bad: Vec<SampleError>,
    /// The sample behind the last.
    to: usize,
}

pub(super) struct Run<'a> {
    encoder: &'a Encoder<'a>,
    options: &'a EmbedOptions,
    progress: &'a mut Progress<'a>,
    parts: Parts,
    part: Part,
    part_began: Instant,
    samples: usize,
    /// Samples that indexing left out.
    lost: usize,
    causes: BTreeMap<String, usize>,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        encoder: &'a Encoder<'a>,
        options: &'a EmbedOptions,
        parts: Parts,
        input: &Input,
        progress: &'a mut Progress<'a>,
    ) -> Result<Self> {
        let losing: Vec<_> = input.faults().iter().filter(|fault| fault.kind.loses_sample()).collect();
        let (lost, samples) = (losing.len(), input.len());
        match losing.first() {
            Some(first) if lost as f64 > options.max_bad_share * (lost + samples) as f64 => {
                return Err(Error::Input(format!(
                    "{}: indexing left out {lost} of {} samples, more than the share of {} that --max-bad-share allows; the \
                     first is {first} (`softclip data inspect` counts all by cause)",
                    input.id.spec,
                    lost + samples,
                    options.max_bad_share
                )));
            }
            _ => {}
        }
        let (part, causes) = (Part::starting(parts.end()), parts.causes());
        Ok(Self { encoder, options, progress, parts, part, part_began: Instant::now(), samples, lost, causes })
    }

    /// Embeds what is in no part yet. What was done when `progress` wants no more is kept.
    pub(super) fn go(mut self, input: &Input) -> Result<(Parts, ControlFlow<()>)> {
        let from = self.parts.end();
        let flow = match &input.from {
            _ if from >= input.len() => ControlFlow::Continue(()),
            From::Source(source) if input.what == What::Images => self.images(source, from)?,
            From::Source(source) => self.captions(source.as_ref(), from)?,
            From::Lines(file) => self.lines(file, Path::new(&input.id.spec), from)?,
        };
        self.keep()?;
        Ok((self.parts, flow))
    }

    fn images(&mut self, source: &Arc<dyn Source>, from: usize) -> Result<ControlFlow<()>> {
        let loader = LoaderOptions {
            decode: self.encoder.decode,
            workers: self.options.workers,
            // Counted here, where the parts finished before are known.
            max_bad_share: 1.0,
            ..LoaderOptions::new(self.options.batch_size, self.encoder.transform())
        };
        let mut to = from;
        for batch in eval_batches(Arc::new(Rest { source: Arc::clone(source), from }), loader)? {
            let batch = batch?;
            let entry = |&index: &usize| {
                let index = from + index;
                Entry { key: source.key(index), index: Some(index), path: source.path(index), text: None }
            };
            let entries: Vec<Entry> = batch.indices.iter().map(entry).collect();
            let rows = if entries.is_empty() { None } else { Some(self.encoder.images(&batch.images)?) };
            to += entries.len() + batch.bad.len();
            if self.take(Done { entries, rows, bad: batch.bad, to })?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn captions(&mut self, source: &dyn Source, from: usize) -> Result<ControlFlow<()>> {
        for from in (from..source.len()).step_by(self.options.batch_size) {
            let to = source.len().min(from + self.options.batch_size);
            let samples: Vec<_> = (from..to).into_par_iter().map(|index| source.read(index)).collect();
            let (mut entries, mut bad) = (Vec::new(), Vec::new());
            for sample in samples {
                match sample {
                    Ok(sample) => entries.extend(
                        sample
                            .captions
                            .into_iter()
                            .enumerate()
                            .map(|(i, text)| Entry::of_text(format!("{}#{i}", sample.key), text)),
                    ),
                    Err(error) => bad.push(error),
                }
            }
            let rows = self.texts(&entries)?;
            if self.take(Done { entries, rows, bad, to })?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn lines(&mut self, mut file: &File, path: &Path, from: usize) -> Result<ControlFlow<()>> {
        file.rewind().map_err(Error::io(path))?;
        let reader = softclip_io::text_reader(file).map_err(|e| Error::file(path, e))?;
        let mut lines = reader.split(b'\n').enumerate().skip(from).peekable();
        while lines.peek().is_some() {
            let (mut entries, mut bad, mut to) = (Vec::new(), Vec::new(), from);
            for (number, line) in lines.by_ref().take(self.options.batch_size) {
                to = number + 1;
                let key = to.to_string();
                match text(&key, line.map_err(Error::io(path))?) {
                    Ok(text) => entries.push(Entry::of_text(key, text)),
                    Err(error) => bad.push(error),
                }
            }
            let rows = self.texts(&entries)?;
            if self.take(Done { entries, rows, bad, to })?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn texts(&self, entries: &[Entry]) -> Result<Option<Tensor>> {
        let texts: Vec<&str> = entries.iter().filter_map(|entry| entry.text.as_deref()).collect();
        let rows = texts.chunks(self.options.batch_size).map(|texts| self.encoder.texts(texts)).collect::<Result<Vec<_>>>()?;
        Ok(if rows.is_empty() { None } else { Some(Tensor::f_cat(&rows, 0)?) })
    }

    fn take(&mut self, done: Done) -> Result<ControlFlow<()>> {
        let Done { entries, rows, bad, to } = done;
        if let Some(rows) = &rows {
            refuse_nonfinite(rows, &entries)?;
        }
        self.part.add(&entries, rows, &bad, to)?;
        self.count(&bad, to)?;
        if to - self.part.extent.from >= self.options.part || self.part_began.elapsed() >= AT_LEAST_EVERY {
            self.keep()?;
        }
        Ok((self.progress)(to, self.samples))
    }

    fn keep(&mut self) -> Result<()> {
        let next = Part::starting(self.part.extent.to);
        let part = std::mem::replace(&mut self.part, next);
        self.part_began = Instant::now();
        if part.is_empty() { Ok(()) } else { self.parts.push(part) }
    }

    fn count(&mut self, bad: &[SampleError], seen: usize) -> Result<()> {
        for error in bad {
            *self.causes.entry(error.kind.to_string()).or_default() += 1;
        }
        let limit = self.options.max_bad_share;
        let all = self.causes.values().sum::<usize>();
        let of = seen.max(LEAST.min(self.samples)) + self.lost;
        match bad.first() {
            Some(first) if (all + self.lost) as f64 > limit * of as f64 => {
                let causes: Vec<String> = self.causes.iter().map(|(cause, n)| format!("{cause} {n}")).collect();
                Err(LoadError::TooManyBad { bad: all, seen, limit, causes: causes.join(", "), first: first.clone() }.into())
            }
            _ => Ok(()),
        }
    }
}

fn text(key: &str, mut line: Vec<u8>) -> std::result::Result<String, SampleError> {
    if line.ends_with(b"\r") {
        line.pop();
    }
    let text = String::from_utf8(line).map_err(|e| SampleError::new(key, SampleErrorKind::InvalidUtf8, e))?;
    if text.contains('\0') {
        return Err(SampleError::new(key, SampleErrorKind::InvalidUtf8, "a NUL byte: the file is damaged or is not text"));
    }
    match text.trim().is_empty() {
        true => Err(SampleError::new(key, SampleErrorKind::EmptyCaption, "the line is blank")),
        false => Ok(text),
    }
}

fn refuse_nonfinite(rows: &Tensor, entries: &[Entry]) -> Result<()> {
    let finite = rows.f_isfinite()?.f_all_dim(1, false)?;
    if finite.f_all()?.f_int64_value(&[])? == 1 {
        return Ok(());
    }
    let first = finite.f_to_kind(Kind::Int)?.f_argmin(None, false)?.f_int64_value(&[])?;
    let key = usize::try_from(first).ok().and_then(|first| entries.get(first)).map_or("?", |entry| &entry.key);
    Err(Error::Input(format!("the model gives no finite embedding of '{key}': try --precision fp32, or check its weights")))
}
