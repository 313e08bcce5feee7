//! Batches of inputs, decoded by threads while the networks run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use softclip_data::image::{DecodeOptions, Decoder};
use softclip_data::loader::image_error;
use softclip_data::source::{SampleError, SampleErrorKind, Source};
use softclip_detector::{Letterbox, Letterboxer, Placed};

use crate::error::{Error, Result};
use crate::units::Unit;

/// Batches that are ready beside the one at work.
const AHEAD: usize = 2;

/// A sample on its way.
pub(crate) struct Item {
    /// Number in the source.
    pub(crate) index: usize,
    pub(crate) key: String,
    /// The input and where the image lies in it, or why there is none. Without networks the input is empty.
    pub(crate) input: std::result::Result<(Vec<u8>, Placed), SampleError>,
}

/// Samples of one sidecar.
pub(crate) struct Batch {
    /// Number of its unit among those to be done.
    pub(crate) unit: usize,
    pub(crate) items: Vec<Item>,
    /// Time of all threads.
    pub(crate) busy: Duration,
}

/// What decodes: one a thread, handed around.
struct Workshop {
    source: Arc<dyn Source>,
    letterbox: Letterbox,
    /// Whether any network looks at the pixels.
    pixels: bool,
    decode: DecodeOptions,
    idle: Mutex<Vec<(Decoder, Letterboxer)>>,
}

/// Batches in order.
pub(crate) struct Batches {
    receiver: Option<Receiver<Batch>>,
    thread: Option<JoinHandle<()>>,
}

/// What a preparation is told.
pub(crate) struct Plan {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) units: Vec<Unit>,
    pub(crate) letterbox: Letterbox,
    pub(crate) pixels: bool,
    pub(crate) decode: DecodeOptions,
    pub(crate) batch_size: usize,
    pub(crate) threads: usize,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Batches {
    pub(crate) fn start(plan: Plan) -> Result<Self> {
        let Plan { source, units, letterbox, pixels, decode, batch_size, threads, stop } = plan;
        let failed = |e: &dyn ToString| Error::Thread(e.to_string());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("decode-{i}"));
        let pool = pool.build().map_err(|e| failed(&e))?;
        // The first decoder shows whether there can be any.
        let idle = Mutex::new(vec![(Decoder::new(decode)?, Letterboxer::default())]);
        let workshop = Workshop { source, letterbox, pixels, decode, idle };
        let (sender, receiver) = sync_channel(AHEAD);
        let work = move || {
            for (number, unit) in units.into_iter().enumerate() {
                for from in unit.samples.clone().step_by(batch_size) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let indices = from..unit.samples.end.min(from + batch_size);
                    let made: Vec<(Item, Duration)> =
                        pool.install(|| indices.into_par_iter().map(|index| workshop.item(index)).collect());
                    let busy = made.iter().map(|(_, time)| *time).sum();
                    let items = made.into_iter().map(|(item, _)| item).collect();
                    if sender.send(Batch { unit: number, items, busy }).is_err() {
                        return;
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("prepare".to_owned()).spawn(work).map_err(|e| failed(&e))?;
        Ok(Batches { receiver: Some(receiver), thread: Some(thread) })
    }

    /// The next batch; none at the end, or after a stop.
    pub(crate) fn next(&mut self) -> Result<Option<Batch>> {
        if let Some(batch) = self.receiver.as_ref().and_then(|receiver| receiver.recv().ok()) {
            return Ok(Some(batch));
        }
        self.receiver = None;
        // A defect must not look like the end.
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(_)) => Err(Error::Thread("the one that prepares images has a defect and stopped".to_owned())),
            _ => Ok(None),
        }
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.receiver = None; // whoever waits to send is told so
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Workshop {
    fn item(&self, index: usize) -> (Item, Duration) {
        let start = Instant::now();
        let key = self.source.key(index);
        // A defect of a decoder costs the sample, not the job.
        let input = catch_unwind(AssertUnwindSafe(|| self.input(index, &key)))
            .unwrap_or_else(|_| Err(SampleError::new(&key, SampleErrorKind::Panic, "a defect met while it was decoded")));
        (Item { index, key, input }, start.elapsed())
    }

    fn input(&self, index: usize, key: &str) -> std::result::Result<(Vec<u8>, Placed), SampleError> {
        let sample = self.source.read(index)?;
        let bad = |detail: &dyn ToString| SampleError::new(key, SampleErrorKind::CorruptImage, detail.to_string());
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle().pop();
        let (mut decoder, mut letterboxer) = match taken {
            Some(pair) => pair,
            None => (Decoder::new(self.decode).map_err(|e| bad(&e))?, Letterboxer::default()),
        };
        let made = self.letterboxed(&sample.image, key, &mut decoder, &mut letterboxer);
        idle().push((decoder, letterboxer));
        made
    }

    fn letterboxed(
        &self,
        image: &[u8],
        key: &str,
        decoder: &mut Decoder,
        letterboxer: &mut Letterboxer,
    ) -> std::result::Result<(Vec<u8>, Placed), SampleError> {
        let placed = |w: u32, h: u32| self.letterbox.place((w, h));
        // Where nothing looks at the pixels, only the size is wanted: the least scale will do.
        let scale = |w: u32, h: u32| {
            let inner = placed(w, h).inner;
            if self.pixels { (f64::from(inner.0) / f64::from(w)).max(f64::from(inner.1) / f64::from(h)) } else { 0.0 }
        };
        let rgb = decoder.decode_at_least(image, scale).map_err(|e| image_error(key, &e))?;
        let placed = placed(rgb.full_size.0, rgb.full_size.1);
        if !self.pixels {
            return Ok((Vec::new(), placed));
        }
        let drawn = letterboxer.draw(rgb.pixels, rgb.width, rgb.height, &placed, self.letterbox.fill);
        let drawn = drawn.map_err(|e| SampleError::new(key, SampleErrorKind::CorruptImage, e))?;
        Ok((drawn, placed))
    }
}
