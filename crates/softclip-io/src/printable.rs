//! Text from files, made safe for a terminal.

/// Returns text from a file as one line for messages: control characters and marks that reorder text are escaped,
/// and what is longer than `max_chars` characters ends with `…`.
///
/// ```
/// use softclip_io::printable;
/// assert_eq!(printable("a\u{1b}[31m.jpg\n", 80), r"a\u{1b}[31m.jpg\n");
/// assert_eq!(printable("naïve 猫", 4), "naïv…");
/// ```
pub fn printable(text: &str, max_chars: usize) -> String {
    let mut line = String::new();
    for (i, character) in text.chars().enumerate() {
        if i == max_chars {
            line.push('…');
            break;
        }
        match character {
            c if c.is_control() || reorders(c) => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

/// Whether a character changes the direction of the text around it, or shows nothing (a byte order mark).
fn reorders(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_is_left() {
        let all: String = ('\0'..='\u{3000}').collect();
        let line = printable(&all, usize::MAX);
        assert!(!line.chars().any(|c| c.is_control() || reorders(c)));
        assert!(line.contains("é") && line.contains('\u{3000}'));
        assert_eq!(printable("abc", 3), "abc");
        assert_eq!(printable("abcd", 3), "abc…");
        assert_eq!(printable("", 0), "");
    }
}
