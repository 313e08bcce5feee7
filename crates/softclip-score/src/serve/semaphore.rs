//! A counting semaphore for threads.
//!
//! The standard library has none. Those of `tokio` need its runtime to wait, and that of `async-lock` takes one permit at a time, while
//! here a large image takes more of the memory than a small one.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A number of permits. Whoever takes some gives them back by dropping the [`Permit`].
#[derive(Debug)]
pub(super) struct Semaphore {
    free: Mutex<u64>,
    freed: Condvar,
    capacity: u64,
}

/// Permits taken, given back when dropped. Exists only where they were free.
#[derive(Debug)]
pub(super) struct Permit {
    of: Arc<Semaphore>,
    n: u64,
}

impl Semaphore {
    pub fn new(capacity: u64) -> Arc<Self> {
        Arc::new(Self { free: Mutex::new(capacity), freed: Condvar::new(), capacity })
    }

    /// All permits, free or not.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Takes `n` permits if so many are free now.
    pub fn try_acquire(self: &Arc<Self>, n: u64) -> Option<Permit> {
        self.acquire(n, Duration::ZERO)
    }

    /// Takes `n` permits, and waits at most `patience` until so many are free. Never succeeds for more than the capacity.
    pub fn acquire(self: &Arc<Self>, n: u64, patience: Duration) -> Option<Permit> {
        let end = Instant::now() + patience;
        let mut free = self.free();
        while *free < n {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || n > self.capacity {
                return None;
            }
            free = self.freed.wait_timeout(free, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *free -= n;
        drop(free);
        Some(Permit { of: Arc::clone(self), n })
    }

    fn free(&self) -> MutexGuard<'_, u64> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *self.of.free() += self.n;
        // All: those who wait for few permits must not sleep behind one who waits for many.
        self.of.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const FOREVER: Duration = Duration::from_secs(600);

    #[test]
    fn refusals_leave_the_number_of_permits_as_it_is() {
        let semaphore = Semaphore::new(2);
        let (one, two) = (semaphore.try_acquire(1).unwrap(), semaphore.try_acquire(1).unwrap());
        for _ in 0..10 {
            assert!(semaphore.try_acquire(1).is_none());
        }
        drop(one);
        assert!(semaphore.try_acquire(2).is_none());
        let three = semaphore.try_acquire(1).unwrap();
        drop((two, three));
        assert!(semaphore.try_acquire(3).is_none() && semaphore.acquire(3, FOREVER).is_none(), "more than there are");
        assert_eq!(semaphore.try_acquire(2).map(|permit| permit.n), Some(2));
    }

    #[test]
    fn all_get_their_permits_and_never_more_than_there_are_at_a_time() {
        let (semaphore, inside, most, done) = (Semaphore::new(5), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for n in [1, 2, 3, 5, 1, 2, 3, 5] {
                let (semaphore, inside, most, done) = (&semaphore, &inside, &most, &done);
                scope.spawn(move || {
                    for _ in 0..50 {
                        let _permit = semaphore.acquire(n, FOREVER).unwrap();
                        most.fetch_max(inside.fetch_add(n, Ordering::SeqCst) + n, Ordering::SeqCst);
                        std::thread::yield_now();
                        inside.fetch_sub(n, Ordering::SeqCst);
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(done.into_inner(), 400);
        assert!((1..=5).contains(&most.into_inner()));
        assert!(semaphore.try_acquire(5).is_some());
    }

    #[test]
    fn who_waits_too_long_goes_without() {
        let semaphore = Semaphore::new(1);
        let taken = semaphore.try_acquire(1).unwrap();
        assert!(semaphore.acquire(1, Duration::from_millis(20)).is_none());
        drop(taken);
        assert!(semaphore.acquire(1, Duration::from_millis(20)).is_some());
    }
}
