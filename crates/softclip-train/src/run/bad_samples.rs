//! Samples that cannot be used, counted once however many ranks met them.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest, Sha256};
use softclip_data::loader::{Health, summary};
use softclip_data::source::SampleErrorKind;
use softclip_distributed::World;

use crate::Result;

/// The distinct bad samples of all ranks, as of the last update.
#[derive(Debug, Default)]
pub(super) struct BadSamples {
    /// By the hash of a sample's key; the cause of the lowest rank that met it.
    causes: HashMap<i64, SampleErrorKind>,
    /// The number of this rank's bad samples that were sent to the others.
    sent: usize,
}

impl BadSamples {
    /// Takes over what this rank and the others have met since the last call. All ranks call it together.
    ///
    /// # Errors
    /// A rank is gone or does not come.
    pub(super) fn update(&mut self, health: &Health, world: &World) -> Result<()> {
        let mut new: Vec<(i64, SampleErrorKind)> = Vec::new();
        if health.bad() > self.sent {
            new.extend(health.bad_keys().map(|(key, kind)| (hash(key), kind)));
            new.retain(|(hash, _)| !self.causes.contains_key(hash));
            new.sort_unstable();
            self.sent = health.bad();
        }
        let of_kind = |kind| SampleErrorKind::ALL.iter().position(|other| *other == kind).unwrap_or_default() as i64;
        let mine: Vec<i64> = new.into_iter().flat_map(|(hash, kind)| [hash, of_kind(kind)]).collect();
        for pair in world.gather_numbers(&mine)?.chunks_exact(2) {
            let kind = usize::try_from(pair[1]).ok().and_then(|kind| SampleErrorKind::ALL.get(kind));
            self.causes.entry(pair[0]).or_insert(kind.copied().unwrap_or(SampleErrorKind::Io));
        }
        Ok(())
    }

    /// The number of distinct samples.
    pub(super) fn count(&self) -> usize {
        self.causes.len()
    }

    /// `truncated_image 3, empty_caption 1`, or `none`.
    pub(super) fn summary(&self) -> String {
        let mut causes: BTreeMap<SampleErrorKind, usize> = BTreeMap::new();
        self.causes.values().for_each(|kind| *causes.entry(*kind).or_default() += 1);
        summary(&causes)
    }
}

/// The same on every rank and machine.
fn hash(key: &str) -> i64 {
    let digest = Sha256::digest(key.as_bytes());
    digest.iter().take(8).fold(0, |hash, byte| hash << 8 | i64::from(*byte))
}
