//! Tables as text: CSV, TSV and similar files with a header line, read row by row.
//!
//! The delimiter is found from the header. Rows that cannot be used have a fault and are returned all the same, so that
//! every row is counted; quotes that take other rows into their cell are errors, since those rows would be lost silently.

mod quotes;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use csv::ByteRecord;
use softclip_io::{TextError, open_text};

use crate::source::folders::is_image;
use quotes::{Quotes, check_quotes};

/// Longest row in bytes: a longer one is the work of a quote that is not closed, and would fill the memory.
const MAX_ROW_BYTES: usize = 64 << 20;

/// Why a table cannot be read: the file, with the line where it is known, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct TableError {
    /// The file.
    pub path: PathBuf,
    /// The reason, with the line, and what to do.
    pub reason: String,
}

/// How a table is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableOptions {
    /// The character between cells; `None` for the most frequent of comma, tab, semicolon and bar in the header.
    pub delimiter: Option<u8>,
    /// Whether quotes enclose cells. Otherwise they are ordinary characters, as in the captions of CC3M.
    pub quotes: bool,
    /// What the user writes to set [`quotes`](Self::quotes) to false, for messages; `None` if there is no such option.
    pub quotes_option: Option<&'static str>,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self { delimiter: None, quotes: true, quotes_option: None }
    }
}

/// Which column is meant, for [`TableReader::find`].
#[derive(Debug, Clone, Copy)]
pub struct Column<'a> {
    /// What the column contains, for messages: `image`.
    pub role: &'a str,
    /// The name that the user gave.
    pub given: Option<&'a str>,
    /// The names to try otherwise, in this order, in upper or lower case.
    pub usual: &'a [&'a str],
    /// What the user writes to name the column: `--image-column`, `image=…`.
    pub option: &'a str,
}

/// A row of a table.
#[derive(Debug)]
pub struct Row {
    /// Its first line in the file, from 1.
    pub line: u64,
    /// Its cells, as many as the header has: missing ones are empty.
    pub cells: ByteRecord,
    /// Why it cannot be used.
    pub fault: Option<String>,
}

impl Row {
    /// Returns the text of a cell without outer white space; none if it is not UTF-8.
    pub fn cell(&self, column: usize) -> Option<&str> {
        std::str::from_utf8(self.cells.get(column).unwrap_or_default()).ok().map(str::trim)
    }
}

/// A table, open at its first row.
#[derive(Debug)]
pub struct TableReader {
    path: PathBuf,
    header: Vec<String>,
    options: TableOptions,
    delimiter: u8,
    reader: csv::Reader<Tee>,
    /// Line of the next row, from 1.
    line: u64,
    /// The column with paths or addresses of images, once it is known.
    image: Option<usize>,
}

impl TableReader {
    /// Opens a table and reads its header. Names of columns are trimmed.
    ///
    /// # Errors
    /// The file cannot be read, is UTF-16, has no header, or a quote in the header is not closed.
    pub fn open(path: &Path, options: TableOptions) -> Result<Self, TableError> {
        let wrong = |reason: String| TableError { path: path.to_owned(), reason };
        let mut text = open_text(path).map_err(|e| match e {
            TextError::Io(e) => wrong(format!("{e}; check the path")),
            other => wrong(other.to_string()),
        })?;
        let head = text.fill_buf().map_err(|e| wrong(e.to_string()))?;
        let delimiter = options.delimiter.unwrap_or_else(|| delimiter(head));
        // As old spreadsheets for the Macintosh end lines.
        let cr_only = head.contains(&b'\r') && !head.contains(&b'\n');
        let tee = Tee { text, cr_only, raw: Vec::new(), offset: 0, since_row: 0 };
        let mut builder = csv::ReaderBuilder::new();
        // Of \r\n the reader would count the \n to the next record.
        builder.delimiter(delimiter).flexible(true).has_headers(false).quoting(options.quotes);
        let reader = builder.terminator(csv::Terminator::Any(b'\n')).from_reader(tee);
        let mut table =
            TableReader { path: path.to_owned(), header: Vec::new(), options, delimiter, reader, line: 1, image: None };
        let in_header = |e: TableError| wrong(format!("the line with the names of its columns: {}", e.reason));
        let Some((_, names, fault)) = table.next_record().map_err(in_header)? else {
            return Err(wrong("it is empty: a line with the names of its columns is expected".to_owned()));
        };
        if let Some(fault) = fault {
            return Err(wrong(format!("the line with the names of its columns: {fault}")));
        }
        let name = |cell: &[u8]| std::str::from_utf8(cell).map(|name| name.trim().to_owned());
        let names: Result<_, _> = names.iter().map(name).collect();
        table.header = names.map_err(|_| wrong("the header is not UTF-8: save the file as UTF-8".to_owned()))?;
        Ok(table)
    }

    /// The names of the columns.
    pub fn header(&self) -> &[String] {
        &self.header
    }

    /// The character between cells.
    pub fn delimiter(&self) -> u8 {
        self.delimiter
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the number of the column that the user named, or of the first of its usual names.
    ///
    /// # Errors
    /// There is no such column, or several of the same name. The message lists the columns.
    pub fn find(&self, column: &Column) -> Result<usize, TableError> {
        let header = &self.header;
        let wrong = |why: String| self.wrong(format!("{why} (columns: {})", header.join(", ")));
        let name = match column.given {
            Some(name) => header.iter().find(|other| *other == name),
            None => column.usual.iter().find_map(|name| header.iter().find(|other| other.eq_ignore_ascii_case(name))),
        };
        let Some(name) = name else {
            let what = column.given.map_or("none of a usual name".to_owned(), |name| format!("`{name}`"));
            let no_header = match self.header.iter().any(|cell| is_address(cell) || is_image(cell)) {
                true => "; the first line looks like a row: if the file has no header line, add one",
                false => "",
            };
            let (role, option) = (column.role, column.option);
            return Err(wrong(format!("no column for the {role}, {what}: name it with {option}{no_header}")));
        };
        let mut same = header.iter().enumerate().filter(|(_, other)| *other == name).map(|(i, _)| i);
        match (same.next(), same.next()) {
            (Some(i), None) => Ok(i),
            _ => Err(wrong(format!("there are several columns `{name}`: keep one and rename the others"))),
        }
    }

    /// Sets the column with paths or addresses of images. Rows that a quote took into its cell are then recognized by them.
    pub fn set_image_column(&mut self, column: usize) {
        self.image = Some(column);
    }

    /// Reads the next row as it is, usable or not. Blank lines are skipped.
    ///
    /// # Errors
    /// The file cannot be read, or a quote is not closed or takes other rows into its cell. The message has the line where
    /// the quote opened.
    pub fn next_row(&mut self) -> Result<Option<Row>, TableError> {
        let Some((line, mut cells, fault)) = self.next_record()? else { return Ok(None) };
        let (found, expected) = (cells.len(), self.header.len());
        let count = || (found != expected).then(|| format!("{found} cells, the header has {expected}"));
        if let Some(why) = self.swallowed_row(line, &cells) {
            return Err(self.wrong_at(line, &format!("{why}: {}", self.quote_remedy())));
        }
        let fault = fault.or_else(count);
        cells.truncate(expected);
        (found..expected).for_each(|_| cells.push_field(b""));
        Ok(Some(Row { line, cells, fault }))
    }

    /// Returns the next record that is not blank: its first line, its cells, and its fault.
    fn next_record(&mut self) -> Result<Option<(u64, ByteRecord, Option<String>)>, TableError> {
        let mut cells = ByteRecord::new();
        loop {
            self.reader.get_mut().since_row = 0;
            if !self.reader.read_byte_record(&mut cells).map_err(|e| self.wrong_at(self.line, &reason(e)))? {
                return Ok(None);
            }
            let (end, quotes) = (self.reader.position().byte(), self.options.quotes.then_some(self.delimiter));
            let raw = self.reader.get_mut().examine(end, quotes);
            let first = self.line + raw.blank_lines;
            self.line += raw.lines;
            // Half of a line's end, unless it is in quotes.
            if let Some(cell) = cells.iter().next_back().and_then(|cell| cell.strip_suffix(b"\r")).map(<[u8]>::to_vec) {
                cells.truncate(cells.len() - 1);
                cells.push_field(&cell);
            }
            if cells.len() == 1 && cells[0].is_empty() {
                continue;
            }
            let fault = self.quote_fault(first, &raw.quotes, &cells)?;
            let nul = || cells.as_slice().contains(&0).then(|| "a NUL byte: is the file damaged?".to_owned());
            let fault = fault.or_else(nul);
            return Ok(Some((first, cells, fault)));
        }
    }

    fn quote_remedy(&self) -> String {
        let option = self.options.quotes_option.map(|option| format!(", or read quotes as characters with {option}"));
        format!("write quotes within a cell twice{}", option.unwrap_or_default())
    }

    /// Returns the fault of a record whose first line is `first` if its quotes are wrong; an error if other rows are lost.
    fn quote_fault(&self, first: u64, quotes: &Quotes, cells: &ByteRecord) -> Result<Option<String>, TableError> {
        let remedy = self.quote_remedy();
        match *quotes {
            Quotes::Unclosed { opened } => {
                let what = "a quote is not closed and takes the next rows into its cell";
                Err(self.wrong_at(first + opened, &format!("{what}: {remedy}")))
            }
            Quotes::TextAfter { opened, closed } if opened == closed => {
                let place = if opened > 0 { format!(" in line {}", first + opened) } else { String::new() };
                Ok(Some(format!("text follows the closing quote of a cell{place}: {remedy}")))
            }
            Quotes::TextAfter { opened, closed } => {
                let what = "a quote takes the next lines into its cell, and text follows the closing quote in line";
                Err(self.wrong_at(first + opened, &format!("{what} {}: {remedy}", first + closed)))
            }
            Quotes::Fine if self.options.quotes && self.delimiter == b'\t' && cells.as_slice().contains(&b'\t') => {
                let what = "a quote is not closed and takes a tab into its cell";
                Err(self.wrong_at(first, &format!("{what}: {remedy}")))
            }
            Quotes::Fine => Ok(None),
        }
    }

    /// Returns the reason to refuse the table if a cell of several lines contains a line that looks like a row.
    fn swallowed_row(&self, first: u64, cells: &ByteRecord) -> Option<String> {
        let image = self.image.filter(|_| self.header.len() > 1)?;
        let mut line = first;
        for cell in cells {
            for (i, text) in cell.split(|byte| *byte == b'\n').enumerate() {
                line += u64::from(i > 0);
                let name = text.split(|byte| *byte == self.delimiter).nth(image).filter(|name| i > 0 && name.len() < text.len());
                let name = name.and_then(|name| std::str::from_utf8(name).ok()).map(str::trim).unwrap_or_default();
                if is_image(name) || is_address(name) {
                    return Some(format!("a quote takes line {line}, which looks like a row, into its cell"));
                }
            }
        }
        None
    }

    fn wrong(&self, reason: String) -> TableError {
        TableError { path: self.path.clone(), reason }
    }

    fn wrong_at(&self, line: u64, reason: &str) -> TableError {
        self.wrong(format!("line {line}: {reason}"))
    }
}

/// The file as the parser reads it, with the text of the record that it is at.
#[derive(Debug)]
struct Tee {
    text: BufReader<File>,
    /// Whether lines end in `\r` alone, which becomes `\n`.
    cr_only: bool,
    /// Bytes that were read and not examined yet.
    raw: Vec<u8>,
    /// Number of bytes before `raw`.
    offset: u64,
    since_row: usize,
}

/// What the text of a record shows that its cells do not.
struct Raw {
    /// Blank lines before it.
    blank_lines: u64,
    /// Its lines, blank ones included.
    lines: u64,
    quotes: Quotes,
}

impl Tee {
    /// Examines the record that ends at byte `end`, and drops its text. Quotes are checked if there is a delimiter.
    fn examine(&mut self, end: u64, delimiter: Option<u8>) -> Raw {
        let len = usize::try_from(end - self.offset).unwrap_or(usize::MAX).min(self.raw.len());
        let record = &self.raw[..len];
        // The parser skips blank lines before a record.
        let blank = record.iter().take_while(|byte| **byte == b'\n').count();
        let quotes = delimiter.map_or(Quotes::Fine, |delimiter| check_quotes(&record[blank..], delimiter));
        let lines = record.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.raw.drain(..len);
        self.offset = end;
        Raw { blank_lines: blank as u64, lines, quotes }
    }
}

impl Read for Tee {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.since_row > MAX_ROW_BYTES {
            let mib = MAX_ROW_BYTES >> 20;
            return Err(io::Error::other(format!("the row is longer than {mib} MiB: a quote in it is not closed")));
        }
        let n = self.text.read(buffer)?;
        if self.cr_only {
            buffer[..n].iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b'\n');
        }
        self.raw.extend_from_slice(&buffer[..n]);
        self.since_row += n;
        Ok(n)
    }
}

/// What the parser says, without the place that csv adds to it.
fn reason(error: csv::Error) -> String {
    match error.into_kind() {
        csv::ErrorKind::Io(e) => e.to_string(),
        other => format!("{other:?}"),
    }
}

fn is_address(cell: &str) -> bool {
    ["http://", "https://", "file://", "s3://"].iter().any(|scheme| cell.starts_with(scheme))
}

/// The one of the usual delimiters that is most frequent in the first line outside of quotes; a comma if there is none.
fn delimiter(head: &[u8]) -> u8 {
    let mut counts = [0usize; 4];
    let usual = *b"|;\t,";
    let mut quoted = false;
    for byte in head.iter().take_while(|byte| !matches!(byte, b'\n' | b'\r')) {
        quoted ^= *byte == b'"';
        if let Some(i) = usual.iter().position(|delimiter| !quoted && delimiter == byte) {
            counts[i] += 1;
        }
    }
    // The last of equals is taken.
    counts.iter().zip(usual).max_by_key(|(count, _)| **count).map_or(b',', |(_, delimiter)| delimiter)
}

#[cfg(test)]
mod tests;
