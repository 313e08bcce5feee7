//! Requests to a hub, and to the hosts it redirects to.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::header::{AUTHORIZATION, LOCATION, RANGE};
use ureq::http::{HeaderMap, Method, Response, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use crate::cache::is_intact;
use crate::error::{Error, Result, file, io};
use crate::hub::Repo;
use crate::locate::is_plain;
use crate::options::HubOptions;

/// Nothing is waited for longer than this; a download may take as long as it likes if only it goes on.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often in a row a download may break without a byte more than before.
const RETRIES: u32 = 4;

pub(crate) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// What a hub says about a file before it gives it.
#[derive(Default)]
pub(crate) struct Remote {
    pub(crate) commit: Option<String>,
    /// Name of the content; of large files the SHA-256.
    pub(crate) etag: String,
    pub(crate) size: Option<u64>,
}

impl Client {
    pub(crate) fn new(hub: &HubOptions) -> Result<Self> {
        let mut tls = TlsConfig::builder();
        if let Some(path) = &hub.certificates {
            tls = tls.root_certs(RootCerts::Specific(Arc::new(certificates(path)?)));
        }
        let config = Agent::config_builder()
            .tls_config(tls.build())
            // Redirects are followed here, where it is known whom the token is for.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .accept_encoding("identity")
            .user_agent(concat!("softclip/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE));
        Ok(Self { agent: config.build().into(), endpoint: hub.endpoint.clone(), token: hub.token.clone() })
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn unreachable(&self, why: impl ToString) -> Error {
        Error::Unreachable { endpoint: self.endpoint.clone(), why: why.to_string() }
    }

    /// Follows redirects until `done` is content with a response. Only the endpoint itself gets the token.
    fn send(
        &self,
        method: &Method,
        url: &str,
        from: u64,
        mut done: impl FnMut(&Response<Body>, bool) -> bool,
    ) -> Result<Response<Body>> {
        let mut url = url.to_owned();
        for _ in 0..10 {
            let mut request = if *method == Method::HEAD { self.agent.head(&url) } else { self.agent.get(&url) };
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            if let (Some(token), true) = (&self.token, same_origin(&url, &self.endpoint)) {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            let response = request.call().map_err(|e| self.unreachable(e))?;
            let next = header(response.headers(), LOCATION.as_str()).filter(|_| response.status().is_redirection());
            let next = next.map(|l| join(&url, l));
            let leaves = next.as_ref().is_some_and(|n| !same_origin(n, &self.endpoint));
            if done(&response, leaves) {
                return Ok(response);
            }
            match next {
                None => return Ok(response),
                Some(next) => url = next,
            }
        }
        Err(self.unreachable(format!("{url}: redirected without end")))
    }

    /// A file's content from byte `from` on, or any other text.
    pub(crate) fn get(&self, url: &str, from: u64) -> Result<Response<Body>> {
        let response = self.send(&Method::GET, url, from, |_, _| false)?;
        self.check_service(url, response)
    }

    /// What the hub says about a file; none where it has no such file.
    pub(crate) fn head(&self, repo: &Repo, url: &str) -> Result<Option<Remote>> {
        let mut remote = Remote::default();
        let response = self.send(&Method::HEAD, url, 0, |response, leaves| {
            let headers = response.headers();
            if remote.commit.is_none() {
                remote.commit = header(headers, "x-repo-commit").map(str::to_owned);
            }
            if let Some(etag) = header(headers, "x-linked-etag").or_else(|| header(headers, "etag")) {
                remote.etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
            }
            let own = header(headers, "content-length").filter(|_| response.status().is_success());
            remote.size = header(headers, "x-linked-size").or(own).and_then(|s| s.parse().ok()).or(remote.size);
            leaves && !remote.etag.is_empty()
        })?;
        let response = self.check_service(url, response)?;
        let status = response.status();
        if status == 404 && header(response.headers(), "x-error-code").is_none_or(|c| c == "EntryNotFound") {
            return Ok(None);
        }
        if !status.is_success() && !status.is_redirection() {
            return Err(self.refusal(repo, &response));
        }
        if !is_plain(&remote.etag) {
            return Err(self.unreachable(format!("{url} has no `etag` that could name a file, so this is no hub")));
        }
        Ok(Some(remote))
    }

    /// Failures of the service, which may be over soon, are told from refusals.
    fn check_service(&self, url: &str, response: Response<Body>) -> Result<Response<Body>> {
        match response.status() {
            s if s.is_server_error() || s == 429 || s == 408 => Err(self.unreachable(format!("{url} answers {s}"))),
            _ => Ok(response),
        }
    }

    /// Why a hub does not give a model, and what to do.
    pub(crate) fn refusal(&self, repo: &Repo, response: &Response<Body>) -> Error {
        let Repo { id, revision } = repo;
        let code = header(response.headers(), "x-error-code").unwrap_or_default();
        let mut why = match response.status().as_u16() {
            401 | 403 if self.token.is_none() => format!(
                "is gated, private or absent. If it is gated, accept its terms at {}/{id}; then give a token in HF_TOKEN or with \
                 `hf auth login`",
                self.endpoint
            ),
            401 => "the token is not valid (any more): give another one in HF_TOKEN or with `hf auth login`".into(),
            403 => format!("the token may not read it: ask for access at {}/{id}", self.endpoint),
            404 if code == "RevisionNotFound" => format!("has no revision `{revision}`"),
            404 => "there is no such model, nor a file or folder of this name here".into(),
            _ => format!("answers {}", response.status()),
        };
        if let Some(message) = header(response.headers(), "x-error-message") {
            why.push_str(&format!(" (the hub says: {message})"));
        }
        Error::Hub { name: repo.to_string(), endpoint: self.endpoint.clone(), why }
    }

    /// Fetches `url` to `path`, which is there only once it is whole and intact. A cut download is gone on with, now or later.
    pub(crate) fn download(
        &self,
        repo: &Repo,
        url: &str,
        remote: &Remote,
        path: &Path,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<()> {
        let mut part = path.as_os_str().to_owned();
        part.push(".incomplete");
        let part = Path::new(&part);
        let (mut failures, mut furthest, mut damaged) = (0, 0, false);
        loop {
            match self.go_on(repo, url, remote.size, part, progress) {
                Ok(()) if is_intact(part, &remote.etag, remote.size)? => break,
                Ok(()) => {
                    fs::remove_file(part).map_err(io(part))?;
                    if std::mem::replace(&mut damaged, true) {
                        return Err(self.unreachable(format!("{url} came damaged twice (length or SHA-256 are wrong)")));
                    }
                }
                Err(Error::Unreachable { .. }) if failures < RETRIES => {
                    let have = length(part);
                    failures = if have > furthest { 0 } else { failures + 1 };
                    furthest = furthest.max(have);
                    std::thread::sleep(Duration::from_millis(100) * (1 << failures));
                }
                Err(e) => return Err(e),
            }
        }
        fs::rename(part, path).map_err(io(path))
    }

    /// Appends to `part` what it lacks.
    fn go_on(
        &self,
        repo: &Repo,
        url: &str,
        size: Option<u64>,
        part: &Path,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<()> {
        let have = Some(length(part)).filter(|have| size.is_none_or(|s| *have <= s)).unwrap_or(0);
        if have > 0 && Some(have) == size {
            return Ok(());
        }
        let response = self.get(url, have)?;
        let continues = header(response.headers(), "content-range").is_some_and(|r| r.starts_with(&format!("bytes {have}-")));
        let mut done = match response.status().as_u16() {
            206 if continues => have,
            200 => 0,
            206 | 416 => {
                fs::remove_file(part).map_err(io(part))?;
                return Err(self.unreachable(format!("{url} does not go on from byte {have}")));
            }
            _ => return Err(self.refusal(repo, &response)),
        };
        let rest = header(response.headers(), "content-length").and_then(|l| l.parse::<u64>().ok());
        let total = size.or(rest.map(|r| done + r));

        let mut out = File::options().create(true).write(true).truncate(false).open(part).map_err(io(part))?;
        out.set_len(done).and_then(|()| out.seek(SeekFrom::Start(done))).map_err(io(part))?;
        let mut body = response.into_body().into_reader();
        let mut chunk = vec![0; 128 << 10];
        progress(done, total);
        loop {
            match body.read(&mut chunk).map_err(|e| self.unreachable(format!("{url}: {e}")))? {
                0 => break,
                n => out.write_all(&chunk[..n]).map_err(io(part))?,
            }
            done = out.stream_position().map_err(io(part))?;
            progress(done, total);
        }
        if total.is_some_and(|t| done < t) {
            return Err(self.unreachable(format!("{url} broke off after {done} bytes")));
        }
        softclip_io::sync_file(&out, part).map_err(io(part))
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |m| m.len())
}

pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

fn same_origin(a: &str, b: &str) -> bool {
    let origin = |url: &str| url.parse::<Uri>().ok().map(|u| (u.scheme().cloned(), u.authority().cloned()));
    origin(a).is_some_and(|a| Some(a) == origin(b))
}

/// The address that `location` means in an answer from `url`.
fn join(url: &str, location: &str) -> String {
    let after_scheme = url.find("://").map_or(0, |i| i + 3);
    let origin = after_scheme + url[after_scheme..].find(['/', '?']).unwrap_or(url.len() - after_scheme);
    if location.contains("://") && location.starts_with("http") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{}{location}", &url[..after_scheme.saturating_sub(2)])
    } else if location.starts_with('/') {
        format!("{}{location}", &url[..origin])
    } else {
        let path = url.split('?').next().unwrap_or(url);
        format!("{}/{location}", &path[..path.rfind('/').filter(|i| *i >= origin).unwrap_or(path.len())])
    }
}

fn certificates(path: &Path) -> Result<Vec<ureq::tls::Certificate<'static>>> {
    let pem = fs::read(path).map_err(io(path))?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(c) = item.map_err(|e| file(path, format!("is no PEM file of certificates ({e})")))? {
            found.push(c);
        }
    }
    if found.is_empty() { Err(file(path, "has no certificates")) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_may_be_absolute_or_relative() {
        let url = "https://hub.example:8/a/b?c=d/e";
        for (location, expected) in [
            ("http://cdn.example/x", "http://cdn.example/x"),
            ("//cdn.example/x", "https://cdn.example/x"),
            ("/x?y=https://z", "https://hub.example:8/x?y=https://z"),
            ("x", "https://hub.example:8/a/x"),
        ] {
            assert_eq!(join(url, location), expected);
        }
        assert_eq!(join("https://hub.example", "x"), "https://hub.example/x");
    }

    #[test]
    fn another_port_scheme_or_host_is_another_origin() {
        let hub = "https://hub.example:8";
        assert!(same_origin("https://hub.example:8/a", hub));
        for other in
            ["https://hub.example/a", "http://hub.example:8/a", "https://hub.example.evil:8/a", "https://a@hub.example:8/", "x"]
        {
            assert!(!same_origin(other, hub), "{other}");
        }
    }
}
