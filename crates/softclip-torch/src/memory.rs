//! How much memory the process and its device use.

use std::path::Path;

use softclip_sys as sys;
use tch::{Device, Tensor};

use crate::error::{Error, Result, check};

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MemoryStats {
    /// Resident memory of this process now.
    pub host_rss: u64,
    /// The most that it has been.
    pub host_peak: u64,
    /// What tensors hold on the device now; absent on the CPU.
    pub device: Option<u64>,
    /// The most that they held since the start or [`reset_peak_memory`].
    pub device_peak: Option<u64>,
}

/// Memory of this process and of `device`. A figure that the system does not give is 0.
pub fn memory(device: Device) -> MemoryStats {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut stats = MemoryStats {
        host_rss: kib(&status, "VmRSS:").unwrap_or(0),
        host_peak: kib(&status, "VmHWM:").unwrap_or(0),
        ..MemoryStats::default()
    };
    if let Device::Cuda(index) = device {
        let (mut current, mut peak) = (0i64, 0i64);
        // SAFETY: the out-parameters and the error record outlive the call.
        if check(|e| unsafe { sys::softclip_device_memory(index as i32, &mut current, &mut peak, e) }).is_ok() {
            stats.device = Some(current.max(0) as u64);
            stats.device_peak = Some(peak.max(0) as u64);
        }
    }
    stats
}

/// Returns the bytes that tensors on `device` could still take: the system's memory and swap, the limits of the process's control
/// groups, and its own limits (`ulimit -v`, `ulimit -d`), whichever ends first. `None` where they are not known, as for GPUs.
pub fn available_memory(device: Device) -> Option<u64> {
    if device != Device::Cpu {
        return None;
    }
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let system = kib(&meminfo, "MemAvailable:").map(|free| free + kib(&meminfo, "SwapFree:").unwrap_or(0));
    [system, left_in_groups(), left_by_limits()].into_iter().flatten().min()
}

/// The bytes of a line such as `VmRSS:  12 kB`.
fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|n| n.saturating_mul(1024))
}

/// What the control groups of this process leave: its own and those above it, in both versions' layouts.
fn left_in_groups() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = own.lines().filter_map(|line| {
        // `0::/path` in version 2, `4:memory:/path` in version 1.
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        match controllers {
            "" => Some(("/sys/fs/cgroup", path, ["memory.max", "memory.current"])),
            _ if controllers.split(',').any(|c| c == "memory") => {
                Some(("/sys/fs/cgroup/memory", path, ["memory.limit_in_bytes", "memory.usage_in_bytes"]))
            }
            _ => None,
        }
    });
    // Within a container the path may be the one outside of it: a missing folder has no limit, and the root always counts.
    let folders =
        groups.flat_map(|(root, path, files)| Path::new(path).ancestors().map(move |p| (Path::new(root).join(p), files)));
    folders.filter_map(|(folder, files)| left_in_group(&folder, files)).min()
}

fn left_in_group(folder: &Path, [most, now]: [&str; 2]) -> Option<u64> {
    let number = |name: &str| std::fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let (most, now) = (number(most)?, number(now)?);
    let stat = std::fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    Some(most.saturating_sub(now.saturating_sub(file_cache(&stat))))
}

/// What the process's own limits on its address space and its data leave.
fn left_by_limits() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let left = |resource, used: &str| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the struct outlives the call, which fills it.
        let known = unsafe { libc::getrlimit(resource, &mut limit) } == 0 && limit.rlim_cur != libc::RLIM_INFINITY;
        known.then(|| limit.rlim_cur.saturating_sub(kib(&status, used).unwrap_or(0)))
    };
    [left(libc::RLIMIT_AS, "VmSize:"), left(libc::RLIMIT_DATA, "VmData:")].into_iter().flatten().min()
}

/// Of the bytes that a control group uses, those of cached files: the system drops them when a process needs memory.
fn file_cache(stat: &str) -> u64 {
    // Version 1 counts the groups below in the lines that start with `total_`.
    let of = |key: &str| {
        let line = |key: &str| stat.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
        line(&format!("total_{key} ")).or_else(|| line(&format!("{key} "))).unwrap_or(0)
    };
    of("inactive_file").saturating_add(of("active_file"))
}

/// Starts a new measurement of the peak: on the device by libtorch, on the host where the system allows it.
///
/// # Errors
/// The device refuses.
pub fn reset_peak_memory(device: Device) -> Result<()> {
    // 5 resets VmHWM; where the kernel does not offer it, the peak stays that of the whole process.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let Device::Cuda(index) = device else { return Ok(()) };
    // SAFETY: the error record outlives the call.
    check(|e| unsafe { sys::softclip_reset_peak_memory(index as i32, e) })
}

/// Limits what this process may allocate from now on, all that it has among it, for good: beyond it allocations fail, which is
/// [`Error::OutOfMemory`]. Where the system runs out of memory all the same, it ends this process before others.
///
/// # Errors
/// The system refuses the limit.
pub fn limit_memory(bytes: u64) -> Result<()> {
    // Only Linux knows it; a process may always offer itself.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: the struct outlives the call, which only reads it.
    if unsafe { libc::setrlimit(libc::RLIMIT_DATA, &limit) } == 0 {
        return Ok(());
    }
    Err(Error::Invalid(format!("memory cannot be limited to {bytes} bytes: {}", std::io::Error::last_os_error())))
}

/// Runs something; its result, and the bytes that it took at most above what was there before: on the host those that were resident, on
/// a GPU those of tensors.
///
/// # Errors
/// `run`'s, and the device's.
pub fn peak_above<T, E: From<Error>>(
    device: Device,
    run: impl FnOnce() -> std::result::Result<T, E>,
) -> std::result::Result<(T, u64), E> {
    // Or `run` would use again what is resident already.
    trim_heap();
    reset_peak_memory(device)?;
    let before = memory(device);
    let done = run()?;
    let after = memory(device);
    let bytes = match (before.device, after.device_peak) {
        (Some(before), Some(peak)) => peak.saturating_sub(before),
        _ => after.host_peak.saturating_sub(before.host_rss),
    };
    Ok((done, bytes))
}

/// Gives memory that was freed, but that the C library keeps for later, back to the system: after much was read and thrown away.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: has no preconditions; what is in use is left alone.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Lets the C library keep what is freed for what is allocated next, instead of giving it back to the system and asking for zeroed pages
/// again. Networks on the CPU free and allocate megabytes with each operator: without this the system can take half of their time.
/// The process then stays as large as it has been. For programs that train or run one network for long, at their start. Whether the
/// library does so; others than glibc do not.
pub fn keep_freed_memory() -> bool {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets two limits of the allocator, which it may refuse; no memory is touched. Older versions take 32 MiB at most. The second
    // alone would freeze the first at its least. −1 is never.
    unsafe {
        let large = [1 << 30, 32 << 20].into_iter().any(|limit| libc::mallopt(libc::M_MMAP_THRESHOLD, limit) == 1);
        large && libc::mallopt(libc::M_TRIM_THRESHOLD, -1) == 1
    }
    #[cfg(not(target_env = "gnu"))]
    false
}

/// Tells the system that a tensor's memory is not needed for now. The values stay: pages of a mapped file are read again when they
/// are looked at. A tensor on another device, or whose memory is not contiguous, is left alone.
pub fn page_out(tensor: &Tensor) {
    if tensor.device() != Device::Cpu || !tensor.is_contiguous() || tensor.numel() == 0 {
        return;
    }
    // SAFETY: asks for a constant of the system.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    let from = (tensor.data_ptr() as usize).next_multiple_of(page);
    let to = (tensor.data_ptr() as usize + tensor.numel() * tensor.kind().elt_size_in_bytes()) / page * page;
    if from < to {
        // SAFETY: these pages lie within the tensor's memory, which lives as long as `tensor` is borrowed; this advice changes no
        // byte of it. That it cannot be followed does no harm.
        unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_PAGEOUT) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_paged_out_keeps_its_values() {
        for kind in [tch::Kind::Float, tch::Kind::Int64] {
            let x = Tensor::arange(100_000, (kind, Device::Cpu));
            page_out(&x);
            page_out(&x.narrow(0, 3, 5));
            trim_heap();
            assert_eq!(x.sum(tch::Kind::Double).double_value(&[]), 99_999.0 * 50_000.0);
        }
    }

    /// The system's time is what is saved; that is for benches. Here: memory stays usable, and is reused.
    #[test]
    fn kept_memory_is_given_out_again() {
        assert_eq!(keep_freed_memory(), cfg!(target_env = "gnu"));
        for n in [1 << 20, 1 << 24, 1 << 20] {
            let x = Tensor::ones([n], (tch::Kind::Float, Device::Cpu));
            assert_eq!((&x + &x).sum(tch::Kind::Double).double_value(&[]), 2.0 * n as f64);
        }
    }

    #[test]
    fn some_memory_is_available_on_the_host_and_a_gpu_does_not_tell() {
        assert!(available_memory(Device::Cpu).is_none_or(|bytes| bytes > 1 << 20 && bytes < 1 << 50));
        assert_eq!(available_memory(Device::Cuda(0)), None);
    }

    #[test]
    fn the_file_cache_is_found_among_a_groups_figures() {
        assert_eq!(file_cache("anon 7\nfile 95\nactive_file 30\ninactive_file 60\nslab 4\n"), 90);
        assert_eq!(file_cache("inactive_file 1\ntotal_inactive_file 5\ntotal_active_file 2\n"), 7);
        assert_eq!(file_cache("anon 7\n"), 0);
    }

    #[test]
    fn a_large_allocation_shows_in_the_peak() {
        let before = memory(Device::Cpu).host_rss;
        // Ones, not zeros: pages that nobody writes are not resident.
        drop(std::hint::black_box(vec![1u8; 256 << 20]));
        let after = memory(Device::Cpu);
        // Less than was allocated: the kernel's counters lag behind, and other tests free theirs meanwhile.
        assert!(after.host_peak >= before + (200 << 20), "{before} {after:?}");
    }
}
