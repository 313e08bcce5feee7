//! C++ shim over libtorch for what `tch` does not bind: declarations only, no policy. Use `softclip-torch`, its safe face.
//!
//! Tensors cross as `torch_sys::C_tensor*`, which is `at::Tensor*`. Every function that can fail takes a
//! [`SoftclipError`] and never throws.
#![allow(unsafe_code, missing_docs)]

use libc::{c_char, c_double, c_void};
// Names the tensors that these functions share with libtch, and links it.
use torch_sys::C_tensor;

/// libtorch's version.
pub const LIBTORCH: &str = env!("SOFTCLIP_LIBTORCH");

/// The object that makes groups of GPUs, for [`softclip_load_nccl`]; none where NCCL's headers were not there.
#[cfg(softclip_nccl)]
pub const NCCL: Option<&[u8]> = Some(include_bytes!(concat!(env!("OUT_DIR"), "/softclip_nccl.so")));
#[cfg(not(softclip_nccl))]
pub const NCCL: Option<&[u8]> = None;

#[repr(C)]
pub struct SoftclipError {
    pub kind: i32,
    pub message: *mut c_char,
}

pub const KIND_NONE: i32 = 0;
pub const KIND_GENERIC: i32 = 1;
pub const KIND_OUT_OF_MEMORY: i32 = 2;
pub const KIND_UNKNOWN: i32 = 3;
pub const KIND_STORE: i32 = 4;
pub const KIND_NETWORK: i32 = 5;

/// A store of c10d, as [`SoftclipGroup`], [`SoftclipWork`] and [`SoftclipReducer`] seen through a pointer only.
#[repr(C)]
pub struct SoftclipStore {
    _opaque: [u8; 0],
}

/// A random generator, seen through a pointer only.
#[repr(C)]
pub struct SoftclipGenerator {
    _opaque: [u8; 0],
}

#[repr(C)]
pub struct SoftclipGroup {
    _opaque: [u8; 0],
}

#[repr(C)]
pub struct SoftclipWork {
    _opaque: [u8; 0],
}

#[repr(C)]
pub struct SoftclipReducer {
    _opaque: [u8; 0],
}

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

/// Computes a step's output again from its inputs, whose number the closure knows: a new tensor, or null and a message from `malloc`.
pub type RecomputeCall =
    unsafe extern "C" fn(closure: *mut c_void, inputs: *const *const C_tensor, e: *mut SoftclipError) -> *mut C_tensor;

unsafe extern "C" {
    pub fn softclip_free(message: *mut c_char);
    pub fn softclip_throw(what: i32, e: *mut SoftclipError);

    pub fn softclip_init_logging();
    pub fn softclip_load_cuda(e: *mut SoftclipError) -> i32;
    pub fn softclip_allow_tf32(allow: bool, e: *mut SoftclipError);
    pub fn softclip_allows_tf32(e: *mut SoftclipError) -> bool;
    pub fn softclip_tune_convolutions(tune: bool, e: *mut SoftclipError);
    pub fn softclip_select_gpu(index: i32, e: *mut SoftclipError);
    pub fn softclip_rng_state(device_type: i32, index: i32, e: *mut SoftclipError) -> *mut C_tensor;
    pub fn softclip_set_rng_state(device_type: i32, index: i32, state: *const C_tensor, e: *mut SoftclipError);
    pub fn softclip_generator(seed: u64, e: *mut SoftclipError) -> *mut SoftclipGenerator;
    pub fn softclip_generator_free(generator: *mut SoftclipGenerator);
    pub fn softclip_normal(
        generator: *const SoftclipGenerator,
        tensor: *const C_tensor,
        mean: c_double,
        std: c_double,
        e: *mut SoftclipError,
    );
    pub fn softclip_uniform(
        generator: *const SoftclipGenerator,
        tensor: *const C_tensor,
        low: c_double,
        high: c_double,
        e: *mut SoftclipError,
    );
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

    pub fn softclip_recompute(
        output: *const C_tensor,
        n: i64,
        inputs: *const *mut C_tensor,
        m: i64,
        parameters: *const *mut C_tensor,
        closure: *mut c_void,
        call: RecomputeCall,
        release: unsafe extern "C" fn(closure: *mut c_void),
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

unsafe extern "C" {
    pub fn softclip_tcp_store(
        host: *const c_char,
        port: u16,
        server: bool,
        timeout_ms: i64,
        bound: *mut u16,
        e: *mut SoftclipError,
    ) -> *mut SoftclipStore;
    pub fn softclip_file_store(path: *const c_char, timeout_ms: i64, e: *mut SoftclipError) -> *mut SoftclipStore;
    pub fn softclip_prefix_store(prefix: *const c_char, inner: *const SoftclipStore, e: *mut SoftclipError)
    -> *mut SoftclipStore;
    pub fn softclip_store_free(store: *mut SoftclipStore, e: *mut SoftclipError);
    pub fn softclip_store_set(
        store: *mut SoftclipStore,
        key: *const c_char,
        value: *const u8,
        length: usize,
        e: *mut SoftclipError,
    );
    pub fn softclip_store_get(
        store: *mut SoftclipStore,
        key: *const c_char,
        length: *mut usize,
        e: *mut SoftclipError,
    ) -> *mut c_char;
    pub fn softclip_store_add(store: *mut SoftclipStore, key: *const c_char, amount: i64, e: *mut SoftclipError) -> i64;
    pub fn softclip_store_has(store: *mut SoftclipStore, key: *const c_char, e: *mut SoftclipError) -> bool;
    pub fn softclip_store_wait(store: *mut SoftclipStore, key: *const c_char, timeout_ms: i64, e: *mut SoftclipError);

    pub fn softclip_gloo(
        store: *const SoftclipStore,
        rank: i32,
        size: i32,
        host: *const c_char,
        timeout_ms: i64,
        e: *mut SoftclipError,
    ) -> *mut SoftclipGroup;
    pub fn softclip_load_nccl(object: *const u8, length: usize, e: *mut SoftclipError) -> *const c_void;
    pub fn softclip_nccl(
        maker: *const c_void,
        store: *const SoftclipStore,
        rank: i32,
        size: i32,
        gpu: i32,
        timeout_ms: i64,
        e: *mut SoftclipError,
    ) -> *mut SoftclipGroup;
    pub fn softclip_group_free(group: *mut SoftclipGroup, abandoned: bool, e: *mut SoftclipError);
    pub fn softclip_all_reduce(
        group: *mut SoftclipGroup,
        tensor: *const C_tensor,
        op: u8,
        e: *mut SoftclipError,
    ) -> *mut SoftclipWork;
    pub fn softclip_broadcast(
        group: *mut SoftclipGroup,
        tensor: *const C_tensor,
        root: i32,
        e: *mut SoftclipError,
    ) -> *mut SoftclipWork;
    pub fn softclip_all_gather(
        group: *mut SoftclipGroup,
        output: *const C_tensor,
        input: *const C_tensor,
        e: *mut SoftclipError,
    ) -> *mut SoftclipWork;
    pub fn softclip_reduce_scatter(
        group: *mut SoftclipGroup,
        output: *const C_tensor,
        input: *const C_tensor,
        e: *mut SoftclipError,
    ) -> *mut SoftclipWork;
    pub fn softclip_barrier(group: *mut SoftclipGroup, e: *mut SoftclipError) -> *mut SoftclipWork;
    pub fn softclip_work_wait(work: *mut SoftclipWork, e: *mut SoftclipError);
    pub fn softclip_work_done(work: *mut SoftclipWork, e: *mut SoftclipError) -> bool;
    pub fn softclip_work_free(work: *mut SoftclipWork, e: *mut SoftclipError);

    pub fn softclip_reducer(
        group: *mut SoftclipGroup,
        n: i64,
        params: *const *mut C_tensor,
        first_bytes: i64,
        bucket_bytes: i64,
        e: *mut SoftclipError,
    ) -> *mut SoftclipReducer;
    pub fn softclip_reducer_forward(reducer: *mut SoftclipReducer, e: *mut SoftclipError);
    pub fn softclip_reducer_backward(reducer: *mut SoftclipReducer, e: *mut SoftclipError);
    pub fn softclip_reducer_finished(reducer: *mut SoftclipReducer, e: *mut SoftclipError);
    pub fn softclip_reducer_free(reducer: *mut SoftclipReducer, e: *mut SoftclipError);
}
