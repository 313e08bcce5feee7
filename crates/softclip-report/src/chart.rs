//! Line charts as SVG whose colours come from the page's style sheet.

use std::fmt::Write;

use plotters::prelude::{IntoDrawingArea, LineSeries, PathElement, Polygon, SVGBackend};
use plotters::style::Color;

use crate::axis::Axis;
use crate::curve::Curve;
use crate::html::{escape, number};
use crate::paint::{DrawingError, FINE, SERIES, builder, plain, series, styled};

/// Size in the page's pixels.
const SIZE: (u32, u32) = (560, 300);

/// A curve's colour beside the eight: of what belongs to none of the things that these stand for.
pub const COMMON: usize = usize::MAX;

/// Curves over a common x.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chart {
    /// Above the chart.
    pub title: String,
    /// Under the x axis.
    pub x_label: String,
    /// Beside the y axis.
    pub y_label: String,
    /// At most eight colours: further curves begin again.
    pub curves: Vec<Curve>,
    /// A logarithmic y axis; values that are not positive are left out.
    pub log_y: bool,
    /// From where to where x goes; without it, as far as there are points. Charts to be compared have one.
    pub x_span: Option<(f64, f64)>,
    /// What those hear who cannot see it; without it, where each curve begins and ends.
    pub description: Option<String>,
}

impl Chart {
    /// A chart without curves yet.
    pub fn new(title: impl Into<String>, x_label: impl Into<String>, y_label: impl Into<String>) -> Self {
        Chart { title: title.into(), x_label: x_label.into(), y_label: y_label.into(), ..Chart::default() }
    }

    /// With a curve more.
    #[must_use]
    pub fn curve(mut self, curve: Curve) -> Self {
        self.curves.push(curve);
        self
    }

    /// With a logarithmic y axis.
    #[must_use]
    pub fn log_y(mut self) -> Self {
        self.log_y = true;
        self
    }

    /// With x from `from` to `to` at least.
    #[must_use]
    pub fn x_span(mut self, from: f64, to: f64) -> Self {
        self.x_span = Some((from, to));
        self
    }

    /// With what it shows in words.
    #[must_use]
    pub fn described(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }

    /// The colour of a curve.
    fn colour(&self, index: usize) -> usize {
        match self.curves.get(index).and_then(|curve| curve.colour).unwrap_or(index) {
            COMMON => SERIES,
            colour => colour % SERIES,
        }
    }

    pub(crate) fn render(&self, out: &mut String) {
        let drawn: Vec<Vec<(f64, f64)>> = self.curves.iter().map(|c| c.finite(self.log_y)).collect();
        let _ = write!(out, "<figure class=\"chart\"><h3>{}</h3>", escape(&self.title));
        let filled = self.curves.iter().any(|curve| curve.filled);
        match Frame::around(&drawn, self, filled) {
            None => out.push_str("<p class=\"nothing\">No points to draw.</p>"),
            Some(frame) => {
                self.legend(&drawn, out);
                match self.draw(&drawn, &frame) {
                    Ok(svg) => out.push_str(&styled(&svg, SIZE, &self.summary(&drawn))),
                    Err(e) => {
                        let _ = write!(out, "<p class=\"nothing\">Could not be drawn: {}.</p>", escape(&e.to_string()));
                    }
                }
            }
        }
        out.push_str("</figure>\n");
    }

    fn legend(&self, drawn: &[Vec<(f64, f64)>], out: &mut String) {
        out.push_str("<ul class=\"legend\">");
        for (i, (curve, points)) in self.curves.iter().zip(drawn).enumerate() {
            let last = || format!("last {}", points.last().map_or("–".to_owned(), |p| number(p.1)));
            let note = escape(&curve.note.clone().unwrap_or_else(last));
            let _ = write!(out, "<li class=\"s{}\"><i></i>{} <b>{note}</b></li>", self.colour(i), escape(&curve.name));
        }
        out.push_str("</ul>");
    }

    /// What the chart shows, in words.
    fn summary(&self, drawn: &[Vec<(f64, f64)>]) -> String {
        let mut text = format!("{}: {} against {}.", self.title, self.y_label, self.x_label);
        if let Some(description) = &self.description {
            let _ = write!(text, " {description}");
            return text;
        }
        for (curve, points) in self.curves.iter().zip(drawn) {
            if let (Some(first), Some(last)) = (points.first(), points.last()) {
                let (y0, x0, y1, x1) = (number(first.1), number(first.0), number(last.1), number(last.0));
                let _ = write!(text, " {}: from {y0} at {x0} to {y1} at {x1}.", curve.name);
            }
        }
        text
    }

    fn draw(&self, drawn: &[Vec<(f64, f64)>], Frame { x, y }: &Frame) -> Result<String, DrawingError> {
        let mut svg = String::new();
        let root = SVGBackend::with_string(&mut svg, (SIZE.0 * FINE, SIZE.1 * FINE)).into_drawing_area();
        let mut chart = builder(&root, 66).build_cartesian_2d(x.clone(), y.clone())?;
        plain(&mut chart.configure_mesh()).disable_x_mesh().x_desc(&self.x_label).y_desc(&self.y_label).draw()?;
        for (i, points) in drawn.iter().enumerate() {
            let colour = series(self.colour(i)).stroke_width(2 * FINE);
            let points: Vec<_> = Curve::thinned(points.clone()).iter().map(|p| (p.0, y.position(p.1))).collect();
            if let ([first, ..], [.., last], true) = (&points[..], &points[..], self.curves[i].filled) {
                let ground = y.span.0.max(0.0);
                let corners = [(first.0, ground)].into_iter().chain(points.iter().copied()).chain([(last.0, ground)]);
                chart.draw_series([Polygon::new(corners.collect::<Vec<_>>(), series(self.colour(i)))])?;
            }
            if let [one] = points[..] {
                // A line needs two points: a single one is a short dash.
                let half = (x.span.1 - x.span.0) / 80.0;
                chart.draw_series([PathElement::new(vec![(one.0 - half, one.1), (one.0 + half, one.1)], colour)])?;
            } else {
                chart.draw_series(LineSeries::new(points, colour))?;
            }
        }
        drop(chart);
        root.present()?;
        drop(root);
        Ok(svg)
    }
}

/// The part of the plane that is shown.
struct Frame {
    x: Axis,
    y: Axis,
}

impl Frame {
    /// All points with a little air above and below; `None` if there is no point. Under areas (`filled`) is no air.
    fn around(curves: &[Vec<(f64, f64)>], chart: &Chart, filled: bool) -> Option<Self> {
        let points = || curves.iter().flatten();
        let log = chart.log_y;
        let mut y = Axis::over(points().map(|p| p.1), log, 0.06)?;
        if filled && !log && points().all(|p| p.1 >= 0.0) {
            y = y.starting_at_zero();
        }
        let ends = chart.x_span.into_iter().flat_map(|(from, to)| [from, to]);
        Some(Frame { x: Axis::over(points().map(|p| p.0).chain(ends), false, 0.0)?, y })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn html(chart: &Chart) -> String {
        let mut out = String::new();
        chart.render(&mut out);
        out
    }

    fn line(name: &str) -> Curve {
        Curve::new(name, (1..50).map(|i| (f64::from(i) * 10.0, 5.0 / f64::from(i))).collect())
    }

    #[test]
    fn every_colour_comes_from_the_style_sheet() {
        for log in [false, true] {
            let mut chart = Chart::new("Loss", "step", "loss").curve(line("a")).curve(line("b <i>"));
            chart.log_y = log;
            let html = html(&chart);
            assert!(!html.contains("#0") && !html.contains("#1"), "{html}");
            assert!(html.contains("class=\"s0\"") && html.contains("class=\"s1\"") && html.contains("class=\"grid\""));
            assert!(html.contains("b &lt;i&gt;") && html.contains("aria-label=\"Loss: loss against step. a: from 5 at 10 to"));
            // Labels are text, not outlines, and each element has one class at most.
            assert!(html.contains("<text") && !html.split('<').any(|e| e.matches("class=").count() > 1));
        }
    }

    #[test]
    fn areas_begin_at_zero_and_curves_keep_their_colours() {
        let chart = Chart::new("Cosines", "cosine", "density")
            .curve(Curve::steps("own", 0.2, 0.1, &[1.0, 3.0]).colour(5).note("mean 0.3"))
            .curve(Curve::steps("other", -0.2, 0.1, &[2.0, 0.5]).colour(7))
            .described("own 0.3, others -0.1");
        let html = html(&chart);
        assert_eq!(html.matches("<polygon").count(), 2, "{html}");
        assert!(html.contains("class=\"s5\"") && html.contains("class=\"s7\"") && !html.contains("class=\"s0\""), "{html}");
        assert!(html.contains("<b>mean 0.3</b>") && html.contains("aria-label=\"Cosines: density against cosine. own 0.3, oth"));
        let wide = Chart::new("t", "x", "y").x_span(-1.0, 0.5);
        let frame = Frame::around(&[vec![(0.0, 0.0), (1.0, 2.0)]], &wide, true).unwrap();
        assert_eq!((frame.y.span.0, frame.y.ticks[0], frame.x.span), (0.0, 0.0, (-1.0, 1.0)));
    }

    #[test]
    fn charts_without_drawable_points_say_so() {
        let empty = Chart::new("t", "x", "y");
        let nan = Chart::new("t", "x", "y").curve(Curve::new("n", vec![(0.0, f64::NAN), (f64::INFINITY, 1.0)]));
        let negative = Chart::new("t", "x", "y").curve(Curve::new("n", vec![(0.0, -1.0)])).log_y();
        for chart in [empty, nan, negative] {
            assert!(html(&chart).contains("No points to draw"));
        }
    }

    #[test]
    fn one_point_and_flat_curves_are_drawn() {
        let two = |a, b| vec![(0.0, a), (5.0, b)];
        let odd = [vec![(3.0, 2.0)], two(0.0, 0.0), two(7.0, 7.0), two(1e-9, 1e9), two(1.0, 1.0 + 1e-11), two(9e29, -9e29)];
        let extreme = [two(1.1e-30, 9e29), vec![(1e20, 1e-29), (1e20 + 1e8, 2e-29)], two(f64::MAX, 5.0)];
        for points in odd.into_iter().chain(extreme) {
            for log in [false, true] {
                let mut chart = Chart::new("t", "x", "y").curve(Curve::new("c", points.clone()));
                chart.log_y = log;
                let html = html(&chart);
                let drawable = !log || points.iter().any(|p| p.1 > 0.0);
                assert_eq!(html.contains("<polyline"), drawable, "{points:?} {log}");
                assert!(!html.contains("NaN"), "{html}");
            }
        }
    }
}
