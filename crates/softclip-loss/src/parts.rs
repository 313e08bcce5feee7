//! Names of a loss's parts, the same in all three forms.

/// Names of (mean, image→text, text→image).
pub(crate) const SOFT: [&str; 3] = ["soft", "soft_v2l", "soft_l2v"];
pub(crate) const RELATION: [&str; 3] = ["relation", "relation_v2l", "relation_l2v"];
pub(crate) const CLIP: [&str; 3] = ["clip", "clip_v2l", "clip_l2v"];
pub(crate) const SIDES: [&str; 2] = ["v2l", "l2v"];
pub(crate) const SIGLIP: [&str; 2] = ["positives", "negatives"];

/// Sums of the three terms for each direction; what was never added stays out of the list.
#[derive(Default)]
pub(crate) struct SideTerms {
    pub soft: Option<[f64; 2]>,
    pub relation: Option<[f64; 2]>,
    pub hard: Option<[f64; 2]>,
}

impl SideTerms {
    pub fn named(&self, soft_targets: bool) -> Vec<(&'static str, f64)> {
        if !soft_targets {
            return self.hard.map(|x| SIDES.into_iter().zip(x).collect()).unwrap_or_default();
        }
        let mut out = Vec::new();
        for (names, terms) in [(SOFT, self.soft), (RELATION, self.relation), (CLIP, self.hard)] {
            if let Some([v2l, l2v]) = terms {
                out.extend(names.into_iter().zip([(v2l + l2v) / 2.0, v2l, l2v]));
            }
        }
        out
    }
}
