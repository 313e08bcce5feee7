//! Records of a delimited file, with what is wrong with each.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::path::{Path, PathBuf};

use csv::ByteRecord;

use crate::error::{Error, Result};

/// A row put behind the last one. A quote that nothing closes takes it into its cell, which shows that rows were swallowed.
const END: &str = "\0end of the table";
/// The most bytes of a row: more are the work of a quote that is not closed, and would fill the memory.
const LONGEST: usize = 64 << 20;
const UNCLOSED: &str = "a quote is not closed in this row and takes the next ones into its cell; double it, or take it out";

/// A row of a table.
#[derive(Debug)]
pub struct Row {
    /// Its line in the file, from 1.
    pub line: u64,
    /// Its cells, as many as the header has: missing ones are empty.
    pub cells: ByteRecord,
    /// Why it cannot be used.
    pub fault: Option<String>,
}

type Text = Chain<Chain<Cursor<Vec<u8>>, BufReader<File>>, Cursor<Vec<u8>>>;

/// Refuses to read on where one row takes more than [`LONGEST`].
#[derive(Debug)]
struct Limited {
    text: Text,
    since_row: usize,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.since_row > LONGEST {
            return Err(io::Error::other(UNCLOSED));
        }
        let n = self.text.read(buffer)?;
        self.since_row += n;
        Ok(n)
    }
}

#[derive(Debug)]
pub(super) struct Records {
    path: PathBuf,
    header: Vec<String>,
    delimiter: u8,
    reader: csv::Reader<Limited>,
}

impl Records {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let wrong = |why: String| Error::file(path, why);
        let mut file = File::open(path).map(BufReader::new).map_err(|e| wrong(e.to_string()))?;
        let mut first = Vec::new();
        let limit = LONGEST as u64;
        file.by_ref().take(limit).read_until(b'\n', &mut first).map_err(|e| wrong(e.to_string()))?;
        if first.starts_with(b"\xff\xfe") || first.starts_with(b"\xfe\xff") {
            return Err(wrong("the file is UTF-16: save it as UTF-8".to_owned()));
        }
        if first.starts_with(b"\xef\xbb\xbf") {
            first.drain(..3);
        }
        let delimiter = delimiter(&first);
        let text = Cursor::new(first).chain(file).chain(Cursor::new(format!("\n{END}").into_bytes()));
        let mut builder = csv::ReaderBuilder::new();
        // Of \r\n the reader would count the \n to the next line.
        builder.delimiter(delimiter).flexible(true).terminator(csv::Terminator::Any(b'\n'));
        let mut reader = builder.from_reader(Limited { text, since_row: 0 });
        let header: Vec<String> =
            reader.headers().map_err(|e| wrong(e.to_string()))?.iter().map(|name| name.trim().to_owned()).collect();
        if header.last().is_none_or(|cell| cell.ends_with(END)) {
            return Err(wrong("no line with the names of its columns, or a quote in it that is not closed".to_owned()));
        }
        Ok(Records { path: path.to_owned(), header, delimiter, reader })
    }

    pub(super) fn header(&self) -> &[String] {
        &self.header
    }

    pub(super) fn delimiter(&self) -> u8 {
        self.delimiter
    }

    pub(super) fn next(&mut self) -> Result<Option<Row>> {
        let mut cells = ByteRecord::new();
        loop {
            self.reader.get_mut().since_row = 0;
            let from = self.reader.position().line();
            if !self.reader.read_byte_record(&mut cells).map_err(|e| self.wrong(from, &reason(e)))? {
                return Ok(None);
            }
            // Half of a line's end, unless it is in quotes.
            if let Some(cell) = cells.iter().next_back().and_then(|cell| cell.strip_suffix(b"\r")).map(<[u8]>::to_vec) {
                cells.truncate(cells.len() - 1);
                cells.push_field(&cell);
            }
            if cells.len() != 1 || !cells[0].is_empty() {
                break;
            }
        }
        if cells.len() == 1 && cells[0] == *END.as_bytes() {
            return Ok(None);
        }
        // Counted from its end, because the reader takes empty lines for its beginning.
        let last = self.reader.position().line();
        let within = cells.iter().flatten().filter(|byte| **byte == b'\n').count() as u64;
        if cells.iter().any(|cell| cell.ends_with(END.as_bytes())) {
            return Err(self.wrong(last - within, UNCLOSED));
        }
        let line = last - 1 - within;
        if self.delimiter == b'\t' && cells.iter().flatten().any(|byte| *byte == b'\t') {
            return Err(self.wrong(line, UNCLOSED));
        }
        let (found, expected) = (cells.len(), self.header.len());
        if found == expected {
            return Ok(Some(Row { line, cells, fault: None }));
        }
        let lost = if found > expected { "; those beyond are left out" } else { "" };
        let fault = Some(format!("line {line} has {found} cells, the header has {expected}{lost}: are quotes missing?"));
        cells.truncate(expected);
        (found..expected).for_each(|_| cells.push_field(b""));
        Ok(Some(Row { line, cells, fault }))
    }

    fn wrong(&self, line: u64, why: &str) -> Error {
        Error::file(&self.path, format!("line {line}: {why}"))
    }
}

/// What the reader says, without the place that csv adds to it.
fn reason(error: csv::Error) -> String {
    match error.into_kind() {
        csv::ErrorKind::Io(e) => e.to_string(),
        other => format!("{other:?}"),
    }
}

/// The one of the usual delimiters that is most frequent outside of quotes; a comma where there is none.
fn delimiter(line: &[u8]) -> u8 {
    let mut counts = [0usize; 4];
    let usual = *b"|;\t,";
    let mut quoted = false;
    for byte in line {
        quoted ^= *byte == b'"';
        if let Some(i) = usual.iter().position(|delimiter| !quoted && delimiter == byte) {
            counts[i] += 1;
        }
    }
    // The last of equals is taken.
    counts.iter().zip(usual).max_by_key(|(count, _)| **count).map_or(b',', |(_, delimiter)| delimiter)
}
