//! One request, and what follows from its answer. Redirects and retries are requests of their own, so that whoever schedules them
//! gives each a place at its host and lets nobody wait while one is due later.

use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ureq::http::{HeaderMap, Response};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body};
use url::Url;

use super::address::Checked;
use super::hosts::Hosts;
use super::{FetchError, FetchOptions, Fetched};

/// A URL on its way.
#[derive(Debug)]
pub(super) struct Job {
    url: Url,
    /// Where it was before it was redirected to `url`.
    passed: Vec<Url>,
    failures: u32,
}

/// What one request led to.
pub(super) enum Step {
    Done(Result<Fetched, FetchError>),
    /// Another request, after a pause.
    Again(Job, Duration),
}

enum Answer {
    File { bytes: Vec<u8>, content_type: Option<String> },
    Moved(String),
}

/// A failure, and the pause that the server asks for.
struct Refusal(FetchError, Option<Duration>);

impl<E: Into<FetchError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self(error.into(), None)
    }
}

impl Job {
    pub(super) fn new(url: &str) -> Result<Self, FetchError> {
        let parsed = Url::parse(url).map_err(|e| FetchError::BadUrl(format!("{:?} is no URL: {e}", shortened(url))))?;
        Ok(Self { url: fetchable(parsed)?, passed: Vec::new(), failures: 0 })
    }

    /// The host to ask; never empty.
    pub(super) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    fn redirected(mut self, location: &str, limit: usize) -> Result<Self, FetchError> {
        let to = self.url.join(location);
        let to = to.map_err(|e| FetchError::BadUrl(format!("redirected to {:?}, which is no URL: {e}", shortened(location))))?;
        let to = fetchable(to)?;
        self.passed.push(std::mem::replace(&mut self.url, to));
        if self.passed.contains(&self.url) {
            return Err(FetchError::Redirects(format!("redirects go in a loop, back to {}", shortened(self.url.as_str()))));
        }
        if self.passed.len() > limit {
            return Err(FetchError::Redirects(format!(
                "more than {limit} redirects, the last to {}",
                shortened(self.url.as_str())
            )));
        }
        Ok(self)
    }
}

/// `url` without its fragment, if it is one that is fetched. Any port will do: only public hosts are asked anyway.
fn fetchable(mut url: Url) -> Result<Url, FetchError> {
    let wrong = |url: &Url, reason| Err(FetchError::BadUrl(format!("{}: {reason}", shortened(url.as_str()))));
    url.set_fragment(None);
    match url.scheme() {
        "http" | "https" if url.port() == Some(0) => wrong(&url, "port 0 does not exist"),
        "http" | "https" if url.username().is_empty() && url.password().is_none() => Ok(url),
        "http" | "https" => Err(FetchError::BadUrl("a URL with a user name or password is not fetched".to_owned())),
        _ => wrong(&url, "only http and https are fetched"),
    }
}

/// Enough of a text to recognise it.
fn shortened(text: &str) -> String {
    const MOST: usize = 200;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Sends requests. Clones share connections; [`Client::shut_down`] ends them all.
#[derive(Debug, Clone)]
pub(super) struct Client {
    options: FetchOptions,
    agent: Agent,
    hosts: Arc<Hosts>,
}

impl Client {
    /// `hosts` outlives the client: what is known of them counts for all lists of a fetcher.
    pub(super) fn new(options: FetchOptions, hosts: Arc<Hosts>) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(if options.env_proxy { ureq::Proxy::try_from_env() } else { None })
            .user_agent(&options.user_agent)
            // Images are compressed already. A server that compresses all the same is understood.
            .accept_encoding("identity")
            .timeout_resolve(Some(options.connect_timeout))
            .timeout_connect(Some(options.connect_timeout))
            .timeout_recv_response(Some(options.response_timeout))
            .timeout_per_read(Some(options.idle_timeout))
            .timeout_per_write(Some(options.idle_timeout))
            .timeout_global(Some(options.total_timeout))
            .max_idle_connections(options.threads)
            .max_idle_connections_per_host(options.per_host)
            .build();
        let agent = Agent::with_parts(config, DefaultConnector::new(), Checked::new(options.allow_private));
        Self { options, agent, hosts }
    }

    /// Interrupts what is under way on any thread, and refuses what comes after.
    pub(super) fn shut_down(&self) {
        self.agent.clone().shutdown();
    }

    pub(super) fn step(&self, mut job: Job) -> Step {
        if let Some(timeouts) = self.hosts.given_up(job.host()) {
            return Step::Done(Err(FetchError::HostGivenUp { host: job.host().to_owned(), timeouts }));
        }
        let answer = self.request(&job);
        self.hosts.record(job.host(), matches!(&answer, Err(Refusal(FetchError::Timeout(_), _))));
        match answer {
            Ok(Answer::File { bytes, content_type }) => {
                Step::Done(Ok(Fetched { bytes, url: job.url.into(), content_type, attempts: job.failures + 1 }))
            }
            Ok(Answer::Moved(location)) => match job.redirected(&location, self.options.redirects) {
                Ok(job) => Step::Again(job, Duration::ZERO),
                Err(e) => Step::Done(Err(e)),
            },
            Err(Refusal(error, asked)) if error.is_passing() && job.failures < self.options.retries => {
                job.failures += 1;
                let chance = (RandomState::new().hash_one(()) >> 11) as f64 / (1u64 << 53) as f64;
                let pause = pause(&self.options, job.failures, asked, chance);
                Step::Again(job, pause)
            }
            Err(Refusal(error, _)) => Step::Done(Err(error)),
        }
    }

    fn request(&self, job: &Job) -> Result<Answer, Refusal> {
        let mut response = self.agent.get(job.url.as_str()).call()?;
        let text = |name| header(response.headers(), name);
        match response.status().as_u16() {
            200 | 203 => {}
            status @ (301 | 302 | 303 | 307 | 308) => {
                return text("location").map(Answer::Moved).ok_or_else(|| FetchError::Status(status).into());
            }
            status => {
                let asked = text("retry-after").and_then(|value| retry_after(&value, SystemTime::now()));
                return Err(Refusal(FetchError::Status(status), asked));
            }
        }
        let tags = response.headers().get_all("x-robots-tag").iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        if let Some(directive) = tags.into_iter().find_map(|tag| self.options.disallows(&tag).map(shortened)) {
            return Err(FetchError::Disallowed(directive).into());
        }
        let content_type = text("content-type").map(|t| t.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        let unwanted = content_type.as_deref().filter(|t| !t.is_empty() && !self.options.accepts(t));
        let unwanted = unwanted.map(|t| FetchError::ContentType(shortened(t)));
        // What is understood has been taken off. `none`, `utf-8` and `aws-chunked` encode nothing.
        let encoding = text("content-encoding").filter(|e| !e.trim().is_empty() && !e.trim().eq_ignore_ascii_case("identity"));
        let encoded =
            encoding.map(|e| FetchError::Encoding(format!("{:?} was not requested, and the bytes are no image", shortened(&e))));
        let bytes = read(&mut response, self.options.max_bytes, encoded.or(unwanted))?;
        Ok(Answer::File { bytes, content_type })
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// Reads the body. With `unless_image` that is the error, unless the first bytes are those of an image: servers' headers are often wrong.
fn read(response: &mut Response<Body>, limit: u64, unless_image: Option<FetchError>) -> Result<Vec<u8>, FetchError> {
    /// What a header may make us allocate before anything has come.
    const TRUSTED: u64 = 4 << 20;
    /// Enough to recognize an image.
    const MAGIC: u64 = 64;
    let announced = response.body().content_length().unwrap_or(0);
    let mut body = response.body_mut().as_reader();
    let mut bytes = Vec::new();
    if let Some(error) = unless_image {
        body.by_ref().take(MAGIC).read_to_end(&mut bytes)?;
        if !crate::image::is_image(&bytes) {
            return Err(error);
        }
    }
    if announced > limit {
        return Err(FetchError::TooLarge { limit });
    }
    bytes.reserve(announced.min(TRUSTED) as usize);
    body.take(limit.saturating_add(1).saturating_sub(bytes.len() as u64)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 {
        0 => Err(FetchError::Empty),
        n if n > limit => Err(FetchError::TooLarge { limit }),
        _ => Ok(bytes),
    }
}

/// `Retry-After` as seconds or as a date.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    match value.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value.trim()).ok().map(|at| at.duration_since(now).unwrap_or_default()),
    }
}

/// The pause before the retry after so many `failures`: doubling, 50 to 100 % of it by `chance` in [0, 1), at least what the server
/// `asked` for, never above the limit.
fn pause(options: &FetchOptions, failures: u32, asked: Option<Duration>, chance: f64) -> Duration {
    let doubled = options.backoff.saturating_mul(1 << (failures - 1).min(20));
    doubled.mul_f64(0.5 + 0.5 * chance).max(asked.unwrap_or_default()).min(options.max_wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_and_honours_the_server_up_to_the_limit() {
        let options = FetchOptions::default();
        let ms =
            |failures, asked: Option<u64>, chance| pause(&options, failures, asked.map(Duration::from_secs), chance).as_millis();
        assert_eq!([ms(1, None, 0.0), ms(2, None, 0.0), ms(3, None, 0.5)], [250, 500, 1500]);
        assert_eq!(
            [ms(1, Some(7), 0.0), ms(4, Some(1), 0.0), ms(1, Some(3600), 0.9), ms(40, None, 0.0)],
            [7000, 2000, 30_000, 30_000]
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let seconds = |value| retry_after(value, now).map(|d| d.as_secs());
        assert_eq!(seconds(" 120 "), Some(120));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0)); // past
        assert_eq!([seconds("soon"), seconds("-1"), seconds("")], [None; 3]);
    }

    #[test]
    fn hosts_are_read_in_every_odd_notation() {
        for odd in
            ["127.1", "2130706433", "0x7f.0.0.1", "0177.0.0.01", "0x7f000001", "127.0.0.1.", "１２７。0。0。1", "%31%32%37.0.0.1"]
        {
            assert_eq!(Job::new(&format!("http://{odd}:80/")).unwrap().host(), "127.0.0.1", "{odd}");
        }
        assert_eq!(Job::new(" http://[0:0::FFFF:7F00:1]/ ").unwrap().host(), "[::ffff:7f00:1]");
    }

    #[test]
    fn urls_that_are_not_fetched_are_told() {
        for (url, reason) in [
            ("", "no URL"),
            ("images/1.jpg", "no URL"),
            ("http://", "no URL"),
            ("http://[fe80::1%25eth0]/", "no URL"),
            ("http://1.2.3.4.5/", "no URL"),
            ("file:///etc/passwd", "only http"),
            ("data:image/png;base64,AAAA", "only http"),
            ("http://a.com:0/", "port 0"),
            ("http://a.com:99999/", "no URL"),
            ("http://me:secret@a.com/", "password"),
        ] {
            let error = Job::new(url).unwrap_err();
            assert!(error.kind() == "bad url" && error.to_string().contains(reason), "{url}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert!(Job::new(&format!("data:,{}", "é".repeat(100_000))).unwrap_err().to_string().len() < 1000);
    }

    #[test]
    fn a_redirect_is_checked_like_the_first_url() {
        let client = Client::new(FetchOptions::default(), Arc::new(Hosts::new(0)));
        let start = || Job::new("http://93.184.215.14/a/b.jpg").unwrap();
        for target in ["http://169.254.169.254/latest/meta-data", "//127.0.0.1/", "https://[::ffff:10.0.0.1]/x"] {
            let job = start().redirected(target, 5).unwrap();
            assert!(matches!(client.step(job), Step::Done(Err(FetchError::PrivateAddress { .. }))), "{target}");
        }
        assert_eq!(start().redirected("ftp://a/b", 5).unwrap_err().kind(), "bad url");
        assert_eq!(start().redirected("b.jpg#again", 5).unwrap_err().kind(), "redirects");
    }
}
