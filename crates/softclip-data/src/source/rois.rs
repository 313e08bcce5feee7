//! Region features as NumPy files.

use half::f16;

use super::Rois;

/// Reads a `.npy` file of a C-ordered little-endian f16 or f32 array `[R, F]`.
pub(super) fn parse(bytes: &[u8]) -> Result<Rois, String> {
    let (header, data) = header(bytes).ok_or("not a .npy file")?;
    let field = |name: &str| {
        let at = header.find(&format!("'{name}':"))?;
        Some(header[at + name.len() + 3..].trim_start())
    };
    let descr = field("descr").ok_or("the header lacks 'descr'")?;
    let size = match descr.get(..5) {
        Some("'<f2'") => 2,
        Some("'<f4'") => 4,
        _ => return Err(format!("type {} instead of f16 or f32", descr.split(',').next().unwrap_or(""))),
    };
    if field("fortran_order").is_none_or(|order| !order.starts_with("False")) {
        return Err("the array is in Fortran order: save numpy.ascontiguousarray of it".to_owned());
    }
    let shape = field("shape").and_then(|s| s.strip_prefix('(')).and_then(|s| s.split(')').next()).unwrap_or("");
    let sides: Option<Vec<usize>> =
        shape.split(',').map(str::trim).filter(|s| !s.is_empty()).map(|side| side.parse().ok()).collect();
    let Some([count, dim]) = sides.as_deref() else {
        return Err(format!("shape ({shape}) instead of (regions, features)"));
    };
    let (count, dim) = (*count, *dim);
    if count.checked_mul(dim).and_then(|n| n.checked_mul(size)) != Some(data.len()) {
        return Err(format!("{} bytes of data do not make [{count}, {dim}] of {size} bytes each", data.len()));
    }
    let features: Vec<f32> = match size {
        2 => data.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        _ => data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
    };
    match features.iter().position(|x| !x.is_finite()) {
        Some(at) => Err(format!("element {at} is not finite")),
        None => Ok(Rois { count, dim, features }),
    }
}

fn header(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    let (&[major, _minor], rest) = rest.split_first_chunk()?;
    let (length, rest) = match major {
        1 => rest.split_first_chunk().map(|(n, rest)| (usize::from(u16::from_le_bytes(*n)), rest))?,
        2 | 3 => rest.split_first_chunk().map(|(n, rest)| (u32::from_le_bytes(*n) as usize, rest))?,
        _ => return None,
    };
    let (header, data) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(header).ok()?, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn halves_and_floats_are_read() {
        let data: Vec<u8> = [1.0f32, -2.5, 0.0, 4.0, 5.0, 6.0].iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect();
        let rois = parse(&npy("{'descr': '<f2', 'fortran_order': False, 'shape': (2, 3), }\n", &data)).unwrap();
        assert_eq!((rois.count, rois.dim), (2, 3));
        assert_eq!(rois.features, [1.0, -2.5, 0.0, 4.0, 5.0, 6.0]);
        let empty = parse(&npy("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 2052), }", &[])).unwrap();
        assert_eq!((empty.count, empty.dim), (0, 2052));
    }

    #[test]
    fn what_is_no_such_array_is_named() {
        let cases = [
            (b"PK\x03\x04".to_vec(), "not a .npy"),
            (npy("{'descr': '<i8', 'fortran_order': False, 'shape': (2, 3), }", &[0; 48]), "type '<i8'"),
            (npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }", &[0; 24]), "Fortran"),
            (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }", &[0; 24]), "shape (6,)"),
            (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", &[0; 20]), "20 bytes"),
            (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), }", &f32::NAN.to_le_bytes()), "not finite"),
            (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999, 9999999999999), }", &[]), "do not make"),
        ];
        for (bytes, words) in cases {
            let error = parse(&bytes).unwrap_err();
            assert!(error.contains(words), "{error} / {words}");
        }
    }
}
