//! What was measured, for people and machines.

use std::fmt;

use serde::Serialize;
use softclip_tensor::Precision;

use crate::step::Phases;

/// Times of training steps. As text, a table.
#[derive(Clone, Debug, Serialize)]
pub struct StepTimes {
    /// The device, as `cpu` or `cuda:0`.
    pub device: String,
    /// Threads that libtorch computes with on the CPU.
    pub threads: i32,
    /// Number type of the encoders.
    pub precision: Precision,
    /// Whether GPUs multiplied f32 matrices in TF32.
    pub tf32: bool,
    /// Pairs a step.
    pub batch_size: usize,
    /// Timed steps a case, of which the shortest counts.
    pub steps: usize,
    /// The source of the pairs; absent: random images in memory.
    pub data: Option<String>,
    /// The largest rate of a product of large matrices in this precision on this device, measured before and after each model.
    pub matmul_flops_per_second: f64,
    /// One a model.
    pub models: Vec<ModelTimes>,
}

/// Of one model, the cases that were asked for.
#[derive(Clone, Debug, Serialize)]
pub struct ModelTimes {
    /// Its name.
    pub model: String,
    /// Rows of tokens as long as the batch's longest caption.
    pub trimmed: Option<Case>,
    /// As long as the model allows.
    pub untrimmed: Option<Case>,
}

impl ModelTimes {
    /// How many times as fast trimming is, where both were measured.
    pub fn ratio(&self) -> Option<f64> {
        Some(self.trimmed.as_ref()?.samples_per_second / self.untrimmed.as_ref()?.samples_per_second)
    }
}

/// The shortest of the timed steps. Times are in seconds.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// Tokens of a row, at most.
    pub tokens: i64,
    /// The step's parts.
    #[serde(flatten)]
    pub phases: Phases,
    /// Mean wait for a batch and its way to the device; 0 without a data source.
    pub data_wait: f64,
    /// The whole step without that wait.
    pub step: f64,
    /// Pairs a second, the wait for data among the time.
    pub samples_per_second: f64,
    /// Bytes: the most that tensors held on a GPU, or that the whole process had resident on the CPU, in a step.
    pub peak_memory: u64,
    /// Counted operations ([`softclip_encoders::Flops::training`]) over the step's time.
    pub flops_per_second: f64,
    /// Those over the rate of a product of large matrices.
    pub share_of_matmul: f64,
}

impl Case {
    pub(super) fn new(
        tokens: i64,
        phases: Phases,
        data_wait: f64,
        step: f64,
        batch: usize,
        peak_memory: u64,
        flops: u64,
    ) -> Self {
        let samples_per_second = batch as f64 / (step + data_wait);
        let flops_per_second = flops as f64 / step;
        Case { tokens, phases, data_wait, step, samples_per_second, peak_memory, flops_per_second, share_of_matmul: 0.0 }
    }

    pub(super) fn of(&mut self, matmul: f64) {
        self.share_of_matmul = self.flops_per_second / matmul;
    }
}

impl fmt::Display for StepTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, threads, precision, tf32, batch_size, steps, .. } = self;
        let tf32 = if *tf32 { " with TF32" } else { "" };
        let data = self.data.as_deref().unwrap_or("random images");
        writeln!(
            f,
            "CLIP training on {device}, {threads} threads, {precision:?}{tf32}, {batch_size} pairs a step, {data}; seconds of the shortest of \
             {steps} steps; a large product of matrices reaches {:.0} GFLOP/s",
            self.matmul_flops_per_second / 1e9
        )?;
        write!(
            f,
            "{:<12}{:>7}{:>9}{:>8}{:>10}{:>11}{:>11}{:>9}{:>11}{:>9}{:>9}{:>7}",
            "model",
            "tokens",
            "forward",
            "loss",
            "backward",
            "optimizer",
            "data wait",
            "step",
            "samples/s",
            "MiB",
            "GFLOP/s",
            "share"
        )?;
        for m in &self.models {
            for case in m.trimmed.iter().chain(&m.untrimmed) {
                write!(f, "\n{:<12}{case}", m.model)?;
            }
            if let Some(ratio) = m.ratio() {
                write!(f, "\n{:<12}{:>66}{ratio:>10.2}x", "", "trimmed over untrimmed")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Phases { forward, loss, backward, optimizer } = self.phases;
        write!(
            f,
            "{:>7}{forward:>9.3}{loss:>8.3}{backward:>10.3}{optimizer:>11.3}{:>11.3}{:>9.3}{:>11.1}{:>9.0}{:>9.0}{:>6.0}%",
            self.tokens,
            self.data_wait,
            self.step,
            self.samples_per_second,
            self.peak_memory as f64 / f64::from(1 << 20),
            self.flops_per_second / 1e9,
            100.0 * self.share_of_matmul
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_come_from_times_and_the_table_has_a_line_a_case() {
        let phases = Phases { forward: 1.0, loss: 0.5, backward: 2.0, optimizer: 0.5 };
        let case = |step: f64, wait: f64| {
            let mut case = Case::new(28, phases, wait, step, 32, 1 << 30, 8_000_000_000_000);
            case.of(4e12);
            case
        };
        let (trimmed, untrimmed) = (case(4.0, 0.0), case(7.0, 1.0));
        assert_eq!((trimmed.samples_per_second, trimmed.flops_per_second, trimmed.share_of_matmul), (8.0, 2e12, 0.5));
        assert_eq!(untrimmed.samples_per_second, 4.0);
        let model = ModelTimes { model: "rn50".into(), trimmed: Some(trimmed), untrimmed: Some(untrimmed) };
        assert_eq!(model.ratio(), Some(2.0));
        assert_eq!(ModelTimes { untrimmed: None, ..model.clone() }.ratio(), None);
        let times = StepTimes {
            device: "cpu".into(),
            threads: 2,
            precision: Precision::Bf16,
            tf32: true,
            batch_size: 32,
            steps: 3,
            data: None,
            matmul_flops_per_second: 4e12,
            models: vec![model],
        };
        let table = times.to_string();
        let widths: Vec<usize> = table.lines().skip(1).take(3).map(|line| line.chars().count()).collect();
        assert!(
            table.lines().count() == 5
                && table.contains("2.00x")
                && table.contains("Bf16 with TF32")
                && widths.iter().all(|w| *w == widths[0]),
            "{table}"
        );
        let json = serde_json::to_value(&times).unwrap();
        assert_eq!(json["models"][0]["trimmed"]["backward"], 2.0);
        assert_eq!((&json["precision"], &json["tf32"]), (&"bf16".into(), &true.into()));
    }
}
