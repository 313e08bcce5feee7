//! Where images lie, and how a thread reads them.

use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use softclip_data::image::{DecodeOptions, Decoder, ImageError, Transform};
use softclip_data::rng::RngKey;

/// The most bytes of an image's file.
const LARGEST: u64 = 256 << 20;

/// How the cells of the image column are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// As an address if it begins with `http://` or `https://`, else as a path.
    #[default]
    Auto,
    /// As paths.
    Local,
    /// As addresses.
    Url,
}

/// Gets the bytes behind addresses.
pub trait Remote: Send + Sync {
    /// The bytes behind each address or what went wrong, in the order given, with as many in memory at a time as it sees fit. Soon after
    /// `stop` is set it has nothing to wait for any more.
    fn stream<'a>(
        &'a self,
        urls: Vec<String>,
        stop: &'a Arc<AtomicBool>,
    ) -> Box<dyn Iterator<Item = Result<Vec<u8>, String>> + 'a>;
}

/// Where images lie.
#[derive(Clone)]
pub struct Places {
    /// The folder that paths are relative to.
    pub root: PathBuf,
    /// How cells are read.
    pub naming: Naming,
    /// What gets addresses; without it they are errors of their rows.
    pub remote: Option<Arc<dyn Remote>>,
}

impl Places {
    /// Files, in paths relative to the folder of `table`.
    pub fn beside(table: impl AsRef<Path>) -> Self {
        let root = table.as_ref().parent().unwrap_or(Path::new("")).to_owned();
        Places { root, naming: Naming::Auto, remote: None }
    }

    /// The place that a cell names.
    pub(super) fn find(&self, cell: &str) -> Result<Place, String> {
        let scheme = |s: &str| cell.get(..s.len()).is_some_and(|head| head.eq_ignore_ascii_case(s));
        let is_url = scheme("http://") || scheme("https://");
        match self.naming {
            Naming::Url if !is_url => Err(format!("{cell}: not an address, which would begin with http:// or https://")),
            Naming::Auto | Naming::Url if is_url && self.remote.is_none() => {
                Err(format!("{cell}: addresses are not fetched here"))
            }
            Naming::Auto | Naming::Url if is_url => Ok(Place::Url(cell.to_owned())),
            _ => Ok(Place::File(self.root.join(cell))),
        }
    }
}

/// Where one image is.
pub(super) enum Place {
    File(PathBuf),
    Url(String),
    /// What came from an address; a failure names it.
    Bytes(String, Result<Vec<u8>, String>),
}

/// What a thread needs to read images, and how long it was busy.
pub(super) struct Worker {
    decoder: Decoder,
    transform: Transform,
    file: Vec<u8>,
    pub(super) read: Duration,
    pub(super) decode: Duration,
}

impl Worker {
    pub(super) fn new(options: DecodeOptions, transform: Transform) -> Result<Self, ImageError> {
        let decoder = Decoder::new(options)?;
        Ok(Worker { decoder, transform, file: Vec::new(), read: Duration::ZERO, decode: Duration::ZERO })
    }

    /// Reads, decodes and resizes an image into `pixels`, `[3, S, S]`; or says why not.
    pub(super) fn load(&mut self, place: Place, pixels: &mut [u8]) -> Result<(), String> {
        let mut start = Instant::now();
        let (name, bytes, of_file) = match place {
            Place::File(path) => {
                read(&path, &mut self.file).map_err(|why| format!("{}: {why}", path.display()))?;
                (path.display().to_string(), std::mem::take(&mut self.file), true)
            }
            Place::Url(url) => return Err(format!("{url}: not fetched")),
            Place::Bytes(url, fetched) => (url, fetched?, false),
        };
        self.read += start.elapsed();
        start = Instant::now();
        let key = RngKey::new(0, 0, 0); // evaluation draws nothing
        let decoded = catch_unwind(AssertUnwindSafe(|| self.transform.apply(&bytes, key, &mut self.decoder, pixels)));
        self.decode += start.elapsed();
        if of_file {
            self.file = bytes;
        }
        match decoded {
            Ok(decoded) => decoded.map_err(|why| format!("{name}: {why}")),
            Err(_) => Err(format!("{name}: a defect in the decoder")),
        }
    }
}

/// The whole of a regular file, in a buffer that is used again.
fn read(path: &Path, buffer: &mut Vec<u8>) -> Result<(), String> {
    let about = std::fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        _ => e.to_string(),
    })?;
    if !about.is_file() {
        return Err("not a regular file".to_owned());
    }
    if about.len() > LARGEST {
        return Err(format!("{} MiB are too many for an image", about.len() >> 20));
    }
    buffer.clear();
    File::open(path).and_then(|file| file.take(LARGEST).read_to_end(buffer)).map_err(|e| e.to_string())?;
    Ok(())
}
