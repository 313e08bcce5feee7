//! What a job did, and where its time went.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// Time by stage. Decoding and writing go on beside the rest, in threads of their own.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Stages {
    /// Reading, decoding and letterboxing, of all threads together.
    #[serde(serialize_with = "seconds")]
    pub decode: Duration,
    /// Waiting for decoded images.
    #[serde(serialize_with = "seconds")]
    pub wait: Duration,
    /// The detector's forward pass, or looking objects up.
    #[serde(serialize_with = "seconds")]
    pub forward: Duration,
    /// From candidates to detections.
    #[serde(serialize_with = "seconds")]
    pub nms: Duration,
    /// The map of the network that features are read off.
    #[serde(serialize_with = "seconds")]
    pub map: Duration,
    /// RoIAlign.
    #[serde(serialize_with = "seconds")]
    pub roi_align: Duration,
    /// Tars, to the disk.
    #[serde(serialize_with = "seconds")]
    pub write: Duration,
}

fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

/// How a job ended.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// Whether it was stopped before its end.
    pub interrupted: bool,
    /// Sidecars of this process, and those among them that were whole before.
    pub sidecars: usize,
    /// See `sidecars`.
    pub done_before: usize,
    /// Images of this call, with those that could not be used.
    pub images: usize,
    /// Objects in all whole sidecars of this process, images among them without any, regions with features.
    pub objects: usize,
    /// See `objects`.
    pub without_objects: usize,
    /// See `objects`.
    pub regions: usize,
    /// Samples in these.
    pub samples: usize,
    /// Samples that could not be used, by cause.
    pub skipped: BTreeMap<String, usize>,
    /// Entries of the files of objects that could not be used, by cause.
    pub faults: BTreeMap<String, usize>,
    /// Seconds of this call.
    pub seconds: f64,
    /// Time by stage.
    pub stages: Stages,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.stages;
        let rate = |seconds: f64| if seconds > 0.0 { self.images as f64 / seconds } else { 0.0 };
        writeln!(f, "{} images in {:.1} s, {:.1} images/s", self.images, self.seconds, rate(self.seconds))?;
        writeln!(f, "{:<22} {:>9} {:>10}", "stage", "seconds", "images/s")?;
        for (name, time) in [
            ("decode (threads)", s.decode),
            ("wait for decoding", s.wait),
            ("forward", s.forward),
            ("nms", s.nms),
            ("region map", s.map),
            ("roi_align", s.roi_align),
            ("write (thread)", s.write),
        ] {
            let seconds = time.as_secs_f64();
            writeln!(f, "{name:<22} {seconds:>9.2} {:>10.1}", rate(seconds))?;
        }
        Ok(())
    }
}
