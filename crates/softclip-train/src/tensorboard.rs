//! TensorBoard's event files: scalars as protocol buffers in TFRecord framing.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::crc::crc32c;

/// Writes scalars.
pub struct Events {
    file: File,
}

impl Events {
    /// A new file in `folder`. `from` is the step that a resumed run goes on after: TensorBoard drops what others have beyond it.
    ///
    /// # Errors
    /// The folder is not writable.
    pub fn create(folder: &Path, from: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
        let name = format!("events.out.tfevents.{seconds:010}.softclip.{}.{from}", std::process::id());
        let mut events = Self { file: File::create(folder.join(name))? };
        let mut version = Vec::new();
        field_bytes(&mut version, 3, b"brain.Event:2");
        events.record(&event(0, &version))?;
        if from > 0 {
            let mut start = Vec::new();
            field_bytes(&mut start, 7, &[0x08, 1]); // session_log { status: START }
            events.record(&event(from + 1, &start))?;
        }
        Ok(events)
    }

    /// Adds scalars of a step.
    ///
    /// # Errors
    /// The disk is full.
    pub fn scalars<'a>(&mut self, step: u64, values: impl IntoIterator<Item = (&'a str, f64)>) -> io::Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut one = Vec::new();
            field_bytes(&mut one, 1, tag.as_bytes());
            one.push(0x15); // field 2, 32 bits
            one.extend((value as f32).to_le_bytes());
            field_bytes(&mut summary, 1, &one);
        }
        let mut body = Vec::new();
        field_bytes(&mut body, 5, &summary);
        self.record(&event(step, &body))
    }

    fn record(&mut self, data: &[u8]) -> io::Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut bytes = Vec::with_capacity(data.len() + 16);
        bytes.extend(length);
        bytes.extend(masked(&length).to_le_bytes());
        bytes.extend(data);
        bytes.extend(masked(data).to_le_bytes());
        self.file.write_all(&bytes)
    }
}

fn event(step: u64, body: &[u8]) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64());
    let mut bytes = vec![0x09]; // field 1, 64 bits
    bytes.extend(now.to_le_bytes());
    bytes.push(0x10); // field 2, varint
    varint(&mut bytes, step);
    bytes.extend(body);
    bytes
}

fn field_bytes(to: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    to.push(number << 3 | 2);
    varint(to, bytes.len() as u64);
    to.extend(bytes);
}

fn varint(to: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        to.push(n as u8 | 0x80);
        n >>= 7;
    }
    to.push(n as u8);
}

fn masked(bytes: &[u8]) -> u32 {
    let crc = crc32c(bytes);
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_framed_and_hold_tag_step_and_value() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = Events::create(folder.path(), 0).unwrap();
        events.scalars(300, [("train/loss", 1.5), ("lr", 0.25)]).unwrap();
        let path = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let bytes = std::fs::read(path).unwrap();
        let mut records = Vec::new();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let n = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(masked(&rest[..8]).to_le_bytes(), rest[8..12]);
            let data = &rest[12..12 + n];
            assert_eq!(masked(data).to_le_bytes(), rest[12 + n..16 + n]);
            records.push(data);
            rest = &rest[16 + n..];
        }
        assert_eq!(records.len(), 2);
        assert!(records[0].ends_with(b"brain.Event:2"));
        // Step 300 as a varint behind the time, then the summary with two values.
        assert_eq!(&records[1][9..12], [0x10, 0xac, 0x02]);
        let summary = &records[1][14..];
        assert_eq!(&summary[..14], b"\x0a\x11\x0a\x0atrain/loss");
        assert_eq!(&summary[14..19], [&[0x15][..], &1.5f32.to_le_bytes()].concat());
    }
}
