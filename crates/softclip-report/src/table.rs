//! Tables that can be sorted.

use std::fmt::Write;

use crate::html::{escape, number};
use crate::paint::SERIES;

/// One field of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Words.
    Text(String),
    /// A number, shown with so many decimals and sorted by its value.
    Number {
        /// The value. One that is not finite is shown as a dash.
        value: f64,
        /// Digits after the point; `None` chooses four significant digits.
        decimals: Option<usize>,
    },
    /// A number that is shown in words of its own, such as `22.1 ± 0.3`, and sorted by its value.
    Shown {
        /// The value.
        value: f64,
        /// What is shown.
        text: String,
    },
    /// Words with one of the page's eight colours before them: what charts show in that colour.
    Keyed {
        /// The words.
        text: String,
        /// The colour.
        colour: usize,
    },
    /// Nothing to show: a dash.
    Empty,
}

impl Cell {
    /// Words with a colour.
    pub fn keyed(text: impl Into<String>, colour: usize) -> Self {
        Cell::Keyed { text: text.into(), colour }
    }

    /// A number with `decimals` digits after the point.
    pub fn fixed(value: f64, decimals: usize) -> Self {
        Cell::Number { value, decimals: Some(decimals) }
    }

    /// A number that is shown as `text`.
    pub fn shown(value: f64, text: impl Into<String>) -> Self {
        Cell::Shown { value, text: text.into() }
    }

    pub(crate) fn value(&self) -> Option<f64> {
        match self {
            Cell::Number { value, .. } | Cell::Shown { value, .. } if value.is_finite() => Some(*value),
            _ => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Cell::Keyed { text, colour } => format!("<i class=\"key s{}\"></i>{}", colour % SERIES, escape(text)),
            _ => escape(&self.plain()),
        }
    }

    /// What is shown.
    pub(crate) fn plain(&self) -> String {
        match self {
            Cell::Text(text) | Cell::Shown { text, .. } | Cell::Keyed { text, .. } => text.clone(),
            Cell::Number { value, decimals: Some(decimals) } if value.is_finite() => format!("{value:.decimals$}"),
            Cell::Number { value, decimals: None } if value.is_finite() => number(*value),
            _ => "–".to_owned(),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::Text(text)
    }
}

impl From<f64> for Cell {
    fn from(value: f64) -> Self {
        Cell::Number { value, decimals: None }
    }
}

impl From<Option<f64>> for Cell {
    fn from(value: Option<f64>) -> Self {
        value.map_or(Cell::Empty, Cell::from)
    }
}

/// Which value of a column is the good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Best {
    /// As with a recall.
    Highest,
    /// As with a loss or a rank.
    Lowest,
}

/// A table whose columns sort by a click or by the keyboard. Its first column names the rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// One above each column.
    pub headers: Vec<String>,
    /// The rows. A shorter one is filled with dashes; fields beyond the headers are not shown.
    pub rows: Vec<Vec<Cell>>,
    caption: Option<String>,
    best: Vec<(usize, Best)>,
    /// Rows that are compared with, and are never the best.
    references: Vec<usize>,
}

impl Table {
    /// A table without rows yet.
    pub fn new<H: Into<String>>(headers: impl IntoIterator<Item = H>) -> Self {
        Table { headers: headers.into_iter().map(Into::into).collect(), ..Table::default() }
    }

    /// With a row more.
    #[must_use]
    pub fn row(mut self, cells: impl IntoIterator<Item = Cell>) -> Self {
        self.rows.push(cells.into_iter().collect());
        self
    }

    /// With a row more that is only compared with, such as what guessing gives: it is never the best.
    #[must_use]
    pub fn reference(mut self, cells: impl IntoIterator<Item = Cell>) -> Self {
        self.references.push(self.rows.len());
        self.row(cells)
    }

    /// With a sentence under it: what is measured, on what.
    #[must_use]
    pub fn caption(mut self, text: impl Into<String>) -> Self {
        self.caption = Some(text.into());
        self
    }

    /// With the best number of `column` (from 0) set in bold, if the column has at least two numbers.
    #[must_use]
    pub fn best(mut self, column: usize, which: Best) -> Self {
        self.best.push((column, which));
        self
    }

    pub(crate) fn about(&self) -> Option<&str> {
        self.caption.as_deref()
    }

    fn winner(&self, column: usize) -> Option<f64> {
        let which = self.best.iter().find(|(c, _)| *c == column)?.1;
        let rows = self.rows.iter().enumerate().filter(|(row, _)| !self.references.contains(row));
        let values: Vec<f64> = rows.filter_map(|(_, r)| r.get(column)?.value()).collect();
        if values.len() < 2 {
            return None;
        }
        values.into_iter().reduce(|a, b| if (which == Best::Highest) == (b > a) { b } else { a })
    }

    /// A column of numbers is set flush right.
    pub(crate) fn numeric(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().filter_map(|r| r.get(column)).filter(|c| **c != Cell::Empty).peekable();
        cells.peek().is_some() && cells.all(|c| matches!(c, Cell::Number { .. } | Cell::Shown { .. }))
    }

    pub(crate) fn render(&self, out: &mut String) {
        let columns = self.headers.len();
        let winners: Vec<Option<f64>> = (0..columns).map(|c| self.winner(c)).collect();
        let class: Vec<&str> = (0..columns).map(|c| if self.numeric(c) { " class=\"number\"" } else { "" }).collect();
        out.push_str("<figure class=\"table\"><div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"");
        out.push_str(&escape(self.caption.as_deref().unwrap_or("table")));
        out.push_str("\"><table><thead><tr>");
        for (header, class) in self.headers.iter().zip(&class) {
            let _ = write!(out, "<th scope=\"col\"{class}><button type=\"button\">{}</button></th>", escape(header));
        }
        out.push_str("</tr></thead><tbody>\n");
        for (number, row) in self.rows.iter().enumerate() {
            let competes = !self.references.contains(&number);
            out.push_str("<tr>");
            for column in 0..columns {
                let cell = row.get(column).unwrap_or(&Cell::Empty);
                let value = cell.value();
                let data = value.map_or(String::new(), |v| format!(" data-value=\"{v}\""));
                let text = match competes && value.is_some() && value == winners[column] {
                    true => format!("<strong>{}</strong>", cell.text()),
                    false => cell.text(),
                };
                let (open, close) = if column == 0 { ("th scope=\"row\"", "th") } else { ("td", "td") };
                let _ = write!(out, "<{open}{}{data}>{text}</{close}>", class[column]);
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody></table></div>");
        if let Some(caption) = &self.caption {
            let _ = write!(out, "<figcaption>{}</figcaption>", escape(caption));
        }
        out.push_str("</figure>\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn html(table: &Table) -> String {
        let mut out = String::new();
        table.render(&mut out);
        out
    }

    #[test]
    fn the_best_of_a_column_is_bold() {
        let table = Table::new(["model", "R@1", "rank"])
            .row(["a".into(), Cell::fixed(40.0, 1), 3.0.into()])
            .row(["b".into(), Cell::fixed(42.0, 1), 9.0.into()])
            .row(["c".into(), Cell::Empty, Cell::from(None)])
            .reference(["guessing".into(), Cell::fixed(99.0, 1), 3.0.into()])
            .best(1, Best::Highest)
            .best(2, Best::Lowest);
        let html = html(&table);
        assert!(html.contains("<strong>42.0</strong>") && html.contains("<strong>3</strong>"), "{html}");
        assert_eq!(html.matches("<strong>").count(), 2);
    }

    #[test]
    fn short_rows_are_filled_and_long_ones_cut() {
        let table = Table::new(["a", "b"]).row(["x".into()]).row(["x".into(), "y".into(), "z".into()]);
        let html = html(&table);
        assert_eq!(html.matches("<td").count(), 2);
        assert!(html.contains("<td>–</td>") && !html.contains('z'), "{html}");
    }

    #[test]
    fn numbers_carry_their_value_for_sorting() {
        let html = html(&Table::new(["n", "v"]).row(["x".into(), Cell::fixed(0.125, 1)]).row(["y".into(), f64::NAN.into()]));
        assert!(html.contains("<td class=\"number\" data-value=\"0.125\">0.1</td>"), "{html}");
        assert!(html.contains("<td class=\"number\">–</td>"), "{html}");
    }
}
