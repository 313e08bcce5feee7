//! The pieces of a map's file: values of a mask, and mappings that keep their order.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

/// A value of a mask. A grey value g is the colour (g, g, g).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Colour(pub(super) [u8; 3]);

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [r, g, b] = self.0;
        match r == g && g == b {
            true => write!(f, "{r} (\"#{r:02x}{g:02x}{b:02x}\")"),
            false => write!(f, "\"#{r:02x}{g:02x}{b:02x}\""),
        }
    }
}

impl Serialize for Colour {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let [r, g, b] = self.0;
        match r == g && g == b {
            true => to.serialize_u8(r),
            false => to.serialize_str(&format!("#{r:02x}{g:02x}{b:02x}")),
        }
    }
}

impl<'de> Deserialize<'de> for Colour {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = Colour;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a grey value from 0 to 255, a colour \"#rrggbb\" or [r, g, b]")
            }

            fn visit_u64<E: Error>(self, grey: u64) -> Result<Colour, E> {
                let grey = u8::try_from(grey).map_err(|_| E::invalid_value(Unexpected::Unsigned(grey), &self))?;
                Ok(Colour([grey; 3]))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Colour, E> {
                let digits = text.strip_prefix('#').filter(|hex| hex.len() == 6 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
                let number = digits.and_then(|hex| u32::from_str_radix(hex, 16).ok());
                let [_, r, g, b] = number.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))?.to_be_bytes();
                Ok(Colour([r, g, b]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Colour, A::Error> {
                let mut rgb = [0; 3];
                for (i, part) in rgb.iter_mut().enumerate() {
                    *part = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(i, &self))?;
                }
                match seq.next_element::<u8>()? {
                    Some(_) => Err(A::Error::invalid_length(4, &self)),
                    None => Ok(Colour(rgb)),
                }
            }
        }
        from.deserialize_any(Seen)
    }
}

/// A mapping in the order of the file, where a key that comes twice is an error.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Named<V>(pub(super) Vec<(String, V)>);

impl<V> Named<V> {
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|(key, _)| key == name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }
}

impl<V: Serialize> Serialize for Named<V> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Named<V> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Seen<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Seen<V> {
            type Value = Named<V>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<V>, A::Error> {
                let mut named = Named(Vec::new());
                while let Some(key) = map.next_key::<String>()? {
                    if named.position(&key).is_some() {
                        return Err(A::Error::custom(format_args!("duplicate entry `{key}`")));
                    }
                    let value = map.next_value()?;
                    named.0.push((key, value));
                }
                Ok(named)
            }
        }
        from.deserialize_map(Seen(PhantomData))
    }
}
