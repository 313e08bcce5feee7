//! Fetching from servers that misbehave in every way.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod misbehaving;

use std::cell::Cell;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use misbehaving::{GATE, JPEG, Server, body};
use softclip_data::fetch::{FetchError, FetchOptions, Fetched, Fetcher};

/// Patience for a busy machine, but not for a server that never ends.
fn impatient() -> FetchOptions {
    FetchOptions {
        response_timeout: Duration::from_millis(500),
        idle_timeout: Duration::from_millis(500),
        total_timeout: Duration::from_millis(1200),
        retries: 2,
        backoff: Duration::from_millis(20),
        max_wait: Duration::from_secs(3),
        max_bytes: 1 << 20,
        allow_private: true,
        ..FetchOptions::default()
    }
}

/// Timeouts that no test waits for.
fn patient() -> FetchOptions {
    let hour = Duration::from_secs(3600);
    FetchOptions { response_timeout: hour, idle_timeout: hour, total_timeout: hour, ..impatient() }
}

fn never() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(false))
}

fn kind(outcome: &Result<Fetched, FetchError>) -> String {
    outcome.as_ref().map_or_else(|e| e.kind().into_owned(), |f| format!("ok after {}", f.attempts))
}

/// Each behaviour and what is expected of it; `BODY/x` is a good answer whose body is that of `/BODY/ID`.
const BEHAVIOURS: &[(&str, &str)] = &[
    ("ok", "ok after 1"),
    ("octets", "ok after 1"),
    ("untyped", "ok after 1"),
    ("chunked", "ok after 1"),
    ("gzip", "ok after 1"),
    ("moved", "ok after 1"),
    ("elsewhere", "ok after 1"),
    ("seconds", "ok after 2"),
    ("date", "ok after 2"),
    ("flaky", "ok after 3"),
    ("down", "http 503"),
    ("missing", "http 404"),
    ("nowhere", "http 302"),
    ("reset", "closed"),
    ("short", "closed"),
    ("endless", "too large"),
    ("huge", "too large"),
    ("bomb", "too large"),
    ("trickle", "timeout"),
    ("pause", "timeout"),
    ("silent", "timeout"),
    ("web", "content type"),
    ("brotli", "content encoding"),
    ("damaged", "content encoding"),
    ("empty", "empty"),
    ("loop", "redirects"),
    ("far", "redirects"),
    ("file", "bad url"),
    ("garbage", "protocol"),
    ("headers", "protocol"),
    ("REFUSED", "connect"),
    ("TLS", "tls"),
    ("NAMELESS", "dns"),
];

#[test]
fn of_a_thousand_urls_each_ends_in_its_place_as_expected() {
    let server = Server::start();
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let row = |i: usize| {
        let (behaviour, expected) = BEHAVIOURS[i % BEHAVIOURS.len()];
        let host = 1 + i / BEHAVIOURS.len() % 16;
        let path = format!("/{behaviour}/{}-{i}", server.port);
        let url = match behaviour {
            "REFUSED" => format!("http://127.0.0.{host}:{refusing}/"),
            "TLS" => server.url(host, &path).replace("http:", "https:"),
            "NAMELESS" => format!("http://{}.invalid/", "a".repeat(64)), // too long a label to ask anybody
            _ => server.url(host, &path),
        };
        (url, path, expected)
    };
    let options = FetchOptions { threads: 48, per_host: 3, ..impatient() };
    let fetcher = Fetcher::new(options).unwrap();
    let outcomes: Vec<_> = fetcher.stream((0..1000).map(|i| row(i).0), never()).unwrap().collect();
    assert_eq!(outcomes.len(), 1000);
    let mut wrong = Vec::new();
    for (i, outcome) in outcomes.iter().enumerate() {
        let (url, path, expected) = row(i);
        let right_body =
            outcome.as_ref().is_ok_and(|f| f.bytes == body(&path.replace("/moved", "/ok").replace("/elsewhere", "/ok")));
        if kind(outcome) != expected || outcome.is_ok() != right_body {
            wrong.push(format!("{url}: {expected} expected, but {} ({:?})", kind(outcome), outcome.as_ref().err()));
        }
    }
    assert!(wrong.is_empty(), "{} of 1000:\n{}", wrong.len(), wrong.join("\n"));
    assert!(server.most_active() <= 3, "{} at once", server.most_active());
    // What will not pass is not asked for again; what may is, as often as the options say.
    let rows = |behaviour| (0..1000).filter(|i| BEHAVIOURS[i % BEHAVIOURS.len()].0 == behaviour).count();
    assert_eq!(server.asked("/missing/"), rows("missing"));
    assert_eq!(server.asked("/down/"), 3 * rows("down"));
    assert_eq!(server.asked("/short/"), 3 * rows("short"));
}

#[test]
fn as_many_requests_as_allowed_go_to_a_host_at_once_and_no_more() {
    let server = Server::start();
    let fetcher = Fetcher::new(FetchOptions { per_host: GATE, ..patient() }).unwrap();
    let urls = (0..5 * GATE).map(|i| server.url(1, &format!("/gate/{i}")));
    assert!(fetcher.stream(urls, never()).unwrap().all(|outcome| outcome.is_ok()));
    assert_eq!(server.most_active(), GATE);
}

#[test]
fn a_slow_host_holds_up_no_other_and_stopping_is_prompt() {
    let server = Arc::new(Server::start());
    let stop = never();
    let raise = {
        let (server, stop) = (Arc::clone(&server), Arc::clone(&stop));
        std::thread::spawn(move || {
            server.wait_for_asked("/ok/", 20);
            stop.store(true, Ordering::Relaxed);
        })
    };
    let fetcher = Fetcher::new(FetchOptions { threads: 4, per_host: 2, ..patient() }).unwrap();
    let silent = (0..50).map(|i| server.url(1, &format!("/silent/{i}")));
    let urls = silent.chain((0..20).map(|i| server.url(2, &format!("/ok/{i}"))));
    let mut outcomes = fetcher.stream(urls, stop).unwrap();
    assert_eq!(kind(&outcomes.next().unwrap()), "cancelled");
    assert!(outcomes.next().is_none());
    server.wait_for_hung_up(2);
    assert_eq!(server.asked("/silent/"), 2);
    raise.join().unwrap();
}

#[test]
fn dropping_the_iterator_ends_all_requests() {
    let server = Server::start();
    let fetcher = Fetcher::new(patient()).unwrap();
    let urls = std::iter::once(server.url(1, "/ok/0")).chain((2..6).map(|i| server.url(i, "/silent/0")));
    let mut outcomes = fetcher.stream(urls, never()).unwrap();
    assert!(outcomes.next().unwrap().is_ok());
    server.wait_for_asked("/silent/", 4);
    drop(outcomes);
    server.wait_for_hung_up(4);
}

#[test]
fn no_more_is_read_ahead_than_the_window_holds() {
    let server = Server::start();
    let taken = Cell::new(0);
    let urls = (0..1000).map(|i| server.url(1, &format!("/ok/{i}"))).inspect(|_| taken.set(taken.get() + 1));
    let fetcher = Fetcher::new(FetchOptions { window: 8, buffer_bytes: 1, ..patient() }).unwrap();
    for (i, outcome) in fetcher.stream(urls, never()).unwrap().take(50).enumerate() {
        assert_eq!(outcome.unwrap().bytes, body(&format!("/ok/{i}")));
        assert_eq!(taken.get(), i + 9);
    }
}

#[test]
fn one_url_alone_tells_where_it_led() {
    let server = Server::start();
    let fetcher = Fetcher::new(FetchOptions { max_wait: Duration::from_millis(10), ..patient() }).unwrap();
    let file = fetcher.fetch(&server.url(1, "/moved/7#x")).unwrap();
    assert_eq!((file.url, file.content_type.as_deref()), (server.url(1, "/ok/7"), Some("image/png")));
    assert_eq!(server.user_agent(), concat!("softclip/", env!("CARGO_PKG_VERSION")));
    assert_eq!(fetcher.fetch(&server.url(1, "/long/1")).unwrap().attempts, 2); // an endless Retry-After is capped
    let octets = fetcher.fetch(&server.url(1, "/octets/1")).unwrap();
    assert_eq!(octets.content_type.as_deref(), Some("application/octet-stream"));
    let told = |path| fetcher.fetch(&server.url(1, path)).unwrap_err().to_string();
    assert_eq!(told("/loop/1"), format!("redirects go in a loop, back to {}", server.url(1, "/loop/1")));
    assert_eq!(told("/far/1"), format!("more than 5 redirects, the last to {}", server.url(1, "/far/1++++++")));
    assert_eq!(told("/file/1"), "file:///etc/passwd: only http and https are fetched");
    assert_eq!(told("/web/1"), "content type is \"text/html\", and the bytes are no image");
}

#[test]
fn the_bytes_of_an_image_count_more_than_its_headers() {
    let server = Server::start();
    let fetcher = Fetcher::new(patient()).unwrap();
    for path in ["text", "download", "emptytype", "utf8", "none", "aws"] {
        let file = fetcher.fetch(&server.url(1, &format!("/{path}/1")));
        assert_eq!(file.map(|file| file.bytes).map_err(|e| e.to_string()), Ok(JPEG.to_vec()), "{path}");
    }
    let tiny = Fetcher::new(FetchOptions { max_bytes: JPEG.len() as u64 - 1, ..patient() }).unwrap();
    assert_eq!(kind(&tiny.fetch(&server.url(1, "/text/2"))), "too large");
}

#[test]
fn images_that_the_server_reserves_are_used_only_on_request() {
    let server = Server::start();
    let fetch = |options, path: &str| kind(&Fetcher::new(options).unwrap().fetch(&server.url(1, path)));
    for (path, expected) in [("/noai/1", "disallowed"), ("/named/1", "disallowed"), ("/foreign/1", "ok after 1")] {
        assert_eq!(fetch(patient(), path), expected, "{path}");
    }
    let ignoring = FetchOptions { disallowed_directives: Vec::new(), ..patient() };
    assert_eq!(fetch(ignoring, "/noai/1"), "ok after 1");
    let other = FetchOptions { user_agent: "otherbot/1.0".to_owned(), ..patient() };
    assert_eq!(fetch(other, "/foreign/1"), "disallowed");
    assert_eq!(server.user_agent(), "otherbot/1.0");
}

#[test]
fn a_host_that_times_out_again_and_again_is_given_up() {
    let server = Server::start();
    let options = FetchOptions { per_host: 2, max_host_timeouts: 3, retries: 0, ..impatient() };
    for slow in ["silent", "trickle", "pause"] {
        let fetcher = Fetcher::new(options.clone()).unwrap();
        let urls = (0..200)
            .map(|i| if i % 2 == 0 { server.url(1, &format!("/{slow}/{i}")) } else { server.url(2, &format!("/ok/{i}")) });
        let outcomes: Vec<_> = fetcher.stream(urls, never()).unwrap().collect();
        for (i, outcome) in outcomes.iter().enumerate() {
            assert_eq!(kind(outcome), if i % 2 == 0 { "timeout" } else { "ok after 1" }, "{slow} {i}");
        }
        assert!(server.asked(&format!("/{slow}/")) <= 4, "two were under way when the third timed out");
        let given_up = outcomes[198].as_ref().unwrap_err().to_string();
        assert!(given_up.contains("127.0.0.1") && given_up.contains("in a row"), "{given_up}");
        // The next list knows it.
        let next: Vec<_> = fetcher.stream([server.url(1, &format!("/{slow}/next"))], never()).unwrap().collect();
        assert_eq!((kind(&next[0]), server.asked(&format!("/{slow}/next"))), ("timeout".to_owned(), 0));
    }
}

#[test]
fn addresses_that_are_not_public_are_refused_unless_allowed() {
    let server = Server::start();
    let fetcher = Fetcher::new(FetchOptions { allow_private: false, ..patient() }).unwrap();
    for host in ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "0", "[::1]", "[::ffff:127.0.0.1]", "[::]"] {
        let outcome = fetcher.fetch(&format!("http://{host}:{}/ok/1", server.port));
        assert_eq!(kind(&outcome), "private address", "{host}");
    }
    assert_eq!(server.asked("/"), 0);
}

#[test]
fn a_proxy_of_the_environment_is_used_only_when_asked_for() {
    let server = Server::start();
    for (wanted, tunnels) in [("no", 0), ("yes", 1)] {
        let proxy = server.url(1, "");
        let run = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "with_a_proxy_in_the_environment"])
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .envs([("ALL_PROXY", &proxy), ("HTTP_PROXY", &proxy), ("http_proxy", &proxy)])
            .env("FETCH_URL", server.url(2, "/ok/1"))
            .env("FETCH_PROXY", wanted)
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
        assert_eq!(server.tunnels(), tunnels);
    }
    assert_eq!(server.asked("/ok/1"), 1);
}

/// A part of the test before, which runs it in an environment of its own; does nothing by itself.
#[test]
fn with_a_proxy_in_the_environment() {
    let Ok(wanted) = std::env::var("FETCH_PROXY") else { return };
    let env_proxy = wanted == "yes";
    let fetcher = Fetcher::new(FetchOptions { env_proxy, ..patient() }).unwrap();
    assert_eq!(fetcher.fetch(&std::env::var("FETCH_URL").unwrap()).is_err(), env_proxy); // this proxy makes no tunnels
}
