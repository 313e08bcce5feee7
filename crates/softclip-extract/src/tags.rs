//! An image's objects as tags.

use serde::{Deserialize, Serialize};

use crate::Found;

/// Which attributes stand in front of an object's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttributeStyle {
    /// None: "car".
    None,
    /// The most certain: "red car".
    #[default]
    Best,
    /// All, the most certain first: "red shiny car".
    All,
}

/// The tags of an image: names of its `most` most certain objects, with attributes where they are known. Duplicates are kept.
///
/// ```
/// use softclip_extract::tags::{AttributeStyle, tags};
/// use softclip_extract::{Found, Object};
///
/// let car = Object { name: "car".into(), attributes: vec!["red".into()], confidence: 0.9, xyxy: None };
/// let found = Found { objects: vec![car.clone(), car], ..Found::default() };
/// assert_eq!(tags(&found, 10, AttributeStyle::Best).join(", "), "red car, red car");
/// ```
pub fn tags(found: &Found, most: usize, style: AttributeStyle) -> Vec<String> {
    let shown = |all: usize| match style {
        AttributeStyle::None => 0,
        AttributeStyle::Best => all.min(1),
        AttributeStyle::All => all,
    };
    let objects = found.objects.iter().take(most);
    let words = objects.map(|object| {
        let attributes = &object.attributes[..shown(object.attributes.len())];
        attributes.iter().chain([&object.name]).map(String::as_str).collect::<Vec<_>>()
    });
    words.map(|words| words.join(" ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Object;

    #[test]
    fn the_most_certain_come_first_and_twice_where_there_are_two() {
        let object = |name: &str, attributes: &[&str]| Object {
            name: name.into(),
            attributes: attributes.iter().map(|&a| a.into()).collect(),
            confidence: 0.5,
            xyxy: None,
        };
        let objects = vec![object("car", &["red", "shiny"]), object("dog", &[]), object("dog", &[]), object("cat", &["old"])];
        let found = Found { objects, ..Found::default() };
        assert_eq!(tags(&found, 3, AttributeStyle::None), ["car", "dog", "dog"]);
        assert_eq!(tags(&found, 9, AttributeStyle::Best), ["red car", "dog", "dog", "old cat"]);
        assert_eq!(tags(&found, 1, AttributeStyle::All), ["red shiny car"]);
        assert!(tags(&found, 0, AttributeStyle::All).is_empty());
        assert!(tags(&Found::default(), 5, AttributeStyle::All).is_empty());
    }
}
