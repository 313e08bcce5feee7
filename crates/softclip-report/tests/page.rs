//! What holds for every page.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use softclip_report::{Cell, Chart, Curve, Gallery, GalleryRow, Hit, Page, Picture, Section, Table};

fn page(text: &str, points: Vec<(f64, f64)>) -> String {
    let picture = Picture::new([0xff, 0xd8, 0xff, 0xdb], text).unwrap();
    let hit = |item| Hit { item, rank: 1, score: 0.5, correct: true };
    let mut chart = Chart::new(text, text, text).curve(Curve::new(text, points));
    chart.log_y = text.len().is_multiple_of(2);
    Page::new(text)
        .lead(text)
        .footer(text)
        .section(
            Section::new(text)
                .text(text)
                .table(Table::new([text, "v"]).row([text.into(), Cell::from(1.5)]).caption(text))
                .chart(chart)
                .gallery(Gallery::new(text).query(GalleryRow::new(text).strip(text, vec![hit(picture.clone().into())])))
                .gallery(Gallery::new(text).query(GalleryRow::new(picture).strip(text, vec![hit(text.into())]))),
        )
        .section(Section::new(text))
        .render()
}

/// The names of all elements in order, closing ones with `/`; void and self-closing elements are left out.
fn tags(html: &str) -> Vec<String> {
    let body = &html[html.find("<body>").unwrap()..html.rfind("<script>").unwrap()];
    body.split('<')
        .skip(1)
        .map(|t| (t.split([' ', '>', '\n']).next().unwrap().to_owned(), t))
        .filter(|(name, t)| name != "img" && !t.split('>').next().unwrap().ends_with('/'))
        .map(|(name, _)| name)
        .collect()
}

fn balanced(html: &str) -> Result<(), String> {
    let mut open = Vec::new();
    for tag in tags(html) {
        match tag.strip_prefix('/') {
            Some(name) if open.last().is_some_and(|o| o == name) => drop(open.pop()),
            Some(name) => return Err(format!("</{name}> closes {open:?}")),
            None => open.push(tag),
        }
    }
    if open == ["body"] { Ok(()) } else { Err(format!("{open:?} are left open")) }
}

#[test]
fn a_page_asks_for_nothing_outside_of_itself() {
    let html = page("plain", vec![(0.0, 1.0), (1.0, 2.0)]);
    assert!(html.contains("default-src 'none'"));
    for outside in ["http:", "https:", "src=\"/", "<link", "@import", "url(", "fetch(", "XMLHttpRequest"] {
        assert!(!html.contains(outside), "{outside}");
    }
}

#[test]
fn texts_stay_texts() {
    let html = page("</title><script>alert(1)</script>\"' onload=x", vec![(0.0, 1.0), (1.0, 2.0)]);
    assert_eq!(html.matches("<script>").count(), 1);
    assert_eq!(html.matches("</title>").count(), 1);
    balanced(&html).unwrap();
}

#[test]
fn every_picture_has_an_alternative_text_and_every_section_a_heading() {
    let html = page("a cat", vec![]);
    assert_eq!(html.matches("<img").count(), html.matches("alt=\"a cat\"").count());
    assert_eq!(html.matches("aria-labelledby").count(), html.matches("<h2 id=").count());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_text_and_any_points_give_a_well_formed_page(text in "\\PC{0,30}", points in proptest::collection::vec((any::<f64>(), any::<f64>()), 0..5)) {
        let html = page(&text, points);
        prop_assert!(balanced(&html).is_ok(), "{:?}", balanced(&html));
        prop_assert_eq!(html.matches("<script>").count(), 1);
    }
}
