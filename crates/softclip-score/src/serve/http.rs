//! One request a connection, within limits of size and time. `httparse` reads the head; the rest of HTTP/1.1 that a page needs is little.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// Request line and headers. The longest text fits, each of its bytes as `%XX`.
const LONGEST_HEAD: usize = 64 << 10;
const MOST_HEADERS: usize = 64;
/// An image that is searched for.
pub(super) const LARGEST_BODY: usize = 32 << 20;
/// A client may be silent for this long,
const SILENCE: Duration = Duration::from_secs(10);
/// and may take this long for the whole request, and for the whole answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was asked for.
#[derive(Debug)]
pub(super) struct Request {
    pub method: String,
    /// Without the query; as it was sent, nothing decoded.
    pub path: String,
    pub query: String,
    pub host: String,
    /// A page of another origin sent it.
    pub foreign: bool,
    pub length: usize,
    waits: bool,
    /// What of the body came with the head.
    rest: Vec<u8>,
}

/// What is answered.
#[derive(Debug)]
pub(super) struct Response {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

impl Response {
    pub fn new(content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, content_type, body: body.into() }
    }

    pub fn json(value: &serde_json::Value) -> Self {
        Self::new("application/json", value.to_string())
    }

    pub fn error(status: u16, why: impl ToString) -> Self {
        Self { status, ..Self::json(&serde_json::json!({"error": why.to_string()})) }
    }
}

/// `None`: the client is gone, or said nothing.
type Refused = Option<Response>;

/// Reads from a client that may be slow, for so long.
struct Patient<'a> {
    stream: &'a TcpStream,
    end: Instant,
}

impl<'a> Patient<'a> {
    fn new(stream: &'a TcpStream) -> Self {
        Self { stream, end: Instant::now() + PATIENCE }
    }

    /// Bytes read, at least one.
    fn read(&mut self, into: &mut [u8]) -> Result<usize, Refused> {
        let left = self.end.saturating_duration_since(Instant::now()).min(SILENCE);
        let slow = || Some(Response::error(408, "the request did not arrive in time"));
        if left.is_zero() {
            return Err(slow());
        }
        self.stream.set_read_timeout(Some(left)).map_err(|_| None)?;
        loop {
            match self.stream.read(into) {
                Ok(0) => return Err(None),
                Ok(n) => return Ok(n),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Err(slow()),
                Err(_) => return Err(None),
            }
        }
    }
}

/// Reads a request's head.
pub(super) fn read_head(stream: &TcpStream) -> Result<Request, Refused> {
    let mut client = Patient::new(stream);
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        let n = match client.read(&mut part) {
            Ok(n) => n,
            // A browser opens connections in advance and may never use them.
            Err(_) if bytes.is_empty() => return Err(None),
            Err(refused) => return Err(refused),
        };
        bytes.extend_from_slice(&part[..n]);
        if let Some((request, head)) = parse(&bytes)? {
            return Ok(Request { rest: bytes.split_off(head), ..request });
        }
        if bytes.len() > LONGEST_HEAD {
            return Err(Some(Response::error(431, format!("the request's head is longer than {LONGEST_HEAD} bytes"))));
        }
    }
}

/// The head and its length; `None` where more must come.
fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, Refused> {
    let bad = |why: &str| Some(Response::error(400, why));
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let head = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Some(Response::error(431, "too many headers"))),
        Err(e) => return Err(bad(&format!("not a request: {e}"))),
    };
    let header = |name: &str| {
        let mut values = parsed.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value.trim_ascii());
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(bad(&format!("the header {name} stands twice"))),
            (one, None) => Ok(one.map(String::from_utf8_lossy)),
        }
    };
    if header("transfer-encoding")?.is_some() {
        return Err(Some(Response::error(411, "the body's length must be told in Content-Length")));
    }
    let length = match header("content-length")? {
        None => 0,
        Some(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => text.parse().unwrap_or(usize::MAX),
        Some(_) => return Err(bad("Content-Length is no number")),
    };
    if length > LARGEST_BODY {
        return Err(Some(Response::error(413, format!("the body is larger than {} MB", LARGEST_BODY >> 20))));
    }
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let host = header("host")?.ok_or_else(|| bad("the header Host is missing"))?;
    // A browser says where its request comes from, and no page can make it say otherwise. To plain http of another machine it says
    // only the origin, and not with every request.
    let foreign = match (header("sec-fetch-site")?, header("origin")?) {
        (Some(site), _) => site == "cross-site" || site == "same-site",
        (None, Some(origin)) => !origin.strip_prefix("http://").is_some_and(|own| own.eq_ignore_ascii_case(&host)),
        (None, None) => false,
    };
    let request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        foreign,
        length,
        waits: header("expect")?.is_some_and(|e| e.eq_ignore_ascii_case("100-continue")),
        host: host.into_owned(),
        rest: Vec::new(),
    };
    Ok(Some((request, head)))
}

/// Reads the body that a request's head tells of.
pub(super) fn read_body(stream: &TcpStream, request: Request) -> Result<Vec<u8>, Refused> {
    if request.waits {
        write(stream, b"HTTP/1.1 100 Continue\r\n\r\n", Instant::now() + PATIENCE).map_err(|_| None)?;
    }
    let mut client = Patient::new(stream);
    let mut body = request.rest;
    let mut part = vec![0; 64 << 10];
    while body.len() < request.length {
        let n = client.read(&mut part)?;
        // Memory follows what has come, not what was announced.
        body.extend_from_slice(&part[..n]);
    }
    body.truncate(request.length);
    Ok(body)
}

/// What a browser may do with an answer.
const RULES: &str = "\
Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; \
base-uri 'none'; form-action 'self'; frame-ancestors 'none'\r
X-Content-Type-Options: nosniff\r
Cross-Origin-Resource-Policy: same-origin\r
Referrer-Policy: same-origin\r
Cache-Control: no-store\r
Connection: close\r
";

/// Answers and closes the connection. A client that is gone is no fault.
pub(super) fn answer(stream: &TcpStream, response: &Response) {
    let Response { status, content_type, body } = response;
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    };
    let allow = if *status == 405 { "Allow: GET, POST\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{allow}{RULES}\r\n",
        body.len()
    );
    let end = Instant::now() + PATIENCE;
    if write(stream, head.as_bytes(), end).and_then(|()| write(stream, body, end)).is_ok() {
        linger(stream);
    }
}

/// Writes to a client that may be slow, until `end`.
fn write(mut stream: &TcpStream, mut bytes: &[u8], end: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left))?;
        match stream.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// A connection that is closed while bytes of the client are unread is reset, and the client never sees the answer.
fn linger(mut stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let end = Instant::now() + Duration::from_secs(5);
    let mut part = vec![0; 64 << 10];
    while Instant::now() < end && matches!(stream.read(&mut part), Ok(n) if n > 0) {}
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_client_that_takes_little_at_a_time_does_not_keep_an_answer_for_ever() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // Each part leaves room for another write; all of it would take minutes.
        std::thread::spawn(move || {
            let mut part = vec![0; 16 << 10];
            while matches!(client.read(&mut part), Ok(n) if n > 0) {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let (stream, _) = listener.accept().unwrap();
        let written = write(&stream, &vec![0; 256 << 20], Instant::now() + Duration::from_millis(300));
        assert!(written.is_err());
    }

    #[test]
    fn requests_of_other_origins_are_known() {
        let foreign = |more: &str| {
            let head = format!("POST /api/search HTTP/1.1\r\nHost: box.local:8080\r\n{more}\r\n");
            parse(head.as_bytes()).unwrap().unwrap().0.foreign
        };
        for own in ["", "Origin: http://box.local:8080\r\n", "Origin: http://BOX.local:8080\r\n", "Sec-Fetch-Site: none\r\n"] {
            assert!(!foreign(own), "{own}");
        }
        // Behind a proxy with encryption the origin is the proxy's.
        assert!(!foreign("Sec-Fetch-Site: same-origin\r\nOrigin: https://search.example\r\n"));
        for other in [
            "Origin: null\r\n",
            "Origin: http://evil.example\r\n",
            "Origin: http://box.local\r\n",
            "Origin: https://box.local:8080\r\n",
            "Origin: http://box.local:8080.evil.example\r\n",
            "Sec-Fetch-Site: cross-site\r\nOrigin: http://box.local:8080\r\n",
        ] {
            assert!(foreign(other), "{other}");
        }
    }
}
