//! JPEG to a slot of the batch: softclip against the `image` crate.
//!
//! ```text
//! cargo bench -p softclip-data --bench decode -- [FOLDER_OR_TAR_OF_JPEGS]      (or the variable SOFTCLIP_PHOTOS)
//! ```
#![allow(clippy::print_stdout)]

use std::path::PathBuf;

fn main() -> Result<(), softclip_data::bench::BenchError> {
    // `cargo bench` adds --bench.
    let argument = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let photos = argument.map(PathBuf::from).or_else(|| std::env::var_os("SOFTCLIP_PHOTOS").map(PathBuf::from));
    println!("{}", softclip_data::bench::image_path(photos.as_deref(), 8.0)?);
    Ok(())
}
