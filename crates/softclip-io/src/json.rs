//! JSON as Python's `json` writes it: with numbers that the standard does not have.

use std::borrow::Cow;

use crate::strip_bom;

/// Numbers that Python's `json`, pandas and img2dataset write although JSON has none.
const NON_FINITE: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];

/// Returns JSON text that standard parsers accept: without a byte order mark, and with `null` for `NaN`,
/// `Infinity` and `-Infinity` outside strings.
///
/// Text without these is borrowed. Nothing else is changed: what is not JSON stays so. Lines keep their numbers.
///
/// ```
/// use softclip_io::lenient_json;
/// assert_eq!(&*lenient_json(br#"{"score": NaN, "name": "NaN"}"#), br#"{"score": null, "name": "NaN"}"#);
/// ```
pub fn lenient_json(bytes: &[u8]) -> Cow<'_, [u8]> {
    let bytes = strip_bom(bytes);
    let mut written: Vec<u8> = Vec::new();
    let (mut copied, mut at) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        let rest = &bytes[at..];
        if byte == b'"' {
            at += string_len(rest);
        } else if let Some(number) = NON_FINITE.iter().find(|number| rest.starts_with(number)) {
            written.extend_from_slice(&bytes[copied..at]);
            written.extend_from_slice(b"null");
            at += number.len();
            copied = at;
        } else if is_word(byte) {
            // A word is skipped whole: the end of `xNaN` is not a number.
            at += rest.iter().take_while(|byte| is_word(**byte)).count();
        } else {
            at += 1;
        }
    }
    match copied {
        0 => Cow::Borrowed(bytes),
        _ => {
            written.extend_from_slice(&bytes[copied..]);
            Cow::Owned(written)
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Length of the string that `bytes` begins with, both quotes included; all of it if the string is not closed.
fn string_len(bytes: &[u8]) -> usize {
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lenient(text: &str) -> String {
        String::from_utf8(lenient_json(text.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn non_finite_numbers_become_null() {
        assert_eq!(lenient("[NaN,Infinity, -Infinity]"), "[null,null, null]");
        assert_eq!(lenient("{\"a\":NaN,\n\"b\":-1}"), "{\"a\":null,\n\"b\":-1}");
        assert_eq!(lenient("NaN"), "null");
        assert_eq!(lenient("\u{feff}[NaN]"), "[null]");
    }

    #[test]
    fn strings_and_other_text_stay() {
        for text in [
            r#"["NaN", "a\"NaN", "\\", "-Infinity"]"#,
            r#"{"NaN": "\\\"Infinity"}"#,
            "[xNaN, 1Infinity, nan]",
            "\"NaN",
            "\"\\",
            "",
            "[1, 2.5e3, true, null]",
        ] {
            assert_eq!(lenient(text), text);
            assert!(matches!(lenient_json(text.as_bytes()), Cow::Borrowed(_)), "{text}");
        }
        assert_eq!(lenient(r#"["\\", NaN, "NaN"]"#), r#"["\\", null, "NaN"]"#);
        // Longer words are no numbers: a parser still refuses them.
        assert!(serde_json::from_str::<serde_json::Value>(&lenient("[NaNs]")).is_err());
        assert!(serde_json::from_str::<serde_json::Value>(&lenient("[Infinity2]")).is_err());
    }
}
