//! What a step's numbers say: log lines, and alarms with advice.

use softclip_loss::config::{Blend, TargetGrad};
use softclip_loss::{BlockOptions, Diagnostics, LossConfig, LossInputs, Scales, blockwise};
use softclip_torch::guard;

use crate::category::Category;
use crate::step::StepReport;
use crate::{Error, Result};

/// A step and what was measured around it since the last log line.
pub struct Now<'a> {
    pub report: &'a StepReport,
    pub lr: f64,
    pub epoch: f64,
    pub samples_per_second: f64,
    /// Share of the time spent waiting for data.
    pub data_wait: f64,
    pub skipped_samples: usize,
    /// Texts that the frozen category encoder ran on, where there is one.
    pub category_encoded: Option<u64>,
}

impl Now<'_> {
    /// For metrics.jsonl and TensorBoard.
    pub fn values(&self) -> Vec<(String, f64)> {
        let (report, diagnostics) = (self.report, &self.report.diagnostics);
        let mut values: Vec<(String, f64)> = [
            ("epoch", self.epoch),
            ("loss", report.loss),
            ("lr", self.lr),
            ("logit_scale", report.logit_scale),
            ("grad_norm", report.grad_norm),
            ("overflowed", f64::from(u8::from(report.overflowed))),
            ("samples_per_second", self.samples_per_second),
            ("data_wait", self.data_wait),
            ("skipped_samples", self.skipped_samples as f64),
            ("target_softness", diagnostics.target_softness),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
        values.extend(self.category_encoded.map(|texts| ("category_encoded".to_owned(), texts as f64)));
        values.extend(diagnostics.target_entropy.map(|entropy| ("target_entropy".to_owned(), entropy)));
        values.extend(diagnostics.mean_cosine.iter().map(|(set, cosine)| (format!("mean_cosine_{set}"), *cosine)));
        values.extend(report.parts.iter().map(|(part, value)| (format!("loss_{part}"), *value)));
        values
    }

    /// For people.
    pub fn line(&self) -> String {
        let both_ways = |part: &str| !part.ends_with("_v2l") && !part.ends_with("_l2v");
        let parts = self.report.parts.iter().filter(|(part, _)| both_ways(part));
        let parts: Vec<String> = parts.map(|(part, value)| format!("{part} {value:.3}")).collect();
        let encoded = match self.category_encoded {
            Some(texts) if texts > 0 => format!("  new texts {texts}"),
            _ => String::new(),
        };
        format!(
            "epoch {:.2}  loss {:.4} ({})  1/τ {:.2}  {:.1} samples/s  data wait {:.0} %{encoded}",
            self.epoch,
            self.report.loss,
            parts.join(", "),
            self.report.logit_scale,
            self.samples_per_second,
            self.data_wait * 100.0
        )
    }
}

/// Embeddings of different samples are alike beyond this mean cosine; runs that learn were at 0.993 at most after their warm-up.
const ALIKE: f64 = 0.995;

/// What is wrong and what helps, if embeddings that should learn to differ have become alike.
pub fn collapse(diagnostics: &Diagnostics, loss: &LossConfig) -> Option<String> {
    // Nothing trains the region branch's entry where no gradient flows through targets.
    let detached = matches!(loss, LossConfig::Softclip(config) if config.target_grad == TargetGrad::Detach);
    let frozen = |set: &str| set.starts_with("category") || (detached && set == "regions");
    let (set, cosine) = diagnostics.mean_cosine.iter().find(|(set, cosine)| *cosine > ALIKE && !frozen(set))?;
    Some(format!(
        "all {set} embeddings are alike (mean cosine {cosine:.3}): nothing can be learned from them. What usually helps, from the \
         beginning: a longer train.warmup, a lower train.lr{}",
        if matches!(loss, LossConfig::Softclip(_)) && !detached { ", loss.target_grad=detach" } else { "" }
    ))
}

/// Beyond this share of the targets' mass off the own pair their labels are noise rather than labels.
const MOSTLY_OFF: f64 = 0.5;

/// What `text_based` will compare predictions with, told of the first batch before anything is learned from it: constant targets do
/// not change. Nothing where the label is the own pair.
///
/// # Errors
/// The device has no memory left, for one; nothing of the training depends on it.
pub fn first_targets(category: &Category, loss: &LossConfig) -> Result<Vec<String>> {
    if !matches!(loss, LossConfig::TextBased(config) if config.blend != Blend::Logits && config.alpha > 0.0) {
        return Ok(Vec::new());
    }
    // The labels have nothing of images and captions: any embeddings stand for those here.
    let (c, d) = (&category.sentences, &category.captions);
    let inputs = LossInputs { category: Some(c), category_text: Some(d), ..LossInputs::new(c, d) };
    let options = BlockOptions::for_device(c.tensor().device());
    let found = guard(|| blockwise(loss, &inputs, &Scales::new(0.0), &options))??.diagnostics;
    let cosine = |set: &str| found.mean_cosine.iter().find(|(name, _)| *name == set).map_or(f64::NAN, |(_, cosine)| *cosine);
    let mut lines = vec![format!(
        "targets of the first batch: {:.1} % of their mass lies off the own pair (mean cosine of two category sentences {:.3}, of two \
         captions {:.3})",
        found.target_softness * 100.0,
        cosine("category"),
        cosine("category_text")
    )];
    if found.target_softness > MOSTLY_OFF {
        lines.push(
            "note: most of a label is not its own pair's, so that it says little. What helps: a lower loss.alpha, smaller batches, a \
             category.encoder or category.pool that tells texts apart"
                .to_owned(),
        );
    }
    Ok(lines)
}

/// The error of a step, with its number, its samples (the one at fault first) and advice. `keys` are those of the batch's rows from
/// `first` on, which this rank has.
pub fn non_finite(error: Error, step: u64, lr: f64, keys: &[String], first: usize) -> Error {
    let Error::NonFinite { why, row } = error else { return error };
    let row = row.and_then(|row| row.checked_sub(first)).filter(|row| *row < keys.len());
    let rest = (0..keys.len()).filter(|i| Some(*i) != row);
    let shown: Vec<&str> = row.into_iter().chain(rest).take(8).filter_map(|i| keys.get(i).map(String::as_str)).collect();
    let more = if keys.len() > 8 { format!(" and {} more", keys.len() - 8) } else { String::new() };
    let why = format!(
        "step {}: {why}. Nothing was changed by this step; the last checkpoint is whole. The batch's samples: {}{more}. What usually \
         helps: a lower train.lr (now {lr:.2e} at this step) or a longer train.warmup, train.grad_clip=1, bf16 or fp32 instead of fp16",
        step + 1,
        shown.join(", ")
    );
    Error::NonFinite { why, row }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cosines(set: &'static str, cosine: f64) -> Diagnostics {
        Diagnostics { target_softness: 0.0, target_entropy: None, mean_cosine: vec![("image", 0.3), (set, cosine)] }
    }

    #[test]
    fn collapse_is_told_where_it_matters() {
        let flow: LossConfig = serde_yaml::from_str("name: softclip").unwrap();
        let detach: LossConfig = serde_yaml::from_str("{name: softclip, target_grad: detach}").unwrap();
        let told = collapse(&cosines("tags", 0.999), &flow).unwrap();
        assert!(told.contains("all tags embeddings") && told.contains("target_grad=detach"), "{told}");
        assert!(collapse(&cosines("tags", 0.98), &flow).is_none());
        assert!(collapse(&cosines("regions", 0.999), &flow).is_some());
        assert!(collapse(&cosines("regions", 0.999), &detach).is_none());
        assert!(!collapse(&cosines("text", 0.999), &detach).unwrap().contains("target_grad"));
    }

    #[test]
    fn targets_are_judged_before_anything_is_learned() {
        use softclip_tensor::Embeddings;
        use tch::{Device, Kind, Tensor};

        // 16 sentences and captions with a cosine of 0.9 to each other, own ones included.
        let rows = |of: i64| {
            let own = Tensor::eye(33, (Kind::Float, Device::Cpu)).narrow(0, of, 16) * 0.1f64.sqrt();
            let shared = Tensor::zeros([16, 33], (Kind::Float, Device::Cpu));
            let _ = shared.select(1, 32).fill_(0.9f64.sqrt());
            Embeddings::normalize(&(own + shared)).unwrap()
        };
        let category = Category { sentences: rows(0), captions: rows(16) };
        let told = |loss: &str| first_targets(&category, &serde_yaml::from_str(loss).unwrap()).unwrap();
        // Off: 15 · 0.3 · 0.9 = 4.05; own: 0.7 + 0.27.
        for blend in ["targets", "targets_normalized"] {
            let lines = told(&format!("{{name: text_based, blend: {blend}}}"));
            assert!(lines[0].contains("first batch: 80.7 % of their mass lies off the own pair"), "{lines:?}");
            assert!(lines[0].contains("sentences 0.900") && lines[0].contains("captions 0.900"), "{lines:?}");
            assert!(lines[1].contains("a lower loss.alpha"), "{lines:?}");
        }
        assert_eq!(told("{name: text_based, blend: targets, alpha: 0.01}").len(), 1);
        for hard in ["name: text_based", "{name: text_based, blend: targets, alpha: 0}", "name: clip"] {
            assert!(told(hard).is_empty(), "{hard}");
        }
        // A frozen encoder's cosines are no collapse.
        assert!(collapse(&cosines("category", 0.999), &serde_yaml::from_str("name: text_based").unwrap()).is_none());
    }

    #[test]
    fn the_pair_at_fault_comes_first() {
        let keys: Vec<String> = (0..20).map(|i| format!("k{i}")).collect();
        let error = Error::NonFinite { why: "row 13 is not finite".to_owned(), row: Some(13) };
        let told = non_finite(error, 4, 1e-3, &keys, 0).to_string();
        assert!(told.starts_with("step 5: row 13") && told.contains("samples: k13, k0, k1"), "{told}");
        // On another rank, and on the one that has rows 10 to 29.
        let error = || Error::NonFinite { why: String::new(), row: Some(13) };
        assert!(non_finite(error(), 4, 1e-3, &keys, 20).to_string().contains("samples: k0, k1"));
        assert!(non_finite(error(), 4, 1e-3, &keys, 10).to_string().contains("samples: k3, k0, k1"));
    }
}
