//! What open_clip's `SimpleTokenizer` does to a text before splitting it.

use std::borrow::Cow;

use plsfix::TextFixerConfig;

/// Bytes of a text that are looked at. No context takes more, and repairing text has a price.
const LONGEST: usize = 1 << 16;

/// What is looked at of a text.
pub(super) fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST)]
}

/// Repairs the text as ftfy does (mojibake, curly quotes, widths, ligatures, control characters, NFC), replaces HTML's character
/// references twice, makes every run of white space one space, strips, and makes everything lower case.
pub(super) fn clean(text: &str) -> String {
    let text = beginning(text);
    // In plain ASCII only white space and capitals are left to do.
    if text.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t' | b'\n' | b'\r') && b != b'&') {
        return single_spaces(&text.to_ascii_lowercase());
    }
    let config = TextFixerConfig {
        remove_terminal_escapes: false, // done here: plsfix 0.1.8 does not find them
        max_decode_length: i32::MAX,    // it would cut long texts at bytes that are not characters' borders
        ..TextFixerConfig::default()
    };
    let fixed = plsfix::fix_text(&without_terminal_escapes(text), Some(&config));
    let unescaped = htmlize::unescape(htmlize::unescape(fixed));
    single_spaces(&unescaped).to_lowercase()
}

/// Python's `" ".join(text.split())`.
fn single_spaces(text: &str) -> String {
    // Python also splits at the four information separators.
    let is_space = |c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c);
    let mut joined = String::with_capacity(text.len());
    for word in text.split(is_space).filter(|word| !word.is_empty()) {
        if !joined.is_empty() {
            joined.push(' ');
        }
        joined.push_str(word);
    }
    joined
}

/// Without `ESC [ 0;1 m` and its like.
fn without_terminal_escapes(text: &str) -> Cow<'_, str> {
    if !text.contains("\x1b[") {
        return Cow::Borrowed(text);
    }
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\x1b[") {
        let (before, sequence) = rest.split_at(at);
        kept.push_str(before);
        let end = sequence[2..].find(|c: char| !c.is_ascii_digit() && c != ';').map(|i| i + 2);
        rest = match end {
            Some(end) if sequence.as_bytes()[end].is_ascii_alphabetic() => &sequence[end + 1..],
            _ => {
                kept.push_str("\x1b[");
                &sequence[2..]
            }
        };
    }
    kept.push_str(rest);
    Cow::Owned(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cleaned() {
        for (text, expected) in [
            ("  A\tDog \n runs ", "a dog runs"),
            ("&amp;amp; twice", "& twice"),
            ("schÃ¶n", "schön"),
            ("‘it’s’", "'it's'"),
            ("esc\x1b[0;1m x \x1b[m\x1b[31 y", "esc x [31 y"),
            ("a\x1cb", "ab"),
            ("", ""),
        ] {
            assert_eq!(clean(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_ascii_way_is_the_same_as_the_long_one() {
        // A character that changes nothing but the way.
        for text in ["A man's dog, 3 cats... <b>!</b>", "x\r\ny \t z", "~`!@#$%^*()_+-={}[]|\\:;\"'<>,.?/"] {
            assert_eq!(format!("{} é", clean(text)), clean(&format!("{text} é")));
        }
    }

    #[test]
    fn a_text_without_end_is_cut_at_a_character() {
        assert_eq!(clean(&"é".repeat(1 << 20)).len(), 1 << 16);
        assert_eq!(clean(&format!("a{}", "é".repeat(1 << 20))).len(), (1 << 16) - 1);
    }
}
