//! Sidecars, written by a thread while the next images are looked at.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use half::f16;
use softclip_data::source::{SampleError, SidecarRecord, member_name};
use softclip_tensor::file::{replace, write_atomic};
use softclip_tensor::npy::header;
use tch::Kind;

use crate::error::{Error, Result};
use crate::manifest::Record;
use crate::units::Unit;

/// Messages that wait.
const QUEUE: usize = 64;

/// What was found in one image, ready to be written.
pub(crate) struct Entry {
    pub(crate) stem: String,
    pub(crate) found: std::result::Result<Targets, SampleError>,
}

/// An image's tags and region features.
pub(crate) struct Targets {
    /// None where the origin tells of regions alone: not the same as nothing found.
    pub(crate) tags: Option<Vec<String>>,
    /// `[regions, width]` row by row; none where the job makes no features.
    pub(crate) regions: Option<(usize, Vec<f32>)>,
    /// Objects in all.
    pub(crate) objects: usize,
}

enum Message {
    Entry(Entry),
    /// The sidecar is whole: its samples' fingerprint.
    End(String),
}

/// Records of whole sidecars, and the time that writing took.
type Written = (Vec<Record>, Duration);

/// A thread that writes; dropped without [`Writer::finish`], it leaves nothing of the sidecar at hand.
pub(crate) struct Writer {
    sender: Option<SyncSender<Message>>,
    thread: Option<JoinHandle<Result<Written>>>,
}

impl Writer {
    pub(crate) fn start(units: Vec<Unit>, job: String) -> Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        let work = move || {
            let mut busy = Duration::ZERO;
            let mut records = Vec::new();
            for unit in &units {
                match sidecar(unit, &job, &receiver, &mut busy)? {
                    Some(record) => records.push(record),
                    None => break,
                }
            }
            Ok((records, busy))
        };
        let thread = std::thread::Builder::new().name("write".to_owned()).spawn(work);
        let thread = thread.map_err(|e| Error::Thread(e.to_string()))?;
        Ok(Writer { sender: Some(sender), thread: Some(thread) })
    }

    pub(crate) fn entry(&mut self, entry: Entry) -> Result<()> {
        self.send(Message::Entry(entry))
    }

    pub(crate) fn end(&mut self, fingerprint: String) -> Result<()> {
        self.send(Message::End(fingerprint))
    }

    fn send(&mut self, message: Message) -> Result<()> {
        match self.sender.as_ref().is_some_and(|sender| sender.send(message).is_ok()) {
            true => Ok(()),
            // Its thread ended: it says why.
            false => self.join().and_then(|_| Err(Error::Thread("the one that writes stopped".to_owned()))),
        }
    }

    /// Waits for the last sidecar.
    pub(crate) fn finish(mut self) -> Result<Written> {
        self.join()
    }

    fn join(&mut self) -> Result<Written> {
        self.sender = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(done)) => done,
            _ => Err(Error::Thread("the one that writes has a defect and stopped".to_owned())),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

/// Writes one sidecar and its record; none if it was not ended.
fn sidecar(unit: &Unit, job: &str, receiver: &Receiver<Message>, busy: &mut Duration) -> Result<Option<Record>> {
    let of = SidecarRecord { samples: unit.samples.len(), fingerprint: String::new(), bytes: 0 };
    let mut record = Record {
        of,
        job: job.to_owned(),
        objects: 0,
        without_objects: 0,
        regions: 0,
        skipped: Default::default(),
        skipped_samples: Vec::new(),
    };
    // Nothing of the next sidecar is on the disk before there is something to write.
    let Ok(mut message) = receiver.recv() else { return Ok(None) };
    let mut ended = Instant::now();
    let cut = || softclip_tensor::Error::Value { what: "sidecar", why: "it was not ended".to_owned() };
    let written = replace(&unit.path, |beside| {
        let io = |source| softclip_tensor::Error::Io { path: unit.path.clone(), source };
        let mut tar = tar::Builder::new(BufWriter::with_capacity(1 << 20, File::create(beside).map_err(io)?));
        loop {
            let start = Instant::now();
            match message {
                Message::Entry(entry) => append(&mut tar, entry, &mut record).map_err(io)?,
                Message::End(fingerprint) => {
                    (ended, record.of.fingerprint) = (start, fingerprint);
                    let file = tar.into_inner().and_then(|buffer| buffer.into_inner().map_err(|e| e.into_error()));
                    record.of.bytes = file.and_then(|file| file.metadata()).map_err(io)?.len();
                    return Ok(());
                }
            }
            *busy += start.elapsed();
            message = receiver.recv().map_err(|_| cut())?;
        }
    });
    match written {
        Err(softclip_tensor::Error::Value { .. }) => return Ok(None),
        written => written?,
    }
    let path = SidecarRecord::path(&unit.path);
    let text = serde_json::to_vec_pretty(&record).map_err(|e| Error::format(&path, e.to_string()))?;
    // After the sidecar: one without a record does not count.
    write_atomic(&path, &text)?;
    *busy += ended.elapsed();
    Ok(Some(record))
}

fn append(tar: &mut tar::Builder<impl Write>, entry: Entry, record: &mut Record) -> std::io::Result<()> {
    let targets = match entry.found {
        Ok(targets) => targets,
        Err(error) => {
            *record.skipped.entry(error.kind.to_string()).or_default() += 1;
            record.skipped_samples.push(error.to_string());
            return Ok(());
        }
    };
    record.objects += targets.objects;
    let name = member_name(&entry.stem);
    if let Some(tags) = &targets.tags {
        record.without_objects += usize::from(tags.is_empty());
        member(tar, &format!("{name}.tags.json"), &serde_json::to_vec(tags)?)?;
    }
    if let Some((width, rows)) = &targets.regions {
        let count = rows.len() / (*width).max(1);
        record.regions += count;
        let mut npy = header(Kind::Half, &[count, *width]);
        npy.extend(rows.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()));
        member(tar, &format!("{name}.rois.npy"), &npy)?;
    }
    Ok(())
}

fn member(tar: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, Path::new(name), bytes)
}
