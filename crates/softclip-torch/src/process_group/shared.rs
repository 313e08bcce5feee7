//! What a group, its work and its reducer share.

use std::cell::{Cell, OnceCell};
use std::ptr::NonNull;

use softclip_sys as sys;
use tch::Device;

use crate::error::{Error, PEER_LOST, Peers, Reported, Result, check, report};

/// One rank's end of a group. It is used by one thread only, which keeps operations in one order.
pub(super) struct Shared {
    pub raw: NonNull<sys::SoftclipGroup>,
    pub rank: usize,
    pub size: usize,
    pub device: Device,
    /// The first operation that failed.
    failure: OnceCell<&'static str>,
    /// Whether all ranks are done with the group.
    pub left: Cell<bool>,
}

impl Shared {
    pub fn new(raw: NonNull<sys::SoftclipGroup>, rank: usize, size: usize, device: Device) -> Self {
        Shared { raw, rank, size, device, failure: OnceCell::new(), left: Cell::new(false) }
    }

    /// Runs one call of `operation`; after an error the group refuses all others.
    pub fn run<T>(&self, operation: &'static str, call: impl FnOnce(*mut sys::SoftclipError) -> T) -> Result<T> {
        self.usable(operation)?;
        report(call).map_err(|reported| self.failed(operation, &reported))
    }

    /// # Errors
    /// An operation has failed before.
    pub fn usable(&self, operation: &'static str) -> Result<()> {
        match self.failure.get() {
            None => Ok(()),
            Some(before) => Err(Error::Group {
                rank: self.rank,
                size: self.size,
                operation,
                peers: Peers::Unknown,
                why: format!(
                    "the group is no longer usable since its {before} failed: end this process and start the ranks anew"
                ),
            }),
        }
    }

    pub fn failed(&self, operation: &'static str, reported: &Reported) -> Error {
        self.failed_as(operation, peers(&reported.text), reported.reason())
    }

    pub fn failed_as(&self, operation: &'static str, peers: Peers, why: String) -> Error {
        let _ = self.failure.set(operation);
        Error::Group { rank: self.rank, size: self.size, operation, peers, why }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // NCCL would wait for ranks that do not come, and with them whoever waits for this process to end.
        let abandoned = !self.left.get() || self.failure.get().is_some();
        // SAFETY: made by the shim, freed once. There is nobody to tell of an error to.
        let _ = check(|e| unsafe { sys::softclip_group_free(self.raw.as_ptr(), abandoned, e) });
    }
}

/// What the text of an error says of the other ranks: there are no types for it.
pub(super) fn peers(text: &str) -> Peers {
    let text = text.to_lowercase();
    let any = |marks: &[&str]| marks.iter().any(|mark| text.contains(mark));
    if any(&["timed out", "timeout", "wait timeout"]) {
        Peers::Late
    } else if any(&[
        "connection reset",
        "connection closed",
        "broken pipe",
        "connection refused",
        "pair closure",
        "remote process exited",
        PEER_LOST,
    ]) {
        Peers::Lost
    } else {
        Peers::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_back_ends_say_of_peers_is_understood() {
        for (text, expected) in [
            ("[x/pair.cc:144] Connection reset by peer [127.0.0.1]:4711", Peers::Lost),
            ("[x/unbound_buffer.cc:81] Timed out waiting 4000ms for recv operation to complete", Peers::Late),
            ("Socket closed: Broken pipe", Peers::Lost),
            ("NCCL error in: NCCLUtils.cpp:94, remote process exited or there was a network error", Peers::Lost),
            ("Invalid scalar type", Peers::Unknown),
        ] {
            assert_eq!(peers(text), expected, "{text}");
        }
    }
}
