//! Checkpoints written while training goes on.

use std::path::Path;
use std::thread::{Builder, JoinHandle};

use tch::{Device, Tensor};

use super::{State, save};
use crate::{Error, Result};

/// A moment of a run, on the CPU: training may change everything behind it.
#[derive(Debug)]
pub struct Snapshot {
    state: State,
    model: Vec<(String, Tensor)>,
    optimizer: Vec<(String, Tensor)>,
}

impl Snapshot {
    /// Copies all tensors.
    ///
    /// # Errors
    /// There is no memory for a copy.
    pub fn take(state: State, model: &[(String, Tensor)], optimizer: &[(String, Tensor)]) -> Result<Self> {
        let copy = |tensors: &[(String, Tensor)]| {
            let copied = tensors.iter().map(|(name, tensor)| {
                let tensor = tensor.detach();
                let here = tensor.device() == Device::Cpu;
                let copy = if here { tensor.f_detach_copy()? } else { tensor.f_to_device(Device::Cpu)? };
                Ok((name.clone(), copy))
            });
            copied.collect::<Result<Vec<_>>>()
        };
        Ok(Self { state, model: copy(model)?, optimizer: copy(optimizer)? })
    }
}

/// Writes one checkpoint at a time on a thread of its own. Dropping it waits for the last.
#[derive(Debug, Default)]
pub struct Writer {
    thread: Option<JoinHandle<Result<()>>>,
}

impl Writer {
    /// Begins to write `snapshot` into `run`, as [`save`] does; what is being written is waited for first.
    ///
    /// # Errors
    /// Of the write before, then this one is not begun; the thread does not start.
    pub fn start(&mut self, run: &Path, snapshot: Snapshot, keep: usize) -> Result<()> {
        self.finish()?;
        let folder = run.to_owned();
        let write = move || {
            let Snapshot { state, model, optimizer } = snapshot;
            save(&folder, state, &model, &optimizer, keep).map(drop)
        };
        let thread = Builder::new().name("checkpoint".to_owned()).spawn(write).map_err(Error::io(run))?;
        self.thread = Some(thread);
        Ok(())
    }

    /// As [`Writer::finish`], without waiting: nothing where it is still written.
    ///
    /// # Errors
    /// Of a write that has ended.
    pub fn poll(&mut self) -> Result<()> {
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished) { self.finish() } else { Ok(()) }
    }

    /// Waits until nothing is being written.
    ///
    /// # Errors
    /// Of that write.
    pub fn finish(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let ended = || softclip_torch::Error::Invalid("the thread that writes checkpoints panicked".to_owned());
        thread.join().unwrap_or_else(|_| Err(ended().into()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Whoever wants to know has called `finish`.
        let _ = self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Checkpoint, MODEL, list};
    use super::*;
    use softclip_tensor::file::read_safetensors;
    use tch::Kind;

    fn state(step: u64) -> State {
        let position = Default::default();
        State { version: 1, step, position, samples: 8, batch_size: 2, seed: 0, sha256: Default::default() }
    }

    fn snapshot(step: u64, weight: &Tensor) -> Snapshot {
        Snapshot::take(state(step), &[("w".to_owned(), weight.shallow_clone())], &[]).unwrap()
    }

    #[test]
    fn what_is_written_is_the_moment_it_was_taken() {
        let run = tempfile::tempdir().unwrap();
        let mut weight = Tensor::ones([1 << 16], (Kind::Float, Device::Cpu));
        let mut writer = Writer::default();
        for step in 1..=3 {
            writer.start(run.path(), snapshot(step, &weight), 2).unwrap();
            let _ = weight.g_add_scalar_(1.0);
        }
        writer.finish().unwrap();
        assert_eq!(list(run.path()).unwrap().len(), 2);
        let newest = Checkpoint::newest(run.path()).unwrap().0.unwrap();
        assert_eq!(newest.state.step, 3);
        let kept = read_safetensors(newest.path.join(MODEL)).unwrap();
        assert_eq!((kept["w"].min().double_value(&[]), kept["w"].max().double_value(&[])), (3.0, 3.0));
    }

    #[test]
    fn a_write_that_fails_is_told_and_leaves_the_one_before() {
        let run = tempfile::tempdir().unwrap();
        let weight = Tensor::ones([4], (Kind::Float, Device::Cpu));
        let mut writer = Writer::default();
        writer.start(run.path(), snapshot(1, &weight), 1).unwrap();
        writer.finish().unwrap();
        // A file in the way of the folder in which the next is made.
        std::fs::write(run.path().join("checkpoints/.step-00000002.partial"), "").unwrap();
        writer.start(run.path(), snapshot(2, &weight), 1).unwrap();
        let told = loop {
            match writer.poll() {
                Ok(()) => std::thread::sleep(std::time::Duration::from_millis(1)),
                Err(e) => break e,
            }
        };
        assert!(told.to_string().contains("step-00000002"), "{told}");
        assert!(writer.poll().is_ok() && writer.finish().is_ok(), "told once");
        assert_eq!(Checkpoint::newest(run.path()).unwrap().0.unwrap().state.step, 1);
    }
}
