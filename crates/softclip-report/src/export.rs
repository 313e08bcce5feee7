//! Tables for elsewhere: terminals, Markdown, CSV.

use std::fmt::Write;

use crate::table::{Cell, Table};

impl Table {
    /// For a terminal: columns set in line, the caption above. Ends with a line's end.
    pub fn to_text(&self) -> String {
        let rows: Vec<Vec<String>> =
            std::iter::once(self.headers.clone()).chain(self.rows.iter().map(|row| self.filled(row, Cell::plain))).collect();
        let widths: Vec<usize> =
            (0..self.headers.len()).map(|c| rows.iter().map(|row| row[c].chars().count()).max().unwrap_or(0)).collect();
        let mut out = self.about().map_or(String::new(), |caption| format!("{caption}\n"));
        for row in &rows {
            let mut line = String::new();
            for (c, (text, width)) in row.iter().zip(&widths).enumerate() {
                let pad = " ".repeat(width - text.chars().count());
                let (before, after) = if self.numeric(c) { (pad.as_str(), "") } else { ("", pad.as_str()) };
                let _ = write!(line, "{}{before}{text}{after}", if c > 0 { "  " } else { "" });
            }
            let _ = writeln!(out, "{}", line.trim_end());
        }
        out
    }

    /// As GitHub's Markdown has tables, the caption above. Ends with a line's end.
    pub fn to_markdown(&self) -> String {
        let escaped = |text: &str| {
            let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
            flat.chars().fold(String::new(), |mut out, c| {
                if "\\|`*_<>[]".contains(c) {
                    out.push('\\');
                }
                out.push(c);
                out
            })
        };
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut out = self.about().map_or(String::new(), |caption| format!("{}\n\n", escaped(caption)));
        out += &line(self.headers.iter().map(|header| escaped(header)).collect());
        out += &line((0..self.headers.len()).map(|c| if self.numeric(c) { "---:" } else { "---" }.to_owned()).collect());
        for row in &self.rows {
            out += &line(self.filled(row, |cell| escaped(&cell.plain())));
        }
        out
    }

    /// RFC 4180: numbers with all their digits, nothing for what is empty, lines that end with CR LF.
    pub fn to_csv(&self) -> String {
        let quoted = |text: String| {
            let special = text.contains([',', '"', '\n', '\r']);
            if special { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
        };
        let raw = |cell: &Cell| match (cell, cell.value()) {
            (_, Some(value)) => value.to_string(),
            (Cell::Text(text), None) => text.clone(),
            _ => String::new(),
        };
        let line = |cells: Vec<String>| format!("{}\r\n", cells.into_iter().map(quoted).collect::<Vec<_>>().join(","));
        let mut out = line(self.headers.clone());
        self.rows.iter().for_each(|row| out += &line(self.filled(row, raw)));
        out
    }

    /// A row's cells as texts, as many as there are headers.
    fn filled(&self, row: &[Cell], text: impl Fn(&Cell) -> String) -> Vec<String> {
        (0..self.headers.len()).map(|c| text(row.get(c).unwrap_or(&Cell::Empty))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table::new(["model", "R@1", "note"])
            .row(["a|b".into(), Cell::fixed(0.125, 1), "says \"so\", twice".into()])
            .row(["βγ*".into(), Cell::shown(12.25, "12.2 ± 0.1")])
            .caption("on x")
    }

    #[test]
    fn columns_are_set_in_line() {
        assert_eq!(
            table().to_text(),
            "on x\nmodel         R@1  note\na|b           0.1  says \"so\", twice\nβγ*    12.2 ± 0.1  –\n"
        );
    }

    #[test]
    fn nothing_breaks_a_markdown_table() {
        let expected = "on x\n\n| model | R@1 | note |\n| --- | ---: | --- |\n| a\\|b | 0.1 | says \"so\", twice |\n| βγ\\* | 12.2 ± 0.1 | – |\n";
        assert_eq!(table().to_markdown(), expected);
        let lines = Table::new(["a"]).row(["two\nlines".into()]).to_markdown();
        assert!(lines.contains("| two lines |"), "{lines}");
    }

    #[test]
    fn csv_has_the_values_themselves() {
        assert_eq!(table().to_csv(), "model,R@1,note\r\na|b,0.125,\"says \"\"so\"\", twice\"\r\nβγ*,12.25,\r\n");
    }
}
