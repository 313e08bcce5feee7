//! What TorchScript files say about themselves, and the layouts of their outputs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod archive;
mod failures;
mod layouts;
mod metadata;

use softclip_detector::{Detection, Error, Network, NetworkOptions, Thresholds, Trust};
use tch::{Device, Kind, Tensor};

const SIDE: i64 = 64;

fn names(names: &[&str]) -> Option<Vec<String>> {
    Some(names.iter().map(|&name| name.to_owned()).collect())
}

fn open(bytes: &[u8], options: NetworkOptions) -> Result<Network, Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.pt");
    std::fs::write(&path, bytes).unwrap();
    Network::open(&path, NetworkOptions { trust: Trust::Yes, ..options }, Device::Cpu)
}

fn input() -> Tensor {
    Tensor::zeros([1, SIDE, SIDE, 3], (Kind::Uint8, Device::Cpu))
}

fn detect(bytes: &[u8], options: NetworkOptions) -> Result<Vec<Detection>, Error> {
    let found = open(bytes, options)?.detect(&input(), &Thresholds::default())?;
    Ok(found.into_iter().next().unwrap())
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>, words: &[&str]) {
    let error = result.unwrap_err().to_string();
    assert!(words.iter().all(|word| error.contains(word)), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}
