//! Files that complete each other.

use std::path::Path;

use crate::{Found, Objects};

/// Objects of one file and regions of another: what the first lacks of an image comes from the second.
#[derive(Debug)]
pub struct Both(pub Box<dyn Objects>, pub Box<dyn Objects>);

impl Objects for Both {
    fn find(&self, key: &str, size: (u32, u32)) -> Result<Option<Found>, String> {
        Ok(match (self.0.find(key, size)?, self.1.find(key, size)?) {
            (Some(first), Some(second)) => {
                let (with_objects, other) = if first.objects.is_empty() { (second, first) } else { (first, second) };
                let regions = with_objects.regions.or(other.regions);
                Some(Found { regions, ..with_objects })
            }
            (first, second) => first.or(second),
        })
    }

    fn describe(&self) -> String {
        format!("{}; {}", self.0.describe(), self.1.describe())
    }

    fn paths(&self) -> Vec<&Path> {
        [self.0.paths(), self.1.paths()].concat()
    }
}
