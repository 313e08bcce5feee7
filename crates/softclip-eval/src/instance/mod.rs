//! Instance retrieval on the revisited Oxford and Paris sets, and copy detection: images that show the same thing.

mod pictures;
mod ranking;
mod set;

use std::collections::BTreeMap;
use std::time::Instant;

use softclip_data::image::Views;
use softclip_encoders::Clip;
use softclip_tensor::Embeddings;

use self::pictures::encode_pictures;
pub use self::ranking::{PRECISION_KS, Precision, Rankings, Relevant, average_precision};
pub use self::set::{InstanceSet, Picture};
use crate::EvalError;
use crate::encode::{Done, EvalOptions};
use crate::result::{Data, EvalResult};
use crate::run::Task;
use crate::run::slug;

/// Encodes every image once, at all of the task's scales, and ranks the database for each query. `model` and `config` of the result are the caller's
/// to fill in.
///
/// # Errors
/// Scales that are none, images that cannot be read (of distractors, more than `options.max_bad_share`), or encoding;
/// [`EvalError::Stopped`] if `done` says so.
pub fn evaluate_instances(
    clip: &Clip,
    set: &InstanceSet,
    task: &Task,
    options: &EvalOptions,
    done: &Done,
) -> Result<EvalResult, EvalError> {
    let start = Instant::now();
    let (Task::Instance(scales) | Task::Copy(scales)) = task else {
        return Err(EvalError::Input(format!("{}: {} needs a source of pairs or classes", set.spec, task.name())));
    };
    let config = clip.config();
    let views = Views::new(config.image_size() as u32, scales, config.floor_crop)
        .ok_or_else(|| EvalError::Input("scales: at least one, each from 0.05 to 8".to_owned()))?;
    let mut job = Job { clip, views, options, done, read: 0, of: set.queries.len() + set.database.len() + set.distractors.len() };
    let (queries, database) = (job.all(&set.queries)?, job.all(&set.database)?);
    let levels = set.levels.iter().map(|(_, relevant)| relevant.clone()).collect();
    let mut rankings = Rankings::new(&queries, &database, levels)?;
    let bad = job.distractors(set, &mut rankings)?;
    Ok(result(set, task, scales, &rankings, bad, options, start))
}

/// Encoding, and how far it is.
struct Job<'a> {
    clip: &'a Clip,
    views: Views,
    options: &'a EvalOptions,
    done: &'a Done<'a>,
    read: usize,
    of: usize,
}

impl Job<'_> {
    fn tell(&mut self, more: usize) -> Result<(), EvalError> {
        self.read += more;
        if (self.done)(self.read, self.of).is_break() { Err(EvalError::Stopped) } else { Ok(()) }
    }

    /// All pictures' embeddings; each must be readable.
    fn all(&mut self, pictures: &[Picture]) -> Result<Embeddings, EvalError> {
        let mut parts = Vec::new();
        let (clip, views, options) = (self.clip, self.views.clone(), self.options);
        encode_pictures(clip, pictures, &views, options, |rows, failed| {
            if let Some(why) = failed.into_iter().next() {
                return Err(EvalError::Input(format!("{why}; without it the figures would mean nothing")));
            }
            let n = rows.as_ref().map_or(0, Embeddings::rows);
            parts.extend(rows);
            self.tell(n as usize)
        })?;
        Ok(Embeddings::cat(&parts.iter().collect::<Vec<_>>())?)
    }

    /// Ranks the distractors, of which some may be unreadable: how many.
    fn distractors(&mut self, set: &InstanceSet, rankings: &mut Rankings) -> Result<usize, EvalError> {
        let (clip, views, options) = (self.clip, self.views.clone(), self.options);
        let (n, mut bad) = (set.distractors.len(), 0);
        // A part of the list at a time, which may have a million files.
        for paths in set.distractors.chunks(options.batch_size.max(1) * 64) {
            let pictures: Vec<Picture> = paths.iter().map(|path| Picture { path: path.clone(), part: None }).collect();
            encode_pictures(clip, &pictures, &views, options, |rows, failed| {
                bad += failed.len();
                if bad as f64 > options.max_bad_share * n as f64 {
                    let why = failed.into_iter().next().unwrap_or_default();
                    return Err(EvalError::Input(format!("{bad} of {n} distractors cannot be read, the last: {why}")));
                }
                let read = rows.as_ref().map_or(0, Embeddings::rows) as usize;
                rows.map_or(Ok(()), |rows| rankings.add_distractors(&rows))?;
                self.tell(read)
            })?;
        }
        Ok(bad)
    }
}

fn result(
    set: &InstanceSet,
    task: &Task,
    scales: &[f64],
    rankings: &Rankings,
    bad: usize,
    options: &EvalOptions,
    start: Instant,
) -> EvalResult {
    let (mut metrics, mut chance) = (Vec::new(), BTreeMap::new());
    let named = |metric: &str, level: &str| if level.is_empty() { metric.to_owned() } else { format!("{metric}_{level}") };
    let levels: Vec<_> = set.levels.iter().map(|(name, _)| *name).zip(rankings.precision()).collect();
    for (level, found) in levels.iter().filter_map(|(level, found)| Some((level, found.as_ref()?))) {
        metrics.push((named("mAP", level), found.map));
        chance.insert(named("mAP", level), found.chance);
    }
    for (i, k) in PRECISION_KS.into_iter().enumerate() {
        // A copy has one original.
        if matches!(task, Task::Copy(_)) && k > 1 {
            continue;
        }
        for (level, found) in levels.iter().filter_map(|(level, found)| Some((level, found.as_ref()?))) {
            metrics.push((named(&format!("mP@{k}"), level), found.precision_at[i]));
        }
    }
    EvalResult {
        dataset: slug(&set.spec),
        task: task.result_name().to_owned(),
        language: "en".to_owned(),
        metrics,
        data: Data {
            source: set.spec.clone(),
            images: set.queries.len() + set.database.len() + set.distractors.len() - bad,
            skipped: if bad > 0 { BTreeMap::from([("distractors".to_owned(), bad)]) } else { BTreeMap::new() },
            ..Data::default()
        },
        chance,
        protocol: Some(protocol(set, task, scales, &levels, bad)),
        seconds: start.elapsed().as_secs_f64(),
        device: format!("{:?} {:?}", options.device, options.precision).to_lowercase(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..EvalResult::default()
    }
}

fn protocol(set: &InstanceSet, task: &Task, scales: &[f64], levels: &[(&str, Option<Precision>)], bad: usize) -> String {
    let counts: Vec<String> = levels
        .iter()
        .map(|(level, found)| format!("{} {level}", found.as_ref().map_or(0, |found| found.queries)).trim().to_owned())
        .collect();
    let queries = match task {
        Task::Copy(_) => "copies among their originals",
        _ => "queries cut to their boxes, junk taken out",
    };
    let (n, distractors) = (set.database.len(), set.distractors.len() - bad);
    let unread = if bad > 0 { format!(" ({bad} more cannot be read)") } else { String::new() };
    let scales: Vec<String> = scales.iter().map(f64::to_string).collect();
    let counts = counts.join(", ");
    format!(
        "{queries}; queries: {counts}; database: {n} + {distractors} distractors{unread}; scales {}; AP by trapezoids",
        scales.join(", ")
    )
}
