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
}

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

/// Calls into the shim and turns what it reports into a [`Result`].
pub(crate) fn check<T>(call: impl FnOnce(*mut sys::SoftclipError) -> T) -> Result<T> {
    let mut e = sys::SoftclipError { kind: sys::KIND_NONE, message: std::ptr::null_mut() };
    let value = call(&mut e);
    if e.kind == sys::KIND_NONE {
        return Ok(value);
    }
    let message = if e.message.is_null() {
        String::from("no message")
    } else {
        // SAFETY: the shim allocated a NUL-terminated string for us, and we free it once, right after copying it.
        unsafe {
            let text = CStr::from_ptr(e.message).to_string_lossy().into_owned();
            sys::softclip_free(e.message);
            text
        }
    };
    Err(if e.kind == sys::KIND_OUT_OF_MEMORY { Error::OutOfMemory(message) } else { Error::from_libtorch(&message) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cpp_exception_becomes_an_error() {
        for (what, expected) in [(0, "a failed check"), (1, "bad_alloc"), (2, "unknown C++ exception")] {
            // SAFETY: the function only throws inside its own guard.
            let error = check(|e| unsafe { sys::softclip_throw(what, e) }).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
