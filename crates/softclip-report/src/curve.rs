//! A quantity over training.

/// Points joined by a line.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// What the legend calls it.
    pub name: String,
    /// (x, y), by growing x. Points that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// Which of the page's eight colours; without one, by its place in the chart. What is shown in several places keeps one colour.
    pub colour: Option<usize>,
    /// Whether the area down to zero is filled.
    pub filled: bool,
    /// What the legend says beside the name; without one, the last value.
    pub note: Option<String>,
}

/// More points than a chart has pixels across only make the page heavy.
const DRAWN: usize = 800;

/// Axes of larger numbers, or of smaller ones than its inverse, run out of f64: such points count as not finite.
const LARGEST: f64 = 1e30;

impl Curve {
    /// A curve of `points` (x, y).
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Curve { name: name.into(), points, colour: None, filled: false, note: None }
    }

    /// A histogram's outline: bins of equal `width` from `from` on, a height each. Empty bins at both ends are left out.
    pub fn steps(name: impl Into<String>, from: f64, width: f64, heights: &[f64]) -> Self {
        let first = heights.iter().position(|h| *h != 0.0).unwrap_or(0);
        let end = heights.iter().rposition(|h| *h != 0.0).map_or(0, |last| last + 1);
        let edge = |bin: usize| from + width * bin as f64;
        let mut points = Vec::with_capacity(2 * (end - first) + 2);
        if end > first {
            points.push((edge(first), 0.0));
            points.extend((first..end).flat_map(|bin| [(edge(bin), heights[bin]), (edge(bin + 1), heights[bin])]));
            points.push((edge(end), 0.0));
        }
        Curve::new(name, points).filled()
    }

    /// In one of the page's colours.
    #[must_use]
    pub fn colour(mut self, colour: usize) -> Self {
        self.colour = Some(colour);
        self
    }

    /// With the area down to zero filled.
    #[must_use]
    pub fn filled(mut self) -> Self {
        self.filled = true;
        self
    }

    /// With these words beside its name in the legend.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
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
        Curve { points, ..self.clone() }
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
    fn a_histogram_is_an_outline_without_its_empty_ends() {
        let steps = Curve::steps("h", -1.0, 0.5, &[0.0, 2.0, 0.0, 1.0, 0.0]);
        let expected = [(-0.5, 0.0), (-0.5, 2.0), (0.0, 2.0), (0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (1.0, 1.0), (1.0, 0.0)];
        assert_eq!(steps.points, expected);
        assert!(steps.filled && Curve::steps("h", 0.0, 1.0, &[0.0; 3]).points.is_empty());
    }

    #[test]
    fn a_running_mean_of_a_constant_is_that_constant() {
        let curve = Curve::new("c", (0..10).map(|i| (f64::from(i), 2.0)).collect());
        assert_eq!(curve.smoothed(4), curve);
        let ramp = Curve::new("r", vec![(0.0, 0.0), (1.0, 1.0), (2.0, f64::NAN), (3.0, 2.0)]).smoothed(2);
        assert_eq!(ramp.points, [(0.0, 0.0), (1.0, 0.5), (3.0, 1.5)]);
    }
}
