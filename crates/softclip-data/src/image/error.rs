//! Why an image cannot be used.

/// How the limit is set.
const MAX_PIXELS: &str = "`--max-pixels` (of a training run: `data.decode.max_pixels`)";

/// Why an image cannot be used. The caller adds the sample's key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Zero bytes.
    #[error("the file is empty")]
    Empty,
    /// The first bytes belong to no known image format: often an error page that was saved as an image.
    #[error("not an image of a known format: it begins with \"{head}\"")]
    UnknownFormat {
        /// The first bytes, escaped.
        head: String,
    },
    /// A format or a variety of one that is known but not decoded here.
    #[error("{0} is not supported: convert the image to JPEG, PNG, WebP, GIF or BMP")]
    Unsupported(String),
    /// The header promises more pixels than the limit. Nothing has been allocated for them.
    #[error("{width} x {height} pixels are more than the limit of {limit}: if the image is trusted, raise {MAX_PIXELS}")]
    TooLarge {
        /// Width that the header states.
        width: u32,
        /// Height that the header states.
        height: u32,
        /// [`DecodeOptions::max_pixels`](super::DecodeOptions::max_pixels).
        limit: u64,
    },
    /// A JPEG of so many scans that decoding them would take long, however small the file is. Nothing has been decoded.
    #[error(
        "{scans} scans of {width} x {height} pixels are more work than {limit} pixels: write the image anew with few scans, or, if it \
         is trusted, raise {MAX_PIXELS}"
    )]
    TooManyScans {
        /// Scans in the file.
        scans: u64,
        /// Width that the header states.
        width: u32,
        /// Height that the header states.
        height: u32,
        /// The most pixels of all scans together: 16 times [`DecodeOptions::max_pixels`](super::DecodeOptions::max_pixels).
        limit: u64,
    },
    /// The data end before the image does.
    #[error("the image is cut off: its data end too early")]
    Truncated,
    /// The part of it that is asked for has no pixel.
    #[error("its part {0} (left, top, right, bottom) has no pixel")]
    EmptyPart(String),
    /// Anything else, in the decoder's words.
    #[error("the image is corrupt: {0}")]
    Corrupt(String),
    /// The buffer for the result has not 3·S·S bytes.
    #[error("the output takes {expected} bytes, but the buffer given has {found}")]
    OutputSize {
        /// 3·S·S.
        expected: usize,
        /// Bytes in the buffer.
        found: usize,
    },
}

impl ImageError {
    /// A short constant name of the cause, to count by.
    pub fn cause(&self) -> &'static str {
        match self {
            ImageError::Empty => "empty",
            ImageError::UnknownFormat { .. } => "unknown_format",
            ImageError::Unsupported(_) => "unsupported",
            ImageError::TooLarge { .. } | ImageError::TooManyScans { .. } => "too_large",
            ImageError::Truncated => "truncated",
            ImageError::EmptyPart(_) => "empty_part",
            ImageError::Corrupt(_) => "corrupt",
            ImageError::OutputSize { .. } => "output_size",
        }
    }

    pub(super) fn unknown(bytes: &[u8]) -> Self {
        ImageError::UnknownFormat { head: bytes[..bytes.len().min(12)].escape_ascii().to_string() }
    }
}

impl From<image::ImageError> for ImageError {
    fn from(error: image::ImageError) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(inner) = cause {
            if inner.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::UnexpectedEof) {
                return ImageError::Truncated;
            }
            cause = inner.source();
        }
        match error {
            image::ImageError::Unsupported(e) => ImageError::Unsupported(e.to_string()),
            // Some decoders hand the message on, but not the error itself.
            other if other.to_string().contains("unexpected end of file") => ImageError::Truncated,
            other => ImageError::Corrupt(other.to_string()),
        }
    }
}
