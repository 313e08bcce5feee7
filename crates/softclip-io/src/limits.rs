//! Limits that the system sets: open files, and free space of a file system.

use std::io;
use std::os::fd::AsFd;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard limit. Programs call it once, at their start.
///
/// Shells commonly set a soft limit of 1,024 so that programs that use `select` do not fail. A data set of many shards needs more.
///
/// # Errors
/// The system refuses; the limit stays as it was.
pub fn raise_open_file_limit() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return Ok(());
    }
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}

/// Returns how many files this process may have open at once; `None` if that is not limited.
pub fn open_file_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Space of a file system in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Space that this process may still use.
    pub free: u64,
    /// Size of the file system.
    pub total: u64,
}

/// Returns the space of the file system that an open file or folder is on; `None` if the file system does not report its size.
///
/// # Errors
/// The system cannot examine the file system.
pub fn disk_space(file: impl AsFd) -> io::Result<Option<DiskSpace>> {
    let found = rustix::fs::fstatvfs(file)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok((found.f_blocks > 0).then(|| DiskSpace { free: bytes(found.f_bavail), total: bytes(found.f_blocks) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_the_system() {
        // Raising is tested on the binary: here it would change the limits of other tests.
        assert!(open_file_limit().is_none_or(|limit| limit > 8));
        let file = tempfile::tempfile().unwrap();
        let space = disk_space(&file).unwrap();
        assert!(space.is_none_or(|space| space.free <= space.total));
    }
}
