//! What is embedded: data sets, folders and lists of images, lines of text.

use std::fs::File;
use std::io::{self, BufRead, Read, Seek, Write};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use softclip_data::source::{self, Source, SourceFault};

use super::files::Files;
use crate::error::{Error, Result};

/// Which of a model's two encoders is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A row a sample.
    Images,
    /// A row a caption or line.
    Texts,
}

/// Something to embed, opened: names and positions were read, no images.
pub struct Input {
    pub(super) what: What,
    pub(super) from: From,
    pub(super) id: SourceId,
}

pub(super) enum From {
    Source(Arc<dyn Source>),
    /// A text a line.
    Lines(File),
}

/// What makes two inputs the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceId {
    /// As named.
    pub spec: String,
    /// Samples or lines.
    pub samples: usize,
    /// SHA-256 of the keys in order, or of the text.
    pub sha256: String,
}

impl Input {
    /// Opens what `spec` names: a data set ([`softclip_data::source::open`]), a folder of images, a `.txt` list of images or, for
    /// texts, a `.txt` file with a text a line, or `-` for such lines on standard input, which are kept in a temporary file.
    ///
    /// # Errors
    /// Nothing is there, or it has not what is asked for.
    pub fn open(spec: &str, what: What) -> Result<Self> {
        let path = Path::new(spec);
        let no = |why: &str| Err(Error::Input(format!("{spec}: {why}")));
        let is_list = spec.ends_with(".txt") && path.is_file() && !names_tars(path)?;
        let source: Arc<dyn Source> = match what {
            What::Images if spec == "-" => return no("standard input takes texts: add --what texts"),
            What::Texts if spec == "-" => return Self::lines(spec, spooled(io::stdin().lock())?),
            What::Texts if path.is_dir() => {
                return no("a folder of images has no captions; embed the images, or name a data set");
            }
            What::Texts if is_list => return Self::lines(spec, File::open(path).map_err(Error::io(path))?),
            What::Images if path.is_dir() => Arc::new(Files::folder(path)?),
            What::Images if is_list => Arc::new(Files::list(path)?),
            _ => source::open(spec)?,
        };
        if what == What::Texts && source.classes().is_some() {
            return no("class folders have no captions");
        }
        Ok(Self::source(spec, source, what))
    }

    /// The images or captions of a data set that is open already; `spec` is its name.
    pub fn source(spec: &str, source: Arc<dyn Source>, what: What) -> Self {
        let mut hash = Sha256::new();
        for index in 0..source.len() {
            hash.update(source.key(index));
            hash.update("\n");
        }
        let id = SourceId { spec: spec.to_owned(), samples: source.len(), sha256: hex(hash) };
        Self { what, from: From::Source(source), id }
    }

    fn lines(spec: &str, mut file: File) -> Result<Self> {
        let path = Path::new(spec);
        file.rewind().map_err(Error::io(path))?;
        softclip_io::text_reader(&file).map_err(|e| Error::file(path, e))?;
        let io = Error::io(path);
        let (mut hash, mut samples, mut last) = (Sha256::new(), 0, b'\n');
        let mut buffer = vec![0; 1 << 18];
        let mut read = || -> io::Result<()> {
            file.rewind()?;
            loop {
                let bytes = match file.read(&mut buffer)? {
                    0 => return Ok(()),
                    n => &buffer[..n],
                };
                hash.update(bytes);
                samples += bytes.iter().filter(|&&byte| byte == b'\n').count();
                last = bytes[bytes.len() - 1];
            }
        };
        read().map_err(io)?;
        // A last line may lack its end.
        samples += usize::from(last != b'\n');
        if samples == 0 {
            return Err(Error::Input(format!("{spec}: there is no text in it")));
        }
        let id = SourceId { spec: spec.to_owned(), samples, sha256: hex(hash) };
        Ok(Self { what: What::Texts, from: From::Lines(file), id })
    }

    /// Samples or lines; each gives a row, a row a caption, or none.
    pub fn len(&self) -> usize {
        self.id.samples
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which encoder it is for.
    pub fn what(&self) -> What {
        self.what
    }

    /// The data set, where there is one.
    pub(crate) fn into_source(self) -> Option<Arc<dyn Source>> {
        match self.from {
            From::Source(source) => Some(source),
            From::Lines(_) => None,
        }
    }

    pub(super) fn faults(&self) -> &[SourceFault] {
        match &self.from {
            From::Source(source) => source.faults(),
            From::Lines(_) => &[],
        }
    }
}

/// A `.txt` file may be a list of shards, which is a data set.
fn names_tars(list: &Path) -> Result<bool> {
    let list_file = softclip_io::open_text(list).map_err(|e| Error::file(list, e))?;
    for line in list_file.split(b'\n') {
        let line = line.map_err(Error::io(list))?;
        let line = line.trim_ascii();
        if !line.is_empty() && !line.starts_with(b"#") {
            return Ok([".tar", ".tar.gz", ".tgz"].iter().any(|end| line.ends_with(end.as_bytes())));
        }
    }
    Ok(false)
}

/// Input that can be read once, as a file without a name, so that nothing stays of it.
fn spooled(mut input: impl Read) -> Result<File> {
    let mut spool = || -> io::Result<File> {
        let mut file = tempfile::tempfile()?;
        io::copy(&mut input, &mut file)?;
        file.flush()?;
        Ok(file)
    };
    spool().map_err(Error::io(Path::new("standard input")))
}

pub(super) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
