//! YAML within bounds. Every YAML file goes through [`parse_yaml`].

use std::cell::Cell;
use std::fmt;

use serde::de::{Deserializer, DeserializeOwned, DeserializeSeed, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor};

/// Largest YAML text that is parsed, in bytes (4 MiB).
pub const MAX_YAML_BYTES: usize = 4 << 20;

/// Largest size of a document with its aliases expanded, in bytes. Without aliases no text of [`MAX_YAML_BYTES`] exceeds it.
const MAX_EXPANDED_BYTES: usize = 32 << 20;

/// What a value counts in addition to its text, in bytes.
const VALUE_BYTES: usize = 8;

/// Brackets that may be open at the same time. The parser's time per token grows with their number, and the deserializer
/// refuses 128 levels anyway; brackets in texts are counted too, therefore there are some to spare.
const MAX_OPEN_BRACKETS: usize = 256;

/// Why text is not usable as YAML. The message does not contain the path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum YamlError {
    /// The text is not YAML, or its values are not those that are expected. The message ends with line and column.
    #[error(transparent)]
    Yaml(#[from] serde_yaml::Error),
    /// The text is larger than [`MAX_YAML_BYTES`].
    #[error("{bytes} bytes: YAML of up to {MAX_YAML_BYTES} bytes is read")]
    TooLarge {
        /// Size of the text.
        bytes: usize,
    },
    /// Lists and mappings are nested too deeply.
    #[error("more than {MAX_OPEN_BRACKETS} brackets are open at line {line}: close them, or quote the text that contains them")]
    TooDeep {
        /// Line of the first bracket beyond the limit, from 1.
        line: usize,
    },
    /// The aliases of the document expand to too much data.
    #[error("its aliases (`*name`) expand to more than {} MiB: write the values out", MAX_EXPANDED_BYTES >> 20)]
    TooManyAliases,
}

impl YamlError {
    /// Returns the line of the error, from 1, if it is known.
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::Yaml(error) => error.location().map(|at| at.line()),
            Self::TooDeep { line } => Some(*line),
            Self::TooLarge { .. } | Self::TooManyAliases => None,
        }
    }

    /// Returns the message without the line and column that the parser appends.
    pub fn reason(&self) -> String {
        let message = self.to_string();
        match self {
            Self::Yaml(_) => message.split(" at line ").next().unwrap_or(&message).to_owned(),
            _ => message,
        }
    }
}

/// Parses one YAML document. Time and memory are bounded by [`MAX_YAML_BYTES`], whatever the text contains.
///
/// ```
/// let sizes: Vec<u32> = softclip_io::parse_yaml("[1, 2]")?;
/// assert_eq!(sizes, [1, 2]);
/// # Ok::<(), softclip_io::YamlError>(())
/// ```
///
/// # Errors
/// The text is not YAML or not a `T`; it is too large or nested too deeply; or its aliases expand to too much data.
pub fn parse_yaml<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    if text.len() > MAX_YAML_BYTES {
        return Err(YamlError::TooLarge { bytes: text.len() });
    }
    check_brackets(text)?;
    if text.contains('*') {
        check_aliases(text)?;
    }
    Ok(serde_yaml::from_str(text)?)
}

/// Refuses text in which too many brackets are open, before the parser sees it.
fn check_brackets(text: &str) -> Result<(), YamlError> {
    let mut open = 0usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => continue,
        }
        if open > MAX_OPEN_BRACKETS {
            return Err(YamlError::TooDeep { line: text[..at].matches('\n').count() + 1 });
        }
    }
    Ok(())
}

/// Refuses documents whose aliases expand to too much: the library bounds the number of aliases, but not their sizes.
fn check_aliases(text: &str) -> Result<(), YamlError> {
    let left = Cell::new(Some(MAX_EXPANDED_BYTES));
    let measured = Measure(&left).deserialize(serde_yaml::Deserializer::from_str(text));
    // The library has a limit of its own for small aliases, under a name that says less.
    let is_repetition = |error: serde_yaml::Error| error.to_string().starts_with("repetition limit");
    match left.get().is_none() || measured.is_err_and(is_repetition) {
        true => Err(YamlError::TooManyAliases),
        // Whatever else is wrong is reported by the deserialization that follows.
        false => Ok(()),
    }
}

/// Visits every value and takes its size off the bytes that are left; none once they are used up.
#[derive(Clone, Copy)]
struct Measure<'a>(&'a Cell<Option<usize>>);

impl Measure<'_> {
    fn take<E: Error>(self, bytes: usize) -> Result<(), E> {
        let left = self.0.get().and_then(|left| left.checked_sub(bytes + VALUE_BYTES));
        self.0.set(left);
        left.map(drop).ok_or_else(|| E::custom("too many aliases"))
    }
}

impl<'de> DeserializeSeed<'de> for Measure<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Measure<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.take(0)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.take(0)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.take(0)
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<(), E> {
        self.take(0)
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<(), E> {
        self.take(0)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.take(0)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.take(0)
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.take(0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.take(text.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.take(0)?;
        while items.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        self.take(0)?;
        while entries.next_entry_seed(self, self)?.is_some() {}
        Ok(())
    }

    /// A value with a tag (`!name value`).
    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<(), A::Error> {
        let (_, value) = tagged.variant::<String>()?;
        value.newtype_variant_seed(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_yaml::Value;

    fn message(text: &str) -> String {
        parse_yaml::<Value>(text).unwrap_err().to_string()
    }

    #[test]
    fn usual_documents_are_read() {
        let value: Value = parse_yaml("base: &b {lr: 1e-3, names: [a, \"[[[\"]}\nrun: *b\ntag: !x [1, ~, true, -2, 1.5]\n").unwrap();
        assert_eq!(value["run"]["names"][1], "[[[");
        assert_eq!(parse_yaml::<Value>("").unwrap(), Value::Null);
        let error = parse_yaml::<Vec<u8>>("- 1\n- x\n").unwrap_err();
        assert_eq!((error.line(), error.reason().contains(" at line ")), (Some(2), false), "{error}");
        assert!(error.to_string().contains("line 2"));
    }

    #[test]
    fn deep_nesting_is_refused_before_the_parser_sees_it() {
        for open in ["[", "{a: ", "[[{", "{? ["] {
            let text = format!("x: 1\ny: {}", open.repeat(100_000));
            assert!(message(&text).contains("256 brackets are open at line 2"), "{open}: {}", message(&text));
        }
        // Other nesting ends at the deserializer's own limit.
        for open in ["- ", "? "] {
            assert!(message(&open.repeat(100_000)).contains("recursion limit"), "{open}");
        }
        // Brackets in texts are fine as long as most of them are closed.
        let list = "- \"a [x] {y}\"\n".repeat(10_000);
        assert_eq!(parse_yaml::<Vec<String>>(&list).unwrap().len(), 10_000);
    }

    #[test]
    fn aliases_expand_within_bounds() {
        let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for i in 1..10 {
            let refs = vec![format!("*a{}", i - 1); 9].join(", ");
            laughs.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
        }
        let many = format!("a: &a [{}]\nb: [{}]\n", "x,".repeat(50_000), "*a,".repeat(50_000));
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a,".repeat(1_000));
        let keys = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "{*a : 1},".repeat(1_000));
        for text in [laughs, many, long, keys] {
            assert!(message(&text).contains("expand to more than 32 MiB"), "{}", message(&text));
        }
        assert!(message("a: &a [*a]\n").contains("recursion limit"));
        let shared = format!("a: &a [1, 2]\nb: [{}]\n", "*a,".repeat(1_000));
        assert_eq!(parse_yaml::<Value>(&shared).unwrap()["b"].as_sequence().unwrap().len(), 1_000);
    }

    #[test]
    fn size_is_bounded_and_no_plain_text_within_it_counts_as_aliases() {
        assert!(message(&" ".repeat(MAX_YAML_BYTES + 1)).contains("bytes is read"));
        // The worst text for its size: values of one character.
        let text = format!("[{}\"*\"]", "a,".repeat(MAX_YAML_BYTES / 2 - 8));
        assert!(check_aliases(&text).is_ok());
    }
}
