//! What a source hands out: one sample, or the reason why there is none.

use std::fmt;

use serde::{Deserialize, Serialize};
use softclip_io::printable;

/// Characters that a message shows of a key or a detail.
const LINE: usize = 400;

/// One image with everything that belongs to it. The image is the file as stored (JPEG, PNG, …), not yet decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Name of the sample, unique within its source.
    pub key: String,
    /// The encoded image file.
    pub image: Vec<u8>,
    /// Captions in the order of the data set, without outer white space, none of them blank; at least one, unless the sample has a class
    /// instead.
    pub captions: Vec<String>,
    /// Names of what was detected in the image (duplicates kept: two dogs are `dog`, `dog`), if the source has them.
    pub tags: Option<Vec<String>>,
    /// Features of the detected regions, if the source has them.
    pub rois: Option<Rois>,
    /// Class id where the source has a folder for each class; an index into [`super::Source::classes`].
    pub class: Option<usize>,
}

impl Sample {
    /// Removes outer white space of captions, and captions that are blank. Refuses what no loader can use: an image of no bytes, captions
    /// that are all blank.
    pub(super) fn checked(mut self) -> Result<Self, SampleError> {
        let given = self.captions.len();
        self.captions.retain_mut(|caption| {
            caption.truncate(caption.trim_end().len());
            caption.drain(..caption.len() - caption.trim_start().len());
            !caption.is_empty()
        });
        let fault = if self.image.is_empty() {
            (SampleErrorKind::EmptyImage, "the image file has no bytes")
        } else if given > 0 && self.captions.is_empty() {
            (SampleErrorKind::EmptyCaption, "every caption is blank")
        } else if given == 0 && self.class.is_none() {
            (SampleErrorKind::MissingCaption, "there is no caption")
        } else {
            return Ok(self);
        };
        Err(SampleError::new(self.key, fault.0, fault.1))
    }
}

/// Region features of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Rois {
    /// Number of regions R; zero for an image without detections.
    pub count: usize,
    /// Length F of a region's feature vector.
    pub dim: usize,
    /// Row-major `[R, F]`, all finite.
    pub features: Vec<f32>,
}

/// Why a sample cannot be used. The names (`truncated_image`, …) are what reports count by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SampleErrorKind {
    /// The sample has no image, or its file is not there.
    MissingImage,
    /// The sample has no caption at all.
    MissingCaption,
    /// Every caption of the sample is blank.
    EmptyCaption,
    /// A caption is not UTF-8 text: other bytes, UTF-16, or NUL bytes.
    InvalidUtf8,
    /// The image file has no bytes.
    EmptyImage,
    /// The JSON beside the image cannot be read.
    BadJson,
    /// The region features are not a finite `[R, F]` array of f16 or f32.
    BadRois,
    /// Tags are asked for, and the sample has none listed (an empty list is a list).
    MissingTags,
    /// Region features are asked for, and the sample has no array of them.
    MissingRois,
    /// The operating system reported an error.
    Io,
    /// Reading or decoding it met a defect of this program.
    Panic,
    /// The image file ends before the image does (found while decoding).
    TruncatedImage,
    /// The image file is damaged (found while decoding).
    CorruptImage,
    /// The file is none of the image formats that are read (found while decoding).
    UnknownFormat,
    /// The image has more pixels than the limit allows (found while decoding).
    ImageTooLarge,
}

impl SampleErrorKind {
    /// All causes.
    pub const ALL: [Self; 15] = [
        Self::MissingImage,
        Self::MissingCaption,
        Self::EmptyCaption,
        Self::InvalidUtf8,
        Self::EmptyImage,
        Self::BadJson,
        Self::BadRois,
        Self::MissingTags,
        Self::MissingRois,
        Self::Io,
        Self::Panic,
        Self::TruncatedImage,
        Self::CorruptImage,
        Self::UnknownFormat,
        Self::ImageTooLarge,
    ];

    /// The cause as reports name it, in snake_case.
    pub fn name(self) -> &'static str {
        match self {
            Self::MissingImage => "missing_image",
            Self::MissingCaption => "missing_caption",
            Self::EmptyCaption => "empty_caption",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::EmptyImage => "empty_image",
            Self::BadJson => "bad_json",
            Self::BadRois => "bad_rois",
            Self::MissingTags => "missing_tags",
            Self::MissingRois => "missing_rois",
            Self::Io => "io",
            Self::Panic => "panic",
            Self::TruncatedImage => "truncated_image",
            Self::CorruptImage => "corrupt_image",
            Self::UnknownFormat => "unknown_format",
            Self::ImageTooLarge => "image_too_large",
        }
    }
}

impl fmt::Display for SampleErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A sample that cannot be used: which, why, and the details.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("sample '{}': {kind}: {}", printable(.key, LINE), printable(.detail, LINE))]
pub struct SampleError {
    /// Key of the sample.
    pub key: String,
    /// Cause, the name that reports count by.
    pub kind: SampleErrorKind,
    /// What exactly was found and where.
    pub detail: String,
}

impl SampleError {
    /// An error of the sample `key`.
    pub fn new(key: impl Into<String>, kind: SampleErrorKind, detail: impl fmt::Display) -> Self {
        Self { key: key.into(), kind, detail: detail.to_string() }
    }

    pub(super) fn out_of_range(index: usize, len: usize) -> Self {
        Self::new(format!("#{index}"), SampleErrorKind::Io, format!("the source has {len} samples"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_causes_are_listed_in_their_order() {
        // serde knows them all.
        let names = serde_json::from_str::<SampleErrorKind>("\"none\"").unwrap_err().to_string();
        let names: Vec<&str> = names.split('`').skip(3).step_by(2).collect();
        assert_eq!(names, SampleErrorKind::ALL.map(SampleErrorKind::name));
    }
}
