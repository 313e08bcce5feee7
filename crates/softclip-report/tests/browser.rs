//! What a browser makes of a page that was saved to a file.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::json;
use softclip_report::{Cell, Chart, Curve, Gallery, GalleryRow, Hit, Page, Picture, Section, Table};
use softclip_tests::browser::{Browser, key};

fn picture(colour: [u8; 3]) -> Picture {
    let image = image::RgbImage::from_pixel(32, 32, image::Rgb(colour));
    let mut png = std::io::Cursor::new(Vec::new());
    image.write_to(&mut png, image::ImageFormat::Png).unwrap();
    Picture::new(png.into_inner(), "one colour").unwrap()
}

fn page() -> Page {
    let table = Table::new(["model", "R@1"])
        .row(["b".into(), Cell::fixed(9.5, 1)])
        .row(["a".into(), Cell::fixed(41.2, 1)])
        .row(["c".into(), Cell::Empty]);
    let hit = Hit { item: picture([200, 30, 30]).into(), rank: 1, score: 0.31, correct: true };
    Page::new("A page").section(Section::new("Results").table(table)).section(
        Section::new("Pictures")
            .chart(Chart::new("Loss", "step", "loss").curve(Curve::new("a", vec![(0.0, 2.0), (9.0, 1.0)])))
            .gallery(Gallery::new("Found").query(GalleryRow::new("red").strip("a", vec![hit]))),
    )
}

#[test]
fn a_saved_page_opens_without_an_error_and_its_table_sorts() {
    let Some(browser) = Browser::open().unwrap() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("page.html");
    std::fs::write(&file, page().render()).unwrap();
    browser.goto(&format!("file://{}", file.display())).unwrap();
    assert_eq!(browser.execute("return document.title").unwrap(), "A page");

    let order = || browser.execute("return [...document.querySelectorAll('tbody th')].map(c => c.textContent)").unwrap();
    assert_eq!(order(), json!(["b", "a", "c"]));
    browser.click("thead th:nth-child(2) button").unwrap();
    assert_eq!(order(), json!(["a", "b", "c"]), "numbers: the largest first, dashes last");
    browser.press(key::ENTER).unwrap();
    assert_eq!(order(), json!(["b", "a", "c"]), "the keyboard turns the order round");
    browser.click("thead th:nth-child(1) button").unwrap();
    assert_eq!(order(), json!(["a", "b", "c"]));

    browser.execute("document.querySelector('img').scrollIntoView()").unwrap();
    browser.wait("document.querySelector('img').naturalWidth === 32").unwrap();
    assert_eq!(browser.console_errors().unwrap(), Vec::<String>::new());

    let paper = || browser.execute("return getComputedStyle(document.body).backgroundColor").unwrap();
    browser.colour_scheme("light").unwrap();
    let light = paper();
    browser.colour_scheme("dark").unwrap();
    assert_ne!(light, paper(), "the page follows the reader's colour scheme");
}

#[test]
fn errors_of_a_page_are_seen() {
    let Some(browser) = Browser::open().unwrap() else { return };
    browser.goto("data:text/html,<script>nothing.there()</script>").unwrap();
    let errors = browser.console_errors().unwrap();
    assert!(errors.len() == 1 && errors[0].contains("nothing is not defined"), "{errors:?}");
    assert!(browser.execute("throw new Error('no')").is_err());
    assert!(browser.click("#absent").is_err());
}
