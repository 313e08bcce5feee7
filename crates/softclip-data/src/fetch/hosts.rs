//! Which hosts answer.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Hosts remembered at a time. Of a host that is forgotten the count starts again.
const MAX_HOSTS: usize = 1 << 16;

/// Counts the time-outs of each host, so that one that never answers does not hold up a list at a minute per URL.
#[derive(Debug)]
pub(super) struct Hosts {
    /// 0: no host is given up.
    limit: u32,
    /// Requests in a row that timed out, by host.
    timeouts: Mutex<HashMap<String, u32>>,
}

impl Hosts {
    pub(super) fn new(limit: u32) -> Self {
        Hosts { limit, timeouts: Mutex::default() }
    }

    /// The number of time-outs in a row for which the host is given up.
    pub(super) fn given_up(&self, host: &str) -> Option<u32> {
        self.timeouts().get(host).copied().filter(|n| self.limit > 0 && *n >= self.limit)
    }

    /// Notes how a request ended.
    pub(super) fn record(&self, host: &str, timed_out: bool) {
        let mut timeouts = self.timeouts();
        if !timed_out {
            // Requests that were under way when the host was given up may still be answered.
            timeouts.remove(host);
            return;
        }
        if timeouts.len() >= MAX_HOSTS {
            timeouts.clear();
        }
        let n = timeouts.entry(host.to_owned()).or_default();
        *n += 1;
        if *n == self.limit {
            tracing::warn!("{host}: {n} requests in a row timed out; its other URLs are not requested");
        }
    }

    fn timeouts(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.timeouts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_outs_in_a_row_give_a_host_up() {
        let hosts = Hosts::new(3);
        for timed_out in [true, true, false, true, true] {
            hosts.record("a", timed_out);
            assert_eq!(hosts.given_up("a"), None);
        }
        hosts.record("a", true);
        assert_eq!((hosts.given_up("a"), hosts.given_up("b")), (Some(3), None));
        hosts.record("a", false);
        assert_eq!(hosts.given_up("a"), None, "it answered after all");
        let never = Hosts::new(0);
        (0..100).for_each(|_| never.record("a", true));
        assert_eq!(never.given_up("a"), None);
    }
}
