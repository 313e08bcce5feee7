//! NumPy's `.npy` files: the header, behind which the numbers lie row by row.

use std::fmt::Write;
use std::io::Read;

use tch::Kind;

/// Longer headers are none of an array of numbers.
const LONGEST: usize = 1 << 16;
/// The numbers begin at a multiple of this.
const ALIGNMENT: usize = 64;

/// What a `.npy` file of little-endian f16 or f32 in C order says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NpyHeader {
    /// [`Kind::Half`] or [`Kind::Float`].
    pub kind: Kind,
    /// The array's shape.
    pub shape: Vec<usize>,
    /// Bytes of the file before the numbers.
    pub length: usize,
}

impl NpyHeader {
    /// Bytes of all numbers; `None` if they are more than there can be.
    pub fn data_len(&self) -> Option<usize> {
        self.shape.iter().try_fold(self.kind.elt_size_in_bytes(), |n, &side| n.checked_mul(side))
    }
}

/// The bytes of a header.
///
/// ```
/// use softclip_tensor::npy::{header, read_header};
/// use softclip_tensor::tch::Kind;
///
/// let bytes = header(Kind::Float, &[2, 3]);
/// let found = read_header(&mut &bytes[..]).unwrap();
/// assert_eq!((found.kind, found.shape, found.length), (Kind::Float, vec![2, 3], bytes.len()));
/// ```
pub fn header(kind: Kind, shape: &[usize]) -> Vec<u8> {
    let descr = if kind == Kind::Half { "<f2" } else { "<f4" };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {}, }}", tuple(shape));
    // Magic, version, length, text, line end.
    let used = 10 + text.len() + 1;
    let _ = writeln!(text, "{:pad$}", "", pad = used.next_multiple_of(ALIGNMENT) - used);
    let length = (text.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], text.as_bytes()].concat()
}

/// Reads a header; `reader` stands before the numbers then.
///
/// # Errors
/// The file is no such file or cannot be read; what is wrong, without the file's name.
pub fn read_header(reader: &mut impl Read) -> Result<NpyHeader, String> {
    const NOT: &str = "not a .npy file";
    let not = |_| NOT.to_owned();
    let mut magic = [0; 8];
    reader.read_exact(&mut magic).map_err(not)?;
    let major = magic.strip_prefix(b"\x93NUMPY").map(|version| version[0]).ok_or(NOT)?;
    let mut size = [0; 4];
    let width = if major == 1 { 2 } else { 4 };
    reader.read_exact(&mut size[..width]).map_err(not)?;
    let length = u32::from_le_bytes(size) as usize;
    if !(1..=3).contains(&major) || length > LONGEST {
        return Err(format!("not a .npy file of version 1 to 3 (it says {major}, with a header of {length} bytes)"));
    }
    let mut text = vec![0; length];
    reader.read_exact(&mut text).map_err(not)?;
    let (kind, shape) = parse(std::str::from_utf8(&text).map_err(|e| format!("the header is not text: {e}"))?)?;
    Ok(NpyHeader { kind, shape, length: magic.len() + width + length })
}

fn parse(header: &str) -> Result<(Kind, Vec<usize>), String> {
    let field = |name: &str| {
        let at = header.find(&format!("'{name}':"))?;
        Some(header[at + name.len() + 3..].trim_start())
    };
    let descr = field("descr").ok_or("the header lacks 'descr'")?;
    let kind = match descr.get(..5) {
        Some("'<f2'") => Kind::Half,
        Some("'<f4'") => Kind::Float,
        _ => {
            let found = softclip_io::printable(descr.split(',').next().unwrap_or(""), 20);
            return Err(format!("type {found} instead of f16 or f32: save array.astype('float32')"));
        }
    };
    if field("fortran_order").is_none_or(|order| !order.starts_with("False")) {
        return Err("the array is in Fortran order: save numpy.ascontiguousarray of it".to_owned());
    }
    let shape = field("shape").and_then(|s| s.strip_prefix('(')).and_then(|s| s.split(')').next());
    let sides = shape.map(|s| s.split(',').map(str::trim).filter(|side| !side.is_empty()).map(str::parse).collect());
    match sides {
        Some(Ok(shape)) => Ok((kind, shape)),
        _ => Err("the header has no 'shape' that can be read".to_owned()),
    }
}

/// As Python writes a tuple: `(2, 3)`, `(6,)`, `()`.
pub fn tuple(shape: &[usize]) -> String {
    let sides: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("({}{})", sides.join(", "), if sides.len() == 1 { "," } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_aligned_and_read_back() {
        for shape in [&[][..], &[6], &[10_000_000, 512], &[0, 7], &[usize::MAX, usize::MAX]] {
            let bytes = header(Kind::Half, shape);
            assert_eq!((bytes.len() % ALIGNMENT, bytes.last()), (0, Some(&b'\n')));
            let found = read_header(&mut &bytes[..]).unwrap();
            assert_eq!(found, NpyHeader { kind: Kind::Half, shape: shape.to_vec(), length: bytes.len() });
        }
        assert_eq!(NpyHeader { kind: Kind::Float, shape: vec![usize::MAX, 2], length: 0 }.data_len(), None);
    }

    #[test]
    fn later_versions_are_read_and_damage_is_named() {
        let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n";
        let of = |version: u8, length: u32| [b"\x93NUMPY", &[version, 0][..], &length.to_le_bytes(), text.as_bytes()].concat();
        assert_eq!(read_header(&mut &of(3, text.len() as u32)[..]).unwrap().shape, [2, 3]);
        for (bytes, words) in [
            (of(9, text.len() as u32), "version"),
            (of(2, u32::MAX), "version"),
            (of(2, 400), "not a .npy"),
            (b"PK\x03\x04\0\0\0\0".to_vec(), "not a .npy"),
            (Vec::new(), "not a .npy"),
        ] {
            let error = read_header(&mut &bytes[..]).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
