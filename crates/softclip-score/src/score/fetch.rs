//! Images behind addresses.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use softclip_data::fetch::{FetchError, FetchOptions, Fetcher};

use super::Remote;

/// Fetches over HTTP, and counts by cause what fails.
#[derive(Debug)]
pub struct Fetch {
    fetcher: Fetcher,
    failures: Mutex<BTreeMap<String, u64>>,
}

impl Fetch {
    /// A fetcher with `options`.
    ///
    /// # Errors
    /// They do not fit.
    pub fn new(options: FetchOptions) -> Result<Self, FetchError> {
        Ok(Self { fetcher: Fetcher::new(options)?, failures: Mutex::default() })
    }

    /// How many addresses have given no file, by cause ([`FetchError::kind`]).
    pub fn failures(&self) -> BTreeMap<String, u64> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn failed(&self, url: &str, why: &FetchError) -> String {
        // What is stopped has not failed.
        if !matches!(why, FetchError::Cancelled) {
            *self.failures.lock().unwrap_or_else(PoisonError::into_inner).entry(why.kind().into_owned()).or_default() += 1;
        }
        format!("{url}: {why}")
    }
}

impl Remote for Fetch {
    fn stream<'a>(
        &'a self,
        urls: Vec<String>,
        stop: &'a Arc<AtomicBool>,
    ) -> Box<dyn Iterator<Item = Result<Vec<u8>, String>> + 'a> {
        match self.fetcher.stream(urls.clone(), Arc::clone(stop)) {
            Ok(outcomes) => {
                let file = |(url, outcome): (String, Result<_, FetchError>)| match outcome {
                    Ok(softclip_data::fetch::Fetched { bytes, .. }) => Ok(bytes),
                    Err(why) => Err(self.failed(&url, &why)),
                };
                Box::new(urls.into_iter().zip(outcomes).map(file))
            }
            Err(why) => Box::new(urls.into_iter().map(move |url| Err(self.failed(&url, &why)))),
        }
    }
}
