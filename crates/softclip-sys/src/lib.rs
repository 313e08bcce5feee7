//! C++ shim over libtorch for what `tch` does not bind: declarations only, no policy. Use `softclip-torch`, its safe face.
//!
//! Tensors cross as `torch_sys::C_tensor*`, which is `at::Tensor*`. Every function that can fail takes a
//! [`SoftclipError`] and never throws. A process group (c10d) will be a further C++ file and a further block here.
#![allow(unsafe_code, missing_docs)]

use libc::{c_char, c_double};
// Names the tensors that these functions share with libtch, and links it.
use torch_sys::C_tensor;

/// libtorch's version.
pub const LIBTORCH: &str = env!("SOFTCLIP_LIBTORCH");

#[repr(C)]
pub struct SoftclipError {
    pub kind: i32,
    pub message: *mut c_char,
}

pub const KIND_NONE: i32 = 0;
pub const KIND_GENERIC: i32 = 1;
pub const KIND_OUT_OF_MEMORY: i32 = 2;
pub const KIND_UNKNOWN: i32 = 3;

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutocastState {
    pub enabled: bool,
    pub dtype: i8,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub weight_decay: f64,
    pub eps: f64,
}

unsafe extern "C" {
    pub fn softclip_free(message: *mut c_char);
    pub fn softclip_throw(what: i32, e: *mut SoftclipError);

    pub fn softclip_init_logging();
    pub fn softclip_load_cuda(e: *mut SoftclipError) -> i32;
    pub fn softclip_allow_tf32(allow: bool, e: *mut SoftclipError);
    pub fn softclip_allows_tf32(e: *mut SoftclipError) -> bool;
    pub fn softclip_rng_state(device_type: i32, index: i32, e: *mut SoftclipError) -> *mut C_tensor;
    pub fn softclip_set_rng_state(device_type: i32, index: i32, state: *const C_tensor, e: *mut SoftclipError);
    pub fn softclip_device_memory(index: i32, current: *mut i64, peak: *mut i64, e: *mut SoftclipError);
    pub fn softclip_reset_peak_memory(index: i32, e: *mut SoftclipError);
    pub fn softclip_synchronize(index: i32, e: *mut SoftclipError);

    pub fn softclip_autocast_state(device_type: i32, e: *mut SoftclipError) -> AutocastState;
    pub fn softclip_autocast_enter(device_type: i32, state: AutocastState, e: *mut SoftclipError);
    pub fn softclip_autocast_leave(device_type: i32, before: AutocastState, e: *mut SoftclipError);

    pub fn softclip_linear(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        e: *mut SoftclipError,
    ) -> *mut C_tensor;

    pub fn softclip_fused_adamw(
        n: i64,
        params: *const *mut C_tensor,
        grads: *const *mut C_tensor,
        exp_avgs: *const *mut C_tensor,
        exp_avg_sqs: *const *mut C_tensor,
        steps: *const *mut C_tensor,
        step: AdamWStep,
        grad_scale: *const C_tensor,
        found_inf: *const C_tensor,
        e: *mut SoftclipError,
    );
    pub fn softclip_clip_grad_norm(n: i64, grads: *const *mut C_tensor, max_norm: c_double, e: *mut SoftclipError) -> c_double;
    pub fn softclip_amp_unscale(
        n: i64,
        grads: *const *mut C_tensor,
        found_inf: *mut C_tensor,
        inv_scale: *const C_tensor,
        e: *mut SoftclipError,
    );
    pub fn softclip_amp_update(
        scale: *mut C_tensor,
        growth_tracker: *mut C_tensor,
        found_inf: *const C_tensor,
        growth: c_double,
        backoff: c_double,
        interval: i64,
        e: *mut SoftclipError,
    );
}
