//! Errors of libtorch and of this layer.

use std::ffi::CStr;

use softclip_sys as sys;

/// What went wrong below: in libtorch, or with what it was given.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// libtorch refused or failed.
    #[error("libtorch: {0}")]
    Torch(String),
    /// The device has no memory left; a smaller batch or `chunk_size` helps.
    #[error("out of device memory: {0}\nA smaller batch size or chunk size needs less.")]
    OutOfMemory(String),
    /// A `tch` call failed for a reason that is not libtorch's.
    #[error(transparent)]
    Tch(tch::TchError),
    /// The argument makes no sense; the message says what would.
    #[error("{0}")]
    Invalid(String),
    /// A store could not be reached, or has not what was asked for.
    #[error("{store}: {why}")]
    Store {
        /// Which store.
        store: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// An operation among ranks failed. The group cannot be used any more, unless the ranks merely differed.
    #[error("rank {rank} of {size}, {operation}: {peers} ({why})")]
    Group {
        /// This process's rank.
        rank: usize,
        /// How many ranks the group has.
        size: usize,
        /// What was done.
        operation: &'static str,
        /// What is known of the others.
        peers: Peers,
        /// libtorch's reason.
        why: String,
    },
}

/// What a failed operation says of the other ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peers {
    /// One has ended, or its connection broke.
    Lost,
    /// One did not take part in time.
    Late,
    /// One takes part with something else: another tensor, or another operation.
    Differ,
    /// Nothing: it failed here.
    Unknown,
}

impl std::fmt::Display for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Peers::Lost => PEER_LOST,
            Peers::Late => "a peer did not take part in time",
            Peers::Differ => "the ranks do not agree on what they do",
            Peers::Unknown => "failed",
        })
    }
}

/// How messages begin to tell that another rank is gone. Who reads the messages of several ranks finds by it those that failed only
/// because another did.
pub const PEER_LOST: &str = "a peer has ended or cannot be reached any more";

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// From the text of a C++ exception, of which the first line is the reason; a stack trace follows.
    pub(crate) fn from_libtorch(text: &str) -> Self {
        let reason = text.trim_start().lines().next().unwrap_or("no message").to_owned();
        // The second is what libtorch's allocator of host memory says.
        if ["out of memory", "you tried to allocate"].iter().any(|mark| reason.contains(mark)) {
            return Error::OutOfMemory(reason);
        }
        Error::Torch(reason)
    }
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        match error {
            tch::TchError::Torch(text) => Error::from_libtorch(&text),
            other => Error::Tch(other),
        }
    }
}

/// What the shim reports: one of its kinds, and all that libtorch said.
#[derive(Debug)]
pub(crate) struct Reported {
    pub kind: i32,
    pub text: String,
}

impl Reported {
    /// The reason, without what follows it; NCCL's own, where it has one, is at its end.
    pub fn reason(&self) -> String {
        let line = |text: &str| text.trim_start().lines().next().unwrap_or("no message").trim_end().to_owned();
        match self.text.split_once("Last error:") {
            Some((before, last)) if !last.trim().is_empty() => format!("{}: {}", line(before), line(last)),
            _ => line(&self.text),
        }
    }
}

/// Calls into the shim and turns what it reports into a [`Result`].
pub(crate) fn check<T>(call: impl FnOnce(*mut sys::SoftclipError) -> T) -> Result<T> {
    report(call).map_err(|reported| match reported.kind {
        sys::KIND_OUT_OF_MEMORY => Error::OutOfMemory(reported.text),
        _ => Error::from_libtorch(&reported.text),
    })
}

/// As [`check`], for callers that tell errors apart themselves.
pub(crate) fn report<T>(call: impl FnOnce(*mut sys::SoftclipError) -> T) -> std::result::Result<T, Reported> {
    let mut e = sys::SoftclipError { kind: sys::KIND_NONE, message: std::ptr::null_mut() };
    let value = call(&mut e);
    if e.kind == sys::KIND_NONE {
        return Ok(value);
    }
    let text = if e.message.is_null() {
        String::from("no message")
    } else {
        // SAFETY: the shim allocated a NUL-terminated string for us, and we free it once, right after copying it.
        unsafe {
            let text = CStr::from_ptr(e.message).to_string_lossy().into_owned();
            sys::softclip_free(e.message);
            text
        }
    };
    Err(Reported { kind: e.kind, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nccls_last_word_is_part_of_the_reason() {
        let reason = |text: &str| Reported { kind: sys::KIND_GENERIC, text: text.into() }.reason();
        let text = "NCCL error in: x.cpp:94, invalid usage\nncclInvalidUsage: …\nLast error:\nDuplicate GPU detected \nException raised from";
        assert_eq!(reason(text), "NCCL error in: x.cpp:94, invalid usage: Duplicate GPU detected");
        assert_eq!((reason("a\nb"), reason("a. Last error:\n")), ("a".to_owned(), "a. Last error:".to_owned()));
    }

    #[test]
    fn every_cpp_exception_becomes_an_error() {
        for (what, expected) in [(0, "a failed check"), (1, "bad_alloc"), (2, "unknown C++ exception")] {
            // SAFETY: the function only throws inside its own guard.
            let error = check(|e| unsafe { sys::softclip_throw(what, e) }).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
