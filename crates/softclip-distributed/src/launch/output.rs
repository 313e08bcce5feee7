//! What ranks write: line by line to standard error, with their number in front.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Lines that are kept of a rank's standard error.
const KEPT: usize = 20;
/// Longer lines are cut in pieces, so that memory stays bounded.
const LONGEST: u64 = 64 << 10;

/// The last lines of a stream.
#[derive(Clone, Default)]
pub(super) struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, line: String) {
        let mut lines = self.lock();
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    pub fn lines(&self) -> Vec<String> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<String>> {
        // A line is pushed or not: there is nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Copies `stream` to standard error from a thread of its own, which ends with the stream.
pub(super) fn forward(rank: usize, stream: impl Read + Send + 'static, tail: Option<Tail>) -> JoinHandle<()> {
    std::thread::spawn(move || copy(rank, stream, tail.as_ref(), |line| io::stderr().lock().write_all(line)))
}

fn copy(rank: usize, stream: impl Read, tail: Option<&Tail>, mut sink: impl FnMut(&[u8]) -> io::Result<()>) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LONGEST).read_until(b'\n', &mut line) {
            Ok(0) => return,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if let Some(tail) = tail {
            tail.push(String::from_utf8_lossy(&line).into_owned());
        }
        let mut whole = format!("[{rank}] ").into_bytes();
        whole.extend_from_slice(&line);
        whole.push(b'\n');
        // Nobody may be reading: the rank must not stop for that.
        let _ = sink(&whole);
    }
}

/// A message of the launcher itself.
pub(super) fn say(text: &str) {
    let whole = text.lines().map(|line| format!("[launch] {line}\n")).collect::<String>();
    let _ = io::stderr().lock().write_all(whole.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(text: &[u8]) -> (Vec<u8>, Vec<String>) {
        let (mut out, tail) = (Vec::new(), Tail::default());
        // Each line is one write, so that lines of several ranks do not mix.
        copy(3, text, Some(&tail), |line| out.write_all(line));
        (out, tail.lines())
    }

    #[test]
    fn each_line_has_the_rank_in_front() {
        assert_eq!(copied(b"one\n\ntwo").0, b"[3] one\n[3] \n[3] two\n");
        assert_eq!(copied(b"").0, b"");
        assert_eq!(copied(b"\xff\xfe\n").0, b"[3] \xff\xfe\n");
    }

    #[test]
    fn the_last_lines_are_kept_and_long_ones_cut() {
        let text: String = (0..50).map(|i| format!("line {i}\n")).collect();
        let kept = copied(text.as_bytes()).1;
        assert_eq!((kept.len(), kept[0].as_str(), kept[19].as_str()), (20, "line 30", "line 49"));
        let pieces = copied(&vec![b'x'; 200 << 10]).1;
        assert!(pieces.len() == 4 && pieces.iter().all(|p| p.len() as u64 <= LONGEST));
    }

    #[test]
    fn a_rank_is_read_to_its_end_where_nobody_reads_on() {
        let text: String = (0..50).map(|i| format!("line {i}\n")).collect();
        let tail = Tail::default();
        let gone = |_: &[u8]| Err(io::Error::from(io::ErrorKind::BrokenPipe));
        copy(0, text.as_bytes(), Some(&tail), gone);
        assert_eq!(tail.lines().last().map(String::as_str), Some("line 49"));
    }
}
