//! Pairing accuracy as the code of Text-based SoftCLIP's authors computes it, so that our number can stand beside theirs.

use std::path::PathBuf;
use std::sync::Arc;

use softclip_data::image::{Augment, Interpolation, Transform};
use softclip_data::rng::{RngKey, Stream};
use softclip_data::source::{Sample, SampleError, Source, SourceFault};
use softclip_encoders::Clip;
use softclip_tensor::Embeddings;
use tch::{Kind, Tensor};

use crate::encode::{Done, Encoded, EvalOptions, View, encode_view};
use crate::{BLOCK, EvalError};

/// The seed of order and crops: the authors' code has none.
const SEED: u64 = 0;

/// The authors' transform, in training and in evaluation alike: `RandomResizedCrop(224, scale=(0.1, 1.0), ratio=(3/4, 4/3))`, which is
/// bilinear, and `RandomHorizontalFlip`.
fn augment() -> Augment {
    Augment { scale: [0.1, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0], flip: 0.5, interpolation: Interpolation::Bilinear }
}

/// What was done, to stand beside the number.
pub(crate) fn protocol() -> String {
    format!(
        "source: every caption with its image, in random order (seed {SEED}); bilinear random crops of 10 to 100 % of the area, and \
         flips, as in training; (M + Mᵀ)/2; share of the columns of {BLOCK} × {BLOCK} whose largest entry is on the diagonal; a \
         shorter last block counts as 0"
    )
}

/// The mean over blocks of the share of columns of (M + Mᵀ)/2, M = images × texts, whose largest entry is on the diagonal. Where N is
/// no multiple of `block`, the last block counts as 0, as the authors' comparison with `block` labels makes it. Rows i are a pair.
///
/// # Errors
/// Shapes differ, there is no pair, or a block has fewer than two.
pub fn pairing_as_source(image: &Embeddings, text: &Embeddings, block: i64) -> Result<f64, EvalError> {
    let n = image.rows();
    if n != text.rows() || image.dim() != text.dim() || n < 1 || block < 2 {
        let found = format!("[{n}, {}] and [{}, {}] in blocks of {block}", image.dim(), text.rows(), text.dim());
        return Err(EvalError::Input(format!("pairing needs pairs of one width, found {found}")));
    }
    let mut shares = 0.0;
    for from in (0..n / block).map(|b| b * block) {
        let rows = |x: &Embeddings| x.tensor().narrow(0, from, block);
        let scores = rows(image).f_matmul(&rows(text).tr())?; // [images, texts]
        let scores = (&scores + scores.tr()) / 2.0;
        let right = scores.f_argmax(0, false)?.f_eq_tensor(&Tensor::f_arange(block, (Kind::Int64, scores.device()))?)?;
        shares += right.to_kind(Kind::Int64).sum(Kind::Int64).int64_value(&[]) as f64 / block as f64;
    }
    Ok(shares / (n as f64 / block as f64).ceil())
}

/// Every caption with its image, in random order; each pair has a crop of its own. The pairs' embeddings, and the data set's.
pub(crate) fn encode_pairs(
    clip: &Clip,
    source: Arc<dyn Source>,
    options: &EvalOptions,
    done: &Done,
) -> Result<([Embeddings; 2], Encoded), EvalError> {
    let size = clip.config().image_size() as u32;
    let view = |k: u64, texts| View { transform: Transform::train(size, augment()), seed: SEED + k, texts };
    let first = encode_view(clip, Arc::clone(&source), options, view(0, true), done)?;
    let Some(texts) = &first.texts else { return Err(EvalError::Input("the data set has no captions".to_owned())) };
    // The k-th caption of an image goes with the image as the k-th pass sees it.
    let mut of_image: Vec<Vec<i64>> = vec![Vec::new(); first.indices.len()];
    first.owner.iter().zip(0..).for_each(|(&own, caption)| of_image[own as usize].push(caption));
    let (mut images, mut pairs) = (vec![first.images.tensor().shallow_clone()], Vec::new());
    pairs.extend((0..).zip(&of_image).filter_map(|(row, captions)| Some((row, *captions.first()?))));
    let mut rows = first.images.rows();
    for k in 1..of_image.iter().map(Vec::len).max().unwrap_or(0) {
        let left: Vec<usize> = (0..of_image.len()).filter(|&i| of_image[i].len() > k).collect();
        let indices = left.iter().map(|&i| first.indices[i]).collect();
        let again = encode_view(clip, Arc::new(Part { of: Arc::clone(&source), indices }), options, view(k as u64, false), done)?;
        pairs.extend(again.indices.iter().zip(rows..).map(|(&at, row)| (row, of_image[left[at]][k])));
        rows += again.images.rows();
        images.push(again.images.into_tensor());
    }
    let mut rng = RngKey::new(SEED, 0, 0).rng(Stream::Order);
    for i in (1..pairs.len()).rev() {
        pairs.swap(i, rng.below(i as u64 + 1) as usize);
    }
    let take = |from: &Tensor, rows: Vec<i64>| {
        Ok::<_, EvalError>(Embeddings::checked(from.f_index_select(0, &Tensor::from_slice(&rows).to_device(from.device()))?)?)
    };
    let image = take(&Tensor::f_cat(&images, 0)?, pairs.iter().map(|(row, _)| *row).collect())?;
    let text = take(texts.tensor(), pairs.iter().map(|(_, caption)| *caption).collect())?;
    Ok(([image, text], first))
}

/// Some samples of a data set.
struct Part {
    of: Arc<dyn Source>,
    indices: Vec<usize>,
}

impl Source for Part {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn key(&self, index: usize) -> String {
        self.indices.get(index).map_or_else(String::new, |&i| self.of.key(i))
    }

    fn read(&self, index: usize) -> Result<Sample, SampleError> {
        // Out of range here is out of range there.
        self.of.read(self.indices.get(index).copied().unwrap_or(usize::MAX))
    }

    fn path(&self, index: usize) -> Option<PathBuf> {
        self.of.path(*self.indices.get(index)?)
    }

    fn describe(&self) -> String {
        self.of.describe()
    }

    fn faults(&self) -> &[SourceFault] {
        &[] // counted with the whole
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ops::ControlFlow;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use softclip_data::source::SampleErrorKind;
    use softclip_encoders::{ClipConfig, ClipTextConfig, TextConfig, VisionConfig, VitConfig};
    use tch::{Device, nn::VarStore};

    use super::*;
    use crate::encode_texts;

    /// How often each image can be read, and its captions.
    const IMAGES: [(usize, &[&str]); 6] = [
        (9, &["red", "blood", "a rose"]),
        (0, &["nothing", "at all"]),
        (9, &["green"]),
        (9, &["blue", "the sea"]),
        (1, &["white", "snow", "a cloud"]),
        (9, &["black", "night", "coal"]),
    ];

    /// An image is of one colour, so that its crops are all the same.
    struct Colours([AtomicUsize; 6]);

    impl Source for Colours {
        fn len(&self) -> usize {
            IMAGES.len()
        }

        fn key(&self, index: usize) -> String {
            index.to_string()
        }

        fn read(&self, index: usize) -> Result<Sample, SampleError> {
            let (times, captions) = IMAGES[index];
            if self.0[index].fetch_add(1, Ordering::Relaxed) >= times {
                return Err(SampleError::new(index.to_string(), SampleErrorKind::CorruptImage, "unreadable"));
            }
            let [r, g, b] = [[250, 9, 9], [0; 3], [9, 250, 9], [9, 9, 250], [250; 3], [9; 3]][index];
            let pixels = [r, g, b].repeat(20 * 20);
            let mut image = Vec::new();
            let encoder = image::codecs::png::PngEncoder::new(&mut image);
            image::ImageEncoder::write_image(encoder, &pixels, 20, 20, image::ExtendedColorType::Rgb8).unwrap();
            let captions = captions.iter().map(|caption| (*caption).to_owned()).collect();
            Ok(Sample { key: index.to_string(), image, captions, tags: None, rois: None, class: None })
        }

        fn describe(&self) -> String {
            "colours".to_owned()
        }
    }

    #[test]
    fn crops_are_those_of_the_authors_code() {
        let Augment { scale, ratio, flip, interpolation } = augment();
        assert_eq!((scale, ratio, flip), ([0.1, 1.0], [0.75, 4.0 / 3.0], 0.5));
        assert_eq!(interpolation, Interpolation::Bilinear);
        assert!(protocol().contains("bilinear random crops of 10 to 100 % of the area"), "{}", protocol());
    }

    #[test]
    fn every_caption_stands_beside_its_own_image() {
        let text = ClipTextConfig { context_length: 12, layers: 1, heads: 2, ..ClipTextConfig::clip(16) };
        let vision = VisionConfig::Vit(VitConfig::clip(16, 8, 16, 2, 2));
        let vs = VarStore::new(Device::Cpu);
        let config = ClipConfig::new(8, vision, TextConfig::Clip(text));
        let clip = softclip_encoders::seeded(3, || Clip::new(&vs.root(), &config)).unwrap();
        let options = EvalOptions { batch_size: 2, workers: 2, max_bad_share: 0.5, ..EvalOptions::new(Device::Cpu) };
        let go_on = |_, _| ControlFlow::Continue(());
        let ([image, text], whole) = encode_pairs(&clip, Arc::new(Colours(Default::default())), &options, &go_on).unwrap();
        assert_eq!((whole.indices.as_slice(), image.rows(), text.rows()), ([0, 2, 3, 4, 5].as_slice(), 10, 10));

        let all: Vec<String> = IMAGES.iter().flat_map(|(_, captions)| *captions).map(|caption| (*caption).to_owned()).collect();
        let captions = encode_texts(&clip, &all, &options, &go_on).unwrap();
        // Which row a row is, to rounding.
        let which = |row: Tensor, of: &Embeddings| {
            let off = (of.tensor() - row).abs().amax([1i64].as_slice(), false);
            let near: Vec<usize> = (0..of.rows()).filter(|&i| off.double_value(&[i]) < 1e-4).map(|i| i as usize).collect();
            assert_eq!(near.len(), 1, "{near:?}");
            near[0]
        };
        let mut found: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        for i in 0..image.rows() {
            let index = whole.indices[which(image.tensor().get(i), &whole.images)];
            found.entry(index).or_default().push(&all[which(text.tensor().get(i), &captions)]);
        }
        for (index, captions) in &mut found {
            // An image that is lost between two passes has its first caption alone.
            let mut expected = IMAGES[*index].1[..IMAGES[*index].0.min(IMAGES[*index].1.len())].to_vec();
            expected.sort_unstable();
            captions.sort_unstable();
            assert_eq!(*captions, expected, "image {index}");
        }
        assert_eq!(found.len(), 5);
    }
}
