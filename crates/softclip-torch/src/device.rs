//! Devices: CUDA at run time, device names, memory formats.

use std::sync::{Once, OnceLock};

use softclip_sys as sys;
use tch::{Device, Tensor};

use crate::error::{Error, Result, check};

/// Loads libtorch's CUDA half if there is one beside libtorch_cpu, and sets libtorch's own log level
/// (`TORCH_CPP_LOG_LEVEL`, `ERROR` by default). Idempotent.
///
/// It also switches TF32 off, in which libtorch's convolutions would otherwise run on CUDA: f32 has 23 bits of mantissa there
/// too, not 10. Speed is what [`Autocast`](crate::Autocast) and [`tune_training`] are for.
///
/// It must be the first statement of `main`: libtorch remembers "no CUDA" at the first question about it, for the life of
/// the process.
///
/// # Errors
/// CUDA's libraries are there but cannot be loaded (a missing driver does not fail: such a machine has no devices).
pub fn init() -> Result<()> {
    load_cuda().map(drop)
}

/// Whether libtorch's CUDA half is there. A GPU and its driver are another matter.
pub fn cuda_loaded() -> bool {
    load_cuda().unwrap_or(false)
}

fn load_cuda() -> Result<bool> {
    static LOADED: OnceLock<std::result::Result<bool, String>> = OnceLock::new();
    LOADED
        .get_or_init(|| {
            init_logging();
            // SAFETY: the error records outlive the calls.
            check(|e| unsafe { sys::softclip_load_cuda(e) })
                .and_then(|loaded| check(|e| unsafe { sys::softclip_allow_tf32(false, e) }).map(|()| loaded == 1))
                .map_err(|e| e.to_string())
        })
        .clone()
        .map_err(Error::Torch)
}

/// How GPUs compute what is trained: with TF32 (`tf32`), f32 matrices are multiplied with 10 bits of mantissa, on tensor cores and many
/// times as fast; without, f32 is exact. cuDNN times its algorithms at the first convolution of each shape from here on, because a
/// training's shapes stay the same; their sums may differ in the last bits. Nothing of it concerns the CPU.
///
/// # Errors
/// libtorch refuses.
pub fn tune_training(tf32: bool) -> Result<()> {
    init()?;
    // SAFETY: the error record outlives the call.
    check(|e| unsafe { sys::softclip_allow_tf32(tf32, e) })?;
    // SAFETY: the error record outlives the call.
    check(|e| unsafe { sys::softclip_tune_convolutions(true, e) })
}

/// What `run` returns, with f32 multiplied as f32 on GPUs while it runs, whatever [`tune_training`] chose: that is restored behind it.
///
/// # Errors
/// libtorch refuses.
pub fn without_tf32<T>(run: impl FnOnce() -> T) -> Result<T> {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: the error record outlives the call. It was accepted before, and a destructor has nobody to tell.
            let _ = check(|e| unsafe { sys::softclip_allow_tf32(self.0, e) });
        }
    }
    init()?;
    // SAFETY: the error record outlives the call.
    let _restore = Restore(check(|e| unsafe { sys::softclip_allows_tf32(e) })?);
    // SAFETY: the error record outlives the call.
    check(|e| unsafe { sys::softclip_allow_tf32(false, e) })?;
    Ok(run())
}

/// Makes `device` the calling thread's, for all that names none: without it, a process whose GPU is not the first takes memory of that
/// too. Nothing to do on the CPU.
///
/// # Errors
/// There is no such GPU.
pub fn select_device(device: Device) -> Result<()> {
    let Device::Cuda(index) = device else { return Ok(()) };
    init()?;
    // SAFETY: the error record outlives the call.
    check(|e| unsafe { sys::softclip_select_gpu(index as i32, e) })
}

/// Makes libtorch heed its log level, once.
pub(crate) fn init_logging() {
    static DONE: Once = Once::new();
    // SAFETY: no preconditions.
    DONE.call_once(|| unsafe { sys::softclip_init_logging() });
}

/// Whether a CUDA device can be used.
pub fn cuda_available() -> bool {
    init().is_ok() && tch::Cuda::is_available()
}

/// How many CUDA devices there are; none where CUDA cannot be used.
pub fn cuda_devices() -> i64 {
    if cuda_available() { tch::Cuda::device_count() } else { 0 }
}

/// Reads a device name: `auto` (the first CUDA device, else the CPU), `cpu`, `cuda`, `cuda:1`.
///
/// # Errors
/// The name is none of these, or names a CUDA device that is not there.
pub fn parse_device(name: &str) -> Result<Device> {
    let index = match name {
        "cpu" => return Ok(Device::Cpu),
        "auto" => return Ok(if cuda_available() { Device::Cuda(0) } else { Device::Cpu }),
        "cuda" => 0,
        _ => name
            .strip_prefix("cuda:")
            .and_then(|i| i.parse::<usize>().ok())
            .ok_or_else(|| Error::Invalid(format!("device `{name}` is not known: use auto, cpu, cuda or cuda:N")))?,
    };
    init()?;
    let count = tch::Cuda::device_count();
    if (index as i64) < count {
        return Ok(Device::Cuda(index));
    }
    Err(Error::Invalid(match count {
        0 if !cuda_loaded() => {
            format!("device `{name}`: this libtorch has no CUDA; run scripts/setup --cuda, or use cpu")
        }
        0 => format!("device `{name}`: no CUDA device was found (is the driver installed?)"),
        _ => format!("device `{name}`: there are {count} CUDA devices, numbered from 0"),
    }))
}

/// Waits until `device` has done all that was asked of it: before a clock is read. Nothing to do on the CPU.
///
/// # Errors
/// An earlier asynchronous operation failed.
pub fn synchronize(device: Device) -> Result<()> {
    let Device::Cuda(index) = device else { return Ok(()) };
    // SAFETY: the error record outlives the call.
    check(|e| unsafe { sys::softclip_synchronize(index as i32, e) })
}

/// The same [N, C, H, W] values with channels innermost in memory, the layout in which convolutions run fastest in reduced
/// precision and on tensor cores. Shape and indexing stay as they were.
pub fn channels_last(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn device_names_are_read_or_refused_with_what_is_allowed() {
        assert_eq!(parse_device("cpu").unwrap(), Device::Cpu);
        for bad in ["gpu", "cuda:", "cuda:x", ""] {
            assert!(parse_device(bad).unwrap_err().to_string().contains("auto, cpu, cuda"), "{bad}");
        }
    }

    #[test]
    fn a_missing_cuda_device_is_named() {
        if !cuda_available() {
            assert!(parse_device("cuda:7").unwrap_err().to_string().contains("cuda:7"));
        }
    }

    #[test]
    fn f32_means_f32_unless_tf32_is_asked_for() {
        // SAFETY: the error record outlives the call.
        let tf32 = || check(|e| unsafe { sys::softclip_allows_tf32(e) }).unwrap();
        init().unwrap();
        assert!(!tf32());
        tune_training(true).unwrap();
        assert!(tf32());
        assert!(!without_tf32(tf32).unwrap() && tf32());
        tune_training(false).unwrap();
        assert!(!without_tf32(tf32).unwrap() && !tf32());
    }

    #[test]
    fn a_gpu_that_is_not_there_cannot_be_selected() {
        select_device(Device::Cpu).unwrap();
        assert!(select_device(Device::Cuda(99)).is_err());
    }

    #[test]
    fn the_environment_stays_as_it_was() {
        init().unwrap();
        let at_start = std::fs::read("/proc/self/environ").unwrap();
        let name = b"TORCH_CPP_LOG_LEVEL=";
        let was_set = at_start.split(|b| *b == 0).any(|entry| entry.starts_with(name));
        assert_eq!(std::env::var_os("TORCH_CPP_LOG_LEVEL").is_some(), was_set);
    }

    #[test]
    fn channels_last_keeps_values_and_moves_channels_inside() {
        let x = Tensor::arange(2 * 3 * 4 * 5, (Kind::Float, Device::Cpu)).view([2, 3, 4, 5]);
        let y = channels_last(&x);
        assert_eq!(x, y);
        assert_eq!(y.stride(), [60, 1, 15, 3]);
    }
}
