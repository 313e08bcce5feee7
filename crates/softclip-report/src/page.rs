//! The document around the parts.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::chart::Chart;
use crate::estimates::Estimates;
use crate::gallery::Gallery;
use crate::html::{escape, slug};
use crate::matrix::Matrix;
use crate::panels::Panels;
use crate::table::Table;

/// The style sheet of every page, for pages that are made elsewhere.
pub const STYLE: &str = include_str!("../assets/page.css");
const SCRIPT: &str = include_str!("../assets/page.js");

/// Nothing may be fetched: pictures are data, styles and script are in the document.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; \
                      form-action 'none'";

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Table(Table),
    Chart(Chart),
    Estimates(Estimates),
    Gallery(Gallery),
    Panels(Panels),
    Matrix(Matrix),
}

/// A heading and what is under it, in the order in which it was added.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    title: String,
    parts: Vec<Part>,
}

impl Section {
    /// A section without content yet.
    pub fn new(title: impl Into<String>) -> Self {
        Section { title: title.into(), parts: Vec::new() }
    }

    /// With a paragraph of plain text; it is escaped.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.parts.push(Part::Text(text.into()));
        self
    }

    /// With a table.
    #[must_use]
    pub fn table(mut self, table: Table) -> Self {
        self.parts.push(Part::Table(table));
        self
    }

    /// With a chart; charts that follow each other share lines where the window is wide enough.
    #[must_use]
    pub fn chart(mut self, chart: Chart) -> Self {
        self.parts.push(Part::Chart(chart));
        self
    }

    /// With means and deviations.
    #[must_use]
    pub fn estimates(mut self, estimates: Estimates) -> Self {
        self.parts.push(Part::Estimates(estimates));
        self
    }

    /// With a gallery.
    #[must_use]
    pub fn gallery(mut self, gallery: Gallery) -> Self {
        self.parts.push(Part::Gallery(gallery));
        self
    }

    /// With pictures in rows and columns.
    #[must_use]
    pub fn panels(mut self, panels: Panels) -> Self {
        self.parts.push(Part::Panels(panels));
        self
    }

    /// With a matrix; those that follow each other share lines where the window is wide enough.
    #[must_use]
    pub fn matrix(mut self, matrix: Matrix) -> Self {
        self.parts.push(Part::Matrix(matrix));
        self
    }

    fn render(&self, id: &str, out: &mut String) {
        let _ = writeln!(out, "<section aria-labelledby=\"{id}\"><h2 id=\"{id}\">{}</h2>", escape(&self.title));
        let mut grid = None;
        for part in &self.parts {
            let of = match part {
                Part::Chart(_) | Part::Estimates(_) => Some("charts"),
                Part::Matrix(_) => Some("matrices"),
                _ => None,
            };
            if of != grid {
                out.push_str(if grid.is_some() { "</div>\n" } else { "" });
                out.push_str(&of.map_or(String::new(), |class| format!("<div class=\"{class}\">")));
                grid = of;
            }
            match part {
                Part::Text(text) => {
                    let _ = writeln!(out, "<p>{}</p>", escape(text));
                }
                Part::Table(table) => table.render(out),
                Part::Chart(chart) => chart.render(out),
                Part::Estimates(estimates) => estimates.render(out),
                Part::Gallery(gallery) => gallery.render(out),
                Part::Panels(panels) => panels.render(out),
                Part::Matrix(matrix) => matrix.render(out),
            }
        }
        if grid.is_some() {
            out.push_str("</div>\n");
        }
        out.push_str("</section>\n");
    }
}

/// A whole page.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    title: String,
    lead: Option<String>,
    footer: Option<String>,
    sections: Vec<Section>,
}

impl Page {
    /// A page without sections yet.
    pub fn new(title: impl Into<String>) -> Self {
        Page { title: title.into(), lead: None, footer: None, sections: Vec::new() }
    }

    /// With a sentence or two under the title.
    #[must_use]
    pub fn lead(mut self, text: impl Into<String>) -> Self {
        self.lead = Some(text.into());
        self
    }

    /// With a line at the end: versions, the command that makes the page again.
    #[must_use]
    pub fn footer(mut self, text: impl Into<String>) -> Self {
        self.footer = Some(text.into());
        self
    }

    /// With a section more.
    #[must_use]
    pub fn section(mut self, section: Section) -> Self {
        self.sections.push(section);
        self
    }

    /// The whole document. The same page gives the same text.
    pub fn render(&self) -> String {
        let title = escape(&self.title);
        let mut out = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
             content=\"width=device-width, initial-scale=1\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
             <a class=\"skip\" href=\"#content\">Skip to content</a>\n<header class=\"top\"><h1>{title}</h1>\n"
        );
        if let Some(lead) = &self.lead {
            let _ = writeln!(out, "<p>{}</p>", escape(lead));
        }
        let ids = self.ids();
        if self.sections.len() > 1 {
            out.push_str("<nav aria-label=\"Sections\">");
            for (section, id) in self.sections.iter().zip(&ids) {
                let _ = write!(out, "<a href=\"#{id}\">{}</a>", escape(&section.title));
            }
            out.push_str("</nav>\n");
        }
        out.push_str("</header>\n<main id=\"content\">\n");
        for (section, id) in self.sections.iter().zip(&ids) {
            section.render(id, &mut out);
        }
        out.push_str("</main>\n");
        if let Some(footer) = &self.footer {
            let _ = writeln!(out, "<footer>{}</footer>", escape(footer));
        }
        let _ = write!(out, "<script>\n{SCRIPT}</script>\n</body>\n</html>\n");
        out
    }

    /// A fragment name a section, each once. `content` is taken by the main part.
    fn ids(&self) -> Vec<String> {
        let mut used = BTreeMap::from([("content".to_owned(), 1)]);
        let mut ids = Vec::new();
        for section in &self.sections {
            let name = slug(&section.title);
            let count = used.entry(name.clone()).or_insert(0);
            *count += 1;
            ids.push(if *count == 1 { name } else { format!("{name}--{count}") });
        }
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_with_one_name_have_two_fragments() {
        let page = Page::new("t").section(Section::new("A b")).section(Section::new("a-B")).section(Section::new("Content"));
        assert_eq!(page.ids(), ["a-b", "a-b--2", "content--2"]);
    }

    #[test]
    fn neighbouring_charts_share_a_grid() {
        let chart = || Chart::new("c", "x", "y");
        let mut out = String::new();
        Section::new("s").chart(chart()).chart(chart()).text("then").chart(chart()).render("s", &mut out);
        assert_eq!(out.matches("<div class=\"charts\">").count(), 2);
        assert_eq!(out.matches("<div").count(), out.matches("</div>").count());
    }
}
