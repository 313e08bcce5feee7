//! Locks files and syncs them to disk, also on file systems that support neither.
//!
//! Some network and user-space file systems have no `flock` (NFS without lockd, Lustre without the mount option, 9p) or cannot sync
//! folders. Work must not stop there: each function logs one warning per process and continues.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Once;

use rustix::io::Errno;

/// What an attempt to lock a file found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum LockState {
    /// This process holds the lock until the file is dropped.
    Acquired,
    /// Another open file holds the lock.
    Held,
    /// The file system does not support locks. Nothing keeps other processes out.
    Unsupported,
}

impl LockState {
    /// Whether the caller may continue: it holds the lock, or there is none to hold.
    pub fn is_free(self) -> bool {
        self != LockState::Held
    }
}

/// Whether a failed `flock` means that the file system has no locks.
///
/// `flock` on an open file has no other reason to return `EINVAL`.
fn lacks_locks(error: &io::Error) -> bool {
    const CODES: [Errno; 4] = [Errno::NOSYS, Errno::NOLCK, Errno::OPNOTSUPP, Errno::INVAL];
    error.kind() == ErrorKind::Unsupported || has_code(error, &CODES)
}

/// Whether a failed `fsync` of a file means that it cannot be synced, and not that data were lost.
fn lacks_file_sync(error: &io::Error) -> bool {
    error.kind() == ErrorKind::Unsupported || has_code(error, &[Errno::NOSYS, Errno::OPNOTSUPP, Errno::INVAL])
}

/// As [`lacks_file_sync`] for a folder, including one that may be written to but not opened.
fn lacks_folder_sync(error: &io::Error) -> bool {
    const CODES: [Errno; 5] = [Errno::ROFS, Errno::BADF, Errno::ISDIR, Errno::ACCESS, Errno::PERM];
    lacks_file_sync(error) || has_code(error, &CODES)
}

fn has_code(error: &io::Error, codes: &[Errno]) -> bool {
    error.raw_os_error().is_some_and(|code| codes.contains(&Errno::from_raw_os_error(code)))
}

fn warn_about_locks(path: &Path, error: &io::Error) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::warn!(
            "{}: the file system does not support locks ({error}); make sure that no other process writes to the same folder",
            path.display()
        );
    });
}

fn warn_about_sync(path: &Path, error: &io::Error) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::warn!(
            "{}: the file system cannot sync it ({error}); after a loss of power, files written last may be missing",
            path.display()
        );
    });
}

/// As [`try_lock`], without a warning.
pub(crate) fn try_lock_quietly(file: &File) -> io::Result<LockState> {
    try_lock_or(file, |_| ())
}

fn try_lock_or(file: &File, on_missing_support: impl FnOnce(&io::Error)) -> io::Result<LockState> {
    match file.try_lock() {
        Ok(()) => Ok(LockState::Acquired),
        Err(TryLockError::WouldBlock) => Ok(LockState::Held),
        Err(TryLockError::Error(e)) if lacks_locks(&e) => {
            on_missing_support(&e);
            Ok(LockState::Unsupported)
        }
        Err(TryLockError::Error(e)) => Err(e),
    }
}

/// Tries to lock `file`, opened at `path`, exclusively. The lock ends with the file, however the process ends.
///
/// Where the file system does not support locks, a warning is logged once per process.
///
/// # Errors
/// The system reports another failure.
pub fn try_lock(file: &File, path: &Path) -> io::Result<LockState> {
    try_lock_or(file, |e| warn_about_locks(path, e))
}

/// Waits until `file`, opened at `path`, is locked exclusively, or returns at once where locks are not supported.
///
/// # Errors
/// As [`try_lock`].
pub fn lock(file: &File, path: &Path) -> io::Result<LockState> {
    wait(|| file.lock(), path)
}

/// As [`lock`], for a lock that several processes hold at once and that excludes the exclusive one.
///
/// # Errors
/// As [`try_lock`].
pub fn lock_shared(file: &File, path: &Path) -> io::Result<LockState> {
    wait(|| file.lock_shared(), path)
}

fn wait(take: impl Fn() -> io::Result<()>, path: &Path) -> io::Result<LockState> {
    loop {
        match take() {
            Ok(()) => return Ok(LockState::Acquired),
            // A signal that the process handles does not end the wait.
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if lacks_locks(&e) => {
                warn_about_locks(path, &e);
                return Ok(LockState::Unsupported);
            }
            Err(e) => return Err(e),
        }
    }
}

/// Waits until the disk has the contents of `file`, opened at `path`.
///
/// Where the file system cannot sync files, a warning is logged once per process.
///
/// # Errors
/// The disk is full or failed: the contents may be lost.
pub fn sync_file(file: &File, path: &Path) -> io::Result<()> {
    match file.sync_all() {
        Err(e) if lacks_file_sync(&e) => {
            warn_about_sync(path, &e);
            Ok(())
        }
        synced => synced,
    }
}

/// Waits until the disk has the entries of the folder `path`: new names last only then.
///
/// Where the file system cannot sync folders, a warning is logged once per process.
///
/// # Errors
/// The folder does not exist, or the disk failed.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    match File::open(path).and_then(|folder| folder.sync_all()) {
        Err(e) if lacks_folder_sync(&e) => {
            warn_about_sync(path, &e);
            Ok(())
        }
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: Errno) -> io::Error {
        io::Error::from_raw_os_error(code.raw_os_error())
    }

    #[test]
    fn missing_support_differs_from_failure() {
        for code in [Errno::NOSYS, Errno::NOLCK, Errno::OPNOTSUPP, Errno::INVAL] {
            assert!(lacks_locks(&error(code)), "{code:?}");
        }
        for code in [Errno::NOSYS, Errno::OPNOTSUPP, Errno::INVAL] {
            assert!(lacks_file_sync(&error(code)) && lacks_folder_sync(&error(code)), "{code:?}");
        }
        for code in [Errno::ROFS, Errno::BADF, Errno::ACCESS, Errno::PERM] {
            assert!(lacks_folder_sync(&error(code)) && !lacks_file_sync(&error(code)), "{code:?}");
        }
        for code in [Errno::IO, Errno::NOSPC, Errno::DQUOT] {
            let e = error(code);
            assert!(!lacks_locks(&e) && !lacks_file_sync(&e) && !lacks_folder_sync(&e), "{code:?}");
        }
    }

    #[test]
    fn a_lock_excludes_other_open_files_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock");
        let open = || File::options().create(true).append(true).open(&path).unwrap();
        let (first, second) = (open(), open());
        assert_eq!(try_lock(&first, &path).unwrap(), LockState::Acquired);
        assert_eq!(try_lock(&second, &path).unwrap(), LockState::Held);
        assert!(!LockState::Held.is_free() && LockState::Unsupported.is_free());
        drop(first);
        assert_eq!(lock(&second, &path).unwrap(), LockState::Acquired);
        second.unlock().unwrap();
        let third = open();
        assert_eq!(lock_shared(&second, &path).unwrap(), LockState::Acquired);
        assert_eq!(lock_shared(&third, &path).unwrap(), LockState::Acquired);
        assert_eq!(try_lock(&open(), &path).unwrap(), LockState::Held);
    }

    #[test]
    fn files_and_folders_are_synced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        sync_file(&File::create(&path).unwrap(), &path).unwrap();
        sync_folder(dir.path()).unwrap();
        assert!(sync_folder(&dir.path().join("none")).is_err());
    }
}
