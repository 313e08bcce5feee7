//! JSON files as people have them: with byte order marks and NaN, with members that are null or of another type.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use softclip_io::{lenient_json, read_text};

use super::{SourceError, SourceFault, SourceFaultKind};

/// Reads a JSON file. Text after its value is reported as a fault.
///
/// # Errors
/// The file cannot be read, is not JSON, or is not a `T`: the message has line and column.
pub(super) fn read<T: DeserializeOwned>(path: &Path, faults: &mut Vec<SourceFault>) -> Result<T, SourceError> {
    let text = read_text(path).map_err(|e| SourceError::text(path, e, "check the path"))?;
    let json = lenient_json(text.as_bytes());
    let mut values = serde_json::Deserializer::from_slice(&json).into_iter::<T>();
    let value = values.next().unwrap_or_else(|| serde_json::from_slice(&json));
    let value = value.map_err(|e| SourceError::json(path, &e))?;
    let (read, rest) = json.split_at(values.byte_offset().min(json.len()));
    if !rest.trim_ascii().is_empty() {
        let line = read.iter().filter(|byte| **byte == b'\n').count() + 1;
        let detail = format!("{} bytes after the end of the JSON value are ignored", rest.trim_ascii().len());
        faults.push(SourceFault::new(SourceFaultKind::Orphan, format!("{}, line {line}", path.display()), detail));
    }
    Ok(value)
}

/// What images, captions and categories are known by. A number is the same in every spelling: `7`, `7.0`, `"7"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Id {
    Number(i64),
    Text(String),
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// A value of any type, as far as it is of use. Displayed as what it is, for messages.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Field {
    /// Null, or not there.
    #[default]
    Absent,
    Bool(bool),
    Whole(i64),
    Fraction(f64),
    Text(String),
    /// A list or an object.
    Compound(&'static str),
}

impl Field {
    /// The value as an identifier, if it can be one.
    pub(super) fn id(&self) -> Option<Id> {
        match self {
            Self::Whole(number) => Some(Id::Number(*number)),
            // Whole numbers up to 2^53, which f64 represents exactly.
            Self::Fraction(number) if number.fract() == 0.0 && number.abs() < 9e15 => Some(Id::Number(*number as i64)),
            Self::Text(text) if text.trim().is_empty() => None,
            Self::Text(text) => {
                let text = text.trim();
                let digits = text.strip_suffix(".0").unwrap_or(text);
                // `007` and `7` may be two identifiers.
                let number = digits.parse::<i64>().ok().filter(|number| number.to_string() == digits);
                Some(number.map_or_else(|| Id::Text(text.to_owned()), Id::Number))
            }
            _ => None,
        }
    }

    /// Returns the text; of another value the value itself.
    pub(super) fn text(self) -> Result<String, Self> {
        match self {
            Self::Text(text) => Ok(text),
            other => Err(other),
        }
    }

    /// Whether the value is true as Python sees it, `"0"` and `"false"` excepted.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Absent | Self::Compound(_) => false,
            Self::Bool(value) => *value,
            Self::Whole(number) => *number != 0,
            Self::Fraction(number) => *number != 0.0,
            Self::Text(text) => !matches!(text.trim().to_ascii_lowercase().as_str(), "" | "0" | "false"),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("missing or null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Whole(number) => write!(f, "the number {number}"),
            Self::Fraction(number) => write!(f, "the number {number}"),
            Self::Text(text) => write!(f, "'{text}'"),
            Self::Compound(what) => f.write_str(what),
        }
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AnyField)
    }
}

struct AnyField;

impl<'de> Visitor<'de> for AnyField {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: Error>(self) -> Result<Field, E> {
        Ok(Field::Absent)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Field, E> {
        Ok(Field::Bool(value))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Field, E> {
        Ok(Field::Whole(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Field, E> {
        Ok(i64::try_from(number).map_or_else(|_| Field::Text(number.to_string()), Field::Whole))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Field, E> {
        Ok(Field::Fraction(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Field, E> {
        Ok(Field::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Field, E> {
        Ok(Field::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Field, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Compound("a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Field, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Compound("an object"))
    }
}

/// The methods of a visitor that makes the same of every value but lists and objects.
macro_rules! scalars_are {
    ($value:expr) => {
        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("any value")
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok($value)
        }

        fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
            Ok($value)
        }

        fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
            Ok($value)
        }

        fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
            Ok($value)
        }

        fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
            Ok($value)
        }

        fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
            Ok($value)
        }
    };
}

/// A member of a list of objects; none if it is something else.
pub(super) struct Item<T>(pub(super) Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Item<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct AnyItem<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for AnyItem<T> {
            type Value = Item<T>;

            scalars_are!(Item(None));

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Item<T>, A::Error> {
                AnyField.visit_seq(items).map(|_| Item(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Item<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(entries)).map(|object| Item(Some(object)))
            }
        }
        from.deserialize_any(AnyItem(PhantomData))
    }
}

/// A list of objects; empty if there is something else in its place.
pub(super) struct Items<T>(pub(super) Vec<Item<T>>);

impl<T> Default for Items<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Items<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct AnyItems<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for AnyItems<T> {
            type Value = Items<T>;

            scalars_are!(Items::default());

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Items<T>, A::Error> {
                let mut found = Vec::new();
                while let Some(item) = items.next_element()? {
                    found.push(item);
                }
                Ok(Items(found))
            }

            fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Items<T>, A::Error> {
                AnyField.visit_map(entries).map(|_| Items::default())
            }
        }
        from.deserialize_any(AnyItems(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_the_same_in_every_spelling() {
        let ids =
            |json: &str| -> Vec<Option<Id>> { serde_json::from_str::<Vec<Field>>(json).unwrap().iter().map(Field::id).collect() };
        let seven = Some(Id::Number(7));
        assert_eq!(ids(r#"[7, 7.0, "7", " 7 ", "7.0"]"#), vec![seven; 5]);
        let texts = ["007", "7.5", "+7", "a.jpg", "18446744073709551615"].map(|text| Some(Id::Text(text.to_owned())));
        assert_eq!(ids(r#"["007", "7.5", "+7", "a.jpg", 18446744073709551615]"#), texts);
        assert_eq!(ids(r#"[null, true, 7.5, 1e300, "", [7], {"id": 7}]"#), vec![None; 7]);
    }

    #[test]
    fn truth_is_read_from_any_type() {
        let flags: Vec<Field> =
            serde_json::from_str(r#"[true, 1, 1.0, "1", "True", false, 0, 0.0, "0", "false", null, []]"#).unwrap();
        assert_eq!(flags.iter().map(Field::is_true).collect::<Vec<_>>(), [vec![true; 5], vec![false; 7]].concat());
    }

    #[test]
    fn lists_hold_what_is_no_object() {
        let Items(found): Items<Vec<u8>> = serde_json::from_str(r#"[null, 1, -1, 1.5, "a", true, [1]]"#).unwrap();
        assert!(found.len() == 7 && found.iter().all(|item| item.0.is_none()));
        let Items(found): Items<std::collections::BTreeMap<String, u8>> = serde_json::from_str(r#"[{"a": 1}, null]"#).unwrap();
        assert_eq!(found[0].0.as_ref().unwrap()["a"], 1);
        for other in ["null", "1", "-1", "0.5", "\"a\"", "true", "{}"] {
            assert!(serde_json::from_str::<Items<u8>>(other).unwrap().0.is_empty(), "{other}");
        }
    }
}
