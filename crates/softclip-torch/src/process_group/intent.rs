//! What a rank is about to do, told to the others beforehand.
//!
//! Gloo ends the process from a thread of its own where a peer sends more than is expected, and mixes up memory where it sends less: no
//! error could be made of that. So ranks exchange 96 bytes before each operation.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use tch::{Kind, Tensor};

use super::tensors::KINDS;

const WORDS: usize = 12;
/// The words before the shape.
const HEAD: usize = 4;
/// In place of a number of dimensions: a list of tensors.
const LIST: i64 = -1;

/// The operations, whose places are their codes; the last stands for lists of tensors.
const OPERATIONS: [&str; 6] = ["all_reduce", "broadcast", "all_gather", "reduce_scatter", "barrier", "a list of tensors"];

/// Operation, its variant, kind, number of dimensions, dimensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Intent([i64; WORDS]);

impl Intent {
    /// An operation on a tensor, with the way of reducing or the root.
    pub fn new(operation: &str, variant: i64, tensor: Option<&Tensor>) -> Self {
        let mut words = [0; WORDS];
        words[0] = code(operation);
        words[1] = variant;
        if let Some(tensor) = tensor {
            let shape = tensor.size();
            words[2] = kind(tensor.kind());
            words[3] = shape.len() as i64;
            let room = WORDS - HEAD;
            words[HEAD..].iter_mut().zip(&shape).for_each(|(word, d)| *word = *d);
            if shape.len() > room {
                words[WORDS - 1] = hash(&shape[room - 1..]);
            }
        }
        Intent(words)
    }

    /// Tensors of these shapes and kinds, in this order.
    pub fn list(tensors: &[Tensor]) -> Self {
        let mut words = [0; WORDS];
        let shapes: Vec<_> = tensors.iter().map(|t| (t.size(), kind(t.kind()))).collect();
        words[0] = code("a list of tensors");
        words[3] = LIST;
        words[HEAD] = tensors.len() as i64;
        words[HEAD + 1] = tensors.iter().map(|t| t.numel() as i64).sum();
        words[HEAD + 2] = hash(&shapes);
        Intent(words)
    }

    pub fn words(&self) -> &[i64] {
        &self.0
    }

    /// The first rank whose intent is another, and that.
    pub fn differing(&self, all: &[i64]) -> Option<(usize, Intent)> {
        let intents = all.chunks_exact(WORDS).filter_map(|words| words.try_into().ok().map(Intent));
        intents.enumerate().find(|(_, theirs)| theirs != self)
    }
}

impl fmt::Display for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = &self.0;
        if words[3] == LIST {
            return write!(f, "{} tensors of {} elements, shapes {:x}", words[HEAD], words[HEAD + 1], words[HEAD + 2]);
        }
        let operation = usize::try_from(words[0]).ok().and_then(|i| OPERATIONS.get(i)).unwrap_or(&"something else");
        write!(f, "{operation}")?;
        if words[1] != 0 {
            let what = if words[0] == code("broadcast") { "from rank" } else { "variant" };
            write!(f, " {what} {}", words[1])?;
        }
        match KINDS.iter().find(|k| kind(**k) == words[2]).filter(|_| words[3] > 0) {
            Some(kind) => write!(f, " of {:?} {kind:?}", &words[HEAD..WORDS.min(HEAD + words[3] as usize)]),
            None => Ok(()),
        }
    }
}

fn code(operation: &str) -> i64 {
    OPERATIONS.iter().position(|name| *name == operation).map_or(-1, |i| i as i64)
}

fn kind(kind: Kind) -> i64 {
    kind as i64
}

/// The same in every process of the same program.
fn hash(of: &(impl Hash + ?Sized)) -> i64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn intents_differ_where_ranks_would_misunderstand_each_other() {
        let t = |shape: &[i64], kind| Tensor::zeros(shape, (kind, Device::Cpu));
        let base = Intent::new("all_reduce", 0, Some(&t(&[2, 3], Kind::Float)));
        let deep = |last| Intent::new("all_reduce", 0, Some(&t(&[1, 1, 1, 1, 1, 1, 1, 1, 1, last], Kind::Float)));
        for other in [
            Intent::new("all_gather", 0, Some(&t(&[2, 3], Kind::Float))),
            Intent::new("all_reduce", 1, Some(&t(&[2, 3], Kind::Float))),
            Intent::new("all_reduce", 0, Some(&t(&[3, 2], Kind::Float))),
            Intent::new("all_reduce", 0, Some(&t(&[2, 3], Kind::Double))),
            Intent::new("barrier", 0, None),
        ] {
            let all = [base.words(), other.words()].concat();
            assert_eq!(base.differing(&all), Some((1, other)));
        }
        assert_ne!(deep(2), deep(3));
        assert_eq!(base.differing(&[base.words(), base.words()].concat()), None);
        assert_eq!(base.to_string(), "all_reduce of [2, 3] Float");
        let lists = [[2, 3], [3, 2]].map(|shape| Intent::list(&[t(&shape, Kind::Float)]));
        assert_ne!(lists[0], lists[1]);
        assert!(lists[0].to_string().starts_with("1 tensors of 6 elements"));
    }
}
