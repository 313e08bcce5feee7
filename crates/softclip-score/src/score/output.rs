//! Scores as a table or as JSON lines, row by row.

use std::io::{self, BufWriter, Stdout, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use csv::ByteRecord;
use serde_json::{Map, Value};
use softclip_io::PartialFile;

use super::Score;
use crate::error::{Error, Result};
use crate::pairs::ADDED;

/// How scores are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Cells between commas.
    Csv,
    /// Cells between tabs.
    Tsv,
    /// An object a line: the cells as text, scores as numbers, `null` for what there is not.
    Jsonl,
}

impl Format {
    /// The format of a file by its extension: `.csv`, `.tsv`, `.jsonl`, `.ndjson`.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(Format::Csv),
            "tsv" => Some(Format::Tsv),
            "jsonl" | "ndjson" => Some(Format::Jsonl),
            _ => None,
        }
    }
}

enum Sink {
    Stdout(BufWriter<Stdout>),
    File { partial: BufWriter<PartialFile>, path: PathBuf },
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Stdout(out) => out.write(bytes),
            Sink::File { partial, .. } => partial.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Sink::Stdout(out) => out.flush(),
            Sink::File { partial, .. } => partial.flush(),
        }
    }
}

/// Where scores go. A file has its name only once [`Output::finish`] returns; dropped before, it leaves nothing.
pub struct Output {
    sink: Sink,
    format: Format,
    header: Vec<String>,
    /// Whether scores have a probability.
    with_probability: bool,
    line: Vec<u8>,
}

/// The column of SigLIP's probabilities, after those of [`ADDED`] that every score has.
const PROBABILITY: &str = "probability";

impl Output {
    /// Standard output.
    ///
    /// # Errors
    /// It cannot be written to.
    pub fn stdout(format: Format, header: &[String]) -> Result<Self> {
        Self::new(Sink::Stdout(BufWriter::new(io::stdout())), format, header)
    }

    /// A file, which is replaced if it is there.
    ///
    /// # Errors
    /// Its folder cannot be written to.
    pub fn file(path: &Path, format: Format, header: &[String]) -> Result<Self> {
        let partial =
            PartialFile::create(path).map_err(|e| Error::Output { place: path.display().to_string(), why: e.to_string() })?;
        Self::new(Sink::File { partial: BufWriter::new(partial), path: path.to_owned() }, format, header)
    }

    fn new(sink: Sink, format: Format, header: &[String]) -> Result<Self> {
        let output = Output { sink, format, header: header.to_vec(), with_probability: false, line: Vec::new() };
        if format == Format::Jsonl
            && let Some(name) = header.iter().enumerate().find_map(|(i, name)| header[..i].contains(name).then_some(name))
        {
            let why = format!("there are several columns `{name}`, which JSON cannot keep apart: rename all but one");
            return Err(output.failed(&why));
        }
        Ok(output)
    }

    /// Writes the header, whose columns depend on the model.
    pub(super) fn begin(&mut self, with_probability: bool) -> Result<()> {
        self.with_probability = with_probability;
        if with_probability && self.header.iter().any(|column| column == PROBABILITY) {
            let why = "the table has a column `probability` already, which the scores of this model need: rename that one";
            return Err(self.failed(&why));
        }
        if self.format != Format::Jsonl {
            let added: Vec<&str> = self.added().collect();
            let names: ByteRecord = self.header.iter().map(String::as_str).chain(added).collect();
            self.record(&names)?;
            self.flush()?;
        }
        Ok(())
    }

    /// The columns that scores are added as: the cells of [`Output::row`] in the same order.
    fn added(&self) -> impl Iterator<Item = &'static str> {
        let [cosine, logit, error] = ADDED;
        [Some(cosine), Some(logit), self.with_probability.then_some(PROBABILITY), Some(error)].into_iter().flatten()
    }

    /// Appends a row: its cells, as many as the header has, and its score or what is wrong with it.
    pub(super) fn row(&mut self, cells: &ByteRecord, score: &std::result::Result<Score, String>) -> Result<()> {
        if self.format == Format::Jsonl {
            return self.object(cells, score);
        }
        let mut record = cells.clone();
        let number = |of: fn(&Score) -> f32| score.as_ref().map_or_else(|_| String::new(), |score| of(score).to_string());
        record.push_field(number(|score| score.cosine).as_bytes());
        record.push_field(number(|score| score.logit).as_bytes());
        if self.with_probability {
            let probability = score.as_ref().ok().and_then(|score| score.probability);
            record.push_field(probability.map_or_else(String::new, |p| p.to_string()).as_bytes());
        }
        record.push_field(score.as_ref().err().map_or("", String::as_str).as_bytes());
        self.record(&record)
    }

    fn record(&mut self, record: &ByteRecord) -> Result<()> {
        let delimiter = if self.format == Format::Tsv { b'\t' } else { b',' };
        self.line.clear();
        let mut writer = csv::WriterBuilder::new().delimiter(delimiter).from_writer(&mut self.line);
        let written =
            writer.write_byte_record(record).map_err(|e| e.to_string()).and_then(|()| writer.flush().map_err(|e| e.to_string()));
        drop(writer);
        written.map_err(|why| self.failed(&why))?;
        self.sink.write_all(&self.line).map_err(|e| self.cannot_write(&e))
    }

    fn object(&mut self, cells: &ByteRecord, score: &std::result::Result<Score, String>) -> Result<()> {
        let text = cells.iter().map(|cell| Value::from(String::from_utf8_lossy(cell)));
        let mut object: Map<String, Value> = self.header.iter().cloned().zip(text).collect();
        let score = score.as_ref();
        let mut added = vec![score.map_or(Value::Null, |s| s.cosine.into()), score.map_or(Value::Null, |s| s.logit.into())];
        if self.with_probability {
            added.push(score.ok().and_then(|s| s.probability).map_or(Value::Null, Value::from));
        }
        added.push(score.err().map_or(Value::Null, |why| why.as_str().into()));
        object.extend(self.added().map(str::to_owned).zip(added));
        let written = writeln!(self.sink, "{}", Value::Object(object));
        written.map_err(|e| self.cannot_write(&e))
    }

    /// Hands on what is written, as far as standard output is concerned: whoever reads it need not wait.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.sink.flush().map_err(|e| self.cannot_write(&e))
    }

    /// Puts the file under its name, whole and synced.
    ///
    /// # Errors
    /// The disk is full, or the name is that of a folder. There is no file then.
    pub fn finish(mut self) -> Result<()> {
        self.flush()?;
        let Sink::File { partial, path } = self.sink else { return Ok(()) };
        let done = partial.into_inner().map_err(io::IntoInnerError::into_error).and_then(PartialFile::commit);
        done.map_err(|e| Error::Output { place: path.display().to_string(), why: e.to_string() })
    }

    fn cannot_write(&self, e: &io::Error) -> Error {
        match &self.sink {
            Sink::Stdout(_) if e.kind() == io::ErrorKind::BrokenPipe => Error::ReaderClosed,
            _ => self.failed(e),
        }
    }

    fn failed(&self, why: &dyn ToString) -> Error {
        let place = match &self.sink {
            Sink::Stdout(_) => "standard output".to_owned(),
            Sink::File { path, .. } => path.display().to_string(),
        };
        Error::Output { place, why: why.to_string() }
    }
}

/// Refuses to write over what is read.
///
/// # Errors
/// `output` is `input`, perhaps by another name.
pub fn refuse_same_file(input: &Path, output: &Path) -> Result<()> {
    let about = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    if about(output).is_some_and(|one| about(input) == Some(one)) {
        let why = "it is the table that is read: name another file".to_owned();
        return Err(Error::Output { place: output.display().to_string(), why });
    }
    Ok(())
}
