//! Finds faults in the quotes of a record.

/// The state of the quotes in the text of a record. Lines count from 0 at its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quotes {
    /// Quotes enclose whole cells.
    Fine,
    /// The text ends in a quoted cell.
    Unclosed {
        /// Line of the opening quote.
        opened: u64,
    },
    /// Text follows the closing quote of a cell.
    TextAfter {
        /// Line of the opening quote.
        opened: u64,
        /// Line of the closing quote.
        closed: u64,
    },
}

enum State {
    /// At the beginning of a cell.
    Start,
    /// In a cell without quotes. Quotes within it are characters.
    Text,
    Quoted,
    /// Directly after a quote in a quoted cell, which closes it unless another one follows.
    Quote,
    /// After the closing quote and white space.
    Closed,
}

/// Checks the quotes of a record by the rules of the `csv` crate, which reads faulty ones without a word.
pub(super) fn check_quotes(record: &[u8], delimiter: u8) -> Quotes {
    if !record.contains(&b'"') {
        return Quotes::Fine;
    }
    let (mut state, mut line, mut opened) = (State::Start, 0, 0);
    for &byte in record {
        state = match (state, byte) {
            (State::Start, b'"') => {
                opened = line;
                State::Quoted
            }
            (State::Quoted, b'"') => State::Quote,
            (State::Quote, b'"') => State::Quoted,
            (State::Quoted, _) => State::Quoted,
            (_, b'\n') => State::Start,
            (_, byte) if byte == delimiter => State::Start,
            (State::Quote | State::Closed, b' ' | b'\t' | b'\r') => State::Closed,
            (State::Quote | State::Closed, _) => return Quotes::TextAfter { opened, closed: line },
            (State::Start | State::Text, _) => State::Text,
        };
        line += u64::from(byte == b'\n');
    }
    match state {
        State::Quoted => Quotes::Unclosed { opened },
        _ => Quotes::Fine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_enclose_whole_cells() {
        for record in ["a,b\n", "a,\"b\"\r\n", "\"a \"\"b\"\"\",\"\"\n", "\"a\nb\" ,c\n", "a \"b\" c, \"d\"\n", "a\"", "\"a\""] {
            assert_eq!(check_quotes(record.as_bytes(), b','), Quotes::Fine, "{record:?}");
        }
        assert_eq!(check_quotes(b"\"a\"\tb", b'\t'), Quotes::Fine);
    }

    #[test]
    fn text_after_a_closing_quote_is_found_with_both_lines() {
        let found = |record: &str| check_quotes(record.as_bytes(), b',');
        assert_eq!(found("\"a\"b,c\n"), Quotes::TextAfter { opened: 0, closed: 0 });
        assert_eq!(found("a,\"b\" c\n"), Quotes::TextAfter { opened: 0, closed: 0 });
        assert_eq!(found("\"a\" \"b\"\n"), Quotes::TextAfter { opened: 0, closed: 0 });
        assert_eq!(found("\"he said \\\"hi\\\"\"\n"), Quotes::TextAfter { opened: 0, closed: 0 });
        assert_eq!(found("\"x\ny\",\"b\n\nc,\"d\n"), Quotes::TextAfter { opened: 1, closed: 3 });
        assert_eq!(found("a,\"b\nc"), Quotes::Unclosed { opened: 0 });
        assert_eq!(found("\"a\nb\",\"c"), Quotes::Unclosed { opened: 1 });
    }
}
