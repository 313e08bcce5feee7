//! MATLAB's files of level 5 (`save -v6` and `-v7`), as far as lists of labels need them: numbers, texts, cells and structs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::SourceError;

/// Largest file, and largest size of its variables once they are decompressed, in bytes. The files of labels that are read
/// need a few MiB; numbers take up to eight times this in memory.
const MAX_BYTES: u64 = 32 << 20;
/// How many times its compressed size a variable may take beyond [`MIN_UNPACKED`]. Labels shrink to a tenth at most.
const MAX_RATIO: u64 = 100;
/// What a compressed variable may always take.
const MIN_UNPACKED: u64 = 1 << 20;
/// Cells within structs within cells.
const DEPTH: usize = 16;
const HEADER: usize = 128;
const COMPRESSED: u32 = 15;
const MATRIX: u32 = 14;

/// A variable, its shape left aside: elements in MATLAB's order, column by column.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Numbers(Vec<f64>),
    Text(String),
    Cells(Vec<Value>),
    /// Each field's value of each element.
    Structs(BTreeMap<String, Vec<Value>>),
    /// What is not read: sparse arrays, objects, functions, complex numbers.
    Other,
}

/// All variables of a file by name.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, Value>, SourceError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|e| SourceError::io(path, e, "expected a MATLAB file"))?;
    parse(&bytes).map_err(|reason| SourceError::Table { path: path.to_owned(), reason })
}

/// The whole numbers of the variable `name`.
pub(super) fn integers(path: &Path, name: &str) -> Result<Vec<usize>, SourceError> {
    let wrong = |reason| SourceError::Table { path: path.to_owned(), reason };
    match read(path)?.remove(name) {
        Some(Value::Numbers(numbers)) => whole(&numbers).map_err(|reason| wrong(format!("'{name}': {reason}"))),
        Some(_) => Err(wrong(format!("'{name}' holds no numbers"))),
        None => Err(wrong(format!("it has no variable '{name}'"))),
    }
}

pub(super) fn whole(numbers: &[f64]) -> Result<Vec<usize>, String> {
    let whole =
        |&x: &f64| if (0.0..9e15).contains(&x) && x.fract() == 0.0 { Ok(x as usize) } else { Err(format!("{x} is no count")) };
    numbers.iter().map(whole).collect()
}

fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Value>, String> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("it is larger than {} MiB, which no file of labels is", MAX_BYTES >> 20));
    }
    if bytes.starts_with(b"MATLAB 7.3") || bytes.get(512..516) == Some(b"\x89HDF") || bytes.starts_with(b"\x89HDF") {
        return Err("a MATLAB file of version 7.3 (HDF5): load it there and save it with -v7".to_owned());
    }
    match bytes.get(124..HEADER) {
        Some([0, 1, b'I', b'M']) => {}
        Some([1, 0, b'M', b'I']) => return Err("a MATLAB file of a big-endian machine: save it again on another".to_owned()),
        _ => return Err("no MATLAB file of level 5 (save -v7)".to_owned()),
    }
    let mut left = MAX_BYTES;
    let mut variables = BTreeMap::new();
    let mut rest = Bytes { all: bytes, at: HEADER };
    while rest.at < bytes.len() {
        let (kind, data) = rest.element()?;
        let unpacked;
        let mut inner = Bytes { all: data, at: 0 };
        let (kind, data) = match kind {
            COMPRESSED => {
                unpacked = unpack(data, left)?;
                left -= unpacked.len() as u64;
                inner.all = &unpacked;
                inner.element()?
            }
            _ => (kind, data),
        };
        if kind == MATRIX {
            let (name, value) = matrix(data, 0)?;
            if variables.insert(name.clone(), value).is_some() {
                return Err(format!("variable '{name}' comes twice"));
            }
        }
    }
    Ok(variables)
}

/// Decompresses a variable to at most `left` bytes.
fn unpack(packed: &[u8], left: u64) -> Result<Vec<u8>, String> {
    let limit = left.min(MIN_UNPACKED + packed.len() as u64 * MAX_RATIO);
    let mut bytes = Vec::new();
    let read = flate2::read::ZlibDecoder::new(packed).take(limit + 1).read_to_end(&mut bytes);
    match read.map_err(|e| format!("a compressed variable is damaged: {e}"))? as u64 {
        n if n > left => {
            Err(format!("its compressed variables take more than {} MiB, which no file of labels needs", MAX_BYTES >> 20))
        }
        n if n > limit => {
            let packed = packed.len();
            Err(format!("a compressed variable of {packed} bytes takes more than {limit}, which no list of labels does"))
        }
        _ => Ok(bytes),
    }
}

struct Bytes<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Bytes<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.all.len());
        let taken = end.and_then(|end| self.all.get(self.at..end)).ok_or("the file ends in the middle of a variable")?;
        self.at += n;
        Ok(taken)
    }

    fn word(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| "four bytes")?))
    }

    /// A tag with its data: the type and the bytes.
    fn element(&mut self) -> Result<(u32, &'a [u8]), String> {
        let word = self.word()?;
        if word >> 16 != 0 {
            // Up to four bytes stand in the tag itself.
            let data = self.take(4)?;
            let small = data.get(..(word >> 16) as usize).ok_or("a small element of more than four bytes")?;
            return Ok((word & 0xffff, small));
        }
        let size = self.word()? as usize;
        let data = self.take(size)?;
        if word != COMPRESSED {
            // The last one's padding may be missing.
            self.at = (self.at.next_multiple_of(8)).min(self.all.len());
        }
        Ok((word, data))
    }
}

/// The content of a matrix element: name and value.
fn matrix(data: &[u8], depth: usize) -> Result<(String, Value), String> {
    if data.is_empty() {
        return Ok((String::new(), Value::Numbers(Vec::new())));
    }
    if depth > DEPTH {
        return Err(format!("cells within cells, more than {DEPTH} deep"));
    }
    let mut parts = Bytes { all: data, at: 0 };
    let flags =
        parts.element()?.1.first_chunk::<4>().map(|flags| u32::from_le_bytes(*flags)).ok_or("a variable without flags")?;
    let dims = numbers(parts.element()?)?;
    let count =
        dims.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim as usize)).ok_or("a variable's size is beyond measure")?;
    let name = String::from_utf8_lossy(parts.element()?.1).into_owned();
    let complex = flags & 0x800 != 0;
    let value = match flags & 0xff {
        6..=15 if !complex => {
            let found = numbers(parts.element()?)?;
            if found.len() != count {
                return Err(format!("variable '{name}' has {} numbers, its shape says {count}", found.len()));
            }
            Value::Numbers(found)
        }
        4 => Value::Text(text(parts.element()?)?),
        1 => Value::Cells((0..count).map(|_| child(&mut parts, depth)).collect::<Result<_, _>>()?),
        2 => structs(&mut parts, count, depth)?,
        _ => Value::Other,
    };
    Ok((name, value))
}

fn child(parts: &mut Bytes, depth: usize) -> Result<Value, String> {
    match parts.element()? {
        (MATRIX, data) => Ok(matrix(data, depth + 1)?.1),
        (kind, _) => Err(format!("a cell or field is no array but of type {kind}")),
    }
}

fn structs(parts: &mut Bytes, count: usize, depth: usize) -> Result<Value, String> {
    let width = numbers(parts.element()?)?.first().map_or(0, |&width| width as usize);
    if !(1..=256).contains(&width) {
        return Err(format!("a struct whose field names have {width} bytes"));
    }
    let names = parts.element()?.1.chunks(width).map(|name| {
        let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
        String::from_utf8_lossy(&name[..end]).into_owned()
    });
    let names: Vec<String> = names.collect();
    let mut fields: BTreeMap<String, Vec<Value>> = names.iter().map(|name| (name.clone(), Vec::new())).collect();
    if names.is_empty() {
        return Ok(Value::Structs(fields));
    }
    for _ in 0..count {
        for name in &names {
            let value = child(parts, depth)?;
            fields.entry(name.clone()).or_default().push(value);
        }
    }
    Ok(Value::Structs(fields))
}

/// Numbers of any width as f64.
fn numbers((kind, data): (u32, &[u8])) -> Result<Vec<f64>, String> {
    fn each<const N: usize>(data: &[u8], number: impl Fn([u8; N]) -> f64) -> Result<Vec<f64>, String> {
        let (whole, rest) = data.as_chunks::<N>();
        if rest.is_empty() { Ok(whole.iter().map(|&bytes| number(bytes)).collect()) } else { Err("half a number".to_owned()) }
    }
    match kind {
        1 => each(data, |b| i8::from_le_bytes(b).into()),
        2 => each(data, |b| u8::from_le_bytes(b).into()),
        3 => each(data, |b| i16::from_le_bytes(b).into()),
        4 => each(data, |b| u16::from_le_bytes(b).into()),
        5 => each(data, |b| i32::from_le_bytes(b).into()),
        6 => each(data, |b| u32::from_le_bytes(b).into()),
        7 => each(data, |b| f32::from_le_bytes(b).into()),
        9 => each(data, f64::from_le_bytes),
        12 => each(data, |b| i64::from_le_bytes(b) as f64),
        13 => each(data, |b| u64::from_le_bytes(b) as f64),
        _ => Err(format!("numbers of the unknown type {kind}")),
    }
}

fn text((kind, data): (u32, &[u8])) -> Result<String, String> {
    match kind {
        4 | 17 => {
            let units: Vec<u16> = data.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
            Ok(String::from_utf16_lossy(&units))
        }
        1 | 2 | 16 => Ok(String::from_utf8_lossy(data).into_owned()),
        _ => Err(format!("a text of the unknown type {kind}")),
    }
}

#[cfg(test)]
#[path = "mat_tests.rs"]
mod tests;
