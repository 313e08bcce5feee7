//! What was found for a query, and whether it was right.

use std::fmt::Write;

use crate::html::escape;
use crate::paint::SERIES;
use crate::picture::Picture;

/// A text or a picture.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A caption.
    Text(String),
    /// An image.
    Picture(Picture),
}

impl From<&str> for Item {
    fn from(text: &str) -> Self {
        Item::Text(text.to_owned())
    }
}

impl From<String> for Item {
    fn from(text: String) -> Self {
        Item::Text(text)
    }
}

impl From<Picture> for Item {
    fn from(picture: Picture) -> Self {
        Item::Picture(picture)
    }
}

/// One thing found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// What was found.
    pub item: Item,
    /// Its place, from 1.
    pub rank: usize,
    /// Its score, mostly a cosine.
    pub score: f64,
    /// Whether it belongs to the query: framed and marked.
    pub correct: bool,
}

/// What one model found.
#[derive(Clone, Debug, PartialEq)]
pub struct Strip {
    /// The model; may be empty where there is only one.
    pub name: String,
    /// Best first.
    pub hits: Vec<Hit>,
    /// Which of the page's eight colours stands for the model elsewhere.
    pub colour: Option<usize>,
}

/// A query and what one or more models found for it.
#[derive(Clone, Debug, PartialEq)]
pub struct GalleryRow {
    /// What was searched with.
    pub query: Item,
    /// One strip a model, under each other for comparison.
    pub results: Vec<Strip>,
}

impl GalleryRow {
    /// A query without results yet.
    pub fn new(query: impl Into<Item>) -> Self {
        GalleryRow { query: query.into(), results: Vec::new() }
    }

    /// With what a model found.
    #[must_use]
    pub fn strip(mut self, name: impl Into<String>, hits: Vec<Hit>) -> Self {
        self.results.push(Strip { name: name.into(), hits, colour: None });
        self
    }

    /// As [`GalleryRow::strip`], with the colour that stands for the model elsewhere.
    #[must_use]
    pub fn keyed_strip(mut self, name: impl Into<String>, colour: usize, hits: Vec<Hit>) -> Self {
        self.results.push(Strip { name: name.into(), hits, colour: Some(colour) });
        self
    }
}

/// Strips of more pictures than this are set under their query, smaller, in one line where there is room.
const FEW: usize = 8;

/// Queries under each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gallery {
    /// Above it; may be empty.
    pub title: String,
    /// The queries.
    pub queries: Vec<GalleryRow>,
}

impl Gallery {
    /// A gallery without queries yet.
    pub fn new(title: impl Into<String>) -> Self {
        Gallery { title: title.into(), queries: Vec::new() }
    }

    /// With a query more.
    #[must_use]
    pub fn query(mut self, row: GalleryRow) -> Self {
        self.queries.push(row);
        self
    }

    pub(crate) fn render(&self, out: &mut String) {
        out.push_str("<div class=\"gallery\">");
        if !self.title.is_empty() {
            let _ = write!(out, "<h3>{}</h3>", escape(&self.title));
        }
        for row in &self.queries {
            row.render(out);
        }
        out.push_str("</div>\n");
    }
}

impl GalleryRow {
    fn render(&self, out: &mut String) {
        let kind = if matches!(self.query, Item::Text(_)) { "said" } else { "seen" };
        let many = |strip: &Strip| strip.hits.len() > FEW && strip.has_pictures();
        let dense = if self.results.iter().any(many) { " dense" } else { "" };
        let _ = write!(out, "<article class=\"query {kind}{dense}\"><header>");
        match &self.query {
            Item::Text(text) => {
                let _ = write!(out, "<p><q>{}</q></p>", escape(text));
            }
            Item::Picture(picture) => picture.render(out),
        }
        out.push_str("</header><div class=\"found\">");
        for strip in &self.results {
            strip.render(out);
        }
        out.push_str("</div></article>\n");
    }
}

impl Strip {
    fn has_pictures(&self) -> bool {
        self.hits.iter().any(|hit| matches!(hit.item, Item::Picture(_)))
    }

    fn render(&self, out: &mut String) {
        out.push_str("<section class=\"strip\">");
        if !self.name.is_empty() {
            let key = self.colour.map_or(String::new(), |colour| format!("<i class=\"key s{}\"></i>", colour % SERIES));
            let _ = write!(out, "<h4>{key}{}</h4>", escape(&self.name));
        }
        let _ = write!(out, "<ol class=\"{}\">", if self.has_pictures() { "pictures" } else { "texts" });
        for (i, hit) in self.hits.iter().enumerate() {
            // What is left out between two hits is seen.
            let gap = i > 0 && hit.rank > self.hits[i - 1].rank + 1;
            hit.render(gap, out);
        }
        out.push_str("</ol></section>");
    }
}

impl Hit {
    fn render(&self, gap: bool, out: &mut String) {
        let class = match (self.correct, gap) {
            (true, true) => " class=\"correct gap\"",
            (true, false) => " class=\"correct\"",
            (false, true) => " class=\"gap\"",
            (false, false) => "",
        };
        let mark = if self.correct { " <span class=\"mark\" title=\"belongs to the query\">match</span>" } else { "" };
        let note = format!("<span class=\"note\"><b>{}</b> {:.3}{mark}</span>", self.rank, self.score);
        match &self.item {
            Item::Text(text) => {
                let _ = write!(out, "<li{class}>{note}<span>{}</span></li>", escape(text));
            }
            Item::Picture(picture) => {
                let _ = write!(out, "<li{class}>");
                picture.render(out);
                let _ = write!(out, "{note}</li>");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(item: impl Into<Item>, rank: usize, correct: bool) -> Hit {
        Hit { item: item.into(), rank, score: 0.5 / rank as f64, correct }
    }

    #[test]
    fn what_belongs_to_the_query_is_framed_and_named() {
        let picture = Picture::new([0xff, 0xd8, 0xff], "a cat").unwrap();
        let row = GalleryRow::new("a <cat>").strip("CLIP", vec![hit(picture.clone(), 1, false), hit(picture, 2, true)]);
        let mut out = String::new();
        Gallery::new("Text to image").query(row).render(&mut out);
        assert!(out.contains("<q>a &lt;cat&gt;</q>"), "{out}");
        assert_eq!(out.matches("class=\"correct\"").count(), 1);
        assert_eq!(out.matches(">match<").count(), 1);
        assert!(out.contains("<b>2</b> 0.250"), "{out}");
    }

    #[test]
    fn ranks_that_are_left_out_leave_a_gap() {
        let row = GalleryRow::new("q").keyed_strip("a", 2, vec![hit("one", 1, false), hit("two", 2, false), hit("x", 77, true)]);
        let mut out = String::new();
        row.render(&mut out);
        assert_eq!(out.matches("class=\"correct gap\"").count(), 1, "{out}");
        assert!(out.contains("<h4><i class=\"key s2\"></i>a</h4>"), "{out}");
    }

    #[test]
    fn many_pictures_are_set_close_and_many_texts_are_not() {
        let picture = Picture::new([0xff, 0xd8, 0xff], "a cat").unwrap();
        for (item, count, dense) in
            [(Item::from(picture.clone()), 10, true), (picture.into(), 8, false), ("text".into(), 10, false)]
        {
            let mut out = String::new();
            GalleryRow::new("q").strip("", (1..=count).map(|rank| hit(item.clone(), rank, false)).collect()).render(&mut out);
            assert_eq!(out.contains("query said dense"), dense, "{count}");
        }
    }

    #[test]
    fn texts_found_for_a_picture_are_a_list() {
        let picture = Picture::new([0x89, b'P', b'N', b'G'], "query").unwrap();
        let mut out = String::new();
        GalleryRow::new(picture).strip("", vec![hit("one", 1, true)]).render(&mut out);
        assert!(out.contains("<ol class=\"texts\">") && out.contains("image/png") && !out.contains("<h4>"), "{out}");
    }
}
