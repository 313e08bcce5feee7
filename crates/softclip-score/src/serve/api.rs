//! What is answered to which request.

use std::net::TcpStream;
use std::sync::PoisonError;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use url::form_urlencoded;

use super::http::{Request, Response, read_body};
use super::semaphore::Permit;
use super::{Job, MOST, SIDE, Shared, Sought};
use crate::embed::{Entry, crop};
use crate::search::{Found, thumbnail};

const PAGE: &str = include_str!("../../assets/search.html");
const STYLE: &str = include_str!("../../assets/search.css");
const SCRIPT: &str = include_str!("../../assets/search.js");

/// Characters of a text; models read far fewer.
const LONGEST_TEXT: usize = 4096;
/// Rows whose entries are remembered.
const REMEMBERED: usize = 20_000;
/// Others may be served before.
const PATIENCE: Duration = Duration::from_secs(120);

/// `None`: the client is gone.
pub(super) fn answer(stream: &TcpStream, request: Request, shared: &Shared) -> Option<Response> {
    if !shared.hosts.has(&request.host) {
        return Some(Response::error(421, "this server does not go by that name"));
    }
    let text = |content_type, text: &str| Response::new(content_type, text);
    Some(match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/") => text("text/html; charset=utf-8", PAGE),
        _ if request.foreign => Response::error(403, "asked for by a page of another origin"),
        ("GET", "/search.js") => text("text/javascript; charset=utf-8", SCRIPT),
        ("GET", "/search.css") => text("text/css; charset=utf-8", &format!("{}{STYLE}", shared.options.style)),
        ("GET", "/api/info") => info(shared),
        ("GET", "/api/search") => by_text(&request, shared),
        ("POST", "/api/search") => match by_image(stream, request, shared) {
            Ok(response) => response,
            Err(refused) => return refused,
        },
        ("GET", path) => match path.strip_prefix("/thumb/") {
            Some(row) => picture(row, shared),
            None => Response::error(404, "there is nothing here"),
        },
        ("POST", _) => Response::error(404, "there is nothing here"),
        _ => Response::error(405, "GET and POST alone"),
    })
}

fn info(shared: &Shared) -> Response {
    let collection = &shared.collection;
    let folder = collection.folder();
    // `.` has no name.
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    Response::json(&json!({
        "collection": whole.file_name().unwrap_or(whole.as_os_str()).to_string_lossy(),
        "model": collection.meta().map(|meta| &meta.plan.model.name),
        "rows": collection.rows(),
        "k": shared.options.k.min(MOST),
    }))
}

/// A value of the query's.
fn value(query: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn k(query: &str, shared: &Shared) -> Result<usize, Response> {
    match value(query, "k") {
        None => Ok(shared.options.k.min(MOST)),
        Some(text) => match text.parse() {
            Ok(k) if (1..=MOST).contains(&k) => Ok(k),
            _ => Err(Response::error(400, format!("k is a number from 1 to {MOST}, not '{text}'"))),
        },
    }
}

fn by_text(request: &Request, shared: &Shared) -> Response {
    let text = value(&request.query, "text").unwrap_or_default();
    let text = text.trim();
    if text.is_empty() {
        return Response::error(400, "nothing to search for: `text` is empty");
    }
    if text.chars().count() > LONGEST_TEXT {
        return Response::error(400, format!("the text is longer than {LONGEST_TEXT} characters"));
    }
    match k(&request.query, shared) {
        Ok(k) => search(Sought::Text(text.to_owned()), k, shared),
        Err(response) => response,
    }
}

fn by_image(stream: &TcpStream, request: Request, shared: &Shared) -> Result<Response, Option<Response>> {
    let k = k(&request.query, shared).map_err(Some)?;
    if request.length == 0 {
        return Err(Some(Response::error(400, "nothing to search for: the body is no image file")));
    }
    let Some(_upload) = shared.uploads.try_acquire(1) else {
        return Err(Some(Response::error(503, "busy with other images: try again")));
    };
    let body = read_body(stream, request)?;
    let memory = reserve(&body, shared).map_err(Some)?;
    let crop = crop(&body, &shared.transform, shared.decode).map_err(|e| Some(Response::error(415, e)))?;
    drop((body, memory));
    Ok(search(Sought::Crop(crop), k, shared))
}

/// Memory to decode an image file with, before anything of it is decoded.
fn reserve(file: &[u8], shared: &Shared) -> Result<Permit, Response> {
    let needed = shared.decode.memory_needed(file).map_err(|e| Response::error(415, e))?;
    let capacity = shared.decoding.capacity();
    if needed > capacity {
        let why = format!("decoding the image takes up to {} MiB, and this server has {}", needed >> 20, capacity >> 20);
        return Err(Response::error(413, format!("{why}: send a smaller one")));
    }
    shared.decoding.acquire(needed, PATIENCE).ok_or_else(|| Response::error(503, "busy with other images: try again"))
}

fn search(sought: Sought, k: usize, shared: &Shared) -> Response {
    let (found, waits) = sync_channel(1);
    let busy = || Response::error(503, "busy, or about to end: try again");
    let until = Instant::now() + PATIENCE;
    if shared.jobs.try_send(Job { sought, k, found, until }).is_err() {
        return busy();
    }
    match waits.recv_timeout(PATIENCE) {
        Ok(Ok(found)) => {
            remember(&found, shared);
            Response::json(&json!({"hits": found.iter().map(hit).collect::<Vec<_>>()}))
        }
        Ok(Err(e)) => Response::error(500, e),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => busy(),
    }
}

fn hit(found: &Found) -> Value {
    let Found { rank, score, row, entry } = found;
    match &entry.text {
        Some(text) => json!({"rank": rank, "score": score, "row": row, "key": entry.key, "text": text}),
        None => json!({"rank": rank, "score": score, "row": row, "key": entry.key, "thumb": format!("/thumb/{row}")}),
    }
}

fn remember(found: &[Found], shared: &Shared) {
    let mut known = shared.known.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() > REMEMBERED {
        known.clear();
    }
    // Texts have no pictures to look up.
    known.extend(found.iter().filter(|found| found.entry.text.is_none()).map(|found| (found.row, found.entry.clone())));
}

fn picture(row: &str, shared: &Shared) -> Response {
    let number = row.parse().ok().filter(|row| *row < shared.collection.rows());
    let Some(row) = number else { return Response::error(404, "there is no such row") };
    let known = shared.known.lock().unwrap_or_else(PoisonError::into_inner).get(&row).cloned();
    let entry: Option<Entry> = match known {
        Some(entry) => Some(entry),
        None => match shared.collection.entries([row]) {
            Ok(entries) => entries.into_values().next(),
            Err(e) => return Response::error(500, e),
        },
    };
    let Some(entry) = entry else { return Response::error(404, "there is no such row") };
    let file = match shared.pictures.file(&entry) {
        Ok(file) => file,
        Err(e) => return Response::error(404, e),
    };
    let _memory = match reserve(&file, shared) {
        Ok(memory) => memory,
        Err(refused) => return refused,
    };
    match thumbnail(&file, SIDE, shared.decode) {
        Ok(jpeg) => Response::new("image/jpeg", jpeg),
        Err(e) => Response::error(404, format!("'{}': {e}", entry.key)),
    }
}
