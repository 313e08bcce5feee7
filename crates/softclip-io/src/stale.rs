//! Removes temporaries of processes that were killed.
//!
//! A temporary's name has the number of the process that writes it, which holds a lock on it. A temporary is stale if its lock is free
//! and no process of that number lives on this machine. The lock also protects writers on other machines and in other containers.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::lock::{LockState, try_lock_quietly};

/// Between the name of a file and the number of the process that writes it.
const MARK: &[u8] = b".partial-";

/// The file in a temporary folder that its writer locks.
pub(crate) const LOCK: &str = "lock";

/// A folder in a temporary folder that its writer moved there for a moment, to replace it. It is not the writer's to remove.
pub(crate) const OLD: &str = "old";

/// Without locks, a temporary that changed within this time may belong to a living process of another machine.
const GRACE: Duration = Duration::from_secs(3600);

/// Returns the beginning of the names of all temporaries of the file `name`.
pub(crate) fn file_prefix(name: &OsStr) -> OsString {
    let mut prefix = name.to_owned();
    prefix.push(OsStr::from_bytes(MARK));
    prefix
}

/// The writer's process number, in a name that continues `prefix` with `PID` or `PID-…`.
fn writer(name: &[u8], prefix: &[u8]) -> Option<u32> {
    let rest = name.strip_prefix(prefix)?;
    let digits = rest.split(|byte| *byte == b'-').next()?;
    std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// As [`writer`], for a temporary of any file.
fn writer_of_any(name: &[u8]) -> Option<u32> {
    let at = name.windows(MARK.len()).rposition(|window| window == MARK)?;
    writer(&name[at..], MARK)
}

/// Whether a process other than a zombie has the number `pid` on this machine.
fn is_alive(pid: u32) -> bool {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    if test_kill_process(raw) == Err(Errno::SRCH) {
        return false;
    }
    // The state follows the program's name, which is in brackets and may itself contain brackets.
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let state = state.as_deref().and_then(|stat| stat.rsplit_once(')')).and_then(|(_, rest)| rest.trim_start().chars().next());
    !matches!(state, Some('Z' | 'X'))
}

/// Whether `path` still names the open file of `metadata`.
pub(crate) fn is_same(path: &Path, metadata: &Metadata) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (metadata.dev(), metadata.ino()))
}

/// A folder whose lock is missing was left by a process that ended between making or removing the two: a moment later it is stale.
const LOCKLESS_GRACE: Duration = Duration::from_secs(10);

/// Whether nothing in `path` has changed for `grace`.
fn is_idle(path: &Path, grace: Duration) -> bool {
    let Ok(metadata) = fs::symlink_metadata(path) else { return false };
    let idle = metadata.modified().ok().and_then(|time| time.elapsed().ok()).is_some_and(|age| age > grace);
    let entries = || fs::read_dir(path).is_ok_and(|entries| entries.flatten().all(|entry| is_idle(&entry.path(), grace)));
    idle && (!metadata.is_dir() || entries())
}

/// Removes `path` if nobody writes it. `lock` is the file that its writer, process `pid`, locks.
fn remove_if_stale(path: &Path, lock: &Path, pid: u32) {
    let own = pid == std::process::id();
    if !own && is_alive(pid) {
        return;
    }
    // Exclusive locks of NFS need a file that is open for writing. A link is nobody's temporary.
    let is_file = fs::symlink_metadata(lock).is_ok_and(|metadata| metadata.is_file());
    let file = is_file.then(|| File::options().read(true).write(true).open(lock).ok()).flatten();
    let stale = match file.as_ref().map(try_lock_quietly) {
        Some(Ok(LockState::Acquired)) => true,
        None if path.is_dir() && !lock.exists() => !own && is_idle(path, LOCKLESS_GRACE),
        Some(Ok(LockState::Unsupported)) | None => !own && is_idle(path, GRACE),
        Some(Ok(LockState::Held) | Err(_)) => false,
    };
    if !stale {
        return;
    }
    // The lock is held meanwhile: a writer that has just made it finds it gone, and makes another.
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Ok(()) => tracing::debug!("removed {}, which process {pid} left", path.display()),
        Err(e) => tracing::debug!("{}: {e}; process {pid} left it, and it stays", path.display()),
    }
}

/// Removes the stale temporaries of the file `name` in `folder`.
///
/// Each folder is listed once per process, at its first write there: folders of many files are written file by file.
pub(crate) fn remove_stale_of_file(folder: &Path, name: &OsStr) {
    static FOUND: Mutex<Option<HashMap<PathBuf, Vec<OsString>>>> = Mutex::new(None);
    let prefix = file_prefix(name);
    let mine: Vec<OsString> = {
        let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
        let names = found.get_or_insert_default().entry(folder.to_owned()).or_insert_with(|| partials(folder));
        names.extract_if(.., |found| writer(found.as_bytes(), prefix.as_bytes()).is_some()).collect()
    };
    for found in mine {
        let path = folder.join(&found);
        writer(found.as_bytes(), prefix.as_bytes()).into_iter().for_each(|pid| remove_if_stale(&path, &path, pid));
    }
}

/// The names of all temporaries of files in `folder`.
fn partials(folder: &Path) -> Vec<OsString> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter(|name| writer_of_any(name.as_bytes()).is_some()).collect()
}

/// Removes the temporaries that killed processes left in `folder`, of those files whose name is `wanted`.
///
/// For folders that belong to this program: the names of temporaries that will not be written again are not known otherwise.
pub fn remove_stale_files(folder: &Path, wanted: impl Fn(&str) -> bool) {
    for name in partials(folder) {
        let path = folder.join(&name);
        if name.to_str().is_some_and(&wanted) {
            writer_of_any(name.as_bytes()).into_iter().for_each(|pid| remove_if_stale(&path, &path, pid));
        }
    }
}

/// Removes the stale temporary folders in `parent` whose names start with `prefix` and a process number.
pub(crate) fn remove_stale_folders(parent: &Path, prefix: &str) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if let Some(pid) = writer(entry.file_name().as_bytes(), prefix.as_bytes()) {
            let path = entry.path();
            let has_old = fs::symlink_metadata(path.join(OLD)).is_ok();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !has_old {
                remove_if_stale(&path, &path.join(LOCK), pid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_writers_number() {
        assert_eq!(writer(b"a.csv.partial-12", b"a.csv.partial-"), Some(12));
        assert_eq!(writer(b".export-7-abcdef", b".export-"), Some(7));
        for other in ["a.csv.partial-", "a.csv.partial-x", "a.csv.partial-+1", "b.csv.partial-12", "a.csv.partial-99999999999"] {
            assert_eq!(writer(other.as_bytes(), b"a.csv.partial-"), None, "{other}");
        }
        assert_eq!(writer_of_any(b"x.partial-1.partial-23-ab"), Some(23));
        assert_eq!(writer_of_any(b"x.partial"), None);
    }

    #[test]
    fn this_process_lives_and_impossible_ones_do_not() {
        assert!(is_alive(std::process::id()) && is_alive(1));
        assert!(!is_alive(0) && !is_alive(u32::MAX) && !is_alive(i32::MAX as u32));
    }

    #[test]
    fn a_killed_process_that_nobody_waited_for_is_dead() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        assert!(is_alive(child.id()));
        child.kill().unwrap();
        while is_alive(child.id()) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }
}
