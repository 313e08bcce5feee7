//! SoftCLIP's constants and options.

use serde::{Deserialize, Serialize};

use super::{Needs, in_range, positive, weight};
use crate::error::{Error, Result};

/// SoftCLIP, eq. (16): `soft · L̃_soft + lambda · L̃_re-soft + mu · L_CLIP`.
///
/// Rows of Table 6, from the second on (the first is `name: clip`, label smoothing `name: label_smoothing`):
///
/// | row | keys |
/// | --- | --- |
/// | CLIP + soft | `lambda: 0`, `divergence: kl` |
/// | + relation-enhanced | `divergence: kl` |
/// | + symmetric KL | the defaults |
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SoftClipConfig {
    /// β of eqs (8), (9), in [0, 1]; 0.3 in the paper, stable between 0.1 and 0.5. 0 only with `divergence: kl` or `js` and `lambda: 0`.
    pub beta: f64,
    /// Weight of the soft term, eqs (10), (11). 1 in eq. (16).
    pub soft: f64,
    /// Weight λ of the relation-enhanced term, eqs (13), (14). Default 1: ours, to be checked.
    pub lambda: f64,
    /// Weight μ of CLIP's own loss. Default 0.5: ours, to be checked.
    pub mu: f64,
    /// γ of Figure 4a, in [0, 1]: γ·L(R,A) + (1 − γ)·L(I,T), where L(I,T) takes its targets from the image and text self-similarities. 1: only L(R,A).
    pub gamma: f64,
    /// Which similarities guide image→text and text→image (Table 9).
    pub forms: [Form; 2],
    /// How prediction and target are compared.
    pub divergence: Divergence,
    /// Whether gradients flow through the targets.
    pub target_grad: TargetGrad,
    /// The temperature inside of the targets, eqs (6), (7).
    pub target_temperature: TargetTemperature,
}

impl Default for SoftClipConfig {
    fn default() -> Self {
        SoftClipConfig {
            beta: 0.3,
            soft: 1.0,
            lambda: 1.0,
            mu: 0.5,
            gamma: 1.0,
            forms: [Form::RR, Form::AA],
            divergence: Divergence::SymmetricKl,
            target_grad: TargetGrad::Flow,
            target_temperature: TargetTemperature::Shared,
        }
    }
}

/// One guiding set of Table 9: regions R or tags A.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guide {
    /// r_i.
    Regions,
    /// a_i.
    Tags,
}

/// A supervision form of Table 9: whose similarities are the target. `RR`: row i is r_i·r_j over j; `RA`: r_i·a_j.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// Regions to regions (the paper's R2R).
    #[serde(alias = "R2R")]
    RR,
    /// Tags to tags (A2A).
    #[serde(alias = "A2A")]
    AA,
    /// Regions to tags (R2A).
    #[serde(alias = "R2A")]
    RA,
    /// Tags to regions (A2R).
    #[serde(alias = "A2R")]
    AR,
}

impl Form {
    /// Query and key of the similarity.
    pub fn guides(self) -> (Guide, Guide) {
        match self {
            Form::RR => (Guide::Regions, Guide::Regions),
            Form::AA => (Guide::Tags, Guide::Tags),
            Form::RA => (Guide::Regions, Guide::Tags),
            Form::AR => (Guide::Tags, Guide::Regions),
        }
    }

    /// Whether it compares regions with tags.
    pub fn is_cross(self) -> bool {
        matches!(self, Form::RA | Form::AR)
    }
}

/// How a prediction p is compared with its target q.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Divergence {
    /// ½ (KL(q‖p) + KL(p‖q)), eq. (15).
    SymmetricKl,
    /// KL(q‖p), eqs (10) to (14).
    Kl,
    /// KL(p‖q).
    ReverseKl,
    /// Jensen-Shannon, ½ KL(q‖m) + ½ KL(p‖m), m = (p + q)/2; the paper found it unstable.
    Js,
}

/// Whether gradients flow through the soft targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetGrad {
    /// As the paper's formulas are written.
    Flow,
    /// Targets, their temperature included, are constants.
    Detach,
}

/// Temperature of the targets. In a file: `shared`, `own` or `{ fixed: 0.07 }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "TemperatureForm", into = "TemperatureForm")]
pub enum TargetTemperature {
    /// The logits' own τ, as the paper writes it.
    Shared,
    /// A constant τ > 0.
    Fixed(f64),
    /// A second learned τ ([`crate::Scales::target_log_scale`]).
    Own,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected `shared`, `own` or `{ fixed: TAU }`")]
enum TemperatureForm {
    Word(String),
    Fixed(FixedTemperature),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FixedTemperature {
    fixed: f64,
}

impl TryFrom<TemperatureForm> for TargetTemperature {
    type Error = String;

    fn try_from(form: TemperatureForm) -> std::result::Result<Self, String> {
        match form {
            TemperatureForm::Fixed(f) => Ok(TargetTemperature::Fixed(f.fixed)),
            TemperatureForm::Word(word) => match word.as_str() {
                "shared" => Ok(TargetTemperature::Shared),
                "own" => Ok(TargetTemperature::Own),
                other => Err(format!("unknown target_temperature `{other}`, expected `shared`, `own` or `{{ fixed: TAU }}`")),
            },
        }
    }
}

impl From<TargetTemperature> for TemperatureForm {
    fn from(t: TargetTemperature) -> Self {
        match t {
            TargetTemperature::Shared => TemperatureForm::Word("shared".into()),
            TargetTemperature::Own => TemperatureForm::Word("own".into()),
            TargetTemperature::Fixed(fixed) => TemperatureForm::Fixed(FixedTemperature { fixed }),
        }
    }
}

impl SoftClipConfig {
    /// Whether any term looks at a target at all.
    pub(crate) fn has_targets(&self) -> bool {
        self.soft > 0.0 || self.lambda > 0.0
    }

    pub(super) fn needs(&self) -> Needs {
        let guided = self.has_targets() && self.gamma > 0.0;
        let uses = |g: Guide| {
            guided
                && self.forms.iter().any(|f| {
                    let (x, y) = f.guides();
                    x == g || y == g
                })
        };
        Needs {
            regions: uses(Guide::Regions),
            tags: uses(Guide::Tags),
            target_scale: self.has_targets() && self.target_temperature == TargetTemperature::Own,
            ..Needs::default()
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        in_range("beta", self.beta, 0.0, 1.0)?;
        in_range("gamma", self.gamma, 0.0, 1.0)?;
        weight("soft", self.soft)?;
        weight("lambda", self.lambda)?;
        weight("mu", self.mu)?;
        if let TargetTemperature::Fixed(tau) = self.target_temperature {
            positive("target_temperature", tau)?;
        }
        if !self.has_targets() && self.mu == 0.0 {
            return Err(Error::Config { key: "mu", why: "soft, lambda and mu are all 0: nothing is left of the loss".into() });
        }
        if self.beta > 0.0 || !self.has_targets() {
            return Ok(());
        }
        let why = match self.divergence {
            Divergence::SymmetricKl | Divergence::ReverseKl => {
                "0 makes KL(p‖q) infinite wherever the target is 0; use divergence: kl with lambda: 0, or a small beta such as 1e-4"
            }
            _ if self.lambda > 0.0 => {
                "0 leaves no target off the diagonal, so the relation-enhanced term is 0/0; set lambda: 0, or a small beta such as 1e-4"
            }
            _ => return Ok(()),
        };
        Err(Error::Config { key: "beta", why: why.into() })
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        let mut out = Vec::new();
        if !self.has_targets() {
            return out;
        }
        let detached = self.target_grad == TargetGrad::Detach;
        if detached && self.gamma > 0.0 && self.forms.iter().any(|f| f.is_cross()) {
            out.push(
                "loss.target_grad: detach leaves the regions' entry matrix untrained, so that forms RA and AR compare regions with tags \
                 in unaligned spaces; use forms: [RR, AA] or target_grad: flow"
                    .into(),
            );
        }
        if detached && self.target_temperature == TargetTemperature::Own {
            out.push("loss.target_temperature: own never changes under target_grad: detach; use { fixed: TAU }".into());
        }
        if self.beta > 0.8 && self.soft > 0.0 {
            out.push(format!("loss.beta: {} is above 0.8, where the paper's Figure 4b falls steeply", self.beta));
        }
        if !detached && self.mu == 0.0 && self.beta == 1.0 {
            out.push(
                "loss.mu: 0 with beta: 1 and target_grad: flow has no hard label left; all embeddings may collapse to one".into(),
            );
        }
        if self.divergence == Divergence::Js {
            out.push("loss.divergence: js was found unstable by the paper".into());
        }
        out
    }
}
