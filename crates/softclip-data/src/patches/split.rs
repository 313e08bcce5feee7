//! Training, validation and test.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::rng::{RngKey, Stream};

/// Names of the splits, which are their folders.
pub const SPLITS: [&str; 3] = ["train", "val", "test"];

/// Probabilities of training, validation and test. `"70,20,10"` and `"0.7,0.2,0.1"` are the same.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Shares([f64; 3]);

impl Default for Shares {
    fn default() -> Self {
        Self([0.7, 0.2, 0.1])
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [train, val, test] = self.0.map(|share| (share * 1e8).round() / 1e6);
        write!(f, "{train},{val},{test}")
    }
}

impl FromStr for Shares {
    type Err = String;

    /// Three numbers, none below 0, that sum to 100 or to 1.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "three shares of train, val and test that sum to 100 (or to 1) are accepted: 70,20,10".to_owned();
        let shares: Vec<f64> = text.split(',').map(|part| part.trim().parse()).collect::<Result<_, _>>().map_err(|_| wrong())?;
        let shares: [f64; 3] = shares.try_into().map_err(|_| wrong())?;
        let sum: f64 = shares.iter().sum();
        let whole = [1.0, 100.0].into_iter().find(|whole| (sum - whole).abs() < 1e-6 * whole);
        match whole {
            Some(whole) if shares.iter().all(|&share| share >= 0.0) => Ok(Self(shares.map(|share| share / whole))),
            _ => Err(wrong()),
        }
    }
}

/// What goes to one split as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitBy {
    /// All patches of an image. Neighbours look alike: where they lie on two sides, the test measures memory.
    Image,
    /// Each patch by itself.
    Patch,
}

impl Shares {
    /// The split, an index into [`SPLITS`], of the patch at (x, y) of the image `name`: a function of these and the seed alone.
    pub(super) fn draw(&self, by: SplitBy, seed: u64, name: &str, x: u32, y: u32) -> usize {
        let place = match by {
            SplitBy::Image => u64::MAX,
            SplitBy::Patch => u64::from(x) << 32 | u64::from(y),
        };
        let number = RngKey::new(seed, fnv1a(name), place).rng(Stream::Split).unit();
        let mut end = 0.0;
        let split = self.0.iter().position(|share| {
            end += share;
            number < end
        });
        // Shares may sum to a little less than 1.
        split.or_else(|| self.0.iter().rposition(|&share| share > 0.0)).unwrap_or(0)
    }
}

/// Fowler, Noll and Vo's hash: a number of a name that is the same everywhere and always.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percent_or_fractions_and_nothing_else() {
        assert_eq!("70,20,10".parse::<Shares>().unwrap(), Shares::default());
        assert_eq!("0.7, 0.2, 0.1".parse::<Shares>().unwrap(), Shares::default());
        assert_eq!("100,0,0".parse::<Shares>().unwrap().to_string(), "100,0,0");
        assert_eq!(Shares::default().to_string(), "70,20,10");
        for wrong in ["", "70,20", "70,20,20", "110,-20,10", "a,b,c", "70,20,10,0", "nan,1,0", "inf,0,0"] {
            assert!(wrong.parse::<Shares>().unwrap_err().contains("70,20,10"), "{wrong}");
        }
    }

    #[test]
    fn draws_follow_the_shares_and_depend_on_every_part() {
        let shares = Shares::default();
        let mut counts = [0; 3];
        (0..20_000).for_each(|i| counts[shares.draw(SplitBy::Image, 3, &format!("tile-{i}"), 0, 0)] += 1);
        assert!((13_800..14_200).contains(&counts[0]) && (3_850..4_150).contains(&counts[1]), "{counts:?}");
        let drawn = |by, seed, name: &str| -> Vec<usize> { (0..64).map(|x| shares.draw(by, seed, name, x, 7)).collect() };
        assert_ne!(drawn(SplitBy::Patch, 0, "a"), drawn(SplitBy::Patch, 1, "a"));
        assert_ne!(drawn(SplitBy::Patch, 0, "a"), drawn(SplitBy::Patch, 0, "b"));
        assert!(drawn(SplitBy::Image, 0, "a").windows(2).all(|pair| pair[0] == pair[1]));
        let only_val: Shares = "0,100,0".parse().unwrap();
        assert!((0..99).all(|x| only_val.draw(SplitBy::Patch, 0, "a", x, 0) == 1));
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!((fnv1a(""), fnv1a("a")), (0xcbf2_9ce4_8422_2325, 0xaf63_dc4c_8601_ec8c));
    }
}
