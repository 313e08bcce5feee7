//! What the loader hands to the trainer.

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// CLIP's channel means, for pixels in [0, 1].
pub const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// CLIP's channel standard deviations, for pixels in [0, 1].
pub const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// N pairs as they leave the loader: on the CPU, images as bytes.
#[derive(Debug)]
pub struct Batch {
    /// u8 [N, 3, H, W].
    pub images: Tensor,
    /// The captions.
    pub tokens: TokenRows,
    /// The samples' keys, for messages: N of them.
    pub keys: Vec<String>,
    /// The tag sentences, if the source has tags.
    pub tags: Option<Tags>,
    /// The region features, if the source has them.
    pub regions: Option<Regions>,
    /// Captions and tag sentences as texts, where they were asked for.
    pub texts: Option<Texts>,
}

impl Batch {
    /// Checks that all parts are of the same N.
    ///
    /// # Errors
    /// The part that does not fit.
    pub fn new(
        images: Tensor,
        tokens: TokenRows,
        keys: Vec<String>,
        tags: Option<Tags>,
        regions: Option<Regions>,
    ) -> Result<Self> {
        let size = images.size();
        if size.len() != 4 || size[1] != 3 || images.kind() != Kind::Uint8 {
            return Err(Error::Shape { what: "images of a batch", expected: "u8 [N, 3, H, W]", found: size });
        }
        let n = size[0];
        let rows = |what: &'static str, found: i64| match found == n {
            true => Ok(()),
            false => Err(Error::Value { what, why: format!("a batch of {n} images has {found} of them") }),
        };
        rows("captions", tokens.len())?;
        rows("rows of tokens", tokens.tokens.size()[0])?;
        rows("keys", keys.len() as i64)?;
        tags.as_ref().map_or(Ok(()), |t| rows("tag sentences", t.len()))?;
        tags.as_ref().map_or(Ok(()), |t| rows("rows of tag tokens", t.sentences.tokens.size()[0]))?;
        regions.as_ref().map_or(Ok(()), |r| rows("rows of regions", r.len()))?;
        Ok(Batch { images, tokens, keys, tags, regions, texts: None })
    }

    /// The same with its texts.
    ///
    /// # Errors
    /// There are not N captions, N sentences and N marks.
    pub fn with_texts(self, texts: Texts) -> Result<Self> {
        let n = self.len() as usize;
        let parts = [
            ("captions", texts.captions.len()),
            ("tag sentences", texts.sentences.len()),
            ("marks of tags", texts.present.len()),
        ];
        if let Some((what, found)) = parts.into_iter().find(|(_, found)| *found != n) {
            return Err(Error::Value { what, why: format!("a batch of {n} images has {found} of them as texts") });
        }
        Ok(Batch { texts: Some(texts), ..self })
    }

    /// N.
    pub fn len(&self) -> i64 {
        self.images.size()[0]
    }

    /// Whether there is no pair in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same batch on `device`. Images travel as bytes: a quarter of their f32 size.
    ///
    /// # Errors
    /// The device has no memory left.
    pub fn to_device(&self, device: Device) -> Result<Self> {
        let tokens =
            |t: &TokenRows| Ok::<_, Error>(TokenRows { tokens: t.tokens.f_to_device(device)?, lengths: t.lengths.clone() });
        let tags = |t: &Tags| Ok::<_, Error>(Tags { sentences: tokens(&t.sentences)?, present: t.present.f_to_device(device)? });
        Ok(Batch {
            images: self.images.f_to_device(device)?,
            tokens: tokens(&self.tokens)?,
            keys: self.keys.clone(),
            tags: self.tags.as_ref().map(tags).transpose()?,
            regions: self
                .regions
                .as_ref()
                .map(|r| Ok::<_, Error>(Regions { features: r.features.f_to_device(device)?, mask: r.mask.f_to_device(device)? }))
                .transpose()?,
            texts: self.texts.clone(),
        })
    }
}

/// What N pairs say, before any tokenizer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// The captions: of several the one whose tokens are in the batch.
    pub captions: Vec<String>,
    /// The tag sentences; a neutral one, perhaps empty, where nothing was detected.
    pub sentences: Vec<String>,
    /// False where nothing was detected.
    pub present: Vec<bool>,
}

/// Tokenized texts, padded at their ends with the tokenizer's own token for that.
#[derive(Debug)]
pub struct TokenRows {
    /// i64 [N, L]: L is the context length, or that of the longest text here where rows are trimmed.
    pub tokens: Tensor,
    /// The tokens of each text, start and end among them: N numbers, each ≤ L.
    pub lengths: Vec<i64>,
}

impl TokenRows {
    /// N.
    pub fn len(&self) -> i64 {
        self.lengths.len() as i64
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Rows `from` to `from + n`, still of width L.
    pub fn narrow(&self, from: i64, n: i64) -> Self {
        TokenRows { tokens: self.tokens.narrow(0, from, n), lengths: self.lengths[from as usize..(from + n) as usize].to_vec() }
    }
}

/// What was detected in N images, as sentences.
#[derive(Debug)]
pub struct Tags {
    /// The sentences; a neutral one where nothing was detected.
    pub sentences: TokenRows,
    /// bool `[N]`: false where nothing was detected.
    pub present: Tensor,
}

impl Tags {
    /// Checks kind and shape of `present`.
    ///
    /// # Errors
    /// It is not bool `[N]`.
    pub fn new(sentences: TokenRows, present: Tensor) -> Result<Self> {
        if present.kind() != Kind::Bool || present.size() != [sentences.len()] {
            return Err(Error::Shape { what: "which images have tags", expected: "bool [N]", found: present.size() });
        }
        Ok(Tags { sentences, present })
    }

    /// N.
    pub fn len(&self) -> i64 {
        self.sentences.len()
    }

    /// Whether there is no sentence.
    pub fn is_empty(&self) -> bool {
        self.sentences.is_empty()
    }
}

/// Region features of N images.
#[derive(Debug)]
pub struct Regions {
    /// f32 [N, R, F]: F = appearance + 4 box corners as fractions of the image (2,048 + 4 in the paper). Zeros where there is none.
    pub features: Tensor,
    /// bool [N, R]: true for a real region. A row without any is a pair without detections.
    pub mask: Tensor,
}

impl Regions {
    /// Checks kinds and shapes.
    ///
    /// # Errors
    /// `features` is not f32 [N, R, F], or `mask` not bool [N, R].
    pub fn new(features: Tensor, mask: Tensor) -> Result<Self> {
        if features.dim() != 3 || features.kind() != Kind::Float {
            return Err(Error::Shape { what: "region features", expected: "f32 [N, R, F]", found: features.size() });
        }
        if mask.kind() != Kind::Bool || mask.size() != features.size()[..2] {
            return Err(Error::Shape { what: "mask of regions", expected: "bool [N, R]", found: mask.size() });
        }
        Ok(Regions { features, mask })
    }

    /// N.
    pub fn len(&self) -> i64 {
        self.features.size()[0]
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// bool `[N]`: which images have at least one region.
    pub fn present(&self) -> Tensor {
        self.mask.any_dim(1, false)
    }

    /// Images `from` to `from + n`.
    pub fn narrow(&self, from: i64, n: i64) -> Self {
        Regions { features: self.features.narrow(0, from, n), mask: self.mask.narrow(0, from, n) }
    }
}

/// Bytes [N, 3, H, W] to (x/255 − mean)/std in `kind`, on the device where they are.
///
/// # Errors
/// The device has no memory left, or `images` is not u8 [N, 3, H, W].
pub fn normalize_images(images: &Tensor, kind: Kind, mean: [f32; 3], std: [f32; 3]) -> Result<Tensor> {
    let size = images.size();
    if size.len() != 4 || size[1] != 3 || images.kind() != Kind::Uint8 {
        return Err(Error::Shape { what: "images", expected: "u8 [N, 3, H, W]", found: size });
    }
    // x·a + b in one pass: a = 1/(255 std), b = −mean/std.
    let constant = |f: &dyn Fn(usize) -> f32| {
        Tensor::from_slice(&[f(0), f(1), f(2)]).view([1, 3, 1, 1]).f_to_device(images.device()).and_then(|t| t.f_to_kind(kind))
    };
    let (a, b) = (constant(&|c| 1.0 / (255.0 * std[c]))?, constant(&|c| -mean[c] / std[c])?);
    Ok(b.f_addcmul(&images.f_to_kind(kind)?, &a)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(n: usize) -> TokenRows {
        TokenRows { tokens: Tensor::zeros([n as i64, 4], (Kind::Int64, Device::Cpu)), lengths: vec![2; n] }
    }

    #[test]
    fn a_batch_whose_parts_differ_in_n_is_refused_by_name() {
        let images = |n| Tensor::zeros([n, 3, 2, 2], (Kind::Uint8, Device::Cpu));
        let keys = |n| vec![String::from("k"); n];
        assert!(Batch::new(images(2), rows(2), keys(2), None, None).is_ok());
        assert!(Batch::new(images(2), rows(3), keys(2), None, None).unwrap_err().to_string().contains("captions"));
        assert!(Batch::new(images(2), rows(2), keys(1), None, None).unwrap_err().to_string().contains("keys"));
        let tags = |n: usize| Some(Tags::new(rows(n), Tensor::from_slice(&vec![true; n])).unwrap());
        assert!(Batch::new(images(2), rows(2), keys(2), tags(2), None).is_ok());
        assert!(Batch::new(images(2), rows(2), keys(2), tags(1), None).unwrap_err().to_string().contains("tag"));
        assert!(Tags::new(rows(2), Tensor::from_slice(&[true])).unwrap_err().to_string().contains("bool [N]"));
        let texts = |captions, n| Texts { captions: keys(captions), sentences: keys(n), present: vec![true; n] };
        let batch = || Batch::new(images(2), rows(2), keys(2), None, None).unwrap();
        assert_eq!(batch().with_texts(texts(2, 2)).unwrap().to_device(Device::Cpu).unwrap().texts, Some(texts(2, 2)));
        assert!(batch().with_texts(texts(3, 2)).unwrap_err().to_string().contains("captions"));
        assert!(batch().with_texts(texts(2, 1)).unwrap_err().to_string().contains("tag sentences"));
        let short = TokenRows { lengths: vec![2; 2], ..rows(3) };
        assert!(Batch::new(images(2), short, keys(2), None, None).unwrap_err().to_string().contains("rows of tokens"));
        assert!(Batch::new(images(2).to_kind(Kind::Float), rows(2), keys(2), None, None).is_err());
    }

    #[test]
    fn pixels_are_normalised_with_clips_constants() {
        let x = Tensor::from_slice(&[0u8, 128, 255]).view([1, 3, 1, 1]);
        let y = Vec::<f32>::try_from(normalize_images(&x, Kind::Float, CLIP_MEAN, CLIP_STD).unwrap().view([3])).unwrap();
        for (c, value) in [0f32, 128.0, 255.0].into_iter().enumerate() {
            let expected = (value / 255.0 - CLIP_MEAN[c]) / CLIP_STD[c];
            assert!((y[c] - expected).abs() < 1e-6, "{c}: {} {expected}", y[c]);
        }
    }

    #[test]
    fn images_without_any_region_are_seen() {
        let mask = Tensor::from_slice(&[true, false, false, false]).view([2, 2]);
        let r = Regions::new(Tensor::zeros([2, 2, 8], (Kind::Float, Device::Cpu)), mask).unwrap();
        assert_eq!(Vec::<bool>::try_from(r.present()).unwrap(), [true, false]);
    }
}
