//! Batches of a table's rows, made by threads while the main thread encodes: images decoded, captions tokenized.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use softclip_data::image::Transform;
use softclip_data::tokenizer::Tokenizer;

use super::ScoreOptions;
use super::images::{Place, Places, Worker};
use crate::error::{Error, Result};
use crate::pairs::{Row, Table};

/// Rows whose addresses are given to a fetcher at a time: only these are in memory, without their images.
const WINDOW: usize = 8192;
/// How often a wait looks whether it is to end.
const GLANCE: Duration = Duration::from_millis(50);

/// Rows in the table's order, with what the encoders take.
pub(super) struct Batch {
    pub(super) rows: Vec<Loaded>,
    /// Bytes `[images, 3, S, S]`: each image once.
    pub(super) pixels: Vec<u8>,
    pub(super) images: usize,
    /// Tokens: each caption once.
    pub(super) texts: Vec<Vec<i64>>,
    /// Captions of these that were cut.
    pub(super) cut: u64,
    /// Times of reading, decoding and tokenizing.
    pub(super) busy: [Duration; 3],
}

/// A row, and the numbers of its image and its caption in the batch; or what is wrong with it.
pub(super) struct Loaded {
    pub(super) row: Row,
    pub(super) pair: std::result::Result<(usize, usize), String>,
}

/// What the captions become.
#[derive(Clone)]
pub(super) struct Texts {
    pub(super) tokenizer: Tokenizer,
    pub(super) context: usize,
}

/// Batches in order. One is in memory beside the one handed out: in the making, or made and waiting.
pub(super) struct Loader {
    batches: Option<Receiver<Result<Batch>>>,
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Loader {
    pub(super) fn start(
        table: Table,
        places: Places,
        transform: Transform,
        texts: Texts,
        options: &ScoreOptions,
    ) -> Result<Self> {
        let count = match options.threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let batch_size = options.batch_size.max(1);
        let failed = |e: &dyn ToString| Error::Threads(e.to_string());
        let workers = (0..count.min(batch_size))
            .map(|_| Worker::new(options.decode, transform.clone()).map_err(|e| failed(&e)))
            .collect::<Result<_>>()?;
        let stop = Arc::clone(&options.stop);
        let maker =
            Maker { table, places, texts, workers, batch_size, image_len: transform.output_len(), stop: Arc::clone(&stop) };
        // Without a queue: a batch that is made waits in its thread.
        let (sender, batches) = sync_channel(0);
        let thread = thread::Builder::new().name("pairs".to_owned()).spawn(move || maker.run(&sender)).map_err(|e| failed(&e))?;
        Ok(Loader { batches: Some(batches), thread: Some(thread), stop })
    }

    /// The next batch; none at the table's end, and none soon after a stop.
    pub(super) fn next(&mut self) -> Option<Result<Batch>> {
        while !self.stop.load(Ordering::Relaxed) {
            match self.batches.as_ref()?.recv_timeout(GLANCE) {
                Ok(batch) => return Some(batch),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        self.batches = None;
        // A defect must not look like the table's end.
        let panicked = self.thread.take().is_some_and(|thread| thread.join().is_err());
        panicked.then(|| Err(Error::Threads("one of them has a defect and stopped".to_owned())))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.batches = None; // whoever waits to send is told so
        if let Some(thread) = self.thread.take() {
            // What it did counts no more.
            let _ = thread.join();
        }
    }
}

/// Rows of a batch to be, and its images.
struct Plan {
    rows: Vec<Loaded>,
    places: Vec<Place>,
}

struct Maker {
    table: Table,
    places: Places,
    texts: Texts,
    workers: Vec<Worker>,
    batch_size: usize,
    image_len: usize,
    stop: Arc<AtomicBool>,
}

impl Maker {
    fn run(mut self, sender: &SyncSender<Result<Batch>>) {
        if let Err(e) = self.batches(sender) {
            // The other side may have gone.
            let _ = sender.send(Err(e));
        }
    }

    fn batches(&mut self, sender: &SyncSender<Result<Batch>>) -> Result<()> {
        // A fetcher that is given many addresses waits seldom for the last one; files need no planning ahead.
        let ahead = if self.places.remote.is_some() { WINDOW.div_ceil(self.batch_size) } else { 1 };
        let remote = self.places.remote.clone();
        let stop = Arc::clone(&self.stop);
        loop {
            let mut plans = (0..ahead).map_while(|_| self.plan().transpose()).collect::<Result<Vec<Plan>>>()?;
            let all = plans.iter().flat_map(|plan| &plan.places);
            let urls: Vec<String> =
                all.filter_map(|place| if let Place::Url(url) = place { Some(url.clone()) } else { None }).collect();
            let mut fetched = remote.as_ref().filter(|_| !urls.is_empty()).map(|remote| remote.stream(urls, &stop));
            let ends = plans.len() < ahead;
            for mut plan in plans.drain(..) {
                let start = Instant::now();
                for place in &mut plan.places {
                    let Place::Url(url) = place else { continue };
                    let bytes = fetched.as_mut().and_then(Iterator::next);
                    let bytes = bytes.unwrap_or_else(|| Err(format!("{url}: not fetched")));
                    *place = Place::Bytes(std::mem::take(url), bytes);
                }
                let waited = start.elapsed();
                let batch = self.make(plan, waited);
                if stop.load(Ordering::Relaxed) || sender.send(Ok(batch)).is_err() {
                    return Ok(());
                }
            }
            if ends {
                return Ok(());
            }
        }
    }

    /// The next rows and where their images are; `None` at the end. An image that several rows name is taken once.
    fn plan(&mut self) -> Result<Option<Plan>> {
        let mut plan = Plan { rows: Vec::with_capacity(self.batch_size), places: Vec::new() };
        let mut numbers: HashMap<String, usize> = HashMap::new();
        while plan.rows.len() < self.batch_size {
            let Some(row) = self.table.next_row()? else { break };
            let pair = self.table.pair(&row).and_then(|(image, _)| {
                if let Some(&number) = numbers.get(image) {
                    return Ok((number, 0));
                }
                plan.places.push(self.places.find(image)?);
                numbers.insert(image.to_owned(), plan.places.len() - 1);
                Ok((plan.places.len() - 1, 0))
            });
            plan.rows.push(Loaded { row, pair });
        }
        Ok((!plan.rows.is_empty()).then_some(plan))
    }

    fn make(&mut self, plan: Plan, waited: Duration) -> Batch {
        let Plan { mut rows, places } = plan;
        let mut pixels = vec![0u8; places.len() * self.image_len];
        let loaded = load(places, &mut pixels, self.image_len, &mut self.workers);
        // Images that failed leave no gap.
        let mut images = 0;
        let place: Vec<std::result::Result<usize, String>> = loaded
            .into_iter()
            .enumerate()
            .map(|(i, outcome)| {
                outcome?;
                if i != images {
                    pixels.copy_within(i * self.image_len..(i + 1) * self.image_len, images * self.image_len);
                }
                images += 1;
                Ok(images - 1)
            })
            .collect();
        pixels.truncate(images * self.image_len);
        let start = Instant::now();
        let (texts, cut) = self.tokenize(&mut rows, &place);
        let tokenized = start.elapsed();
        let take = |of: fn(&mut Worker) -> &mut Duration, workers: &mut [Worker]| {
            workers.iter_mut().map(|worker| std::mem::take(of(worker))).sum::<Duration>()
        };
        let read = waited + take(|w| &mut w.read, &mut self.workers);
        let busy = [read, take(|w| &mut w.decode, &mut self.workers), tokenized];
        Batch { rows, pixels, images, texts, cut, busy }
    }

    /// Tokens of the captions whose images are there, each caption once, and how many of them were cut. `rows` get the final numbers.
    fn tokenize(&self, rows: &mut [Loaded], place: &[std::result::Result<usize, String>]) -> (Vec<Vec<i64>>, u64) {
        let (mut texts, mut cut, mut numbers) = (Vec::new(), 0, HashMap::new());
        let context = self.texts.context;
        for Loaded { row, pair } in rows {
            let number = match &pair {
                Ok((image, _)) => place[*image].clone(),
                Err(why) => Err(why.clone()),
            };
            *pair = number.and_then(|image| {
                let (_, caption) = self.table.pair(row)?;
                let text = *numbers.entry(caption.to_owned()).or_insert_with(|| {
                    // One more than fits tells whether something is lost.
                    let mut tokens = self.texts.tokenizer.encode(caption, context + 1);
                    if let (true, Some(&end)) = (tokens.len() > context, tokens.last()) {
                        tokens.truncate(context);
                        tokens[context - 1] = end;
                        cut += 1;
                    }
                    texts.push(tokens);
                    texts.len() - 1
                });
                Ok((image, text))
            });
        }
        (texts, cut)
    }
}

/// Loads every place into its slot of `pixels`, on all workers at once.
fn load(places: Vec<Place>, pixels: &mut [u8], image_len: usize, workers: &mut [Worker]) -> Vec<std::result::Result<(), String>> {
    let mut outcomes: Vec<std::result::Result<(), String>> = places.iter().map(|_| Ok(())).collect();
    let needed = places.len();
    let jobs = Mutex::new(places.into_iter().zip(pixels.chunks_exact_mut(image_len)).zip(&mut outcomes));
    let work = |worker: &mut Worker| {
        loop {
            // The lock is given back before the work begins.
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(((place, slot), outcome)) = job else { return };
            *outcome = worker.load(place, slot);
        }
    };
    let count = needed.clamp(1, workers.len());
    thread::scope(|scope| {
        // This thread is one of them.
        let (here, others) = workers[..count].split_at_mut(1);
        for worker in others {
            scope.spawn(|| work(worker));
        }
        here.iter_mut().for_each(work);
    });
    outcomes
}
