//! Files from URLs: many at once, in the order of the list, none of them trusted.
//!
//! A list of URLs comes from strangers and most of it is old: hosts are gone, slow, or answer with web pages. Every request is
//! bounded in time and size; failures that may pass are tried again; a host that times out again and again is given up; each URL ends as a file or as a [`FetchError`] with a cause
//! to count. Only addresses that are public are connected to, checked after the name is looked up and again at each redirect, so
//! that no list makes this machine read what only it can reach.
//!
//! ```no_run
//! use std::collections::BTreeMap;
//! use std::sync::Arc;
//! use std::sync::atomic::AtomicBool;
//!
//! use softclip_data::fetch::{FetchOptions, Fetcher};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let urls = std::fs::read_to_string("urls.txt")?;
//! let fetcher = Fetcher::new(FetchOptions { threads: 64, ..FetchOptions::default() })?;
//! let stop = Arc::new(AtomicBool::new(false)); // raise it from anywhere
//! let mut causes = BTreeMap::new();
//! for (url, outcome) in urls.lines().zip(fetcher.stream(urls.lines(), stop)?) {
//!     match outcome {
//!         Ok(file) => println!("{url}: {} bytes", file.bytes.len()),
//!         Err(error) => *causes.entry(error.kind()).or_insert(0) += 1,
//!     }
//! }
//! println!("{causes:?}"); // {"dns": 12, "http 404": 31, …}
//! # Ok(())
//! # }
//! ```

mod address;
mod error;
mod hosts;
mod options;
mod request;
mod stream;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use error::FetchError;
pub use options::FetchOptions;

use hosts::Hosts;
use request::{Client, Job, Step};
use stream::Stream;

/// A file from a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Its bytes; never empty. That they are an image is not checked.
    pub bytes: Vec<u8>,
    /// Where it lay, after redirects.
    pub url: String,
    /// Its type as the server says, `image/jpeg`, lower case and without parameters.
    pub content_type: Option<String>,
    /// Attempts that it took, from 1; redirects do not count.
    pub attempts: u32,
}

/// Fetches files from URLs; see the module.
#[derive(Debug, Clone)]
pub struct Fetcher {
    options: FetchOptions,
    client: Client,
    hosts: Arc<Hosts>,
}

impl Fetcher {
    /// A fetcher with `options`.
    ///
    /// # Errors
    /// [`FetchError::Options`]: they do not fit.
    pub fn new(options: FetchOptions) -> Result<Self, FetchError> {
        options.validate()?;
        let hosts = Arc::new(Hosts::new(options.max_host_timeouts));
        Ok(Self { client: Client::new(options.clone(), Arc::clone(&hosts)), options, hosts })
    }

    /// The file at `url`. Waits for it on this thread, retries and their pauses included.
    ///
    /// # Errors
    /// Why there is none.
    pub fn fetch(&self, url: &str) -> Result<Fetched, FetchError> {
        let mut job = Job::new(url)?;
        loop {
            match self.client.step(job) {
                Step::Done(outcome) => return outcome,
                Step::Again(next, pause) => {
                    std::thread::sleep(pause);
                    job = next;
                }
            }
        }
    }

    /// The files at `urls`, one outcome for each, in their order. Threads work ahead within the window that the options give, and
    /// wait where the caller is slower; `urls` is read on the caller's thread, only as far as the window.
    ///
    /// Once `stop` is raised the next outcome is [`FetchError::Cancelled`] and the last. This, and dropping the iterator, ends all
    /// requests at once.
    ///
    /// # Errors
    /// [`FetchError::Thread`]: a thread does not start.
    pub fn stream<I>(
        &self,
        urls: I,
        stop: Arc<AtomicBool>,
    ) -> Result<impl Iterator<Item = Result<Fetched, FetchError>> + use<I>, FetchError>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let client = Client::new(self.options.clone(), Arc::clone(&self.hosts));
        Stream::start(urls.into_iter(), self.options.clone(), client, stop)
    }
}
