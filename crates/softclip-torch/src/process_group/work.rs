//! Operations under way.

use std::ptr::NonNull;
use std::rc::Rc;

use softclip_sys as sys;
use tch::Tensor;

use super::shared::Shared;
use crate::error::{Error, Result, check};

/// A collective operation that was started. Its tensors are whole, and may be read or written, only after [`wait`](Work::wait).
/// Dropped, it waits too.
#[must_use = "an operation that nobody waits for may have failed"]
pub struct Work {
    /// None where there was nothing to do.
    raw: Option<NonNull<sys::SoftclipWork>>,
    shared: Rc<Shared>,
    operation: &'static str,
    /// What the operation makes.
    output: Tensor,
}

impl Work {
    pub(super) fn start(
        shared: &Rc<Shared>,
        operation: &'static str,
        output: Tensor,
        call: impl FnOnce(*mut sys::SoftclipGroup, *mut sys::SoftclipError) -> *mut sys::SoftclipWork,
    ) -> Result<Self> {
        let group = shared.raw.as_ptr();
        let raw = NonNull::new(shared.run(operation, |e| call(group, e))?);
        Ok(Work { raw, shared: Rc::clone(shared), operation, output })
    }

    /// For tensors without elements, which c10d would send.
    pub(super) fn nothing(shared: &Rc<Shared>, operation: &'static str, output: Tensor) -> Result<Self> {
        shared.usable(operation)?;
        Ok(Work { raw: None, shared: Rc::clone(shared), operation, output })
    }

    /// Whether it has ended, well or not.
    ///
    /// # Errors
    /// libtorch cannot tell.
    pub fn is_done(&self) -> Result<bool> {
        match self.raw {
            None => Ok(true),
            // SAFETY: work and the error record outlive the call.
            Some(raw) => check(|e| unsafe { sys::softclip_work_done(raw.as_ptr(), e) }),
        }
    }

    /// Waits for the end: the operation's result. For those that work in place, the tensor itself. On a GPU it is the device that waits:
    /// what this thread asks of it from now on comes after the operation, of which nothing else is known yet.
    ///
    /// # Errors
    /// A peer is gone, hangs until the group's time-out, or does something else: [`Error::Group`].
    pub fn wait(mut self) -> Result<Tensor> {
        self.finish()?;
        Ok(self.output.shallow_clone())
    }

    fn finish(&mut self) -> Result<()> {
        let Some(raw) = self.raw.take() else { return Ok(()) };
        // SAFETY: work and the error record outlive the call.
        let waited = crate::error::report(|e| unsafe { sys::softclip_work_wait(raw.as_ptr(), e) })
            .map_err(|reported| self.shared.failed(self.operation, &reported));
        // SAFETY: made by the shim, freed once.
        let freed = check(|e| unsafe { sys::softclip_work_free(raw.as_ptr(), e) });
        waited.and(freed.map_err(|e| Error::Torch(format!("after {}: {e}", self.operation))))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // An error has made the group unusable: the next operation tells.
        let _ = self.finish();
    }
}
