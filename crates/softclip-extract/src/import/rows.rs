//! Files with an image a line: where the lines lie, and reading one.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::keys::{Keys, Twice};
use crate::Error;

/// Longer keys are none: the file has no tabs.
const LONGEST_KEY: usize = 4096;

/// A line with its end.
pub(super) struct Span {
    pub(super) offset: u64,
    pub(super) length: u32,
    /// From 1.
    pub(super) line: u32,
}

/// A file with the places of its lines, by key.
pub(super) struct Rows {
    path: PathBuf,
    file: File,
    spans: Vec<Span>,
    keys: Keys,
    /// Whether there is an index of the lines that does not fit the file.
    pub(super) stale: bool,
}

type Found = (Vec<Span>, Vec<Box<str>>);

impl Rows {
    /// Of lines that begin with their key and a tab. An index of lines beside the file saves reading all of it.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io(path))?;
        let offsets = line_index(path);
        let indexed = offsets.as_deref().and_then(|offsets| heads(&file, offsets));
        let stale = offsets.is_some() && indexed.is_none();
        let (spans, names) = indexed.map_or_else(|| scan(path, &file), Ok)?;
        Ok(Self { stale, ..Self::new(path, file, spans, names)? })
    }

    pub(super) fn new(path: &Path, file: File, spans: Vec<Span>, names: Vec<Box<str>>) -> Result<Self, Error> {
        if spans.is_empty() {
            return Err(Error::format(path, "the file is empty"));
        }
        match Keys::new(names) {
            Ok(keys) => Ok(Self { path: path.to_owned(), file, spans, keys, stale: false }),
            Err(Twice { key, first, again }) => {
                let (first, again) = (&spans[first], &spans[again]);
                Err(wrong(path, again.line as usize, again.offset, format!("key '{key}' again, first in line {}", first.line)))
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key in the line `row`.
    pub(super) fn name(&self, row: usize) -> &str {
        self.keys.name(row)
    }

    /// The row of an image.
    pub(super) fn find(&self, key: &str) -> Result<Option<usize>, String> {
        self.keys.find(key).map_err(|why| format!("{}: {why}", self.path.display()))
    }

    /// The whole line without its end.
    pub(super) fn read(&self, row: usize) -> Result<Vec<u8>, String> {
        let span = &self.spans[row];
        let mut line = vec![0; span.length as usize];
        self.file.read_exact_at(&mut line, span.offset).map_err(|e| self.fault(row, e))?;
        line.truncate(line.iter().rposition(|b| !matches!(b, b'\r' | b'\n')).map_or(0, |last| last + 1));
        if line.contains(&b'\n') {
            return Err(self.fault(row, "several lines: the .lineidx beside the file lacks some; delete it"));
        }
        Ok(line)
    }

    /// What is wrong with a row, with its place.
    pub(super) fn fault(&self, row: usize, why: impl std::fmt::Display) -> String {
        let span = &self.spans[row];
        format!("{}: line {} (byte {}): {why}", self.path.display(), span.line, span.offset)
    }
}

/// What is wrong with a line while a file is opened.
pub(super) fn wrong(path: &Path, line: usize, offset: u64, why: impl std::fmt::Display) -> Error {
    Error::format(path, format!("line {line} (byte {offset}): {why}"))
}

/// The span of a line, unless it is longer than lines can be.
pub(super) fn span(path: &Path, line: usize, offset: u64, length: usize) -> Result<Span, Error> {
    match (u32::try_from(length), u32::try_from(line)) {
        (Ok(length), Ok(line)) => Ok(Span { offset, length, line }),
        _ => Err(wrong(path, line, offset, "4 GiB in a line, or 4 G lines, are too many")),
    }
}

/// Finds lines by reading the file once; what is behind the keys is passed over without being kept.
fn scan(path: &Path, file: &File) -> Result<Found, Error> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut offset = begin(file).map_err(Error::io(path))?;
    reader.seek(SeekFrom::Start(offset)).map_err(Error::io(path))?;
    let (mut spans, mut names, mut head) = (Vec::new(), Vec::new(), Vec::new());
    for line in 1.. {
        head.clear();
        let begun = reader.by_ref().take(LONGEST_KEY as u64).read_until(b'\t', &mut head).map_err(Error::io(path))?;
        // Empty lines at the end are no rows.
        if begun < LONGEST_KEY && head.iter().all(|b| matches!(b, b'\r' | b'\n')) {
            break;
        }
        let name = key(&head).map_err(|why| wrong(path, line, offset, why))?;
        let length = begun + reader.skip_until(b'\n').map_err(Error::io(path))?;
        spans.push(span(path, line, offset, length)?);
        names.push(name.into());
        offset += length as u64;
    }
    Ok((spans, names))
}

/// Where the text of a file begins: behind a byte order mark.
fn begin(file: &File) -> std::io::Result<u64> {
    let mut head = [0; 3];
    let read = file.read_at(&mut head, 0)?;
    Ok((read - softclip_io::strip_bom(&head[..read]).len()) as u64)
}

/// The key in front of the first tab.
fn key(head: &[u8]) -> Result<&str, &'static str> {
    let end = head.iter().position(|b| matches!(b, b'\t' | b'\n')).filter(|&end| head[end] == b'\t');
    let name = &head[..end.ok_or("no key with a tab behind it")?];
    match std::str::from_utf8(name) {
        Ok("") => Err("the key is empty"),
        Ok(name) => Ok(name),
        Err(_) => Err("the key is not UTF-8"),
    }
}

/// The offsets in `X.lineidx` or `X.tsv.lineidx` beside `X.tsv`. What cannot be read is an index that fits no file.
fn line_index(path: &Path) -> Option<Vec<u64>> {
    let mut longer = path.as_os_str().to_owned();
    longer.push(".lineidx");
    let file = File::open(path.with_extension("lineidx")).or_else(|_| File::open(longer)).ok()?;
    let offsets: Option<_> = BufReader::new(file).lines().map(|line| line.ok()?.trim().parse().ok()).collect();
    Some(offsets.unwrap_or_default())
}

/// The rows at given offsets; none unless each is the beginning of a line with a key, and the last that of the last line.
fn heads(file: &File, offsets: &[u64]) -> Option<Found> {
    let end = file.metadata().ok()?.len();
    let offsets = offsets.strip_suffix(&[end]).unwrap_or(offsets);
    let last = *offsets.last().filter(|_| offsets[0] == 0)?;
    // An index that was cut ends before the last line.
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(last)).ok()?;
    if last + reader.skip_until(b'\n').ok()? as u64 != end {
        return None;
    }
    let (mut spans, mut names) = (Vec::new(), Vec::new());
    let mut head = vec![0; LONGEST_KEY + 1];
    let begin = begin(file).ok()?;
    for (i, &offset) in offsets.iter().enumerate() {
        let offset = if i == 0 { begin } else { offset };
        let next = offsets.get(i + 1).copied().unwrap_or(end);
        // With the byte before, which must end a line.
        let before = if i == 0 { 0 } else { offset.min(1) };
        let length = usize::try_from(next.checked_sub(offset)?).ok()?;
        let head = &mut head[..(length.min(LONGEST_KEY)) + before as usize];
        file.read_exact_at(head, offset - before).ok()?;
        if before == 1 && head[0] != b'\n' {
            return None;
        }
        names.push(key(&head[before as usize..]).ok()?.into());
        spans.push(Span { offset, length: u32::try_from(length).ok()?, line: u32::try_from(i + 1).ok()? });
    }
    Some((spans, names))
}
