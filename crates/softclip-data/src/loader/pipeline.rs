//! The threads: workers that make chunks of batches, and one that puts them together in order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use super::collate::{Chunk, Made, collate};
use super::order::Orders;
use super::row::{Mode, guarded, row};
use super::{LoadError, LoaderOptions};
use crate::image::Decoder;
use crate::rng::{RngKey, Stream};
use crate::source::Source;
use crate::tokenizer::Tokenizer;

/// Samples a worker takes at a time.
const CHUNK: usize = 16;
/// How many other samples are tried in place of an unreadable one.
const REPLACEMENTS: usize = 16;

struct Shared {
    source: Arc<dyn Source>,
    options: LoaderOptions,
    tokenizer: Tokenizer,
    mode: Mode,
    orders: Orders,
    progress: Mutex<Progress>,
    changed: Condvar,
}

/// Chunks are numbered through all batches. Workers take them in order and not further ahead than the window.
struct Progress {
    next: u64,
    collated: u64,
    stop: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The places of a batch that are made here.
    fn part(&self) -> Range<usize> {
        match self.mode {
            Mode::Train => self.options.part.clone(),
            Mode::Eval => 0..self.options.batch_size,
        }
    }

    fn chunks_per_batch(&self) -> u64 {
        self.part().len().div_ceil(CHUNK) as u64
    }

    /// The end of batches, if there is one.
    fn batches(&self) -> Option<u64> {
        (self.mode == Mode::Eval).then(|| self.source.len().div_ceil(self.options.batch_size) as u64)
    }

    fn take(&self) -> Option<u64> {
        let ahead = self.chunks_per_batch() * self.options.prefetch.max(1) as u64;
        let mut progress = self.lock();
        loop {
            if progress.stop || self.batches().is_some_and(|batches| progress.next >= batches * self.chunks_per_batch()) {
                return None;
            }
            if progress.next < progress.collated + ahead {
                progress.next += 1;
                return Some(progress.next - 1);
            }
            progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }

    fn chunk(&self, number: u64, decoder: &mut Decoder) -> Result<Chunk, LoadError> {
        let (batch, part) = (number / self.chunks_per_batch(), (number % self.chunks_per_batch()) as usize);
        let of_batch = self.part();
        let places = of_batch.start + part * CHUNK..of_batch.end.min(of_batch.start + (part + 1) * CHUNK);
        let mut chunk = Chunk::default();
        match self.mode {
            Mode::Eval => {
                let first = batch as usize * self.options.batch_size;
                for index in places.map(|place| first + place).filter(|&index| index < self.source.len()) {
                    self.add(index, RngKey::new(self.options.seed, 0, index as u64), decoder, &mut chunk);
                }
            }
            Mode::Train => {
                let per_epoch = (self.source.len() / self.options.batch_size) as u64;
                let epoch = batch / per_epoch;
                let order = self.orders.of(epoch);
                let first = (batch % per_epoch) as usize * self.options.batch_size;
                for place in places {
                    self.add_some(order[first + place], epoch, decoder, &mut chunk)?;
                }
            }
        }
        Ok(chunk)
    }

    /// Adds the sample, or one drawn in its place. All is drawn from the first one's numbers, so that the same data and seed give
    /// the same batches.
    fn add_some(&self, index: u32, epoch: u64, decoder: &mut Decoder, chunk: &mut Chunk) -> Result<(), LoadError> {
        let key = RngKey::new(self.options.seed, epoch, u64::from(index));
        let mut other = key.rng(Stream::Replacement);
        let mut index = index as usize;
        for _ in 0..=REPLACEMENTS {
            if self.add(index, key, decoder, chunk) {
                return Ok(());
            }
            index = other.below(self.source.len() as u64) as usize;
        }
        let last = chunk.bad.last().map_or_else(String::new, ToString::to_string);
        Err(LoadError::Options(format!("{REPLACEMENTS} samples in a row cannot be used; the last: {last}")))
    }

    /// Whether the sample could be used.
    fn add(&self, index: usize, key: RngKey, decoder: &mut Decoder, chunk: &mut Chunk) -> bool {
        let start = chunk.pixels.len();
        chunk.pixels.resize(start + self.options.transform.output_len(), 0);
        let (source, pixels) = (self.source.as_ref(), &mut chunk.pixels[start..]);
        let tools = (&self.tokenizer, decoder);
        match guarded(source, index, || row(source, index, key, self.mode, &self.options, tools, pixels)) {
            Ok(row) => {
                chunk.rows.push(row);
                true
            }
            Err(bad) => {
                chunk.pixels.truncate(start);
                chunk.bad.push(bad);
                false
            }
        }
    }
}

/// Batches in order. Dropping it stops the threads and waits for them.
pub(super) struct Pipeline {
    shared: Arc<Shared>,
    batches: Option<Receiver<Result<Made, LoadError>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pipeline {
    pub(super) fn start(
        source: Arc<dyn Source>,
        options: LoaderOptions,
        mode: Mode,
        first_batch: u64,
    ) -> Result<Self, LoadError> {
        if source.len() > u32::MAX as usize {
            return Err(LoadError::Options(format!("{} samples are more than 2³²", source.len())));
        }
        let workers = options.threads();
        let tokenizer = options.tokenizer.clone().map_or_else(Tokenizer::clip, Ok)?;
        let orders = Orders::new(source.len(), options.seed);
        let progress = Mutex::new(Progress { next: 0, collated: 0, stop: false });
        let shared = Arc::new(Shared { source, options, tokenizer, mode, orders, progress, changed: Condvar::new() });
        {
            let start = first_batch * shared.chunks_per_batch();
            let mut progress = shared.lock();
            (progress.next, progress.collated) = (start, start);
        }
        let (to_collator, chunks) = sync_channel(workers * 2);
        // A batch is handed over without a queue, so that no more are held than the window counts.
        let (to_consumer, batches) = sync_channel(0);
        let mut pipeline = Self { shared: Arc::clone(&shared), batches: Some(batches), threads: Vec::new() };
        for worker in 0..workers {
            let decoder = Decoder::new(shared.options.decode)?;
            let (shared, sender) = (Arc::clone(&shared), to_collator.clone());
            let run = move || work(&shared, decoder, &sender);
            pipeline.threads.push(Builder::new().name(format!("loader-{worker}")).spawn(run).map_err(LoadError::Thread)?);
        }
        drop(to_collator);
        let run = move || assemble(&shared, first_batch, &chunks, &to_consumer);
        pipeline.threads.push(Builder::new().name("loader-batches".to_owned()).spawn(run).map_err(LoadError::Thread)?);
        Ok(pipeline)
    }

    pub(super) fn next(&mut self) -> Option<Result<Made, LoadError>> {
        match self.batches.as_ref()?.recv() {
            Ok(made) => Some(made),
            // A finished pass ends the iterator. Training has no end, so that its threads' end is a fault.
            Err(_) if self.shared.mode == Mode::Eval => None,
            Err(_) => {
                self.batches = None;
                Some(Err(LoadError::Worker("no more batches come".to_owned())))
            }
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.shared.stop();
        self.batches = None; // whoever waits to send is told so
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to do.
            let _ = thread.join();
        }
    }
}

type Numbered = (u64, Result<Chunk, LoadError>);

fn work(shared: &Shared, mut decoder: Decoder, sender: &SyncSender<Numbered>) {
    while let Some(number) = shared.take() {
        let made = catch_unwind(AssertUnwindSafe(|| shared.chunk(number, &mut decoder)))
            .unwrap_or_else(|_| Err(LoadError::Worker(format!("a panic while making chunk {number}"))));
        let failed = made.is_err();
        if sender.send((number, made)).is_err() || failed {
            return shared.stop();
        }
    }
}

fn assemble(shared: &Shared, first: u64, chunks: &Receiver<Numbered>, sender: &SyncSender<Result<Made, LoadError>>) {
    let per_batch = shared.chunks_per_batch();
    let mut waiting: BTreeMap<u64, Chunk> = BTreeMap::new();
    let mut batch = first;
    while let Ok((number, chunk)) = chunks.recv() {
        match chunk {
            Ok(chunk) => waiting.insert(number, chunk),
            Err(e) => {
                // The other side may have gone.
                let _ = sender.send(Err(e));
                return shared.stop();
            }
        };
        while waiting.range(batch * per_batch..(batch + 1) * per_batch).count() as u64 == per_batch {
            let rest = waiting.split_off(&((batch + 1) * per_batch));
            let whole = std::mem::replace(&mut waiting, rest).into_values().collect();
            let made = catch_unwind(AssertUnwindSafe(|| collate(batch, whole, &shared.options, &shared.tokenizer)))
                .unwrap_or_else(|_| Err(LoadError::Worker(format!("a panic while putting batch {batch} together"))));
            if sender.send(made).is_err() {
                return shared.stop();
            }
            batch += 1;
            shared.lock().collated = batch * per_batch;
            shared.changed.notify_all();
        }
    }
}
