//! Small pictures of what was found.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use image::codecs::jpeg::JpegEncoder;
use softclip_data::image::{DecodeOptions, Decoder, ImageError};
use softclip_data::source::Source;

use crate::embed::{Entry, Input, Meta, What};
use crate::error::{Error, Result};

/// Makes small JPEGs of a collection's images: from their files, or from the data set, which is opened when the first one needs it.
pub struct Pictures {
    meta: Option<Meta>,
    side: u32,
    decode: DecodeOptions,
    source: OnceLock<std::result::Result<Arc<dyn Source>, String>>,
}

impl Pictures {
    /// For the collection that `meta` describes; the longer side will have at most `side` pixels. Of `decode` only the limit counts.
    pub fn new(meta: Option<&Meta>, side: u32, decode: DecodeOptions) -> Self {
        Self { meta: meta.cloned(), side, decode, source: OnceLock::new() }
    }

    /// The image of an entry as a JPEG.
    ///
    /// # Errors
    /// Its file or data set is not where it was, or it cannot be decoded.
    pub fn of(&self, entry: &Entry) -> Result<Vec<u8>> {
        let file = self.file(entry)?;
        thumbnail(&file, self.side, self.decode).map_err(|e| Error::Input(format!("'{}': {e}", entry.key)))
    }

    /// The bytes of an entry's image file.
    ///
    /// # Errors
    /// Its file or data set is not where it was.
    pub fn file(&self, entry: &Entry) -> Result<Vec<u8>> {
        let missing = |why: &str| Error::Input(format!("'{}': {why}", entry.key));
        if entry.text.is_some() {
            return Err(missing("a text has no picture"));
        }
        let meta = self.meta.as_ref().ok_or_else(|| missing("there is no meta.json that tells where its image is"))?;
        match &entry.path {
            Some(path) if !is_tar(path) => {
                let path = Path::new(&meta.working_folder).join(path);
                std::fs::read(&path).map_err(Error::io(&path))
            }
            _ => self.out_of_source(meta, entry),
        }
    }

    fn out_of_source(&self, meta: &Meta, entry: &Entry) -> Result<Vec<u8>> {
        let spec = &meta.plan.source.spec;
        let wrong = |why: String| Error::Input(format!("'{}': {why}", entry.key));
        let open = || {
            Input::open(spec, What::Images)
                .map_err(|e| e.to_string())
                .and_then(|input| input.into_source().ok_or_else(String::new))
        };
        let source = self
            .source
            .get_or_init(open)
            .as_ref()
            .map_err(|why| wrong(format!("{why}; search in {}, where the embeddings were made", meta.working_folder)))?;
        let index = entry.index.filter(|&index| source.key(index) == entry.key);
        let index = index.ok_or_else(|| wrong(format!("{spec} has changed since it was embedded")))?;
        Ok(source.read(index).map_err(|e| wrong(e.to_string()))?.image)
    }
}

fn is_tar(path: &Path) -> bool {
    let name = path.to_string_lossy();
    [".tar", ".tar.gz", ".tgz"].iter().any(|end| name.ends_with(end))
}

/// An image file's bytes as an upright JPEG whose longer side has at most `side` pixels. Of `decode` only `max_pixels` counts.
///
/// # Errors
/// The image cannot be decoded.
pub fn thumbnail(bytes: &[u8], side: u32, decode: DecodeOptions) -> std::result::Result<Vec<u8>, ImageError> {
    let mut decoder = Decoder::new(DecodeOptions { max_pixels: decode.max_pixels, ..DecodeOptions::default() })?;
    let (pixels, (w, h)) = decoder.shrink(bytes, side)?;
    let mut out = Vec::new();
    JpegEncoder::new_with_quality(&mut out, 80).encode(pixels, w, h, image::ExtendedColorType::Rgb8)?;
    Ok(out)
}
