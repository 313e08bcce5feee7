//! The page's server, spoken to by hand: what it answers, and what it does not fall for.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::io::{Cursor, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Model, id};
use serde_json::Value;
use softclip_score::embed::{EmbedOptions, Input, What, embed};
use softclip_score::search::Collection;
use softclip_score::serve::{ServeOptions, serve};

fn png(colour: [u8; 3]) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    image::RgbImage::from_pixel(20, 20, image::Rgb(colour)).write_to(&mut file, image::ImageFormat::Png).unwrap();
    file.into_inner()
}

struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

#[derive(Clone, Copy)]
struct Client(SocketAddr);

impl Client {
    /// Bytes as they are; the answer until the connection closes.
    fn raw(self, bytes: &[u8]) -> Reply {
        let mut stream = TcpStream::connect(self.0).unwrap();
        // A server that refuses early may not read it all.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        let end = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&all)));
        let head = String::from_utf8(all[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Reply { status, head, body: all[end + 4..].to_vec() }
    }

    fn send(self, method: &str, target: &str, more: &str, body: &[u8]) -> Reply {
        let length = if method == "POST" { format!("Content-Length: {}\r\n", body.len()) } else { String::new() };
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n{more}{length}\r\n", self.0);
        self.raw(&[head.as_bytes(), body].concat())
    }

    fn get(self, target: &str) -> Reply {
        self.send("GET", target, "", b"")
    }
}

/// Serves six images of one colour each in `folder` while `ask` asks.
fn served(folder: &Path, ask: impl FnOnce(Client) + Send + 'static) {
    let model = Model::new();
    let photos = folder.join("photos");
    fs::create_dir_all(&photos).unwrap();
    for i in 0..6u8 {
        fs::write(photos.join(format!("{i}.png")), png([40 * i, 255 - 40 * i, 7])).unwrap();
    }
    let input = Input::open(photos.to_str().unwrap(), What::Images).unwrap();
    let out = folder.join("photos.emb");
    embed(&model.encoder(), &id("w"), &input, &out, &EmbedOptions::default(), &mut |_, _| ControlFlow::Continue(())).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client(listener.local_addr().unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let asking = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ask(client)));
            stop.store(true, Ordering::Relaxed);
            asked
        })
    };
    let options = ServeOptions { k: 4, host: "127.0.0.1".to_owned(), style: "/* style */" };
    serve(&model.encoder(), Arc::new(Collection::open(&out).unwrap()), listener, options, &stop).unwrap();
    asking.join().unwrap().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

#[test]
fn texts_and_images_are_searched_for_and_found_images_shown() {
    let temp = tempfile::tempdir().unwrap();
    served(temp.path(), |client| {
        let page = client.get("/");
        assert_eq!(page.status, 200);
        assert!(page.head.contains("default-src 'none'") && page.head.contains("nosniff"), "{}", page.head);
        assert!(!page.head.to_lowercase().contains("access-control"), "no other origin may read it");
        assert!(client.get("/search.css").body.starts_with(b"/* style */"));
        assert_eq!(client.get("/search.js").status, 200);
        let info = client.get("/api/info").json();
        assert_eq!((info["rows"].as_u64(), info["k"].as_u64(), info["model"].as_str()), (Some(6), Some(4), Some("tiny")));

        let found = client.get("/api/search?text=a%20red+car&k=3").json();
        let hits = found["hits"].as_array().unwrap();
        assert_eq!(hits.len(), 3);
        assert!(hits.windows(2).all(|pair| pair[0]["score"].as_f64() >= pair[1]["score"].as_f64()));
        let small = client.get(hits[0]["thumb"].as_str().unwrap());
        assert_eq!((small.status, &small.body[..3]), (200, &[0xff, 0xd8, 0xff][..]));
        assert_eq!(client.get("/api/search?text=a").json()["hits"].as_array().unwrap().len(), 4, "k of the options");

        for i in 0..6u8 {
            let found = client.send("POST", "/api/search?k=1", "", &png([40 * i, 255 - 40 * i, 7])).json();
            assert_eq!(found["hits"][0]["key"], format!("{i}.png"), "an image is nearest to itself");
            assert!(found["hits"][0]["score"].as_f64().unwrap() > 0.9999);
        }
        // A row that no search has found yet.
        assert_eq!(client.get("/thumb/5").status, 200);
        let all = client.get("/api/search?text=a&k=500").json();
        assert_eq!(all["hits"].as_array().unwrap().len(), 6, "as many as there are");
    });
}

#[test]
fn bad_requests_are_told_why_and_do_no_harm() {
    let temp = tempfile::tempdir().unwrap();
    served(temp.path(), |client| {
        for (target, words) in [
            ("/api/search", "empty"),
            ("/api/search?text=%20", "empty"),
            ("/api/search?text=a&k=0", "from 1 to"),
            ("/api/search?text=a&k=501", "from 1 to"),
            ("/api/search?text=a&k=-1", "from 1 to"),
            ("/api/search?text=a&k=x", "'x'"),
        ] {
            let reply = client.get(target);
            assert_eq!(reply.status, 400, "{target}");
            assert!(reply.error().contains(words), "{target}: {}", reply.error());
        }
        let long = format!("/api/search?text={}", "a".repeat(5000));
        assert!(client.get(&long).error().contains("longer than"));
        // The longest text, each of its bytes as `%XX`.
        assert_eq!(client.get(&format!("/api/search?text={}", "%F0%9F%90%B1".repeat(4096))).status, 200);
        // What is no text is searched for as what can be read of it.
        assert_eq!(client.get("/api/search?text=%ff%00%f0%9f%90%b1").status, 200);

        let body = client.send("POST", "/api/search", "", b"");
        assert_eq!((body.status, body.error().contains("no image file")), (400, true));
        let cut = png([1, 2, 3]);
        for bytes in [&b"GET this"[..], &cut[..cut.len() / 2], b"\xff\xd8\xff\xe0"] {
            assert_eq!(client.send("POST", "/api/search", "", bytes).status, 415, "{bytes:?}");
        }
        // A few bytes that promise 60,000 x 60,000 pixels.
        let mut bomb = png([1, 2, 3]);
        bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
        assert_eq!(client.send("POST", "/api/search", "", &bomb).status, 415);

        assert_eq!(client.send("DELETE", "/api/search", "", b"").status, 405);
        assert_eq!(client.send("POST", "/", "", b"x").status, 404);
        assert_eq!(client.get("/api/search?text=a").status, 200, "it still answers");
    });
}

#[test]
fn nothing_but_the_collections_images_is_given() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("secret.png"), png([9, 9, 9])).unwrap();
    served(temp.path(), |client| {
        for target in [
            "/thumb/6",
            "/thumb/-1",
            "/thumb/",
            "/thumb/0/",
            "/thumb/0.png",
            "/thumb/../../secret.png",
            "/thumb/..%2f..%2fsecret.png",
            "/../secret.png",
            "/secret.png",
            "/%2e%2e/secret.png",
            "//etc/passwd",
            "/photos/0.png",
            "/keys.jsonl",
            "/favicon.ico",
            "/thumb/99999999999999999999999",
        ] {
            let reply = client.get(target);
            assert_eq!(reply.status, 404, "{target}");
            assert!(!reply.error().is_empty());
        }
    });
}

#[test]
fn only_who_names_this_server_and_comes_from_it_is_answered() {
    let temp = tempfile::tempdir().unwrap();
    served(temp.path(), |client| {
        let with = |host: &str| client.raw(format!("GET /api/info HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).status;
        let port = client.0.port();
        assert_eq!(with(&format!("localhost:{port}")), 200);
        for host in [format!("evil.example:{port}"), "localhost".to_owned(), format!("127.0.0.1:{}", port ^ 1)] {
            assert_eq!(with(&host), 421, "{host}");
        }
        assert_eq!(client.raw(b"GET /api/info HTTP/1.1\r\n\r\n").status, 400, "no host");
        let foreign = "Sec-Fetch-Site: cross-site\r\n";
        assert_eq!(client.send("GET", "/api/search?text=a", foreign, b"").status, 403);
        assert_eq!(client.send("GET", "/thumb/0", foreign, b"").status, 403);
        assert_eq!(client.send("GET", "/", foreign, b"").status, 200, "links to the page work");
        assert_eq!(client.send("GET", "/api/info", "Sec-Fetch-Site: same-origin\r\n", b"").status, 200);
        let image = png([1, 2, 3]);
        let from = |origin: &str| client.send("POST", "/api/search", &format!("Origin: {origin}\r\n"), &image).status;
        assert_eq!(from(&format!("http://{}", client.0)), 200);
        assert_eq!((from("http://evil.example"), from("null")), (403, 403));
    });
}

#[test]
fn what_is_too_large_or_no_http_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    served(temp.path(), |client| {
        let head = |more: &str| format!("POST /api/search HTTP/1.1\r\nHost: {}\r\n{more}\r\n", client.0);
        for (more, status) in [
            ("Content-Length: 33554433\r\n", 413),
            ("Content-Length: 99999999999999999999999999\r\n", 413),
            ("Content-Length: -1\r\n", 400),
            ("Content-Length: 1\r\nContent-Length: 2\r\n", 400),
            ("Transfer-Encoding: chunked\r\n", 411),
        ] {
            assert_eq!(client.raw(head(more).as_bytes()).status, status, "{more}");
        }
        // A client that sends all before it listens still hears why.
        let large = [head("Content-Length: 40000000\r\n").into_bytes(), vec![0; 40_000_000]].concat();
        assert_eq!(client.raw(&large).status, 413);
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(100_000));
        assert_eq!(client.raw(long.as_bytes()).status, 431);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100));
        assert_eq!(client.raw(many.as_bytes()).status, 431);
        for nonsense in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0\0\0\0\r\n\r\n"] {
            assert_eq!(client.raw(nonsense).status, 400, "{nonsense:?}");
        }
        // Those who hang up half way leave nothing behind.
        for bytes in [&b""[..], b"GET / HT", head("Content-Length: 100\r\n").as_bytes()] {
            TcpStream::connect(client.0).unwrap().write_all(bytes).unwrap();
        }
        // A body that waits to be asked for.
        let mut stream = TcpStream::connect(client.0).unwrap();
        let image = png([80, 175, 7]);
        let expecting = head(&format!("Expect: 100-continue\r\nContent-Length: {}\r\n", image.len()));
        stream.write_all(expecting.as_bytes()).unwrap();
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(&image).unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert!(rest.starts_with("HTTP/1.1 200 OK") && rest.contains("\"2.png\""), "{rest}");
    });
}

#[test]
fn more_connections_than_are_served_at_a_time_do_not_end_the_service() {
    let temp = tempfile::tempdir().unwrap();
    served(temp.path(), |client| {
        for _ in 0..2 {
            let open: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(client.0).unwrap()).collect();
            // Those beyond the limit are closed at once: wait for the last.
            let mut refused = open.last().unwrap();
            let _ = refused.read(&mut [0; 1]);
            drop(open);
            answers_again(client);
        }
    });
}

#[test]
fn more_uploads_than_are_read_at_a_time_do_not_end_the_service() {
    let temp = tempfile::tempdir().unwrap();
    served(temp.path(), |client| {
        let begin = format!("POST /api/search HTTP/1.1\r\nHost: {}\r\nContent-Length: 1000\r\n\r\nab", client.0);
        for _ in 0..3 {
            let mut open: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(client.0).unwrap()).collect();
            open.iter_mut().for_each(|stream| stream.write_all(begin.as_bytes()).unwrap());
            // Four wait for the rest; the others get status 503.
            let mut busy = 0;
            for stream in &mut open {
                stream.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
                let mut answer = [0; 12];
                busy += usize::from(stream.read_exact(&mut answer).is_ok() && &answer == b"HTTP/1.1 503");
            }
            // More if the server has not yet noticed the end of those before.
            assert!((4..8).contains(&busy), "{busy}");
            drop(open);
            answers_again(client);
        }
        let upload = || client.send("POST", "/api/search?k=1", "", &png([0, 255, 7])).status;
        assert!((0..100).any(|_| upload() == 200), "images are searched for again");
    });
}

/// Waits until the server has seen that clients hung up.
fn answers_again(client: Client) {
    let get = format!("GET /api/info HTTP/1.1\r\nHost: {}\r\n\r\n", client.0);
    for _ in 0..400 {
        let mut stream = TcpStream::connect(client.0).unwrap();
        let mut answer = String::new();
        if stream.write_all(get.as_bytes()).is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 200")
        {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(25));
    }
    panic!("it answers no more");
}

/// A PNG of one color, transparent, that is small as a file.
fn bomb(side: u32, interlaced: bool) -> Vec<u8> {
    let mut data = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    let passes: &[[u32; 4]] = match interlaced {
        // First column, first row, and the steps of Adam7.
        true => &[[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]],
        false => &[[0, 0, 1, 1]],
    };
    for &[left, top, across, down] in passes {
        let row = vec![0; 1 + 4 * (side - left).div_ceil(across) as usize];
        (0..(side - top).div_ceil(down)).for_each(|_| data.write_all(&row).unwrap());
    }
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |name: &[u8; 4], data: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(name);
        crc.update(data);
        file.extend([&(data.len() as u32).to_be_bytes(), &name[..], data, &crc.sum().to_be_bytes()].concat());
    };
    let size = [side.to_be_bytes(), side.to_be_bytes()].concat();
    chunk(b"IHDR", &[&size[..], &[8, 6, 0, 0, u8::from(interlaced)]].concat());
    chunk(b"IDAT", &data.finish().unwrap());
    chunk(b"IEND", b"");
    file
}

#[test]
fn images_that_are_large_when_decoded_share_a_bounded_memory() {
    let temp = tempfile::tempdir().unwrap();
    served(temp.path(), |client| {
        // 350 MB of pixels each.
        let (plain, interlaced) = (bomb(9400, false), bomb(9400, true));
        assert!(plain.len() < 1 << 20 && interlaced.len() < 1 << 20);
        let before = memory("VmRSS:");
        std::thread::scope(|scope| {
            let post = |bytes| scope.spawn(move || client.send("POST", "/api/search?k=1", "", bytes).status);
            let posted: Vec<_> = [&plain, &interlaced].repeat(4).into_iter().map(|bytes| post(bytes)).collect();
            let statuses: Vec<u16> = posted.into_iter().map(|thread| thread.join().unwrap()).collect();
            assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
            assert!(statuses.iter().filter(|status| **status == 200).count() >= 4, "{statuses:?}");
        });
        // Four at once would take 1.4 GB. Other tests of this process take some.
        let grown = memory("VmHWM:").saturating_sub(before);
        assert!(grown < 800 << 10, "{grown} kB");
        // Of 16 bits a channel, one alone would take more than all that there is.
        let mut deep = plain;
        deep[16..25].copy_from_slice(&[0, 0, 0x23, 0x28, 0, 0, 0x23, 0x28, 16]);
        let refused = client.send("POST", "/api/search?k=1", "", &deep);
        assert_eq!(refused.status, 413);
        assert!(refused.error().contains("MiB"), "{}", refused.error());
    });
}

/// A line of this process's status, in kB.
fn memory(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
