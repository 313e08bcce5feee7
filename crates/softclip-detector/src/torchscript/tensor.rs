//! Small tensors of an archive as numbers.

use half::{bf16, f16};

/// Where the numbers of a tensor lie.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stored {
    /// `FloatStorage`, `HalfStorage`, …
    pub(super) kind: String,
    /// Name of the storage's file below `data/`.
    pub(super) file: String,
    /// First element in the storage.
    pub(super) offset: usize,
    pub(super) size: Vec<usize>,
    /// Elements between neighbors of each dimension.
    pub(super) stride: Vec<usize>,
}

/// A tensor of a few numbers, in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Numbers {
    pub(crate) size: Vec<usize>,
    pub(crate) values: Vec<f64>,
}

/// Reads one number from its bytes.
type ReadNumber = fn(&[u8]) -> Option<f64>;

/// Largest number of elements of a tensor that is read.
const MAX_ELEMENTS: usize = 1 << 20;

impl Stored {
    /// The numbers, from the bytes of the storage's file. None if the tensor is too large, of another type, or does not
    /// lie within its storage.
    pub(super) fn numbers(&self, storage: &[u8]) -> Option<Numbers> {
        let (bytes, read): (usize, ReadNumber) = match &*self.kind {
            "FloatStorage" => (4, |b| Some(f32::from_le_bytes(b.try_into().ok()?).into())),
            "DoubleStorage" => (8, |b| Some(f64::from_le_bytes(b.try_into().ok()?))),
            "HalfStorage" => (2, |b| Some(f16::from_le_bytes(b.try_into().ok()?).into())),
            "BFloat16Storage" => (2, |b| Some(bf16::from_le_bytes(b.try_into().ok()?).into())),
            "IntStorage" => (4, |b| Some(i32::from_le_bytes(b.try_into().ok()?).into())),
            "LongStorage" => (8, |b| Some(i64::from_le_bytes(b.try_into().ok()?) as f64)),
            _ => return None,
        };
        let count = self.size.iter().try_fold(1usize, |all, n| all.checked_mul(*n)).filter(|n| *n <= MAX_ELEMENTS)?;
        if self.stride.len() != self.size.len() {
            return None;
        }
        let element = |number: usize| {
            let mut rest = number;
            let mut at = self.offset;
            for (size, stride) in self.size.iter().zip(&self.stride).rev() {
                at = at.checked_add((rest % size).checked_mul(*stride)?)?;
                rest /= size;
            }
            let start = at.checked_mul(bytes)?;
            read(storage.get(start..start.checked_add(bytes)?)?)
        };
        let values = (0..count).map(element).collect::<Option<_>>()?;
        Some(Numbers { size: self.size.clone(), values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(kind: &str, offset: usize, size: &[usize], stride: &[usize]) -> Stored {
        Stored { kind: kind.into(), file: "0".into(), offset, size: size.into(), stride: stride.into() }
    }

    #[test]
    fn strides_and_types_are_followed() {
        let floats: Vec<u8> = (0..8).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let read = |offset, size: &[usize], stride: &[usize]| stored("FloatStorage", offset, size, stride).numbers(&floats);
        assert_eq!(read(1, &[2, 3], &[3, 1]).unwrap().values, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(read(0, &[2, 2], &[1, 4]).unwrap().values, [0.0, 4.0, 1.0, 5.0]);
        // As `expand` leaves it.
        assert_eq!(read(6, &[3, 2], &[0, 1]).unwrap().values, [6.0, 7.0, 6.0, 7.0, 6.0, 7.0]);
        assert_eq!(read(5, &[], &[]).unwrap().values, [5.0]);
        let halves: Vec<u8> = [1.5, -2.0].iter().flat_map(|x| f16::from_f64(*x).to_le_bytes()).collect();
        assert_eq!(stored("HalfStorage", 0, &[2], &[1]).numbers(&halves).unwrap().values, [1.5, -2.0]);
    }

    #[test]
    fn what_does_not_lie_within_its_storage_is_not_read() {
        let bytes = [0; 16];
        for (offset, size, stride) in [
            (3, &[2][..], &[1][..]),
            (0, &[2], &[usize::MAX]),
            (usize::MAX, &[1], &[1]),
            (0, &[usize::MAX, 2], &[1, 1]),
            (0, &[1 << 30], &[0]),
            (0, &[2, 2], &[1]),
        ] {
            assert_eq!(stored("FloatStorage", offset, size, stride).numbers(&bytes), None);
        }
        assert_eq!(stored("QInt8Storage", 0, &[1], &[1]).numbers(&bytes), None);
    }
}
