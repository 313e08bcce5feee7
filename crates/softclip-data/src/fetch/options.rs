//! How URLs are fetched.

use std::time::Duration;

use super::FetchError;

/// How URLs are fetched. The defaults suit millions of URLs on many hosts.
#[derive(Debug, Clone, PartialEq)]
pub struct FetchOptions {
    /// Requests under way at once, each with a thread; 32, at most 1024.
    pub threads: usize,
    /// Requests under way at once to one host, redirects to it included; 4. A host is a name, whatever the port and the address.
    pub per_host: usize,
    /// Rows taken from the list and not yet handed on, done or not; 1024. A row that takes long holds up those behind it once
    /// the window is full.
    pub window: usize,
    /// Bytes of files waiting for their turn beyond which only the next row is still fetched; 512 MiB. What is under way comes on
    /// top: `threads` times `max_bytes` at worst.
    pub buffer_bytes: usize,
    /// The most that looking up the host's address, and then connecting with TLS, may each take; 10 s.
    pub connect_timeout: Duration,
    /// The most until the headers are complete, once connected; 20 s.
    pub response_timeout: Duration,
    /// The longest pause between two pieces of a response; 20 s.
    pub idle_timeout: Duration,
    /// The most for one request in all; 60 s. A redirect and a retry are requests of their own.
    pub total_timeout: Duration,
    /// Further attempts after a failure that may pass; 3. Such are: status 429, 500, 502, 503 and 504; timeouts except of the
    /// connection; connections that are refused, reset or closed early; a resolver's temporary failure.
    pub retries: u32,
    /// The pause before the first retry; 500 ms. It doubles with each further one; up to half of it is taken off at random.
    pub backoff: Duration,
    /// The longest pause before a retry, also where the server's `Retry-After` asks for more; 30 s.
    pub max_wait: Duration,
    /// Redirects followed; 5.
    pub redirects: usize,
    /// The largest file in bytes, after decoding where the server compressed it; 64 MiB.
    pub max_bytes: u64,
    /// Content types accepted regardless of the bytes, `image/*` for all of a kind, `*/*` for any; `image/*`,
    /// `application/octet-stream` and `binary/octet-stream` (what object stores say by default). So is a response without a type. Of
    /// any other type a response is accepted if its first bytes are those of an image: many servers state a wrong type.
    pub content_types: Vec<String>,
    /// The header `User-Agent`; `softclip/` and the version.
    pub user_agent: String,
    /// Directives of the header `X-Robots-Tag` with which an image is not used: `noai`, `noimageai`, `noindex`, `noimageindex`, as
    /// img2dataset honors them. A directive for a named agent counts if that is the first word of `user_agent`. Empty: the header is
    /// ignored.
    pub disallowed_directives: Vec<String>,
    /// Requests to one host that time out in a row, after which the host is given up: its other URLs fail at once; 8. Any answer of
    /// the host starts the count again. 0: no host is given up.
    pub max_host_timeouts: u32,
    /// Whether addresses that are not public may be reached: this machine, its network, clouds' metadata. Off: a list of URLs
    /// comes from strangers.
    pub allow_private: bool,
    /// Whether proxies named in the environment (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, …) are used. Off, and only possible with
    /// `allow_private`: a proxy looks names up itself, so that the addresses cannot be checked here.
    pub env_proxy: bool,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            threads: 32,
            per_host: 4,
            window: 1024,
            buffer_bytes: 512 << 20,
            connect_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(20),
            total_timeout: Duration::from_secs(60),
            retries: 3,
            backoff: Duration::from_millis(500),
            max_wait: Duration::from_secs(30),
            redirects: 5,
            max_bytes: 64 << 20,
            content_types: ["image/*", "application/octet-stream", "binary/octet-stream"].map(String::from).to_vec(),
            user_agent: concat!("softclip/", env!("CARGO_PKG_VERSION")).to_owned(),
            disallowed_directives: ["noai", "noimageai", "noindex", "noimageindex"].map(String::from).to_vec(),
            max_host_timeouts: 8,
            allow_private: false,
            env_proxy: false,
        }
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl FetchOptions {
    /// Whether the options make sense.
    ///
    /// # Errors
    /// [`FetchError::Options`] names the first that does not.
    pub fn validate(&self) -> Result<(), FetchError> {
        let wrong = |text: String| Err(FetchError::Options(text));
        if !(1..=1024).contains(&self.threads) {
            return wrong(format!("threads is {}: 1 to 1024 do", self.threads));
        }
        for (name, value) in [("per_host", self.per_host), ("window", self.window), ("buffer_bytes", self.buffer_bytes)] {
            if value == 0 {
                return wrong(format!("{name} is 0: nothing would ever be fetched"));
            }
        }
        if self.max_bytes == 0 {
            return wrong("max_bytes is 0: every file would be too large".to_owned());
        }
        let timeouts = [
            ("connect_timeout", self.connect_timeout),
            ("response_timeout", self.response_timeout),
            ("idle_timeout", self.idle_timeout),
            ("total_timeout", self.total_timeout),
        ];
        for (name, value) in timeouts {
            if value.is_zero() || value > DAY {
                return wrong(format!("{name} is {value:?}: more than nothing and at most a day does"));
            }
        }
        for (name, value) in [("backoff", self.backoff), ("max_wait", self.max_wait)] {
            if value > DAY {
                return wrong(format!("{name} is {value:?}: at most a day does"));
            }
        }
        if let Some(odd) = self.content_types.iter().find(|t| t.split('/').filter(|part| !part.trim().is_empty()).count() != 2) {
            return wrong(format!("content type {odd:?}: write image/png, image/* or */*"));
        }
        if self.user_agent.is_empty() || ureq::http::HeaderValue::from_str(&self.user_agent).is_err() {
            return wrong(format!("user agent {:?}: one line of visible ASCII does", self.user_agent));
        }
        if self.env_proxy && !self.allow_private {
            return wrong(
                "env_proxy needs allow_private: a proxy looks names up itself, so addresses cannot be checked".to_owned(),
            );
        }
        Ok(())
    }

    /// The directive of an `X-Robots-Tag` by which an image must not be used, if `value` has one.
    pub(super) fn disallows<'v>(&self, value: &'v str) -> Option<&'v str> {
        let (agent, directives) = match value.split_once(':') {
            Some((agent, directives)) => (Some(agent.trim()), directives),
            None => (None, value),
        };
        let own = self.user_agent.split(['/', ' ']).next().unwrap_or_default();
        if agent.is_some_and(|agent| !agent.eq_ignore_ascii_case(own)) {
            return None;
        }
        let disallowed = |found: &&str| self.disallowed_directives.iter().any(|d| d.trim().eq_ignore_ascii_case(found));
        directives.split(',').map(str::trim).find(disallowed)
    }

    /// Whether a response of this type (`image/png`, lower case) is wanted.
    pub(super) fn accepts(&self, content_type: &str) -> bool {
        let (kind, _) = content_type.split_once('/').unwrap_or((content_type, ""));
        self.content_types.iter().any(|accepted| {
            let accepted = accepted.trim().to_ascii_lowercase();
            accepted == "*/*" || accepted == content_type || accepted.strip_suffix("/*") == Some(kind)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_match_whole_or_by_kind() {
        let usual = FetchOptions::default();
        for (content_type, accepted) in [
            ("image/png", true),
            ("application/octet-stream", true),
            ("text/html", false),
            ("imagery/png", false),
            ("image", true),
            ("", false),
        ] {
            assert_eq!(usual.accepts(content_type), accepted, "{content_type}");
        }
        let any = FetchOptions { content_types: vec!["*/*".to_owned()], ..usual.clone() };
        assert!(any.accepts("text/html") && any.validate().is_ok());
        let one = FetchOptions { content_types: vec!["Image/PNG".to_owned()], ..usual };
        assert!(one.accepts("image/png") && !one.accepts("image/jpeg"));
    }

    #[test]
    fn robots_directives_count_for_all_agents_and_for_ours() {
        let usual = FetchOptions::default();
        for (value, found) in [
            ("noai, noimageai", Some("noai")),
            ("max-snippet, NoImageIndex", Some("NoImageIndex")),
            ("softclip: noai", Some("noai")),
            ("googlebot: noai", None),
            ("index, follow", None),
            ("", None),
        ] {
            assert_eq!(usual.disallows(value), found, "{value}");
        }
        let named = FetchOptions { user_agent: "Crawler/2 (+https://example.org)".to_owned(), ..usual.clone() };
        assert_eq!((named.disallows("crawler: noai"), named.disallows("softclip: noai")), (Some("noai"), None));
        let ignoring = FetchOptions { disallowed_directives: Vec::new(), ..usual };
        assert_eq!(ignoring.disallows("noai"), None);
    }

    #[test]
    fn options_that_cannot_work_are_named() {
        let zero = Duration::ZERO;
        let usual = FetchOptions::default;
        for (options, named) in [
            (FetchOptions { threads: 0, ..usual() }, "threads"),
            (FetchOptions { per_host: 0, ..usual() }, "per_host"),
            (FetchOptions { window: 0, ..usual() }, "window"),
            (FetchOptions { max_bytes: 0, ..usual() }, "max_bytes"),
            (FetchOptions { idle_timeout: zero, ..usual() }, "idle_timeout"),
            (FetchOptions { total_timeout: Duration::MAX, ..usual() }, "total_timeout"),
            (FetchOptions { max_wait: Duration::MAX, ..usual() }, "max_wait"),
            (FetchOptions { content_types: vec!["png".to_owned()], ..usual() }, "\"png\""),
            (FetchOptions { user_agent: "two\nlines".to_owned(), ..usual() }, "user agent"),
            (FetchOptions { env_proxy: true, ..usual() }, "env_proxy"),
        ] {
            let error = options.validate().unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
        usual().validate().unwrap();
    }
}
