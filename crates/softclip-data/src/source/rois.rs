//! Region features as NumPy files.

use half::f16;
use softclip_tensor::npy::{read_header, tuple};

use super::Rois;

/// Reads a `.npy` file of a C-ordered little-endian f16 or f32 array `[R, F]`.
pub(super) fn parse(bytes: &[u8]) -> Result<Rois, String> {
    let mut data = bytes;
    let header = read_header(&mut data)?;
    let size = header.kind.elt_size_in_bytes();
    let &[count, dim] = &header.shape[..] else {
        return Err(format!("shape {} instead of (regions, features)", tuple(&header.shape)));
    };
    if header.data_len() != Some(data.len()) {
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
