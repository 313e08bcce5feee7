//! Matrices as coloured cells, with what their rows and columns are.

use std::fmt::Write;

use crate::gallery::Item;
use crate::html::{escape, number};
use crate::paint::SERIES;

/// A matrix of numbers that are not negative, with a picture or a text at each row and column. A cell's colour goes with the square root
/// of its value, so that small ones are told from none. It is a table: values are read out, and shown where the pointer rests.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Above it.
    pub title: String,
    /// Which of the page's eight colours stands before the title.
    pub colour: Option<usize>,
    /// What a row is, such as `image`.
    pub row_name: String,
    /// What a column is, such as `caption`.
    pub column_name: String,
    /// One a row.
    pub rows: Vec<Item>,
    /// One a column.
    pub columns: Vec<Item>,
    /// `rows` × `columns`. Missing and not finite ones are left blank, negative ones count as 0 for the colour.
    pub values: Vec<Vec<f64>>,
    /// The value of the strongest colour; without it, the largest one. Matrices to be compared have one.
    pub highest: Option<f64>,
}

impl Matrix {
    /// A matrix of `values` whose rows and columns are the same things.
    pub fn new(title: impl Into<String>, items: Vec<Item>, values: Vec<Vec<f64>>) -> Self {
        Matrix {
            title: title.into(),
            colour: None,
            row_name: "row".to_owned(),
            column_name: "column".to_owned(),
            columns: items.clone(),
            rows: items,
            values,
            highest: None,
        }
    }

    /// With the names of rows and columns.
    #[must_use]
    pub fn named(mut self, row: impl Into<String>, column: impl Into<String>) -> Self {
        (self.row_name, self.column_name) = (row.into(), column.into());
        self
    }

    /// With the strongest colour at `value`.
    #[must_use]
    pub fn highest(mut self, value: f64) -> Self {
        self.highest = Some(value);
        self
    }

    /// With the colour that stands for the model elsewhere.
    #[must_use]
    pub fn colour(mut self, colour: usize) -> Self {
        self.colour = Some(colour);
        self
    }

    fn value(&self, row: usize, column: usize) -> Option<f64> {
        self.values.get(row).and_then(|values| values.get(column)).copied().filter(|value| value.is_finite())
    }

    pub(crate) fn render(&self, out: &mut String) {
        let largest = self.values.iter().flatten().copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
        let highest = self.highest.filter(|value| value.is_finite() && *value > 0.0).unwrap_or(largest);
        let key = self.colour.map_or(String::new(), |colour| format!("<i class=\"key s{}\"></i>", colour % SERIES));
        let title = escape(&self.title);
        let _ = write!(out, "<figure class=\"matrix\"><h3>{key}{title}</h3>");
        legend(highest, out);
        let (row_name, column_name) = (escape(&self.row_name), escape(&self.column_name));
        let _ = write!(
            out,
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{title}\"><table><caption>Rows: {row_name}; columns: \
             {column_name}</caption><thead><tr><td></td>"
        );
        for column in &self.columns {
            head("col", column, out);
        }
        out.push_str("</tr></thead><tbody>\n");
        for (r, row) in self.rows.iter().enumerate() {
            out.push_str("<tr>");
            head("row", row, out);
            for c in 0..self.columns.len() {
                let Some(value) = self.value(r, c) else {
                    out.push_str("<td></td>");
                    continue;
                };
                let share = if highest > 0.0 { (value / highest).clamp(0.0, 1.0).sqrt() } else { 0.0 };
                let shown = number(if value.abs() < 5e-5 { 0.0 } else { value });
                let own = if r == c { " class=\"own\"" } else { "" };
                let _ = write!(
                    out,
                    "<td{own} style=\"--v:{:.0}%\" title=\"{row_name} {}, {column_name} {}: {shown}\"><span>{shown}</span></td>",
                    100.0 * share,
                    r + 1,
                    c + 1
                );
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody></table></div></figure>\n");
    }
}

/// The scale: where a quarter, a half, three quarters of the colour are.
fn legend(highest: f64, out: &mut String) {
    out.push_str("<div class=\"steps\" aria-hidden=\"true\"><i></i>");
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        let _ = write!(out, "<span>{}</span>", number(share * share * highest));
    }
    out.push_str("</div>");
}

fn head(scope: &str, item: &Item, out: &mut String) {
    let _ = write!(out, "<th scope=\"{scope}\">");
    match item {
        Item::Text(text) => out.push_str(&escape(text)),
        Item::Picture(picture) => picture.render_titled(out),
    }
    out.push_str("</th>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::Picture;

    fn html(map: &Matrix) -> String {
        let mut out = String::new();
        map.render(&mut out);
        out
    }

    #[test]
    fn cells_have_colours_by_their_roots_and_values_to_read() {
        let picture = Picture::new([0xff, 0xd8, 0xff], "a <cat>").unwrap();
        let map = Matrix::new("Targets", vec![picture.into(), "a dog".into()], vec![vec![0.8, 0.2], vec![0.05, -0.1]]);
        let html = html(&map.named("image", "caption"));
        for cell in ["--v:100%\" title=\"image 1, caption 1: 0.8\"", "--v:50%\" title=\"image 1, caption 2: 0.2\""] {
            assert!(html.contains(cell), "{html}");
        }
        assert!(html.contains("--v:25%\"") && html.contains("--v:0%\""), "{html}");
        assert_eq!(html.matches("<th scope=\"col\">").count(), 2);
        assert_eq!(html.matches("title=\"a &lt;cat&gt;\"").count(), 2);
        assert_eq!(html.matches("class=\"own\"").count(), 2);
    }

    #[test]
    fn maps_on_one_scale_and_with_holes() {
        let hole = Matrix::new("t", vec!["a".into(), "b".into()], vec![vec![f64::NAN, 0.25]]).highest(1.0);
        let html = html(&hole);
        assert!(html.contains("--v:50%") && html.contains("<span>0.0625</span>"), "{html}");
        assert_eq!(html.matches("<td></td>").count(), 4);
        let nothing = Matrix::new("t", vec!["a".into()], vec![vec![0.0]]);
        assert!(super::tests::html(&nothing).contains("--v:0%"));
    }
}
