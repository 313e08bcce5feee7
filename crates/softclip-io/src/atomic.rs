//! Files and folders that are complete or absent.
//!
//! Contents are written to a temporary next to the target, synced, and renamed. A killed process leaves the temporary; the next process
//! that writes the same target removes it.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::{NamedTempFile, TempDir};

use crate::lock::{LockState, sync_file, sync_folder, try_lock_quietly};
use crate::stale::{LOCK, OLD, file_prefix, is_same, remove_stale_folders, remove_stale_of_file};

/// Attempts to make a temporary that another process does not take for a stale one.
const ATTEMPTS: usize = 100;

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether a new temporary belongs to this process: another one may take it for stale until it is locked.
fn claim(file: &File, path: &Path) -> io::Result<bool> {
    Ok(try_lock_quietly(file)? != LockState::Held && is_same(path, &file.metadata()?))
}

fn taken(path: &Path) -> io::Error {
    io::Error::other(format!("{}: other processes remove what is written there", path.display()))
}

/// A file that gets its name once it is complete.
///
/// It is written at [`path`](Self::path), or through [`Write`]. Dropped before [`commit`](Self::commit), it leaves nothing and the
/// target as it was.
///
/// ```
/// use std::io::Write;
///
/// # let dir = tempfile::tempdir()?;
/// # let target = dir.path().join("scores.csv");
/// let mut file = softclip_io::PartialFile::create(&target)?;
/// writeln!(file, "id,score")?;
/// assert!(!target.exists());
/// file.commit()?;
/// assert_eq!(std::fs::read_to_string(&target)?, "id,score\n");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct PartialFile {
    /// Locked while it is open.
    temporary: NamedTempFile,
    target: PathBuf,
}

impl PartialFile {
    /// Creates an empty file `NAME.partial-PID-…` next to `target`. Such files of killed processes are removed.
    ///
    /// # Errors
    /// The folder does not exist or is not writable.
    pub fn create(target: &Path) -> io::Result<Self> {
        let (folder, name) = (parent_of(target), target.file_name().unwrap_or_default());
        remove_stale_of_file(folder, name);
        let mut prefix = file_prefix(name);
        prefix.push(format!("{}-", std::process::id()));
        for _ in 0..ATTEMPTS {
            let temporary = tempfile::Builder::new()
                .prefix(&prefix)
                .permissions(Permissions::from_mode(0o666)) // less what the umask takes away
                .tempfile_in(folder)?;
            if claim(temporary.as_file(), temporary.path())? {
                return Ok(Self { temporary, target: target.to_owned() });
            }
        }
        Err(taken(target))
    }

    /// Returns where the contents are written.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Syncs the file and renames it to the target, which it replaces.
    ///
    /// # Errors
    /// The disk is full or failed, or the target is a folder. The target is as it was, and the temporary is removed.
    pub fn commit(self) -> io::Result<()> {
        // Opened again: who wrote to the path may have replaced the file.
        sync_file(&File::open(self.path())?, self.path())?;
        self.temporary.persist(&self.target).map_err(|e| e.error)?;
        // The rename itself is durable only once the folder is.
        sync_folder(parent_of(&self.target))
    }
}

impl Write for PartialFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.temporary.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.temporary.flush()
    }
}

/// Writes `bytes` so that a reader sees the old file or the whole new one.
///
/// # Errors
/// The disk is full or not writable. `path` is as it was then.
pub fn write_atomic(path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
    let mut file = PartialFile::create(path.as_ref())?;
    file.write_all(bytes)?;
    file.commit()
}

/// A folder that gets its name once it is complete. Dropped before, it leaves nothing.
#[derive(Debug)]
pub struct PartialFolder {
    /// Has the lock's file and the folder.
    outer: TempDir,
    _lock: File,
    path: PathBuf,
}

impl PartialFolder {
    /// Creates an empty folder below `parent/PREFIX{PID}-…`. Such folders of killed processes are removed.
    ///
    /// # Errors
    /// `parent` does not exist or is not writable.
    pub fn create(parent: &Path, prefix: &str) -> io::Result<Self> {
        remove_stale_folders(parent, prefix);
        for _ in 0..ATTEMPTS {
            let outer = tempfile::Builder::new().prefix(&format!("{prefix}{}-", std::process::id())).tempdir_in(parent)?;
            let at = outer.path().join(LOCK);
            let claimed = File::create_new(&at).and_then(|lock| Ok(claim(&lock, &at)?.then_some(lock)));
            match claimed {
                Ok(Some(lock)) => {
                    // A separate folder, with the usual permissions and without the lock.
                    let path = outer.path().join("new");
                    fs::create_dir(&path)?;
                    return Ok(Self { outer, _lock: lock, path });
                }
                Ok(None) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Err(taken(parent))
    }

    /// Returns the folder to fill.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Renames the folder to `target`, which must not exist or be an empty folder, and syncs the folder above. Files in it are not
    /// synced.
    ///
    /// # Errors
    /// `target` is not empty or lies on another disk. Nothing is left then.
    pub fn persist(self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        drop(self.outer);
        sync_folder(parent_of(target))
    }

    /// As [`persist`](Self::persist), for a `target` that exists, with anything in it: it is removed.
    ///
    /// # Errors
    /// `target` lies on another disk. It is as it was then.
    pub fn replace(self, target: &Path) -> io::Result<()> {
        if renameat_with(CWD, &self.path, CWD, target, RenameFlags::EXCHANGE).is_err() {
            // Some network file systems cannot exchange folders.
            let old = self.outer.path().join(OLD);
            fs::rename(target, &old)?;
            if let Err(e) = fs::rename(&self.path, target) {
                fs::rename(&old, target)?;
                return Err(e);
            }
        }
        drop(self.outer);
        sync_folder(parent_of(target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kept");
        write_atomic(&path, b"old").unwrap();
        assert!(write_atomic(dir.path().join("no-such-folder/x"), b"new").is_err());
        let mut file = PartialFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert!(write_atomic(dir.path(), b"a folder").is_err());
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"old".to_vec(), vec!["kept".to_owned()]));
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn what_was_replaced_at_the_path_is_what_gets_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = PartialFile::create(&dir.path().join("x")).unwrap();
        fs::remove_file(file.path()).unwrap();
        fs::write(file.path(), "another file").unwrap();
        file.commit().unwrap();
        assert_eq!(fs::read(dir.path().join("x")).unwrap(), b"another file");
        assert_eq!(names(dir.path()), ["x"]);
    }

    #[test]
    fn permissions_are_the_usual_ones() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode();
        write_atomic(dir.path().join("file"), b"").unwrap();
        File::create(dir.path().join("usual")).unwrap();
        assert_eq!(mode(dir.path().join("file")), mode(dir.path().join("usual")));
        PartialFolder::create(dir.path(), ".make-").unwrap().persist(&dir.path().join("folder")).unwrap();
        fs::create_dir(dir.path().join("usual folder")).unwrap();
        assert_eq!(mode(dir.path().join("folder")), mode(dir.path().join("usual folder")));
    }

    #[test]
    fn a_folder_is_complete_or_absent() {
        let dir = tempfile::tempdir().unwrap();
        let folder = PartialFolder::create(dir.path(), ".make-").unwrap();
        fs::write(folder.path().join("a"), "1").unwrap();
        drop(folder);
        assert!(names(dir.path()).is_empty());
        let folder = PartialFolder::create(dir.path(), ".make-").unwrap();
        fs::write(folder.path().join("a"), "1").unwrap();
        folder.persist(&dir.path().join("out")).unwrap();
        assert_eq!(names(dir.path()), ["out"]);
        assert_eq!(names(&dir.path().join("out")), ["a"]);
        assert!(PartialFolder::create(dir.path(), ".make-").unwrap().persist(&dir.path().join("out")).is_err());
        assert_eq!(names(dir.path()), ["out"]);
        let folder = PartialFolder::create(dir.path(), ".make-").unwrap();
        fs::write(folder.path().join("b"), "2").unwrap();
        folder.replace(&dir.path().join("out")).unwrap();
        assert_eq!((names(dir.path()), names(&dir.path().join("out"))), (vec!["out".to_owned()], vec!["b".to_owned()]));
    }

    #[test]
    fn threads_write_the_same_file_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::thread::scope(|scope| {
            for i in 0..8u8 {
                let path = &path;
                scope.spawn(move || (0..20).for_each(|_| write_atomic(path, &[i; 1000]).unwrap()));
            }
        });
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.len() == 1000 && bytes.iter().all(|byte| *byte == bytes[0]));
        assert_eq!(names(dir.path()), ["x"]);
    }
}
