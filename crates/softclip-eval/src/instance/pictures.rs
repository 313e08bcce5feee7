//! Embeddings of image files at several scales: threads decode, the caller's encodes.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::sync_channel;

use rayon::prelude::*;
use softclip_data::image::{DecodeOptions, Decoder, ImageError, Views};
use softclip_encoders::Clip;
use softclip_tensor::Embeddings;
use softclip_torch::guard;
use tch::{Kind, Tensor};

use super::set::Picture;
use crate::EvalError;
use crate::encode::{EvalOptions, encode_images};

/// Batches that are decoded ahead.
const AHEAD: usize = 2;

thread_local! {
    static DECODER: RefCell<Option<Decoder>> = const { RefCell::new(None) };
}

/// One batch: the views of those pictures that could be read, one after another, and why others could not.
struct Batch {
    views: Vec<u8>,
    pictures: usize,
    failed: Vec<String>,
}

/// Encodes `pictures` in their order, `[n, D]` at a time, of each the sum over its views made unit again. `take` gets the rows, and why some
/// of the batch could not be read.
pub(super) fn encode_pictures(
    clip: &Clip,
    pictures: &[Picture],
    views: &Views,
    options: &EvalOptions,
    mut take: impl FnMut(Option<Embeddings>, Vec<String>) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    let threads = rayon::ThreadPoolBuilder::new().num_threads(options.workers).build();
    let threads = threads.map_err(|e| EvalError::Input(format!("the threads that read images do not start: {e}")))?;
    // Boxes are given in the file's own pixels, and the published code turns no image and resizes none while decoding.
    let decode = DecodeOptions { apply_exif: false, dct_scaling: false, ..options.decode };
    let size = (options.batch_size / views.count()).max(1);
    std::thread::scope(|scope| {
        let (send, batches) = sync_channel(AHEAD);
        let threads = &threads;
        scope.spawn(move || {
            for pictures in pictures.chunks(size) {
                if send.send(threads.install(|| read(pictures, views, decode))).is_err() {
                    return; // the other side has failed
                }
            }
        });
        for batch in batches {
            let rows = if batch.pictures > 0 { Some(encode(clip, &batch, views, options)?) } else { None };
            take(rows, batch.failed)?;
        }
        Ok(())
    })
}

fn read(pictures: &[Picture], views: &Views, decode: DecodeOptions) -> Batch {
    let one = |picture: &Picture| {
        let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", picture.path.display());
        let bytes = std::fs::read(&picture.path).map_err(|e| failed(&e))?;
        guarded(|| seen(&bytes, picture.part, views, decode).map_err(|e| failed(&e))).map_err(|why| failed(&why))?
    };
    let mut batch = Batch { views: Vec::with_capacity(pictures.len() * views.output_len()), pictures: 0, failed: Vec::new() };
    for found in pictures.par_iter().map(one).collect::<Vec<_>>() {
        match found {
            Ok(views) => {
                batch.views.extend(views);
                batch.pictures += 1;
            }
            Err(why) => batch.failed.push(why),
        }
    }
    batch
}

/// A decoder's defect costs the image, not the process.
fn guarded<T>(make: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(make)).map_err(|panic| {
        // It may have been left in any state.
        DECODER.with_borrow_mut(|decoder| *decoder = None);
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        format!("a defect in the decoder: {}", text.unwrap_or("no message"))
    })
}

fn seen(bytes: &[u8], part: Option<[f64; 4]>, views: &Views, decode: DecodeOptions) -> Result<Vec<u8>, ImageError> {
    DECODER.with_borrow_mut(|decoder| {
        let decoder = match decoder {
            Some(decoder) => decoder,
            // The threads live no longer than one data set and its options.
            None => decoder.insert(Decoder::new(decode)?),
        };
        let mut out = vec![0; views.output_len()];
        views.apply(bytes, part, decoder, &mut out)?;
        Ok(out)
    })
}

fn encode(clip: &Clip, batch: &Batch, views: &Views, options: &EvalOptions) -> Result<Embeddings, EvalError> {
    let (n, scales, side) = (batch.pictures as i64, views.count() as i64, i64::from(views.size()));
    let images = Tensor::f_from_slice(&batch.views)?.f_view([n * scales, 3, side, side])?;
    let rows = guard(|| encode_images(clip, &images, options))??;
    if scales == 1 {
        return Ok(Embeddings::checked(rows)?);
    }
    let sum = rows.f_view([n, scales, -1])?.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)?;
    Ok(Embeddings::normalize(&sum)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoder_that_panics_fails_its_image_alone() -> Result<(), ImageError> {
        let decoder = Decoder::new(DecodeOptions::default())?;
        let found = guarded(|| {
            DECODER.with_borrow_mut(|kept| {
                *kept = Some(decoder);
                assert!(kept.is_none(), "out of range");
            });
        });
        assert!(found.is_err_and(|why| why.contains("defect") && why.contains("out of range")));
        assert!(DECODER.with_borrow(Option::is_none), "it is not used again");
        assert_eq!(guarded(|| 3), Ok(3));
        Ok(())
    }
}
