//! Where a step's time goes.

use std::time::Instant;

use serde::Serialize;
use softclip_torch::synchronize;
use tch::Device;

use crate::Result;

/// Seconds of a step's parts. On a GPU they are true only after [`Trainer::time_phases`](super::Trainer::time_phases): otherwise a
/// part ends when its work was handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Phases {
    /// Normalisation and encoders, both passes where the batch comes in chunks.
    pub forward: f64,
    /// The loss and its gradients by the embeddings.
    pub loss: f64,
    /// The encoders backward.
    pub backward: f64,
    /// Clearing gradients, their norm and clipping, AdamW.
    pub optimizer: f64,
}

impl Phases {
    /// Seconds of all parts.
    pub fn total(&self) -> f64 {
        self.forward + self.loss + self.backward + self.optimizer
    }
}

/// Books the time since the last call under the part that has just ended.
pub(super) struct Clock {
    last: Instant,
    phases: Phases,
    wait_for: Option<Device>,
}

impl Clock {
    /// `wait_for`: the device that is waited for at the end of each part.
    pub(super) fn start(wait_for: Option<Device>) -> Self {
        Self { last: Instant::now(), phases: Phases::default(), wait_for }
    }

    fn lap(&mut self) -> Result<f64> {
        self.wait_for.map_or(Ok(()), synchronize)?;
        let now = Instant::now();
        let seconds = (now - self.last).as_secs_f64();
        self.last = now;
        Ok(seconds)
    }

    pub(super) fn forward(&mut self) -> Result<()> {
        self.phases.forward += self.lap()?;
        Ok(())
    }

    pub(super) fn loss(&mut self) -> Result<()> {
        self.phases.loss += self.lap()?;
        Ok(())
    }

    pub(super) fn backward(&mut self) -> Result<()> {
        self.phases.backward += self.lap()?;
        Ok(())
    }

    pub(super) fn optimizer(&mut self) -> Result<()> {
        self.phases.optimizer += self.lap()?;
        Ok(())
    }

    pub(super) fn phases(self) -> Phases {
        self.phases
    }
}
