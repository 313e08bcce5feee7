//! Where an axis begins and ends, and what is written on it.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use crate::html::number;

/// An axis, linear or logarithmic. Positions on it are the values themselves or their decimal logarithms.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    /// First and last position.
    pub span: (f64, f64),
    /// Positions with a label, growing.
    pub ticks: Vec<f64>,
    log: bool,
}

impl Axis {
    /// An axis over `values`, wider by the share `air` at both ends; `None` if there is no value.
    pub fn over(values: impl Iterator<Item = f64>, log: bool, air: f64) -> Option<Self> {
        let positions = values.map(|v| if log { v.log10() } else { v });
        let (low, high) = positions
            .fold(None, |span: Option<(f64, f64)>, v| Some(span.map_or((v, v), |(low, high)| (low.min(v), high.max(v)))))?;
        let width = high - low;
        let span = if width > 1e-10 * low.abs().max(high.abs()) {
            (low - air * width, high + air * width)
        } else {
            // One value only: it is set in the middle.
            let half = if low == 0.0 { 1.0 } else { 0.3 * low.abs() };
            (low - half, high + half)
        };
        Some(Axis { span, ticks: if log { decades(span) } else { linear(span) }, log })
    }

    /// An axis of `n` things at 0, 1, …, each with a label.
    pub fn places(n: usize) -> Self {
        let last = n.saturating_sub(1) as f64;
        Axis { span: (-0.5, last + 0.5), ticks: (0..n).map(|i| i as f64).collect(), log: false }
    }

    /// The same from zero on.
    pub fn starting_at_zero(mut self) -> Self {
        self.span.0 = 0.0;
        self.ticks = linear(self.span);
        self
    }

    /// Where `value` is.
    pub fn position(&self, value: f64) -> f64 {
        if self.log { value.log10() } else { value }
    }
}

impl Ranged for Axis {
    type ValueType = f64;
    type FormatOption = NoDefaultFormatting;

    fn map(&self, position: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (position - self.span.0) / (self.span.1 - self.span.0);
        from + (share * f64::from(to - from)).round() as i32
    }

    fn key_points<H: KeyPointHint>(&self, _: H) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.span.0..self.span.1
    }
}

impl ValueFormatter<f64> for Axis {
    fn format(position: &f64) -> String {
        number(*position)
    }

    fn format_ext(&self, position: &f64) -> String {
        number(if self.log { 10f64.powf(*position) } else { *position })
    }
}

/// Two to eight multiples of 1, 2 or 5 times a power of ten.
fn linear((from, to): (f64, f64)) -> Vec<f64> {
    let rough = (to - from) / 6.0;
    let unit = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * unit).find(|s| *s >= rough * 0.9).unwrap_or(rough);
    let (first, last) = ((from / step).ceil(), (to / step).floor());
    // Multiples, not sums: no rounding adds up, and zero is zero.
    (0..=(last - first) as usize).map(|i| (first + i as f64) * step + 0.0).collect()
}

/// Powers of ten; within few of them also their double and fivefold; within less than one, steps of equal size.
fn decades((from, to): (f64, f64)) -> Vec<f64> {
    let inside = |multiples: &[f64], stride: usize| -> Vec<f64> {
        (from.floor() as i32..=to.ceil() as i32)
            .step_by(stride)
            .flat_map(|decade| multiples.iter().map(move |m| f64::from(decade) + m.log10()))
            .filter(|p| (from..=to).contains(p))
            .collect()
    };
    match to - from {
        width if width < 1.0 => {
            linear((10f64.powf(from), 10f64.powf(to))).into_iter().filter(|v| *v > 0.0).map(f64::log10).collect()
        }
        width if width < 3.0 => inside(&[1.0, 2.0, 5.0], 1),
        width => inside(&[1.0], (width / 8.0).ceil() as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(values: &[f64], log: bool) -> Vec<String> {
        let axis = Axis::over(values.iter().copied(), log, 0.0).unwrap();
        axis.ticks.iter().map(|t| axis.format_ext(t)).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(labels(&[0.0, 1.0], false), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(labels(&[-0.7, 0.4], false), ["−0.6", "−0.4", "−0.2", "0", "0.2", "0.4"]);
        assert_eq!(labels(&[3.0, 3.0], false), ["2.5", "3", "3.5"]);
        assert_eq!(labels(&[1e-5, 6e-4], true), ["1e-5", "2e-5", "5e-5", "1e-4", "2e-4", "5e-4"]);
        assert_eq!(labels(&[1.1, 4.2], true), ["1.5", "2", "2.5", "3", "3.5", "4"]);
        assert_eq!(
            labels(&[1.0, 1e12], true),
            ["1", "100", "1e4", "1e6", "1e8", "1e10", "1e12"].map(|l| match l {
                "1e4" => "10\u{202f}000".to_owned(),
                "1e6" => "1\u{202f}000\u{202f}000".to_owned(),
                other => other.to_owned(),
            })
        );
    }

    #[test]
    fn every_span_has_few_ticks_and_all_lie_on_it() {
        for i in 0..2000 {
            let low = f64::from(i % 50 - 25) * 1.7f64.powi(i % 13 - 6);
            let high = low + 3.1f64.powi(i % 41 - 20);
            for log in [false, true] {
                let (low, high) =
                    if log { (3.1f64.powi(i % 41 - 20), 3.1f64.powi(i % 41 - 20) * (1.01 + f64::from(i))) } else { (low, high) };
                let axis = Axis::over([low, high].into_iter(), log, 0.05).unwrap();
                assert!((2..=10).contains(&axis.ticks.len()), "{low} {high} {log}: {:?}", axis.ticks);
                assert!(axis.ticks.iter().all(|t| (axis.span.0..=axis.span.1).contains(t)), "{low} {high} {log}");
                assert!(axis.ticks.is_sorted_by(|a, b| a < b), "{low} {high} {log}: {:?}", axis.ticks);
            }
        }
    }
}
