//! A headless Chromium for tests of pages, over chromedriver and the WebDriver protocol.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;

/// What goes wrong with a browser is told in words.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// By this name a WebDriver reply gives an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// Where a browser is missing, tests that need one fail instead of being skipped if this variable is `1`.
const REQUIRED: &str = "SOFTCLIP_REQUIRE_BROWSER";
/// What Chromium is called; `.ci/run` takes these names from here.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// Nothing in a browser is waited for longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keys for [`Browser::press`].
pub mod key {
    /// Enter.
    pub const ENTER: &str = "\u{e007}";
    /// Tab.
    pub const TAB: &str = "\u{e004}";
    /// Escape.
    pub const ESCAPE: &str = "\u{e00c}";
    /// Space.
    pub const SPACE: &str = " ";
}

/// One window. Dropping it ends the browser and removes its profile.
pub struct Browser {
    driver: Child,
    agent: Agent,
    /// The session's address.
    session: String,
    /// Browsers keep caches and locks here.
    _profile: TempDir,
}

impl Browser {
    /// A browser, or `None` with a line on standard error where Chromium or chromedriver is not installed.
    ///
    /// # Errors
    /// They are installed but do not start, or are missing although `SOFTCLIP_REQUIRE_BROWSER=1` asks for them.
    pub fn open() -> Result<Option<Self>> {
        let chromium = NAMES.into_iter().find_map(installed);
        match chromium.filter(|_| installed("chromedriver").is_some()) {
            Some(chromium) => Self::start(&chromium).map(Some),
            None if std::env::var(REQUIRED).is_ok_and(|v| v == "1") => {
                Err(format!("no Chromium with chromedriver is installed, and {REQUIRED}=1").into())
            }
            None => {
                eprintln!("skipped: no Chromium with chromedriver is installed");
                Ok(None)
            }
        }
    }

    fn start(chromium: &Path) -> Result<Self> {
        let profile = TempDir::with_prefix("softclip-browser-")?;
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let port = driver.stdout.take().ok_or("chromedriver has no output".into()).and_then(port_of);
        let port = port.inspect_err(|_| end(&mut driver))?;
        let config = Agent::config_builder().proxy(None).timeout_global(Some(PATIENCE)).http_status_as_error(false);
        let base = format!("http://127.0.0.1:{port}/session");
        let mut browser = Browser { driver, agent: config.build().into(), session: base, _profile: profile };
        let folder = browser._profile.path().display();
        let arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
        arguments.push(format!("--user-data-dir={folder}"));
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"binary": chromium, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let reply = browser.post("", wanted)?;
        let id = reply["sessionId"].as_str().ok_or("chromedriver gives no session")?;
        browser.session = format!("{}/{id}", browser.session);
        browser.size(1280, 900)?;
        Ok(browser)
    }

    fn reply(response: std::result::Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value> {
        let text = response?.body_mut().with_config().limit(256 << 20).read_to_string()?;
        let mut reply: Value = serde_json::from_str(&text)?;
        let value = reply["value"].take();
        match value["error"].as_str() {
            Some(error) => Err(format!("{error}: {}", value["message"].as_str().unwrap_or_default()).into()),
            None => Ok(value),
        }
    }

    fn post(&self, path: &str, body: Value) -> Result<Value> {
        let url = format!("{}{path}", self.session);
        Self::reply(self.agent.post(&url).content_type("application/json").send(body.to_string()))
    }

    fn get(&self, path: &str) -> Result<Value> {
        Self::reply(self.agent.get(format!("{}{path}", self.session)).call())
    }

    fn element(&self, css: &str) -> Result<String> {
        let found = self.post("/element", json!({"using": "css selector", "value": css}))?;
        Ok(found[ELEMENT].as_str().ok_or_else(|| format!("no element {css}"))?.to_owned())
    }

    /// Opens a page and waits until it is loaded.
    ///
    /// # Errors
    /// The page cannot be reached.
    pub fn goto(&self, url: &str) -> Result<()> {
        self.post("/url", json!({"url": url})).map(drop)
    }

    /// Runs the body of a function in the page and gives what it returns; of a promise, what it resolves to.
    ///
    /// # Errors
    /// The script throws.
    pub fn execute(&self, script: &str) -> Result<Value> {
        self.post("/execute/sync", json!({"script": script, "args": []}))
    }

    /// Waits until a JavaScript expression is true.
    ///
    /// # Errors
    /// It throws, or does not become true within a minute.
    pub fn wait(&self, expression: &str) -> Result<()> {
        let from = Instant::now();
        while self.execute(&format!("return Boolean({expression})"))? != true {
            if from.elapsed() > PATIENCE {
                return Err(format!("this does not become true: {expression}").into());
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        Ok(())
    }

    /// Clicks on the first element that `css` selects.
    ///
    /// # Errors
    /// There is none, or it cannot be clicked on.
    pub fn click(&self, css: &str) -> Result<()> {
        let element = self.element(css)?;
        self.post(&format!("/element/{element}/click"), json!({})).map(drop)
    }

    /// Types into the first element that `css` selects, behind what is there.
    ///
    /// # Errors
    /// There is none, or it takes no text.
    pub fn fill(&self, css: &str, text: &str) -> Result<()> {
        let element = self.element(css)?;
        self.post(&format!("/element/{element}/value"), json!({"text": text})).map(drop)
    }

    /// Presses a key of [`key`], or types a text, where the focus is.
    ///
    /// # Errors
    /// What has the focus takes no keys.
    pub fn press(&self, keys: &str) -> Result<()> {
        let active = self.get("/element/active")?;
        let element = active[ELEMENT].as_str().ok_or("nothing has the focus")?;
        self.post(&format!("/element/{element}/value"), json!({"text": keys})).map(drop)
    }

    /// Chooses a file for an `<input type=file>`.
    ///
    /// # Errors
    /// There is no such element or file.
    pub fn upload(&self, css: &str, file: &Path) -> Result<()> {
        self.fill(css, &std::path::absolute(file)?.display().to_string())
    }

    /// What the page's console has got of errors since this was last asked: exceptions, failed requests, refused content.
    ///
    /// # Errors
    /// The browser is gone.
    pub fn console_errors(&self) -> Result<Vec<String>> {
        let log = self.post("/se/log", json!({"type": "browser"}))?;
        let severe = log.as_array().into_iter().flatten().filter(|entry| entry["level"] == "SEVERE");
        Ok(severe.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// Writes what the window shows as a PNG file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn screenshot(&self, path: &Path) -> Result<()> {
        let png = self.get("/screenshot")?;
        Ok(std::fs::write(path, STANDARD.decode(png.as_str().ok_or("no screenshot")?)?)?)
    }

    /// Sets `light` or `dark`, as the reader's system would.
    ///
    /// # Errors
    /// The browser is gone.
    pub fn colour_scheme(&self, scheme: &str) -> Result<()> {
        self.devtools("Emulation.setEmulatedMedia", json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}))
    }

    /// Sets the size of the page's window, in its pixels.
    ///
    /// # Errors
    /// The browser is gone.
    pub fn size(&self, width: u32, height: u32) -> Result<()> {
        let wanted = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", wanted)
    }

    fn devtools(&self, command: &str, parameters: Value) -> Result<()> {
        self.post("/goog/cdp/execute", json!({"cmd": command, "params": parameters})).map(drop)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromedriver ends the browser with the session; without it, the browser would live on.
        let _ = self.agent.delete(&self.session).call();
        end(&mut self.driver);
    }
}

fn end(driver: &mut Child) {
    let _ = driver.kill();
    let _ = driver.wait();
}

/// Where a program lies.
fn installed(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Reads what chromedriver says at its start, and goes on emptying its output so that it never blocks.
fn port_of(output: impl Read + Send + 'static) -> Result<u16> {
    let mut lines = BufReader::new(output).lines();
    for line in lines.by_ref() {
        if let Some((_, port)) = line?.split_once("started successfully on port ") {
            std::thread::spawn(move || lines.for_each(drop));
            return Ok(port.trim_end_matches('.').parse()?);
        }
    }
    Err("chromedriver ends without telling its port".into())
}
