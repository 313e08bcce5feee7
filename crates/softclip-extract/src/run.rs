//! The job.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rayon::prelude::*;
use serde_json::Value;
use softclip_data::source::{SampleError, SampleErrorKind, Source, fingerprint};
use softclip_detector::{Detection, Placed, Region, select};
use softclip_io::LockState;
use tch::Tensor;

use crate::error::{Error, Result};
use crate::found::{Found, Object, Objects};
use crate::job::{ExtractOptions, Origin};
use crate::manifest::{Record, finished, hash, manifest, settle};
use crate::prepare::{Batch, Batches, Item, Plan};
use crate::report::{Outcome, Stages};
use crate::tags::tags;
use crate::units::{Unit, units};
use crate::write::{Entry, Targets, Writer};

/// The limit on bad samples is a fraction of at least this many, or of all samples where there are fewer: a bad one among
/// the first few is not a large fraction of a large job.
const MIN_SAMPLES: usize = 200;

/// Told the samples done and how many there are, those of sidecars that were whole among them; says whether to go on.
pub type Done<'a> = dyn FnMut(usize, usize) -> ControlFlow<()> + 'a;

/// Looks at every image of `source` and writes what is found, a sidecar for each shard. What is whole already stays; what is not
/// is made anew. After a kill the same call goes on.
///
/// # Errors
/// The options do not fit the source or the folder; a network fails; the disk is full; too many samples cannot be used. Sidecars
/// that are whole stay.
pub fn extract(source: &Arc<dyn Source>, origin: &Origin, options: &ExtractOptions, done: &mut Done) -> Result<Outcome> {
    let start = Instant::now();
    options.validate()?;
    if let Origin::Given(objects) = origin {
        distinct(source.as_ref(), objects.as_ref())?;
    }
    fs::create_dir_all(&options.out).map_err(Error::io(&options.out))?;
    let all = units(source.as_ref(), &options.out, options.shard_size)?;
    let manifest = manifest(origin, options)?;
    let _lock = enter(&options.out, &manifest)?;
    let job = hash(&manifest);
    let part = options.part;
    let mine: Vec<Unit> = all.into_iter().skip(part.rank).step_by(part.of).collect();
    let prints: Vec<String> = mine.par_iter().map(|unit| fingerprint(source.as_ref(), unit.samples.clone())).collect();
    let (mut records, mut left) = (Vec::new(), Vec::new());
    for (unit, print) in mine.iter().zip(prints) {
        match finished(&unit.path, &job, &print) {
            Some(record) => records.push(record),
            None => left.push((unit.clone(), print)),
        }
    }
    let mut outcome = Outcome { sidecars: mine.len(), done_before: records.len(), ..Outcome::default() };
    let of = mine.iter().map(|unit| unit.samples.len()).sum();
    let before: usize = records.iter().map(|record: &Record| record.of.samples).sum();
    let mut tell = |images: usize| done(before + images, of);
    if !left.is_empty() {
        // Of the whole job: a rank of a small job may have a handful of samples only.
        let bad = Bad::of(&records, source.len());
        let job = Job { source, origin, options, left, job, bad };
        records.extend(job.run(&mut outcome, &mut tell)?);
    }
    outcome.interrupted = records.len() < mine.len();
    if let Origin::Given(objects) = origin {
        for fault in objects.faults() {
            *outcome.faults.entry(fault.cause.to_owned()).or_default() += fault.count;
        }
    }
    for record in records {
        outcome.samples += record.of.samples;
        outcome.objects += record.objects;
        outcome.without_objects += record.without_objects;
        outcome.regions += record.regions;
        for (cause, n) in record.skipped {
            *outcome.skipped.entry(cause).or_default() += n;
        }
    }
    outcome.seconds = start.elapsed().as_secs_f64();
    Ok(outcome)
}

/// Refuses files of which one entry would serve several samples, as where the file lacks the folders that tell keys apart.
fn distinct(source: &dyn Source, objects: &dyn Objects) -> Result<()> {
    let mut taken: Vec<HashMap<usize, usize>> = Vec::new();
    let mut numbers = Vec::new();
    for index in 0..source.len() {
        let key = source.key(index);
        numbers.clear();
        objects.entries(&key, &mut numbers).map_err(Error::Options)?;
        taken.resize_with(numbers.len(), HashMap::new);
        for (taken, number) in taken.iter_mut().zip(&numbers) {
            let Some(other) = number.and_then(|number| taken.insert(number, index)) else { continue };
            let other = source.key(other);
            let why = format!("'{other}' and '{key}' mean the same entry: name images in the file as the source does");
            return Err(Error::Options(format!("{}: {why}", objects.describe())));
        }
    }
    Ok(())
}

/// Shares the folder with the job's other processes. The first alone settles how its sidecars are made, and removes what a killed one
/// left. File systems without locks have neither guard: there, a process removes what is certainly left, and settles as the others do.
fn enter(out: &Path, manifest: &Value) -> Result<Option<File>> {
    let path = out.join(".lock");
    let lock = File::create(&path).map_err(Error::io(&path))?;
    let state = softclip_io::try_lock(&lock, &path).map_err(Error::io(&path))?;
    if state == LockState::Unsupported {
        softclip_io::remove_stale_files(out, |_| true);
        settle(out, manifest, false)?;
        return Ok(None);
    }
    let alone = state == LockState::Acquired;
    if alone {
        settle(out, manifest, true)?;
        for entry in fs::read_dir(out).map_err(Error::io(out))? {
            let path = entry.map_err(Error::io(out))?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().contains(".partial-")) {
                fs::remove_file(&path).map_err(Error::io(&path))?;
            }
        }
        lock.unlock().map_err(Error::io(&path))?;
    }
    let _: LockState = softclip_io::lock_shared(&lock, &path).map_err(Error::io(&path))?;
    // Not before the first has settled it.
    if !alone {
        settle(out, manifest, false)?;
    }
    Ok(Some(lock))
}

struct Job<'a> {
    source: &'a Arc<dyn Source>,
    origin: &'a Origin,
    options: &'a ExtractOptions,
    /// Each with its fingerprint.
    left: Vec<(Unit, String)>,
    job: String,
    bad: Bad,
}

impl Job<'_> {
    fn run(mut self, outcome: &mut Outcome, tell: &mut dyn FnMut(usize) -> ControlFlow<()>) -> Result<Vec<Record>> {
        let options = self.options;
        let units: Vec<Unit> = self.left.iter().map(|(unit, _)| unit.clone()).collect();
        let mut writer = Writer::start(units.clone(), self.job.clone())?;
        let mut batches = Batches::start(Plan {
            source: Arc::clone(self.source),
            units,
            letterbox: options.letterbox,
            pixels: self.looks(),
            decode: options.decode,
            batch_size: self.prepared(),
            threads: options.threads,
            stop: Arc::clone(&options.stop),
        })?;
        // The sidecar to be ended next. One of no samples has no batch.
        let mut next = 0;
        loop {
            let waited = Instant::now();
            let Some(batch) = batches.next()? else { break };
            outcome.stages.wait += waited.elapsed();
            outcome.stages.decode += batch.busy;
            let (number, last) = (batch.unit, batch.items.last().map_or(0, |item| item.index + 1));
            for (_, print) in &self.left[next..number] {
                writer.end(print.clone())?;
            }
            next = number;
            let (unit, print) = &self.left[number];
            let n = batch.items.len();
            for entry in self.look(batch, &mut outcome.stages)? {
                self.bad.take(&entry, options.max_bad_share)?;
                writer.entry(entry)?;
            }
            if last == unit.samples.end {
                writer.end(print.clone())?;
                next = number + 1;
            }
            outcome.images += n;
            if tell(outcome.images).is_break() {
                options.stop.store(true, Ordering::Relaxed);
                break;
            }
        }
        drop(batches);
        for (_, print) in self.left[next..].iter().take_while(|(unit, _)| unit.samples.is_empty()) {
            writer.end(print.clone())?;
        }
        let (records, write) = writer.finish()?;
        outcome.stages.write = write;
        Ok(records)
    }

    /// Whether any network looks at the images.
    fn looks(&self) -> bool {
        matches!(self.origin, Origin::Detector(..)) || self.options.backbone.is_some()
    }

    /// Images that are prepared together: enough for all threads, however few go through the networks at once.
    fn prepared(&self) -> usize {
        let threads = match self.options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        self.options.batch_size.max(if self.looks() { 2 * threads } else { 16 * threads })
    }

    /// What is in a batch's images, in their order.
    fn look(&self, batch: Batch, stages: &mut Stages) -> Result<Vec<Entry>> {
        let stems: Vec<String> = batch.items.iter().map(|item| self.source.stem(item.index)).collect();
        let mut found: Vec<Option<std::result::Result<Targets, SampleError>>> = Vec::new();
        found.resize_with(stems.len(), || None);
        // Inputs of one size go through the networks together.
        let mut groups: BTreeMap<(u32, u32), Vec<(usize, Ready)>> = BTreeMap::new();
        for (i, Item { key, input, .. }) in batch.items.into_iter().enumerate() {
            match input {
                Ok((input, placed)) => groups.entry(placed.input).or_default().push((i, Ready { key, input, placed })),
                Err(error) => found[i] = Some(Err(error)),
            }
        }
        for ((width, height), group) in groups {
            let (numbers, ready): (Vec<usize>, Vec<Ready>) = group.into_iter().unzip();
            let at_once = if self.looks() { self.options.batch_size } else { ready.len() };
            for (numbers, ready) in numbers.chunks(at_once).zip(ready.chunks(at_once)) {
                let targets = self.group(ready, (width.into(), height.into()), stages)?;
                numbers.iter().zip(targets).for_each(|(&i, targets)| found[i] = Some(targets));
            }
        }
        let entries = stems.into_iter().zip(found).filter_map(|(stem, found)| Some(Entry { stem, found: found? }));
        Ok(entries.collect())
    }

    fn group(
        &self,
        ready: &[Ready],
        (width, height): (i64, i64),
        stages: &mut Stages,
    ) -> Result<Vec<std::result::Result<Targets, SampleError>>> {
        let start = Instant::now();
        let inputs = self.looks().then(|| -> Result<Tensor> {
            let bytes = ready.iter().map(|r| r.input.as_slice()).collect::<Vec<_>>().concat();
            let inputs = Tensor::from_slice(&bytes).f_view([ready.len() as i64, height, width, 3]).map_err(torch)?;
            inputs.f_to_device(self.options.device).map_err(torch)
        });
        let inputs = inputs.transpose()?;
        let found = match (self.origin, &inputs) {
            (Origin::Detector(network, thresholds), Some(inputs)) => {
                let candidates = network.forward(inputs)?;
                softclip_torch::synchronize(self.options.device)?;
                stages.forward += start.elapsed();
                let start = Instant::now();
                let rows = candidates.filter_by_score(thresholds.floor())?;
                let (width, thresholds) = (5 + network.names().len(), candidates.thresholds(thresholds));
                let select = |(rows, r): (Vec<f32>, &Ready)| r.placed.detections(select(&rows, width, &thresholds));
                let found = rows.into_par_iter().zip(ready).map(select).map(|d| Ok(named(&d, network.names()))).collect();
                stages.nms += start.elapsed();
                found
            }
            (Origin::Given(objects), _) => {
                let found = ready.par_iter().map(|r| r.given(objects.find(&r.key, r.placed.image))).collect();
                stages.forward += start.elapsed();
                found
            }
            (Origin::Detector(..), None) => Vec::new(),
        };
        self.targets(ready, found, inputs, stages)
    }

    fn targets(
        &self,
        ready: &[Ready],
        found: Vec<std::result::Result<Found, SampleError>>,
        inputs: Option<Tensor>,
        stages: &mut Stages,
    ) -> Result<Vec<std::result::Result<Targets, SampleError>>> {
        let most = self.options.regions;
        let mut appearance = Vec::new();
        let wants = |found: &Found| self.options.backbone.is_some() && found.wants_appearance();
        if let (Some(backbone), Some(inputs)) = (&self.options.backbone, inputs) {
            let places = found.iter().enumerate().flat_map(|(image, found)| {
                let boxes = found.iter().filter(|found| wants(found)).flat_map(|found| found.boxes(most));
                boxes.map(move |xyxy| Region { image, xyxy: ready[image].placed.forth(xyxy) })
            });
            let places: Vec<Region> = places.collect();
            let start = Instant::now();
            let map = (!places.is_empty()).then(|| backbone.map(&inputs)).transpose()?;
            softclip_torch::synchronize(self.options.device)?;
            stages.map += start.elapsed();
            let start = Instant::now();
            if let Some(map) = map {
                appearance = backbone.appearance(&map, &places)?;
            }
            stages.roi_align += start.elapsed();
        }
        let width = self.options.backbone.as_ref().map(|b| b.features());
        let mut rest = &appearance[..];
        let made = found.into_iter().zip(ready).map(|(found, ready)| {
            let found = found?;
            let made = width.filter(|_| wants(&found)).map(|width| {
                let (own, behind) = rest.split_at(found.boxes(most).count() * width);
                rest = behind;
                (width, own)
            });
            let regions = found.regions(ready.placed.image, most, made).map_err(|why| ready.bad(why))?;
            let tags = (!found.unnamed).then(|| tags(&found, self.options.tags, self.options.attributes));
            Ok(Targets { tags, regions, objects: found.objects.len() })
        });
        Ok(made.collect())
    }
}

fn torch(error: tch::TchError) -> Error {
    softclip_torch::Error::from(error).into()
}

/// An image that was decoded.
struct Ready {
    key: String,
    input: Vec<u8>,
    placed: Placed,
}

impl Ready {
    fn bad(&self, why: String) -> SampleError {
        SampleError::new(&self.key, SampleErrorKind::BadRois, why)
    }

    fn given(&self, found: std::result::Result<Option<Found>, String>) -> std::result::Result<Found, SampleError> {
        let missing = || SampleError::new(&self.key, SampleErrorKind::MissingTags, "the file of objects does not name it");
        found.map_err(|why| self.bad(why))?.ok_or_else(missing)
    }
}

fn named(detections: &[Detection], names: &[String]) -> Found {
    let object = |d: &Detection| Object {
        name: names.get(d.class).cloned().unwrap_or_default(),
        attributes: Vec::new(),
        confidence: d.confidence,
        xyxy: Some(d.xyxy),
    };
    Found { objects: detections.iter().map(object).collect(), ..Found::default() }
}

/// Counts samples that cannot be used, against the limit.
struct Bad {
    /// Samples of the job.
    samples: usize,
    seen: usize,
    causes: BTreeMap<String, usize>,
    first: Option<String>,
}

impl Bad {
    /// Of a job of `samples` samples, some of which were done before.
    fn of(records: &[Record], samples: usize) -> Self {
        let mut bad = Bad { samples, seen: 0, causes: BTreeMap::new(), first: None };
        for record in records {
            bad.seen += record.of.samples;
            bad.first = bad.first.or_else(|| record.skipped_samples.first().cloned());
            for (cause, n) in &record.skipped {
                *bad.causes.entry(cause.clone()).or_default() += n;
            }
        }
        bad
    }

    fn take(&mut self, entry: &Entry, limit: f64) -> Result<()> {
        self.seen += 1;
        let Err(error) = &entry.found else { return Ok(()) };
        *self.causes.entry(error.kind.to_string()).or_default() += 1;
        let first = self.first.get_or_insert_with(|| error.to_string()).clone();
        let bad: usize = self.causes.values().sum();
        if bad as f64 <= limit * self.seen.max(MIN_SAMPLES.min(self.samples)) as f64 {
            return Ok(());
        }
        let causes = self.causes.iter().map(|(cause, n)| format!("{cause} {n}")).collect::<Vec<_>>().join(", ");
        Err(Error::TooManyBad { bad, seen: self.seen, limit, causes, first })
    }
}
