//! A share of a data set.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Sample, SampleError, Source, SourceFault};
use crate::rng::{RngKey, Stream};

/// Which samples are taken does not depend on a run's seed: runs of several seeds learn from the same ones.
const SEED: u64 = 0;

struct Subset {
    whole: Arc<dyn Source>,
    /// Numbers in `whole`, growing.
    taken: Vec<u32>,
}

/// `share` of the samples of `whole`, at least one, in its order. They are drawn at random, always the same ones, and a smaller share is
/// part of every larger one. A share of 1 is the whole.
///
/// `share` must be above 0 and at most 1.
pub fn subset(whole: Arc<dyn Source>, share: f64) -> Arc<dyn Source> {
    let len = whole.len();
    let wanted = ((share * len as f64).round() as usize).max(1);
    if wanted >= len {
        return whole;
    }
    // Each sample has a number of its own: whoever takes the smallest takes more by going on.
    let mut drawn: Vec<(u64, u32)> =
        (0..len as u32).map(|i| (RngKey::new(SEED, 0, u64::from(i)).rng(Stream::Share).below(1 << 53), i)).collect();
    drawn.sort_unstable();
    let mut taken: Vec<u32> = drawn.into_iter().take(wanted).map(|(_, i)| i).collect();
    taken.sort_unstable();
    Arc::new(Subset { whole, taken })
}

impl Subset {
    /// Beyond the end: a number that is beyond the end of the whole, too.
    fn of(&self, index: usize) -> usize {
        self.taken.get(index).map_or(usize::MAX, |&i| i as usize)
    }
}

impl Source for Subset {
    fn len(&self) -> usize {
        self.taken.len()
    }

    fn key(&self, index: usize) -> String {
        self.whole.key(self.of(index))
    }

    fn read(&self, index: usize) -> Result<Sample, SampleError> {
        self.whole.read(self.of(index))
    }

    fn stem(&self, index: usize) -> String {
        self.whole.stem(self.of(index))
    }

    fn image_len(&self, index: usize) -> Option<u64> {
        self.whole.image_len(self.of(index))
    }

    fn path(&self, index: usize) -> Option<PathBuf> {
        self.whole.path(self.of(index))
    }

    fn describe(&self) -> String {
        format!("{} of them from {}", self.taken.len(), self.whole.describe())
    }

    fn classes(&self) -> Option<&[String]> {
        self.whole.classes()
    }

    fn class_keys(&self) -> Option<&[String]> {
        self.whole.class_keys()
    }

    fn faults(&self) -> &[SourceFault] {
        self.whole.faults()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::open;

    #[test]
    fn smaller_shares_are_parts_of_larger_ones() {
        let dir = tempfile::tempdir().unwrap();
        let class = dir.path().join("a");
        std::fs::create_dir(&class).unwrap();
        (0..100).for_each(|i| std::fs::write(class.join(format!("{i:03}.png")), format!("{i}")).unwrap());
        let whole = open(&format!("folder:{}", dir.path().display())).unwrap();
        let keys = |share| -> Vec<String> {
            let part = subset(Arc::clone(&whole), share);
            (0..part.len()).map(|i| part.key(i)).collect()
        };
        assert_eq!([0.001, 0.25, 0.5, 1.0].map(|share| keys(share).len()), [1, 25, 50, 100]);
        assert_eq!(keys(0.5), keys(0.5));
        assert!(keys(0.5).is_sorted() && keys(0.25).iter().all(|key| keys(0.5).contains(key)));
        assert_ne!(keys(0.25), keys(1.0)[..25]);
        // What is behind a number is that number's.
        let part = subset(Arc::clone(&whole), 0.25);
        let image = part.read(3).unwrap().image;
        assert!(part.key(3).ends_with(&format!("{:0>3}", String::from_utf8(image).unwrap())));
        assert_eq!(part.key(25), "");
        assert!(part.read(25).is_err());
    }
}
