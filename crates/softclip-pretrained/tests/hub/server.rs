//! A hub and its CDN, as small as will do: two listeners that know repositories of bytes and note what they were asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[derive(Debug, Clone)]
pub struct Asked {
    pub cdn: bool,
    pub method: String,
    pub path: String,
    pub token: Option<String>,
    pub range: Option<String>,
}

#[derive(Default)]
pub struct Behaviour {
    /// Files by name.
    pub files: BTreeMap<String, Vec<u8>>,
    /// This status, with `x-error-code`, for everything but the listing of a gated model.
    pub refuse: Option<(u16, &'static str)>,
    /// No listing of files, as on a simple mirror.
    pub no_api: bool,
    /// The CDN breaks off after so many bytes of each answer, so many times.
    pub cut: (usize, usize),
    /// The CDN gives other bytes than it should, so many times.
    pub damage: usize,
}

#[derive(Clone)]
pub struct Server {
    pub endpoint: String,
    cdn: String,
    pub behaviour: Arc<Mutex<Behaviour>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Serves `org/model`.
    pub fn start(files: &[(&str, Vec<u8>)]) -> Self {
        let listen = |host: &str| TcpListener::bind((host, 0)).unwrap();
        let (hub, cdn) = (listen("127.0.0.1"), listen("127.0.0.1"));
        let address = |l: &TcpListener| format!("http://{}", l.local_addr().unwrap());
        let files = files.iter().map(|(n, b)| ((*n).to_owned(), b.clone())).collect();
        let server = Self {
            endpoint: address(&hub),
            cdn: address(&cdn),
            behaviour: Arc::new(Mutex::new(Behaviour { files, ..Default::default() })),
            asked: Arc::default(),
        };
        for (listener, is_cdn) in [(hub, false), (cdn, true)] {
            let server = server.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    // A client that hangs up early is no failure of the server.
                    let _ = server.answer(stream, is_cdn);
                }
            });
        }
        server
    }

    /// What was asked since the last call.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn answer(&self, mut stream: TcpStream, cdn: bool) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().unwrap_or(Ok(String::new()))?;
        let mut asked = Asked { cdn, method: String::new(), path: String::new(), token: None, range: None };
        let mut words = first.split(' ').map(str::to_owned);
        (asked.method, asked.path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        for line in lines {
            let line = line?;
            match line.split_once(": ") {
                None => break,
                Some((name, value)) if name.eq_ignore_ascii_case("authorization") => asked.token = Some(value.to_owned()),
                Some((name, value)) if name.eq_ignore_ascii_case("range") => asked.range = Some(value.to_owned()),
                Some(_) => {}
            }
        }
        self.asked.lock().unwrap().push(asked.clone());
        let mut behaviour = self.behaviour.lock().unwrap();
        let (head, mut body) = if cdn { cdn_answer(&asked, &mut behaviour) } else { self.hub_answer(&asked, &behaviour) };
        if cdn && behaviour.cut.1 > 0 {
            behaviour.cut.1 -= 1;
            body.truncate(behaviour.cut.0);
        }
        stream.write_all(format!("HTTP/1.1 {head}connection: close\r\n\r\n").as_bytes())?;
        if asked.method == "HEAD" { Ok(()) } else { stream.write_all(&body) }
    }

    fn hub_answer(&self, asked: &Asked, behaviour: &Behaviour) -> (String, Vec<u8>) {
        if let Some((status, code)) = behaviour.refuse {
            return (format!("{status} No\r\nx-error-code: {code}\r\ncontent-length: 0\r\n"), vec![]);
        }
        let absent = || ("404 Not Found\r\ncontent-length: 0\r\n".to_owned(), vec![]);
        if asked.path == "/api/models/org/model/revision/main" {
            if behaviour.no_api {
                return absent();
            }
            let siblings: Vec<_> = behaviour.files.keys().map(|n| format!(r#"{{"rfilename": "{n}"}}"#)).collect();
            let json = format!(r#"{{"sha": "{COMMIT}", "siblings": [{}]}}"#, siblings.join(", "));
            return (format!("200 OK\r\ncontent-length: {}\r\n", json.len()), json.into_bytes());
        }
        let name = ["main", COMMIT].iter().find_map(|r| asked.path.strip_prefix(&format!("/org/model/resolve/{r}/")));
        // Small files are somewhere else on the same host.
        let Some((name, bytes)) =
            name.or(asked.path.strip_prefix("/api/resolve-cache/")).and_then(|n| behaviour.files.get(n).map(|b| (n, b)))
        else {
            return absent();
        };
        let (length, sha) = (bytes.len(), sha256(bytes));
        if name.ends_with(".safetensors") {
            let head = format!(
                "302 Found\r\nlocation: {}/{name}?signature=x\r\nx-repo-commit: {COMMIT}\r\nx-linked-etag: \"{sha}\"\r\n\
                 x-linked-size: {length}\r\ncontent-length: 0\r\n",
                self.cdn
            );
            (head, vec![])
        } else if asked.path.starts_with("/org") {
            let to = format!("location: /api/resolve-cache/{name}");
            (format!("307 Elsewhere\r\n{to}\r\nx-repo-commit: {COMMIT}\r\ncontent-length: 0\r\n"), vec![])
        } else {
            let etag = format!("etag: W/\"{}\"", &sha[..40]);
            (format!("200 OK\r\nx-repo-commit: {COMMIT}\r\n{etag}\r\ncontent-length: {length}\r\n"), bytes.clone())
        }
    }
}

fn cdn_answer(asked: &Asked, behaviour: &mut Behaviour) -> (String, Vec<u8>) {
    let name = asked.path.trim_start_matches('/').trim_end_matches("?signature=x");
    let mut bytes = behaviour.files[name].clone();
    if behaviour.damage > 0 {
        behaviour.damage -= 1;
        bytes[0] ^= 1;
    }
    let length = bytes.len();
    match asked.range.as_deref().and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()) {
        None => (format!("200 OK\r\ncontent-length: {length}\r\n"), bytes),
        Some(from) if from >= length => ("416 Range Not Satisfiable\r\ncontent-length: 0\r\n".into(), vec![]),
        Some(from) => (
            format!(
                "206 Partial Content\r\ncontent-range: bytes {from}-{}/{length}\r\ncontent-length: {}\r\n",
                length - 1,
                length - from
            ),
            bytes[from..].to_vec(),
        ),
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
