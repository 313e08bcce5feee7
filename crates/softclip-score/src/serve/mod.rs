//! A page to search a collection with, served to browsers of this machine.
//!
//! | address | gives |
//! | --- | --- |
//! | `GET /` | the page |
//! | `GET /api/info` | the collection's name, model, rows and default k |
//! | `GET /api/search?text=…&k=…` | what is nearest to a text |
//! | `POST /api/search?k=…` | what is nearest to the image file in the body |
//! | `GET /thumb/ROW` | a small JPEG of a row's image |
//!
//! No path of a request is ever a path of a file: thumbnails are asked for by row, and made of the images that the collection names.
//! Only requests that name this server in `Host` are answered, so that no other page can reach it under a name of its own.

mod api;
mod host;
mod http;
mod semaphore;

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use softclip_data::image::{DecodeOptions, Transform};
use tch::Tensor;

use crate::embed::{Encoder, Entry, single};
use crate::error::{Error, Result};
use crate::search::{Collection, Found, Pictures, named};
use host::Hosts;
use semaphore::Semaphore;

/// Results that a search may ask for.
pub const MOST: usize = 500;
/// Connections at a time; browsers keep six.
const CONNECTIONS: usize = 64;
/// Images that are received and decoded at a time.
const UPLOADS: u64 = 4;
/// Bytes that decoding takes at a time, for searches and thumbnails together. A photograph of 89 megapixels fits.
const DECODING: u64 = 512 << 20;
/// How often it is looked whether to stop.
const LOOK: Duration = Duration::from_millis(100);
/// Side of the pictures on the page, in its pixels.
const SIDE: u32 = 320;

/// How a collection is served.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Results that the page asks for first; more than [`MOST`] count as so many.
    pub k: usize,
    /// A name by which clients may call this server, beside `localhost` and addresses: what `--host` was.
    pub host: String,
    /// The page's style sheet, before that of the search itself.
    pub style: &'static str,
}

/// What the threads that answer share.
struct Shared {
    collection: Arc<Collection>,
    pictures: Pictures,
    transform: Transform,
    decode: DecodeOptions,
    hosts: Hosts,
    options: ServeOptions,
    jobs: SyncSender<Job>,
    uploads: Arc<Semaphore>,
    /// A permit per byte.
    decoding: Arc<Semaphore>,
    /// What was found lately, by row: looking up a row reads all keys.
    known: Mutex<std::collections::BTreeMap<usize, Entry>>,
}

/// What is searched for.
enum Sought {
    Text(String),
    /// u8 `[3, S, S]`.
    Crop(Vec<u8>),
}

/// A search, and who waits for it.
struct Job {
    sought: Sought,
    k: usize,
    found: SyncSender<Result<Vec<Found>>>,
    /// Nobody waits any longer.
    until: Instant,
}

/// Answers on `listener` until `stop`. Texts and images are encoded one after another on this thread, which has the model; all else is done
/// by a thread a connection.
///
/// # Errors
/// The listener has no address, or no thread starts. What is wrong with a request is told to its client.
pub fn serve(
    encoder: &Encoder,
    collection: Arc<Collection>,
    listener: TcpListener,
    options: ServeOptions,
    stop: &Arc<AtomicBool>,
) -> Result<()> {
    let failed = |e: std::io::Error| Error::Input(format!("cannot serve: {e}"));
    let address = listener.local_addr().map_err(failed)?;
    let (jobs, waiting) = sync_channel(CONNECTIONS);
    let shared = Arc::new(Shared {
        pictures: Pictures::new(collection.meta(), SIDE, encoder.decode),
        collection: Arc::clone(&collection),
        transform: encoder.transform(),
        decode: encoder.decode,
        hosts: Hosts::new(address, &options.host),
        options,
        jobs,
        uploads: Semaphore::new(UPLOADS),
        decoding: Semaphore::new(DECODING),
        known: Mutex::default(),
    });
    let ended = Arc::clone(stop);
    let accept = move || accept(&listener, &shared, &ended);
    std::thread::Builder::new().name("accept".to_owned()).spawn(accept).map_err(failed)?;
    search(&waiting, stop, |sought, k| nearest(encoder, &collection, sought, k));
    // The thread that accepts is asleep: a connection wakes it, and it sees that this is over.
    let _ = TcpStream::connect_timeout(&Hosts::reachable(address), Duration::from_secs(1));
    Ok(())
}

fn search(waiting: &Receiver<Job>, stop: &AtomicBool, mut find: impl FnMut(Sought, usize) -> Result<Vec<Found>>) {
    while !stop.load(Ordering::Relaxed) {
        match waiting.recv_timeout(LOOK) {
            Ok(Job { until, .. }) if until <= Instant::now() => {}
            Ok(Job { sought, k, found, .. }) => {
                // Who waited may have given up meanwhile.
                let _ = found.send(find(sought, k));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn nearest(encoder: &Encoder, collection: &Collection, sought: Sought, k: usize) -> Result<Vec<Found>> {
    let row: Tensor = match sought {
        Sought::Text(text) => encoder.texts(&[text])?,
        Sought::Crop(crop) => encoder.images(&single(encoder, &crop)?)?,
    };
    let found = named(collection, collection.nearest(&row, k)?)?;
    Ok(found.into_iter().next().unwrap_or_default())
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, stop: &AtomicBool) {
    let connections = Semaphore::new(CONNECTIONS as u64);
    for stream in listener.incoming() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else {
            // No file descriptor is left, say: that passes.
            std::thread::sleep(LOOK);
            continue;
        };
        // Beyond the limit a connection is closed without a word: an answer would take time, too.
        let Some(permit) = connections.try_acquire(1) else { continue };
        let shared = Arc::clone(shared);
        let handle = move || {
            let _permit = permit;
            handle(&stream, &shared);
        };
        // Where no thread starts, the connection closes.
        let _ = std::thread::Builder::new().name("answer".to_owned()).spawn(handle);
    }
}

fn handle(stream: &TcpStream, shared: &Shared) {
    let response = match http::read_head(stream) {
        Ok(request) => api::answer(stream, request, shared),
        Err(refused) => refused,
    };
    if let Some(response) = response {
        http::answer(stream, &response);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searches_that_nobody_waits_for_are_not_made() {
        let (jobs, waiting) = sync_channel(2);
        let now = Instant::now();
        let job = |text: &str, until| {
            let (found, waits) = sync_channel(1);
            jobs.send(Job { sought: Sought::Text(text.to_owned()), k: 1, found, until }).unwrap();
            waits
        };
        let (late, early) = (job("late", now), job("early", now + Duration::from_secs(3600)));
        drop(jobs);
        let mut made = Vec::new();
        search(&waiting, &AtomicBool::new(false), |sought, _| {
            made.extend(match sought {
                Sought::Text(text) => Some(text),
                Sought::Crop(_) => None,
            });
            Ok(Vec::new())
        });
        assert_eq!(made, ["early"]);
        assert!(late.recv().is_err(), "hung up");
        assert!(early.recv().unwrap().is_ok());
    }
}
