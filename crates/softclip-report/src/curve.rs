//! A quantity over training.

/// Points joined by a line.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// What the legend calls it.
    pub name: String,
    /// (x, y), by growing x. Points that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// More points than a chart has pixels across only make the page heavy.
const DRAWN: usize = 800;

/// Axes of larger numbers, or of smaller ones than its inverse, run out of f64: such points count as not finite.
const LARGEST: f64 = 1e30;

impl Curve {
    /// A curve of `points` (x, y).
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Curve { name: name.into(), points }
    }

    /// The running mean over `window` points, as wide as fits at the left end: for noisy per-step losses.
    #[must_use]
    pub fn smoothed(&self, window: usize) -> Self {
        let (mut sum, window) = (0.0, window.max(1));
        let finite: Vec<(f64, f64)> = self.finite(false);
        let points = (0..finite.len())
            .map(|i| {
                sum += finite[i].1 - if i >= window { finite[i - window].1 } else { 0.0 };
                (finite[i].0, sum / (i + 1).min(window) as f64)
            })
            .collect();
        Curve { name: self.name.clone(), points }
    }

    /// The points that can be drawn, on a logarithmic axis if `positive`.
    pub(crate) fn finite(&self, positive: bool) -> Vec<(f64, f64)> {
        let drawable = |v: f64| v == 0.0 || (1.0 / LARGEST..LARGEST).contains(&v.abs());
        self.points.iter().copied().filter(|(x, y)| drawable(*x) && drawable(*y) && (!positive || *y > 0.0)).collect()
    }

    /// At most [`DRAWN`] of `points`: the lowest and the highest of each stretch, so that no spike disappears.
    pub(crate) fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
        if points.len() <= DRAWN {
            return points;
        }
        let stretch = points.len().div_ceil(DRAWN / 2 - 1);
        let mut out = vec![points[0]];
        for part in points.chunks(stretch) {
            let at = |better: fn(f64, f64) -> bool| {
                (1..part.len()).fold(0, |best, i| if better(part[i].1, part[best].1) { i } else { best })
            };
            let (low, high) = (at(|a, b| a < b), at(|a, b| a > b));
            out.extend([part[low.min(high)], part[low.max(high)]]);
        }
        out.extend(points.last());
        out.dedup();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_ends_and_spikes() {
        let mut points: Vec<(f64, f64)> = (0..10_001).map(|i| (f64::from(i), (f64::from(i) / 500.0).sin())).collect();
        points[4_321].1 = 17.0;
        let thin = Curve::thinned(points.clone());
        assert!(thin.len() <= DRAWN + 2, "{}", thin.len());
        assert!(thin.contains(&(4_321.0, 17.0)));
        assert_eq!((thin.first(), thin.last()), (points.first(), points.last()));
        assert!(thin.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn a_running_mean_of_a_constant_is_that_constant() {
        let curve = Curve::new("c", (0..10).map(|i| (f64::from(i), 2.0)).collect());
        assert_eq!(curve.smoothed(4), curve);
        let ramp = Curve::new("r", vec![(0.0, 0.0), (1.0, 1.0), (2.0, f64::NAN), (3.0, 2.0)]).smoothed(2);
        assert_eq!(ramp.points, [(0.0, 0.0), (1.0, 0.5), (3.0, 1.5)]);
    }
}
