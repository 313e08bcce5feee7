//! Retries of a write that failed for a reason that may pass, such as a full disk or a network file system that is away.

use std::io::{self, ErrorKind};
use std::time::Duration;

/// Pauses before each further try, about 30 s in all.
pub(super) const PAUSES: [Duration; 5] =
    [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8), Duration::from_secs(16)];

/// An input/output error of the device, for which the standard library has no kind (EIO, the same on all systems).
const EIO: i32 = 5;

/// Whether the cause of `error` may be gone a little later: the disk or the quota is full, a device or a file server does not answer.
pub(super) fn is_transient(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return is_transient_io(error);
        }
        next = error.source();
    }
    false
}

fn is_transient_io(error: &io::Error) -> bool {
    use ErrorKind::{
        Interrupted, NetworkDown, NetworkUnreachable, QuotaExceeded, ResourceBusy, StaleNetworkFileHandle, StorageFull, TimedOut,
        WouldBlock,
    };
    let kinds = [
        StorageFull,
        QuotaExceeded,
        WouldBlock,
        StaleNetworkFileHandle,
        Interrupted,
        TimedOut,
        ResourceBusy,
        NetworkDown,
        NetworkUnreachable,
    ];
    kinds.contains(&error.kind()) || error.raw_os_error() == Some(EIO)
}

/// Calls `write` until it succeeds, fails for a reason that does not pass, or the `pauses` before further tries are used up.
/// `report` gets each error, the number of the next try, and the pause before it.
///
/// # Errors
/// That of the last try.
pub(super) fn retry<T, E: std::error::Error + 'static>(
    target: &mut T,
    pauses: &[Duration],
    mut write: impl FnMut(&mut T) -> Result<(), E>,
    mut report: impl FnMut(&T, &E, usize, Duration),
) -> Result<(), E> {
    let mut result = write(target);
    for (i, &pause) in pauses.iter().enumerate() {
        match &result {
            Err(e) if is_transient(e) => report(target, e, i + 2, pause),
            _ => break,
        }
        // Whoever does not want to wait sends a second signal, which ends the process.
        std::thread::sleep(pause);
        result = write(target);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    fn os(code: i32) -> Error {
        Error::Io { path: "checkpoints".into(), source: io::Error::from_raw_os_error(code) }
    }

    #[test]
    fn only_causes_that_may_pass_are_transient() {
        // EINTR, EIO, EAGAIN, EBUSY, ENOSPC, ETIMEDOUT, ESTALE, EDQUOT.
        for code in [4, 5, 11, 16, 28, 110, 116, 122] {
            assert!(is_transient(&os(code)), "{code}");
            let inner = softclip_tensor::Error::Io { path: "w".into(), source: io::Error::from_raw_os_error(code) };
            assert!(is_transient(&Error::from(inner)), "{code}, within another error");
        }
        // EPERM, ENOENT, EACCES, ENOTDIR, EFBIG, EROFS, ENAMETOOLONG.
        for code in [1, 2, 13, 20, 27, 30, 36] {
            assert!(!is_transient(&os(code)), "{code}");
        }
        assert!(!is_transient(&Error::Run { path: "r".into(), why: "no space".to_owned() }));
    }

    #[test]
    fn a_write_is_tried_until_it_succeeds_or_cannot() {
        let run = |results: &[Option<i32>]| {
            let (mut calls, mut reported) = (0, Vec::new());
            let write = |calls: &mut usize| {
                *calls += 1;
                results[(*calls - 1).min(results.len() - 1)].map_or(Ok(()), |code| Err(os(code)))
            };
            let report = |_: &usize, _: &Error, next, _| reported.push(next);
            let result = retry(&mut calls, &[Duration::from_millis(1); 4], write, report);
            (result.is_ok(), calls, reported)
        };
        assert_eq!(run(&[None]), (true, 1, vec![]));
        assert_eq!(run(&[Some(28), Some(5), None]), (true, 3, vec![2, 3]));
        assert_eq!(run(&[Some(28)]), (false, 5, vec![2, 3, 4, 5]));
        assert_eq!(run(&[Some(28), Some(13)]), (false, 2, vec![2]), "a cause that stays ends the tries");
    }
}
