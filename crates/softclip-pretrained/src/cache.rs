//! `huggingface_hub`'s cache: `blobs/` has the contents, `snapshots/COMMIT/` links to them by the names they have in that
//! commit, `refs/` has the commit of each branch.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use softclip_io::LockState;
use softclip_tensor::file::write_atomic;

use crate::error::{Error, Result, file, io};
use crate::hub::Repo;
use crate::locate::{Chosen, Event, ModelFiles, choose, is_plain, names_in, of_names};
use crate::module::{self, MODULES};
use crate::options::HubOptions;

/// One model's part of the cache.
pub(crate) struct Cache {
    root: PathBuf,
    locks: PathBuf,
    revision: String,
}

impl Cache {
    pub(crate) fn new(hub: &HubOptions, repo: &Repo) -> Result<Self> {
        let Some(cache) = &hub.cache else {
            let why = "there is no place for a cache, as no home folder is known: set HF_HOME";
            return Err(Error::Name { name: repo.to_string(), why: why.into() });
        };
        let folder = format!("models--{}", repo.id.replace('/', "--"));
        Ok(Self { root: cache.join(&folder), locks: cache.join(".locks").join(folder), revision: repo.revision.clone() })
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// The model as the cache has it, under the commit that the revision last meant.
    ///
    /// # Errors
    /// Says what the cache lacks.
    pub(crate) fn whole(&self, name: &str) -> Result<ModelFiles> {
        let known = self.root.join("refs").join(&self.revision);
        let commit = match fs::read_to_string(&known) {
            Ok(commit) if is_plain(commit.trim()) => commit.trim().to_owned(),
            _ if self.snapshot(&self.revision).is_dir() => self.revision.clone(),
            _ => return Err(file(&known, "is missing: the cache does not know the model")),
        };
        let root = self.snapshot(&commit);
        let mut names = names_in(&root)?;
        let mut folder = root.clone();
        if names.contains(MODULES)
            && let Some(inner) = module::clip_folder(&root.join(MODULES))?
        {
            folder = root.join(inner);
            names = names_in(&folder)?;
        }
        let has_weights = !matches!(choose(&names), Chosen::Nothing | Chosen::Several(_));
        if !has_weights {
            return Err(file(&folder.join("model.safetensors"), "is missing"));
        }
        let files = of_names(name, Some(&commit), &folder, &names)?;
        if files.config.is_none() && files.open_clip_config.is_none() {
            return Err(file(&root.join("config.json"), "is missing"));
        }
        Ok(files)
    }

    /// Notes the commit that the revision means. Comes last, so that what a note leads to is whole.
    pub(crate) fn note(&self, commit: &str) -> Result<()> {
        if self.revision == commit {
            return Ok(());
        }
        let path = self.root.join("refs").join(&self.revision);
        make_parent(&path)?;
        Ok(write_atomic(&path, commit.as_bytes())?)
    }

    /// Where the content `etag` is or will be.
    pub(crate) fn blob(&self, etag: &str) -> Result<PathBuf> {
        let path = self.root.join("blobs").join(etag);
        make_parent(&path)?;
        Ok(path)
    }

    /// Waits until no other process fetches the content `etag`; others wait until the file is dropped.
    pub(crate) fn lock(&self, etag: &str, watch: &mut dyn FnMut(Event<'_>)) -> Result<File> {
        let path = self.locks.join(format!("{etag}.lock"));
        make_parent(&path)?;
        let lock = File::options().create(true).append(true).open(&path).map_err(io(&path))?;
        // Where there are no locks huggingface_hub continues, too.
        if !softclip_io::try_lock(&lock, &path).map_err(io(&path))?.is_free() {
            watch(Event::Warning("another process is fetching the same file; waiting for it"));
            let _: LockState = softclip_io::lock(&lock, &path).map_err(io(&path))?;
        }
        Ok(lock)
    }

    /// Lets the content `etag` appear as `name` of the commit.
    pub(crate) fn link(&self, etag: &str, commit: &str, name: &str) -> Result<()> {
        let link = self.snapshot(commit).join(name);
        make_parent(&link)?;
        if link.symlink_metadata().is_ok() {
            fs::remove_file(&link).map_err(io(&link))?;
        }
        let up = "../".repeat(name.matches('/').count());
        symlink(Path::new(&up).join("../../blobs").join(etag), &link).map_err(io(&link))
    }
}

fn make_parent(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), |p| fs::create_dir_all(p).map_err(io(p)))
}

/// Whether a file is what `etag` promises: large files go by their SHA-256, for small ones the length has to do.
pub(crate) fn is_intact(path: &Path, etag: &str, size: Option<u64>) -> Result<bool> {
    let mut file = File::open(path).map_err(io(path))?;
    if size.is_some_and(|s| file.metadata().is_ok_and(|m| m.len() != s)) {
        return Ok(false);
    }
    if etag.len() != 64 || !etag.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(true);
    }
    let mut sha = Sha256::new();
    hash(&mut file, &mut sha).map_err(io(path))?;
    let found = hex(sha);
    Ok(found.eq_ignore_ascii_case(etag))
}

/// The SHA-256 of `files`, one after another, in hexadecimal: of one file, what `sha256sum` prints.
pub(crate) fn sha256(files: &[PathBuf]) -> Result<String> {
    let mut sha = Sha256::new();
    for path in files {
        File::open(path).and_then(|mut file| hash(&mut file, &mut sha)).map_err(io(path))?;
    }
    Ok(hex(sha))
}

fn hash(file: &mut File, sha: &mut Sha256) -> std::io::Result<()> {
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(()),
            n => sha.update(&chunk[..n]),
        }
    }
}

fn hex(sha: Sha256) -> String {
    sha.finalize().iter().map(|b| format!("{b:02x}")).collect()
}
