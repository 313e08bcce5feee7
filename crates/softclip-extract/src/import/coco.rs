//! COCO's JSON as people and other tools write it: ids as numbers or texts, crowds as numbers or booleans, missing boxes.

use std::fmt;
use std::path::Path;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::Error;

/// An id. `7`, `7.0` and `"7"` are the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Id {
    Number(i64),
    Text(Box<str>),
}

impl From<&str> for Id {
    fn from(text: &str) -> Self {
        text.trim().parse().map_or_else(|_| Self::Text(text.into()), Self::Number)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => write!(f, "'{text}'"),
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdVisitor;

        impl Visitor<'_> for IdVisitor {
            type Value = Id;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id: a whole number or a text")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Id, E> {
                Ok(Id::Number(number))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Id, E> {
                Ok(i64::try_from(number).map_or_else(|_| Id::Text(number.to_string().into()), Id::Number))
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Id, E> {
                // Beyond 2^53 a float does not say which number is meant.
                match number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 {
                    true => Ok(Id::Number(number as i64)),
                    false => Err(E::custom(format!("the id {number} is not a whole number"))),
                }
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Id, E> {
                Ok(Id::from(text))
            }
        }

        deserializer.deserialize_any(IdVisitor)
    }
}

#[derive(Deserialize)]
pub(super) struct Document {
    pub(super) images: Vec<Image>,
    pub(super) annotations: Vec<Annotation>,
    pub(super) categories: Vec<Category>,
}

#[derive(Deserialize)]
pub(super) struct Image {
    pub(super) id: Id,
    pub(super) file_name: Box<str>,
    #[serde(default, deserialize_with = "pixels")]
    pub(super) width: Option<u32>,
    #[serde(default, deserialize_with = "pixels")]
    pub(super) height: Option<u32>,
}

#[derive(Deserialize)]
pub(super) struct Annotation {
    pub(super) id: Option<Id>,
    pub(super) image_id: Option<Id>,
    pub(super) category_id: Option<Id>,
    #[serde(default)]
    pub(super) bbox: Box4,
    #[serde(default, deserialize_with = "truth")]
    pub(super) iscrowd: bool,
}

#[derive(Deserialize)]
pub(super) struct Category {
    pub(super) id: Id,
    pub(super) name: String,
}

/// What stands under `bbox`.
#[derive(Default, Deserialize)]
pub(super) struct Box4(Option<Vec<Option<f64>>>);

impl Box4 {
    /// Left, top, width and height; none where there is no box.
    pub(super) fn four(self) -> Result<Option<[f64; 4]>, String> {
        let Some(numbers) = self.0.filter(|numbers| !numbers.is_empty()) else { return Ok(None) };
        let finite: Option<Vec<f64>> = numbers.iter().copied().collect();
        let four: Option<[f64; 4]> = finite.and_then(|numbers| numbers.try_into().ok());
        four.map(Some).ok_or_else(|| format!("its box has {} values, or one is null: four numbers are needed", numbers.len()))
    }
}

impl Document {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, is not UTF-8 text, or is not COCO's JSON.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let text = softclip_io::read_text(path).map_err(|e| Error::text(path, e))?;
        serde_json::from_slice(&softclip_io::lenient_json(text.as_bytes()))
            .map_err(|e| Error::format(path, format!("not COCO's instances: {e}")))
    }
}

/// A number of pixels, which pandas writes as a float.
fn pixels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let number: Option<f64> = Option::deserialize(deserializer)?;
    match number {
        Some(x) if x.fract() == 0.0 && (0.0..f64::from(u32::MAX)).contains(&x) => Ok(Some(x as u32)),
        Some(x) => Err(D::Error::custom(format!("{x} is not a number of pixels"))),
        None => Ok(None),
    }
}

/// 0 and 1, false and true, or null.
fn truth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(false),
        Value::Bool(truth) => Ok(truth),
        Value::Number(number) => Ok(number.as_f64() != Some(0.0)),
        other => Err(D::Error::custom(format!("iscrowd: {other} is neither 0 nor 1"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_same_however_they_are_written() {
        let ids: Vec<Id> = serde_json::from_str(r#"[7, 7.0, "7", "007", " 7 ", "a7", 18446744073709551615]"#).unwrap();
        assert!(ids[..5].iter().all(|id| *id == Id::Number(7)));
        assert_eq!(ids[5..], [Id::Text("a7".into()), Id::Text("18446744073709551615".into())]);
        for wrong in ["7.5", "true", "[7]", "1e300"] {
            serde_json::from_str::<Id>(wrong).unwrap_err();
        }
    }
}
