//! Tensor handles as the shim takes them.

use tch::{Device, Tensor};
use torch_sys::C_tensor;

/// Pointers to the `at::Tensor`s behind `tensors`; valid while those are borrowed.
pub(crate) fn pointers(tensors: &[Tensor]) -> Vec<*mut C_tensor> {
    tensors.iter().map(|t| t.as_ptr() as *mut C_tensor).collect()
}

/// libtorch's device type and index.
pub(crate) fn device_code(device: Device) -> (i32, i32) {
    match device {
        Device::Cpu => (0, -1),
        Device::Cuda(i) => (1, i as i32),
        Device::Mps => (13, 0),
        Device::Vulkan => (10, 0),
    }
}

/// A tensor from a handle that the shim made for us.
///
/// # Safety
/// `pointer` must come from the shim as a new handle that nobody else owns.
pub(crate) unsafe fn owned(pointer: *mut C_tensor) -> Tensor {
    // SAFETY: by this function's own contract.
    unsafe { Tensor::from_ptr(pointer) }
}
