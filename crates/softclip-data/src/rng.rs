//! Random numbers as a function of (seed, epoch, index): nothing is carried from sample to sample.
//!
//! The order of samples, their crops and flips must not depend on the number of workers or on timing. So there is no generator
//! that many draws share: each sample starts its own from a [`RngKey`], one a [`Stream`].
//!
//! ```
//! use softclip_data::rng::{RngKey, Stream};
//!
//! let key = RngKey::new(7, 0, 42);
//! let first = key.rng(Stream::Crop).uniform(0.9, 1.0);
//! assert_eq!(first, key.rng(Stream::Crop).uniform(0.9, 1.0)); // the same key draws the same numbers
//! assert_ne!(first, RngKey::new(7, 1, 42).rng(Stream::Crop).uniform(0.9, 1.0)); // another epoch, other numbers
//! ```

/// What numbers are drawn for. Streams of one key are independent, so that adding a draw to one leaves the others as they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Stream {
    /// The order of samples in an epoch.
    Order = 1,
    /// Boxes of random crops.
    Crop = 2,
    /// Horizontal flips.
    Flip = 3,
    /// Which of several captions.
    Caption = 4,
    /// Which sample takes the place of an unreadable one.
    Replacement = 5,
    /// Contents of synthetic data.
    Synthetic = 6,
    /// Which split a patch goes to.
    Split = 7,
    /// What a network draws in a training step.
    Network = 8,
    /// Which samples a share of a data set has.
    Share = 9,
}

/// Names one sample's numbers: a sample index within an epoch of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RngKey {
    seed: u64,
    epoch: u64,
    index: u64,
}

impl RngKey {
    /// The key of sample `index` in epoch `epoch` (from 0) of a run with `seed`.
    pub fn new(seed: u64, epoch: u64, index: u64) -> Self {
        RngKey { seed, epoch, index }
    }

    /// A generator for one purpose. Costs four multiplications.
    pub fn rng(self, stream: Stream) -> Rng {
        // Each number goes through the mixer before the next is added: (1, 0) and (0, 1) do not meet.
        let state = [self.seed, self.epoch, self.index, stream as u64]
            .into_iter()
            .fold(0x736f_6674_636c_6970, |state: u64, word| mix(state.wrapping_add(GOLDEN) ^ word));
        Rng { state }
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// splitmix64 (Steele, Lea and Flood 2014): a counter and a mixer, so every state is a good one.
#[derive(Debug, Clone)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Uniform in [0, 1), a multiple of 2⁻⁵³.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in [low, high); `low` if both are equal.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform in 0..n without bias; 0 for n = 0.
    pub fn below(&mut self, n: u64) -> u64 {
        // Lemire 2019: the high half of a 128-bit product, rejecting the short remainder.
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= n.wrapping_neg() % n.max(1) {
                return (product >> 64) as u64;
            }
        }
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix64_gives_the_published_numbers() {
        // The first outputs for seed 1234567, as in the reference C program's test vectors.
        let mut rng = Rng { state: 1_234_567 };
        assert_eq!(rng.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn every_part_of_the_key_changes_the_numbers() {
        let mut seen = std::collections::HashSet::new();
        for (seed, epoch, index) in (0..6).flat_map(|a| (0..6).flat_map(move |b| (0..6).map(move |c| (a, b, c)))) {
            for stream in [Stream::Order, Stream::Crop, Stream::Flip, Stream::Caption] {
                assert!(seen.insert(RngKey::new(seed, epoch, index).rng(stream).next_u64()));
            }
        }
    }

    #[test]
    fn numbers_below_n_are_uniform() {
        let mut rng = RngKey::new(0, 0, 0).rng(Stream::Order);
        let mut counts = [0u32; 7];
        (0..70_000).for_each(|_| counts[rng.below(7) as usize] += 1);
        assert!(counts.iter().all(|&c| (9_600..10_400).contains(&c)), "{counts:?}");
        assert_eq!((rng.below(0), rng.below(1)), (0, 0));
        let mean = (0..10_000).map(|_| rng.unit()).sum::<f64>() / 1e4;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
    }
}
