//! From tags to sentences.

use serde::{Deserialize, Serialize};

/// Which tags of an image its sentence names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TagList {
    /// All, in the data's order: two dogs are `dog, dog`.
    #[default]
    All,
    /// Each once, in the order of its first.
    Distinct,
    /// Each once, in the order of the alphabet (of Unicode's code points), as Text-based SoftCLIP's code does.
    DistinctSorted,
}

/// How tags become a sentence: joined by `, `.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TagSentence {
    /// Which of them.
    pub list: TagList,
    /// The sentence where there is none; may be empty.
    pub neutral: String,
}

impl TagSentence {
    /// All tags, and `neutral` where there is none.
    pub fn new(neutral: impl Into<String>) -> Self {
        TagSentence { list: TagList::All, neutral: neutral.into() }
    }

    /// The sentence.
    ///
    /// ```
    /// use softclip_data::loader::{TagList, TagSentence};
    ///
    /// let tags = ["person", "dog", "person"].map(str::to_owned);
    /// assert_eq!(TagSentence { list: TagList::DistinctSorted, neutral: String::new() }.of(&tags), "dog, person");
    /// assert_eq!(TagSentence::new("an image").of(&[]), "an image");
    /// ```
    pub fn of(&self, tags: &[String]) -> String {
        if tags.is_empty() {
            return self.neutral.clone();
        }
        let mut named: Vec<&str> = tags.iter().map(String::as_str).collect();
        match self.list {
            TagList::All => {}
            TagList::Distinct => {
                let mut seen = std::collections::HashSet::new();
                named.retain(|tag| seen.insert(*tag));
            }
            TagList::DistinctSorted => {
                named.sort_unstable();
                named.dedup();
            }
        }
        named.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_kept_or_folded() {
        let tags = ["dog", "cat", "dog", "Ball"].map(str::to_owned);
        let of = |list| TagSentence { list, neutral: String::new() }.of(&tags);
        assert_eq!(of(TagList::All), "dog, cat, dog, Ball");
        assert_eq!(of(TagList::Distinct), "dog, cat, Ball");
        assert_eq!(of(TagList::DistinctSorted), "Ball, cat, dog");
        assert_eq!(TagSentence::default().of(&[]), "");
    }
}
