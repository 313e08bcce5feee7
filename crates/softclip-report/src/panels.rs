//! Pictures in rows and columns.

use std::fmt::Write;

use crate::html::escape;
use crate::paint::SERIES;
use crate::picture::Picture;

/// A row of pictures.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    name: String,
    colour: Option<usize>,
    /// A picture, and what stands under it.
    panels: Vec<(Picture, String)>,
}

/// Pictures in named rows and columns: the same views by several models, say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Panels {
    columns: Vec<String>,
    rows: Vec<Row>,
    caption: Option<String>,
    scale: Option<(String, String)>,
}

impl Panels {
    /// Columns without pictures yet.
    pub fn new<C: Into<String>>(columns: impl IntoIterator<Item = C>) -> Self {
        Panels { columns: columns.into_iter().map(Into::into).collect(), ..Panels::default() }
    }

    /// With a row more: for each column a picture and a note under it, which may be empty. Pictures beyond the columns are not shown.
    #[must_use]
    pub fn row(mut self, name: impl Into<String>, panels: Vec<(Picture, String)>) -> Self {
        self.rows.push(Row { name: name.into(), colour: None, panels });
        self
    }

    /// As [`Panels::row`], with the colour that stands for the model elsewhere.
    #[must_use]
    pub fn keyed_row(mut self, name: impl Into<String>, colour: usize, panels: Vec<(Picture, String)>) -> Self {
        self.rows.push(Row { name: name.into(), colour: Some(colour), panels });
        self
    }

    /// With a sentence under it.
    #[must_use]
    pub fn caption(mut self, text: impl Into<String>) -> Self {
        self.caption = Some(text.into());
        self
    }

    /// With the colours of [heat maps](crate::heat) under it, and words for their ends.
    #[must_use]
    pub fn scale(mut self, low: impl Into<String>, high: impl Into<String>) -> Self {
        self.scale = Some((low.into(), high.into()));
        self
    }

    pub(crate) fn render(&self, out: &mut String) {
        let label = escape(self.caption.as_deref().unwrap_or("pictures"));
        let _ = write!(
            out,
            "<figure class=\"panels\"><div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{label}\"><table><thead><tr><td></td>"
        );
        for column in &self.columns {
            let _ = write!(out, "<th scope=\"col\">{}</th>", escape(column));
        }
        out.push_str("</tr></thead><tbody>\n");
        for Row { name, colour, panels } in &self.rows {
            let key = colour.map_or(String::new(), |colour| format!("<i class=\"key s{}\"></i>", colour % SERIES));
            let _ = write!(out, "<tr><th scope=\"row\">{key}{}</th>", escape(name));
            for (picture, note) in panels.iter().take(self.columns.len()) {
                out.push_str("<td>");
                picture.render(out);
                let _ = write!(out, "<span class=\"note\">{}</span></td>", escape(note));
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody></table></div>");
        if let Some((low, high)) = &self.scale {
            let _ = write!(out, "<p class=\"scale\">{} <i></i> {}</p>", escape(low), escape(high));
        }
        if let Some(caption) = &self.caption {
            let _ = write!(out, "<figcaption>{}</figcaption>", escape(caption));
        }
        out.push_str("</figure>\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_picture_stands_under_its_column_with_its_note() {
        let picture = || Picture::new([0xff, 0xd8, 0xff], "a <dog>").unwrap();
        let panels = Panels::new(["seen", "dog"])
            .row("CLIP & co", vec![(picture(), String::new()), (picture(), "0.21".into()), (picture(), "beyond".into())])
            .scale("nothing", "most");
        let mut out = String::new();
        panels.render(&mut out);
        assert_eq!((out.matches("<img").count(), out.matches("scope=\"col\"").count()), (2, 2), "{out}");
        assert!(out.contains("CLIP &amp; co") && out.contains(">0.21<") && !out.contains("beyond"), "{out}");
        assert!(out.contains("nothing <i></i> most"), "{out}");
    }
}
