//! Files that complete each other.

use std::path::Path;

use crate::{Fault, Found, Objects};

/// Objects of one file and regions of another. An image must be named by both.
#[derive(Debug)]
pub struct Both(pub Box<dyn Objects>, pub Box<dyn Objects>);

impl Objects for Both {
    /// Objects are the first file's that tells of any, with its appearance; regions come from the other, else from it.
    fn find(&self, key: &str, size: (u32, u32)) -> Result<Option<Found>, String> {
        let (Some(first), Some(second)) = (self.0.find(key, size)?, self.1.find(key, size)?) else { return Ok(None) };
        let (named, other) = if first.unnamed { (second, first) } else { (first, second) };
        let regions = other.regions(size, usize::MAX, None)?;
        Ok(Some(Found { regions: regions.or(named.regions), ..named }))
    }

    fn entries(&self, key: &str, numbers: &mut Vec<Option<usize>>) -> Result<(), String> {
        self.0.entries(key, numbers)?;
        self.1.entries(key, numbers)
    }

    fn describe(&self) -> String {
        format!("{}; {}", self.0.describe(), self.1.describe())
    }

    fn faults(&self) -> Vec<Fault> {
        [self.0.faults(), self.1.faults()].concat()
    }

    fn paths(&self) -> Vec<&Path> {
        [self.0.paths(), self.1.paths()].concat()
    }
}
