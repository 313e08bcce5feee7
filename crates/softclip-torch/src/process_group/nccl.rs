//! NCCL: an object of its own, loaded when the first group of GPUs is made.

use std::ffi::c_void;
use std::sync::OnceLock;

use softclip_sys as sys;

use crate::device::init;
use crate::error::{Error, Result, check};

/// What makes groups of GPUs.
///
/// # Errors
/// This build has no NCCL, or this libtorch has no CUDA.
pub(super) fn maker() -> Result<*const c_void> {
    static LOADED: OnceLock<std::result::Result<usize, String>> = OnceLock::new();
    let object = sys::NCCL.ok_or_else(|| Error::Invalid(ABSENT.into()))?;
    // Without libtorch_cuda its symbols would be missing.
    init()?;
    LOADED
        .get_or_init(|| {
            // SAFETY: the bytes and the error record outlive the call; libtorch_cuda was loaded before, if it is there.
            check(|e| unsafe { sys::softclip_load_nccl(object.as_ptr(), object.len(), e) })
                .map(|maker| maker as usize)
                .map_err(|e| format!("{UNUSABLE} ({e})"))
        })
        .clone()
        .map(|maker| maker as *const c_void)
        .map_err(Error::Invalid)
}

const ABSENT: &str = "this build has no NCCL: its headers were not there. Ranks on CPUs work (--device cpu); for several GPUs run \
    scripts/setup --nccl (or --cuda) and build again";

const UNUSABLE: &str = "NCCL cannot be loaded: it needs libtorch 2.11.0 with CUDA, which scripts/setup --cuda brings";
