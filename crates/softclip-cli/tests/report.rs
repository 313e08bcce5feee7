//! `softclip report`: the page that it writes, and that page in a browser.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;

use serde_json::json;
use softclip_tests::browser::{Browser, key};
use support::{fails, succeeds};
use world::World;

mod support;
#[path = "support/world.rs"]
mod world;

fn train(world: &World, run: &str, more: &[&str]) {
    let args = world.train_args(run, more);
    succeeds(&args.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a_page_compares_runs_and_works_in_a_browser() {
    let world = World::new();
    train(&world, "soft", &[]);
    train(&world, "hard", &["--set", "loss={name: clip}", "--set", "train.seed=1"]);
    let out = world.at("pages/compared.html");
    let (soft, hard) = (world.at("soft"), world.at("hard"));
    let printed = succeeds(&["report", &soft, &hard, "--out", &out, "--queries", "3", "--pairs", "5", "--device", "cpu"]);
    assert_eq!(printed.trim(), out);
    let html = fs::read_to_string(&out).unwrap();
    for part in [
        "<title>soft, hard</title>",
        "loss.beta",
        "train.seed",
        "T→I R@10",
        "Norm of the gradients",
        "Caption → images",
        "Image → text, ranks 1 to 10",
        "Image → text, ranks 11 to 50",
        "own pairs",
        "soft: target, image → text",
        "soft: target, text → image",
        "what the model sees",
        "hard: its loss, clip, has the own pair alone as its target",
    ] {
        assert!(html.contains(part), "{part}");
    }
    // 4 matrices of 5 × 5 for SoftCLIP, 2 for CLIP, whose target is the diagonal.
    assert_eq!(html.matches("<figure class=\"matrix\">").count(), 6);
    assert_eq!(html.matches("style=\"--v:").count(), 6 * 25);
    // Nothing of what was being written is left.
    assert_eq!(fs::read_dir(Path::new(&out).parent().unwrap()).unwrap().count(), 1);
    if let Some(browser) = Browser::open().unwrap() {
        opens_and_sorts(&browser, &out);
        is_legible(&browser);
    }
}

fn opens_and_sorts(browser: &Browser, file: &str) {
    browser.goto(&format!("file://{file}")).unwrap();
    assert_eq!(browser.console_errors().unwrap(), Vec::<String>::new());
    // Pictures are loaded when they come near the window.
    browser.execute("for (const img of document.images) img.loading = 'eager'").unwrap();
    browser.wait("document.images.length > 30 && [...document.images].every(img => img.complete)").unwrap();
    assert_eq!(browser.execute("return [...document.images].filter(img => img.naturalWidth === 0).length").unwrap(), 0);
    assert_eq!(browser.execute("return [...document.images].filter(img => !img.alt).length").unwrap(), 0);
    let asked =
        "return performance.getEntriesByType('resource').filter(entry => !entry.name.startsWith('data:')).map(e => e.name)";
    assert_eq!(browser.execute(asked).unwrap(), json!([]), "a page asks for nothing");

    let order =
        || browser.execute("return [...document.querySelector('table').tBodies[0].rows].map(r => r.cells[0].textContent)");
    let sorted = |column: usize| {
        let head = format!("return document.querySelector('thead th:nth-child({column})').getAttribute('aria-sort')");
        browser.execute(&head).unwrap()
    };
    assert_eq!(order().unwrap(), json!(["soft", "hard"]));
    browser.click("thead th:nth-child(1) button").unwrap();
    assert_eq!((order().unwrap(), sorted(1)), (json!(["hard", "soft"]), json!("ascending")));
    browser.press(key::ENTER).unwrap();
    assert_eq!((order().unwrap(), sorted(1)), (json!(["soft", "hard"]), json!("descending")));
    browser.press(key::TAB).unwrap();
    browser.press(key::SPACE).unwrap();
    assert_eq!((order().unwrap(), sorted(1), sorted(2)), (json!(["hard", "soft"]), json!(null), json!("ascending")));
}

/// Contrast between text and what is behind it, by WCAG 2's formula.
const CONTRAST: &str = "
    const light = colour => {
        const parts = colour.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255);
        const [r, g, b] = parts.map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const paper = light(getComputedStyle(document.body).backgroundColor);
    const parts = 'body, nav a, h4, figcaption, thead button, tbody td, .legend b, .note, .mark, .matrix caption, .steps, svg text';
    return [...document.querySelectorAll(parts)].map(element => {
        const style = getComputedStyle(element);
        const ink = light(element.closest('svg') ? style.fill : style.color);
        return [element.tagName + '.' + element.className, (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)];
    }).filter(([_, contrast]) => !(contrast >= 4.5));";

fn is_legible(browser: &Browser) {
    let mut papers = Vec::new();
    for scheme in ["light", "dark"] {
        browser.colour_scheme(scheme).unwrap();
        assert_eq!(browser.execute(CONTRAST).unwrap(), json!([]), "{scheme}");
        papers.push(browser.execute("return getComputedStyle(document.body).backgroundColor").unwrap());
    }
    assert_ne!(papers[0], papers[1]);
}

#[test]
fn a_run_without_data_has_tables_and_curves_and_says_why_no_more() {
    let world = World::new();
    train(&world, "run", &[]);
    fs::rename(world.at("data"), world.at("elsewhere")).unwrap();
    let run = world.at("run");
    let page = world.at("run/report/index.html");
    assert_eq!(succeeds(&["report", &run, "--device", "cpu"]).trim(), page);
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("validation data cannot be read") && html.contains("<svg") && html.contains("T→I R@1"));
    assert!(!html.contains("<img"));

    // Data that is asked for must be there; the page stays as it was.
    let told = fails(&["report", &run, "--data", &format!("{}/none-*.tar", world.at("data")), "--device", "cpu"], 1);
    assert!(told.contains("none-*.tar"), "{told}");
    let classes = format!("folder:{}/zeroshot", world.at("elsewhere"));
    assert!(fails(&["report", &run, "--data", &classes, "--device", "cpu"], 1).contains("it has classes and no captions"));
    assert!(fails(&["report", &run, "--words", " , ", "--device", "cpu"], 2).contains("no word in it"));
    assert_eq!(fs::read_to_string(&page).unwrap(), html);
    // With the data, and a run whose checkpoints are gone: what there is, is shown.
    let data = format!("{}/shards/val-*.tar", world.at("elsewhere"));
    fs::remove_dir_all(world.at("run/checkpoints")).unwrap();
    succeeds(&["report", &run, "--data", &data, "--device", "cpu"]);
    assert!(fs::read_to_string(&page).unwrap().contains("no whole checkpoint yet"));
}

#[test]
fn what_is_no_run_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    assert!(fails(&["report", path], 1).contains("is no run: it has no config.yaml"));
    assert!(fails(&["report"], 2).contains("RUN"));
    assert_eq!(fs::read_dir(path).unwrap().count(), 0);
}
