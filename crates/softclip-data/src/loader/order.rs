//! Which sample comes at which place.

use std::sync::{Arc, Mutex, PoisonError};

use crate::rng::{RngKey, Stream};

/// The permutation of `len` samples in an epoch (Fisher and Yates), a function of seed and epoch.
pub(super) fn permutation(len: usize, seed: u64, epoch: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..len as u32).collect();
    let mut rng = RngKey::new(seed, epoch, 0).rng(Stream::Order);
    for i in (1..len).rev() {
        order.swap(i, rng.below(i as u64 + 1) as usize);
    }
    order
}

/// The permutations of the last epochs asked for: two, since threads may be on both sides of an epoch's end.
pub(super) struct Orders {
    len: usize,
    seed: u64,
    recent: Mutex<Vec<(u64, Arc<Vec<u32>>)>>,
}

impl Orders {
    pub(super) fn new(len: usize, seed: u64) -> Self {
        Self { len, seed, recent: Mutex::new(Vec::new()) }
    }

    pub(super) fn of(&self, epoch: u64) -> Arc<Vec<u32>> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, order)) = recent.iter().find(|(e, _)| *e == epoch) {
            return Arc::clone(order);
        }
        let order = Arc::new(permutation(self.len, self.seed, epoch));
        if recent.len() == 2 {
            recent.remove(0);
        }
        recent.push((epoch, Arc::clone(&order)));
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_holds_every_sample_once_and_epochs_differ() {
        let orders = Orders::new(1000, 7);
        let first = orders.of(0);
        let mut sorted = first.to_vec();
        sorted.sort_unstable();
        assert!(sorted.iter().enumerate().all(|(i, &x)| i as u32 == x));
        assert_ne!(first, orders.of(1));
        assert_ne!(*first, permutation(1000, 8, 0));
        orders.of(2);
        assert_eq!(first, orders.of(0));
    }
}
