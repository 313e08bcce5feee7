//! `softclip search --serve` and `softclip explain`, as a browser sees them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;
use softclip_tests::browser::{Browser, key};
use support::{fails, softclip, succeeds};

const CONFIG: &str = "
model:
  image: {kind: vit, image_size: 32, patch_size: 8, width: 32, layers: 2, heads: 2, mlp_ratio: 2}
  text: {context_length: 40, vocab_size: 49408, width: 16, heads: 2, layers: 1}
  embed_dim: 16
loss: {name: clip}
train: {steps: 1, batch_size: 8, lr: 1.0e-3}
";

/// A trained model, and a folder of images.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        fs::write(world.path("tiny.yaml"), CONFIG).unwrap();
        succeeds(&["data", "synth", &world.at("data"), "--train", "16", "--val", "4", "--zeroshot", "2", "--size", "48"]);
        let train = format!("data.train={}", world.at("data/shards/train-*.tar"));
        succeeds(&["train", &world.at("tiny.yaml"), "--run-dir", &world.at("run"), "--set", &train]);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Any of the images.
    fn image(&self) -> PathBuf {
        let class = fs::read_dir(self.path("data/zeroshot")).unwrap().flatten().find(|e| e.path().is_dir()).unwrap();
        fs::read_dir(class.path()).unwrap().next().unwrap().unwrap().path()
    }
}

struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// In the collection's folder.
    fn start(index: &str) -> Self {
        let mut command = softclip(&["search", ".", "--serve", "--port", "0", "-k", "7"]);
        let mut child = command.current_dir(index).stdout(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { child, address: address.trim().to_owned() }
    }

    /// Ends as Ctrl-C does; its exit status.
    fn interrupt(mut self) -> Option<i32> {
        let sent = Command::new("kill").args(["-s", "INT", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn names(browser: &Browser) -> serde_json::Value {
    browser.execute("return [...document.querySelectorAll('#results li .name')].map(x => x.textContent)").unwrap()
}

const DONE: &str = "document.querySelectorAll('#results li').length > 0 && !document.querySelector('[aria-busy]')";

#[test]
fn a_collection_is_searched_from_its_page() {
    let world = World::new();
    let index = world.at("photos.emb");
    succeeds(&["embed", &world.at("data/zeroshot"), "--model", &world.at("run"), "--out", &index]);
    assert!(fails(&["search", &index, "--serve", "--text", "a"], 2).contains("cannot be used with"));
    assert!(fails(&["search", &index, "--port", "1"], 2).contains("--serve"));
    assert!(fails(&["search", &index, "--serve", "--host", "no such name"], 1).contains("cannot serve"));
    assert!(fails(&["search", &index, "--serve", "-k", "501"], 2).contains("at most 500"));
    let server = Server::start(&index);
    assert!(server.address.starts_with("http://127.0.0.1:"), "{}", server.address);
    if let Some(browser) = Browser::open().unwrap() {
        search_from(&browser, &server.address, &world.image());
    }
    assert_eq!(server.interrupt(), Some(0), "a signal is how the service ends");
}

fn search_from(browser: &Browser, address: &str, image: &Path) {
    browser.goto(address).unwrap();
    browser.wait("document.querySelector('#k').value === '7'").unwrap();
    let about = browser.execute("return document.querySelector('#about').textContent").unwrap();
    assert!(about.as_str().unwrap().contains("rows of photos.emb,"), "{about}");
    browser.fill("#text", "a red circle").unwrap();
    browser.press(key::ENTER).unwrap();
    browser.wait(DONE).unwrap();
    let found = names(browser);
    assert_eq!(found.as_array().unwrap().len(), 7);
    browser.wait("[...document.querySelectorAll('#results img')].every(i => i.complete && i.naturalWidth > 0)").unwrap();
    assert_eq!(browser.execute("return location.search").unwrap(), "?q=a+red+circle&k=7");
    // The address alone gives the same again.
    browser.goto("about:blank").unwrap();
    browser.goto(&format!("{address}?q=a+red+circle&k=7")).unwrap();
    browser.wait(DONE).unwrap();
    assert_eq!(names(browser), found);
    browser.execute("const k = document.querySelector('#k'); k.value = '10'; k.dispatchEvent(new Event('change'))").unwrap();
    browser.wait(&format!("{DONE} && document.querySelectorAll('#results li').length === 10")).unwrap();

    browser.upload("#image", image).unwrap();
    browser.wait(&format!("{DONE} && !document.querySelector('#seen').hidden")).unwrap();
    let name = image.file_name().unwrap().to_str().unwrap();
    browser.wait(&format!("document.querySelector('#results .name').textContent.endsWith({})", json!(name))).unwrap();
    assert_eq!(browser.execute("return document.querySelector('#text').value").unwrap(), "");
    assert_eq!(browser.execute("return document.querySelector('#image').value").unwrap(), "", "it can be chosen again");
    browser.execute("history.back()").unwrap();
    browser.wait("document.querySelector('#text').value === 'a red circle' && document.querySelector('#seen').hidden").unwrap();
    browser.wait(DONE).unwrap();
    assert_eq!(browser.console_errors().unwrap(), Vec::<String>::new());

    // What is no image is told, and the page goes on.
    let text = image.with_extension("txt");
    fs::write(&text, "no image").unwrap();
    browser.upload("#image", &text).unwrap();
    browser.wait("document.querySelector('#status.wrong')").unwrap();
    let told = browser.execute("return document.querySelector('#status').textContent").unwrap();
    assert!(told.as_str().unwrap().contains("not an image"), "{told}");
    browser.fill("#text", "a dog").unwrap();
    browser.click("button[type=submit]").unwrap();
    browser.wait(DONE).unwrap();

    // A number of results that is not offered.
    browser.goto(&format!("{address}?q=a&k=3")).unwrap();
    browser.wait(&format!("{DONE} && document.querySelector('#k').value === '3'")).unwrap();
    assert_eq!(names(browser).as_array().unwrap().len(), 3);

    // Back from a search that is not done yet.
    browser.goto(address).unwrap();
    browser.wait("document.querySelector('#k').value === '7'").unwrap();
    let never =
        "window.fetch = (_, {signal}) => new Promise((_, no) => signal.addEventListener('abort', () => no(signal.reason)))";
    browser.execute(never).unwrap();
    browser.fill("#text", "a dog").unwrap();
    browser.press(key::ENTER).unwrap();
    browser.wait("document.querySelector('#results[aria-busy]')").unwrap();
    browser.execute("history.back()").unwrap();
    browser.wait("document.querySelector('#text').value === ''").unwrap();
    assert_eq!(browser.execute("return document.querySelector('#results').ariaBusy").unwrap(), serde_json::Value::Null);
}

#[test]
fn words_are_explained_on_a_page_and_as_files() {
    let world = World::new();
    let (run, image) = (world.at("run"), world.image());
    let image = image.to_str().unwrap();
    let page = world.at("explain.html");
    let text = "a red circle, on the green <b>grass";
    let told = succeeds(&["explain", &run, &run, "--image", image, "--text", text, "--out", &page]);
    assert_eq!(told.matches("red").count(), 4, "two models, the text and a word: {told}");
    let html = fs::read_to_string(&page).unwrap();
    assert_eq!(html.matches("<img").count(), 2 * (1 + 1 + 4), "photograph, text, red, circle, green, b>grass");
    assert!(!html.contains("<b>grass"));
    if let Some(browser) = Browser::open().unwrap() {
        browser.goto(&format!("file://{page}")).unwrap();
        browser.wait("[...document.images].every(i => i.complete && i.naturalWidth === 32)").unwrap();
        assert_eq!(browser.console_errors().unwrap(), Vec::<String>::new());
    }
    let folder = world.path("maps");
    let words = ["--words", "red,../circle,red", "--prompt", "{}", "--layer", "visual.transformer.resblocks.0"];
    succeeds(&[&["explain", &run, "--image", image, "--text", text, "--out", folder.to_str().unwrap()][..], &words].concat());
    let mut files: Vec<String> = fs::read_dir(&folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, ["1-red.png", "2-circle.png", "image.png", "text.png"]);

    let command = |more: &[&str], status| fails(&[&["explain", &run, "--out", &page][..], more].concat(), status);
    let refused = |more: &[&str]| command(more, 1);
    assert!(refused(&["--image", image, "--text", "of the"]).contains("--words"));
    assert!(command(&["--image", image, "--text", "a cat", "--prompt", "none"], 2).contains("{}"));
    assert!(refused(&["--image", image, "--text", "a cat", "--layer", "visual.layer4"]).contains("no layer visual.layer4"));
    assert!(refused(&["--image", &world.at("none.jpg"), "--text", "a cat"]).contains("none.jpg"));
    assert!(refused(&["--image", &world.at("tiny.yaml"), "--text", "a cat"]).contains("not an image"));
}
