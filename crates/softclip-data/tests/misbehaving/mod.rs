//! A server that misbehaves as its paths say: `/KIND/ID`. It listens on all of 127.0.0.0/8, so that one server is many hosts.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// How many requests `/gate/` keeps until it lets them through together.
pub const GATE: usize = 4;

/// The beginning of a JPEG.
pub const JPEG: &[u8] = b"\xff\xd8\xff\xe0\0\x10JFIF\0 and so on";

pub struct Server {
    pub port: u16,
    seen: Arc<Seen>,
}

/// What the server has seen; the condition variable tells of each change.
struct Seen {
    counts: Mutex<Counts>,
    changed: Condvar,
    gate: Barrier,
}

#[derive(Default)]
struct Counts {
    /// Requests by their first line without the version, and when the first came.
    requests: HashMap<String, (usize, Instant)>,
    user_agent: String,
    active: HashMap<IpAddr, usize>,
    most_active: usize,
    hung_up: usize,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Seen { counts: Mutex::default(), changed: Condvar::new(), gate: Barrier::new(GATE) });
        let server = Self { port, seen: Arc::clone(&seen) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                // The client hangs up on most of this: errors are expected.
                std::thread::spawn(move || seen.serve(stream));
            }
        });
        server
    }

    pub fn url(&self, host: usize, path: &str) -> String {
        format!("http://127.0.0.{host}:{}{path}", self.port)
    }

    /// How often `GET` of paths that start so was asked for.
    pub fn asked(&self, path: &str) -> usize {
        let start = format!("GET {path}");
        self.seen.counts.lock().unwrap().requests.iter().filter(|(r, _)| r.starts_with(&start)).map(|(_, (n, _))| n).sum()
    }

    pub fn user_agent(&self) -> String {
        self.seen.counts.lock().unwrap().user_agent.clone()
    }

    /// How often a tunnel was asked for, as from a proxy.
    pub fn tunnels(&self) -> usize {
        self.seen.counts.lock().unwrap().requests.keys().filter(|r| r.starts_with("CONNECT ")).count()
    }

    /// The most requests to one address at once, each counted until its response begins.
    pub fn most_active(&self) -> usize {
        self.seen.counts.lock().unwrap().most_active
    }

    /// Waits until so many clients of `/silent/` hung up.
    pub fn wait_for_hung_up(&self, n: usize) {
        self.wait(|counts| counts.hung_up == n);
    }

    /// Waits until paths that start so were asked for `n` times.
    pub fn wait_for_asked(&self, path: &str, n: usize) {
        let start = format!("GET {path}");
        self.wait(|c| c.requests.iter().filter(|(r, _)| r.starts_with(&start)).map(|(_, (n, _))| n).sum::<usize>() >= n);
    }

    fn wait(&self, until: impl Fn(&Counts) -> bool) {
        let counts = self.seen.counts.lock().unwrap();
        let limit = Duration::from_secs(60);
        let (_counts, waited) = self.seen.changed.wait_timeout_while(counts, limit, |counts| !until(counts)).unwrap();
        assert!(!waited.timed_out(), "the server waited for nothing");
    }
}

/// What a good answer to `path` holds.
pub fn body(path: &str) -> Vec<u8> {
    path.repeat(50).into_bytes()
}

fn ok(path: &str, headers: &str) -> Vec<u8> {
    answer("200 OK", headers, &body(path))
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

impl Seen {
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        loop {
            let head = peek_head(&stream)?;
            if head.first() == Some(&0x16) {
                return stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"); // TLS
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let request = head.split(" HTTP/").next().unwrap_or_default().to_owned();
            let (nth, since) = self.count(&stream, &request, &head)?;
            let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
            let kind = path.split('/').nth(1).unwrap_or_default().to_owned();
            if kind == "reset" {
                // Closing with the request unread resets the connection.
                return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegin");
            }
            stream.read_exact(&mut vec![0; head.len()])?;
            if let Some(whole) = self.well_formed(&kind, &path, nth, since) {
                stream.write_all(&whole)?;
            } else {
                return self.misbehave(&kind, &mut stream);
            }
        }
    }

    /// Counts the request: its number among those to the same path, from 1, and the time of the first.
    fn count(&self, stream: &TcpStream, request: &str, head: &str) -> std::io::Result<(usize, Instant)> {
        let host = stream.local_addr()?.ip();
        let mut counts = self.counts.lock().unwrap();
        let active = counts.active.entry(host).or_default();
        *active += 1;
        counts.most_active = counts.most_active.max(counts.active[&host]);
        drop(counts);
        if request.contains("/gate/") {
            self.gate.wait();
        } else {
            std::thread::sleep(Duration::from_millis(2)); // for requests to meet here
        }
        let mut counts = self.counts.lock().unwrap();
        *counts.active.get_mut(&host).unwrap() -= 1;
        if let Some((_, agent)) = head.to_ascii_lowercase().split_once("user-agent: ") {
            counts.user_agent = agent.lines().next().unwrap_or_default().to_owned();
        }
        let entry = counts.requests.entry(request.to_owned()).or_insert((0, Instant::now()));
        entry.0 += 1;
        let result = *entry;
        drop(counts);
        self.changed.notify_all();
        Ok(result)
    }

    /// An answer that is HTTP, if perhaps not a welcome one.
    fn well_formed(&self, kind: &str, path: &str, nth: usize, since: Instant) -> Option<Vec<u8>> {
        let png = "Content-Type: image/png\r\n";
        let moved = |to: &str| answer("302 Found", &format!("Location: {to}\r\n"), b"moved");
        let id = path.rsplit('/').next().unwrap_or_default();
        let second = Duration::from_secs(1);
        Some(match kind {
            "ok" | "gate" => ok(path, png),
            "octets" => ok(path, "Content-Type: Application/Octet-Stream; charset=binary\r\n"),
            "untyped" => ok(path, ""),
            "chunked" => {
                let body = body(path);
                let head = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{png}\r\n{:x}\r\n", body.len());
                [head.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat()
            }
            "gzip" => answer("200 OK", &format!("{png}Content-Encoding: gzip\r\n"), &gzipped(&body(path))),
            // Whoever comes back too early is told again.
            "seconds" if nth == 1 || since.elapsed() < second => answer("429 Slow", "Retry-After: 1\r\n", b"slower"),
            "date" if nth == 1 || since.elapsed() < second => {
                let at = httpdate::fmt_http_date(SystemTime::now() + 2 * second);
                answer("503 Later", &format!("Retry-After: {at}\r\n"), b"")
            }
            "long" if nth == 1 => answer("429 Slow", "Retry-After: 1000000000\r\n", b""),
            "flaky" if nth < 3 => answer(if nth == 1 { "500 Oh" } else { "502 Oh" }, "", b"oh"),
            "seconds" | "date" | "long" | "flaky" => ok(path, png),
            "down" => answer("503 Never", "", b"never"),
            "missing" => answer("404 Not Found", "Retry-After: 0\r\n", b"no"),
            // Images with headers that say otherwise.
            "text" => answer("200 OK", "Content-Type: text/plain\r\n", JPEG),
            "download" => answer("200 OK", "Content-Type: application/x-download\r\n", JPEG),
            "emptytype" => answer("200 OK", "Content-Type:\r\n", JPEG),
            "utf8" => answer("200 OK", &format!("{png}Content-Encoding: utf-8\r\n"), JPEG),
            "none" => answer("200 OK", &format!("{png}Content-Encoding: none\r\n"), JPEG),
            "aws" => answer("200 OK", &format!("{png}Content-Encoding: aws-chunked\r\n"), JPEG),
            "noai" => answer("200 OK", &format!("{png}X-Robots-Tag: noarchive\r\nX-Robots-Tag: noindex, noai\r\n"), JPEG),
            "named" => answer("200 OK", &format!("{png}X-Robots-Tag: softclip: noimageai\r\n"), JPEG),
            "foreign" => answer("200 OK", &format!("{png}X-Robots-Tag: otherbot: noai\r\n"), JPEG),
            "web" => answer("200 OK", "Content-Type: text/html; charset=utf-8\r\n", b"<html>"),
            "empty" => answer("200 OK", png, b""),
            "brotli" => answer("200 OK", &format!("{png}Content-Encoding: br\r\n"), b"???"),
            "damaged" => answer("200 OK", &format!("{png}Content-Encoding: gzip\r\n"), b"no gzip at all"),
            "bomb" => answer("200 OK", &format!("{png}Content-Encoding: gzip\r\n"), &gzipped(&vec![0; 4 << 20])),
            "moved" => moved(&format!("../ok/{id}#fragment")),
            "elsewhere" => moved(&format!("http://127.0.0.17:{}/ok/{id}", id.split('-').next().unwrap_or_default())),
            "loop" => moved(&format!("/pool/{id}")),
            "pool" => moved(&format!("/loop/{id}")),
            "far" => moved(&format!("/far/{id}+")),
            "file" => moved("file:///etc/passwd"),
            "nowhere" => answer("302 Found", "", b"where?"),
            "short" | "endless" | "huge" | "trickle" | "pause" | "silent" | "garbage" | "headers" => return None,
            _ => answer("400 Bad Request", "", kind.as_bytes()),
        })
    }

    fn misbehave(&self, kind: &str, stream: &mut TcpStream) -> std::io::Result<()> {
        let begin = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n";
        match kind {
            "short" => stream.write_all(&[begin, b"Content-Length: 1000\r\n\r\nbegin".as_slice()].concat()),
            "endless" => {
                stream.write_all(&[begin, b"\r\n".as_slice()].concat())?;
                loop {
                    stream.write_all(&[7; 4096])?;
                }
            }
            "huge" => {
                stream.write_all(&[begin, b"Content-Length: 1000000000000000\r\n\r\nbegin".as_slice()].concat())?;
                until_hung_up(stream)
            }
            "trickle" => {
                stream.write_all(&[begin, b"Content-Length: 1000000\r\n\r\n".as_slice()].concat())?;
                loop {
                    stream.write_all(b".")?;
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            "pause" => {
                stream.write_all(&[begin, b"Content-Length: 1000\r\n\r\nbegin".as_slice()].concat())?;
                until_hung_up(stream)
            }
            "garbage" => stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n\r\n\x00\xff\xfe\r\n\r\n"),
            "headers" => {
                stream.write_all(begin)?;
                loop {
                    stream.write_all(b"X-More: and more and more and more\r\n")?;
                }
            }
            _ => {
                until_hung_up(stream)?;
                self.counts.lock().unwrap().hung_up += 1;
                self.changed.notify_all();
                Ok(())
            }
        }
    }
}

fn until_hung_up(stream: &mut TcpStream) -> std::io::Result<()> {
    while stream.read(&mut [0; 64]).is_ok_and(|n| n > 0) {}
    stream.shutdown(Shutdown::Both).or(Ok(()))
}

/// The head of the next request, left in the socket.
fn peek_head(stream: &TcpStream) -> std::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 8192];
    loop {
        let n = stream.peek(&mut buffer)?;
        let head = &buffer[..n];
        if let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") {
            return Ok(head[..end + 4].to_vec());
        }
        match head.first() {
            None => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Some(0x16) => return Ok(head.to_vec()),
            Some(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}
