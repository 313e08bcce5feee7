//! Many URLs at once: a window over the list slides as its first row is handed on; threads take from it the first row that may run.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::request::{Client, Job, Step};
use super::{FetchError, FetchOptions, Fetched};

type Outcome = Result<Fetched, FetchError>;

/// How soon a raised stop flag is seen.
const POLL: Duration = Duration::from_millis(50);

enum Row {
    /// Not before the given time.
    Waiting(Job, Instant),
    Running,
    Done(Outcome),
}

/// The window.
struct State {
    /// The number in the list of the first row here.
    first: usize,
    rows: VecDeque<Row>,
    /// Requests under way, by host.
    active: HashMap<String, usize>,
    /// Bytes in rows that are done.
    bytes: usize,
    closed: bool,
}

struct Shared {
    options: FetchOptions,
    client: Client,
    state: Mutex<State>,
    /// Something may have become possible for a worker.
    work: Condvar,
    /// The first row is done.
    done: Condvar,
}

/// The outcomes of a list of URLs, in its order. Dropping it ends all requests.
pub(super) struct Stream<I> {
    urls: std::iter::Fuse<I>,
    stop: Arc<AtomicBool>,
    shared: Arc<Shared>,
}

impl State {
    /// The first row that may run now, marked as running; or the time when one may.
    fn take(&mut self, options: &FetchOptions, now: Instant) -> Result<(usize, Job), Option<Instant>> {
        let mut due = None;
        // With the memory full only the first row goes on: the others wait until it is handed on.
        let reach = if self.bytes < options.buffer_bytes { self.rows.len() } else { 1 };
        for (offset, row) in self.rows.iter_mut().take(reach).enumerate() {
            let Row::Waiting(job, at) = row else { continue };
            if *at > now {
                due = Some(due.map_or(*at, |d: Instant| d.min(*at)));
            } else if self.active.get(job.host()).is_none_or(|n| *n < options.per_host) {
                *self.active.entry(job.host().to_owned()).or_default() += 1;
                if let Row::Waiting(job, _) = std::mem::replace(row, Row::Running) {
                    return Ok((self.first + offset, job));
                }
            }
        }
        Err(due)
    }

    /// Keeps what came of row `number`, whose place at `host` is free again.
    fn put(&mut self, number: usize, host: &str, row: Row) {
        if let Some(n) = self.active.get_mut(host) {
            *n -= 1;
            if *n == 0 {
                self.active.remove(host);
            }
        }
        if let Row::Done(Ok(fetched)) = &row {
            self.bytes += fetched.bytes.len();
        }
        // Only rows that are done leave the window, so this one is still in it.
        self.rows[number - self.first] = row;
    }

    /// Takes the first row out, if it is done.
    fn pop(&mut self) -> Option<Outcome> {
        let outcome = match self.rows.pop_front()? {
            Row::Done(outcome) => outcome,
            other => {
                self.rows.push_front(other);
                return None;
            }
        };
        self.first += 1;
        self.bytes -= outcome.as_ref().map_or(0, |f| f.bytes.len());
        Some(outcome)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, stop: &AtomicBool) {
        while let Some((number, job)) = self.take(stop) {
            let host = job.host().to_owned();
            let row = match catch_unwind(AssertUnwindSafe(|| self.client.step(job))) {
                Ok(Step::Done(outcome)) => Row::Done(outcome),
                Ok(Step::Again(job, pause)) => Row::Waiting(job, Instant::now() + pause),
                Err(panic) => Row::Done(Err(FetchError::Panic(message(panic.as_ref())))),
            };
            let waits = matches!(row, Row::Waiting(..));
            let mut state = self.state();
            state.put(number, &host, row);
            if waits {
                // All: each that sleeps must learn of the new earliest time.
                self.work.notify_all();
            } else if number == state.first {
                self.done.notify_one();
            }
        }
    }

    fn take(&self, stop: &AtomicBool) -> Option<(usize, Job)> {
        let mut state = self.state();
        loop {
            if state.closed || stop.load(Ordering::Relaxed) {
                return None;
            }
            let now = Instant::now();
            state = match state.take(&self.options, now) {
                Ok(taken) => return Some(taken),
                Err(None) => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                Err(Some(due)) => self.work.wait_timeout(state, due - now).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    /// The outcome of the first row once it is done; `None` if there is no row.
    fn first(&self, stop: &AtomicBool) -> Option<Outcome> {
        let mut state = self.state();
        while !stop.load(Ordering::Relaxed) {
            let full = state.bytes >= self.options.buffer_bytes;
            if let Some(outcome) = state.pop() {
                // Workers waited for room in memory, or for another row to be the first.
                if full {
                    self.work.notify_all();
                }
                return Some(outcome);
            }
            if state.rows.is_empty() {
                return None;
            }
            state = self.done.wait_timeout(state, POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
        Some(Err(FetchError::Cancelled))
    }

    fn close(&self) {
        self.state().closed = true;
        self.work.notify_all();
        self.client.shut_down();
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no message").to_owned()
}

impl<I: Iterator<Item: AsRef<str>>> Stream<I> {
    pub(super) fn start(urls: I, options: FetchOptions, client: Client, stop: Arc<AtomicBool>) -> Result<Self, FetchError> {
        let state = State { first: 0, rows: VecDeque::new(), active: HashMap::new(), bytes: 0, closed: false };
        let (work, done) = (Condvar::new(), Condvar::new());
        let shared = Shared { client, options, state: Mutex::new(state), work, done };
        let stream = Self { urls: urls.fuse(), stop, shared: Arc::new(shared) };
        for _ in 0..stream.shared.options.threads {
            let (shared, stop) = (Arc::clone(&stream.shared), Arc::clone(&stream.stop));
            let thread = std::thread::Builder::new().name("fetch".to_owned());
            thread.spawn(move || shared.work(&stop)).map_err(FetchError::Thread)?;
        }
        Ok(stream)
    }

    /// Takes rows from the list while the window has room.
    fn fill(&mut self) {
        while !self.stop.load(Ordering::Relaxed) && self.shared.state().rows.len() < self.shared.options.window {
            let Some(url) = self.urls.next() else { break };
            let row = Job::new(url.as_ref()).map_or_else(|e| Row::Done(Err(e)), |job| Row::Waiting(job, Instant::now()));
            self.shared.state().rows.push_back(row);
            self.shared.work.notify_one();
        }
    }
}

impl<I: Iterator<Item: AsRef<str>>> Iterator for Stream<I> {
    type Item = Outcome;

    fn next(&mut self) -> Option<Outcome> {
        if self.shared.state().closed {
            return None;
        }
        self.fill();
        let outcome = self.shared.first(&self.stop);
        match outcome {
            None | Some(Err(FetchError::Cancelled)) => self.shared.close(),
            // So that no thread idles while the caller works on this one.
            Some(_) => self.fill(),
        }
        outcome
    }
}

impl<I> Drop for Stream<I> {
    /// The threads are not waited for: one that looks a name up or connects notices only after that.
    fn drop(&mut self) {
        self.shared.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(urls: &[&str], now: Instant) -> State {
        let rows = urls.iter().map(|url| Row::Waiting(Job::new(url).unwrap(), now)).collect();
        State { first: 0, rows, active: HashMap::new(), bytes: 0, closed: false }
    }

    fn fetched(size: usize) -> Row {
        Row::Done(Ok(Fetched { bytes: vec![0; size], url: String::new(), content_type: None, attempts: 1 }))
    }

    #[test]
    fn a_busy_host_is_passed_over() {
        let now = Instant::now();
        let options = FetchOptions { per_host: 1, ..FetchOptions::default() };
        let mut state = state(&["http://a/1", "http://a/2", "http://b/1", "http://A:81/3", "http://b/2"], now);
        let mut take = || state.take(&options, now).map(|(number, _)| number).ok();
        assert_eq!([take(), take(), take()], [Some(0), Some(2), None]);
        state.put(0, "a", fetched(1));
        assert_eq!(state.take(&options, now).map(|(number, _)| number).ok(), Some(1));
    }

    #[test]
    fn a_row_that_waits_takes_no_place() {
        let now = Instant::now();
        let options = FetchOptions { per_host: 1, ..FetchOptions::default() };
        let mut state = state(&["http://a/1", "http://a/2"], now);
        let (_, job) = state.take(&options, now).unwrap();
        let later = now + Duration::from_secs(9);
        state.put(0, "a", Row::Waiting(job, later));
        assert_eq!(state.take(&options, now).unwrap().0, 1);
        assert_eq!(state.take(&options, now).unwrap_err(), Some(later));
        state.put(1, "a", fetched(1));
        assert_eq!(state.take(&options, later).unwrap().0, 0);
    }

    #[test]
    fn with_full_memory_only_the_first_row_goes_on() {
        let now = Instant::now();
        let options = FetchOptions { buffer_bytes: 10, ..FetchOptions::default() };
        let mut state = state(&["http://a/1", "http://b/1", "http://c/1"], now);
        state.rows[1] = Row::Running;
        state.active.insert("b".to_owned(), 1);
        state.put(1, "b", fetched(10));
        assert_eq!(state.take(&options, now).unwrap().0, 0);
        assert!(state.take(&options, now).is_err());
        state.put(0, "a", fetched(3));
        assert!(state.pop().is_some() && state.pop().is_some() && state.pop().is_none());
        assert_eq!((state.take(&options, now).unwrap().0, state.bytes), (2, 0));
    }
}
