//! Means with their deviations, as marks with whiskers.

use std::fmt::Write;

use plotters::chart::ChartContext;
use plotters::coord::cartesian::Cartesian2d;
use plotters::prelude::{Circle, Cross, IntoDrawingArea, LineSeries, PathElement, SVGBackend};
use plotters::style::Color;

use crate::axis::Axis;
use crate::html::{escape, number};
use crate::paint::{DrawingError, FINE, SERIES, builder, plain, series, styled};

/// Width in the page's pixels, height of a plot over numbers, and of each row of one over names.
const WIDTH: u32 = 560;
const HEIGHT: u32 = 320;
const ROW: u32 = 34;

/// An SVG and its size.
type Drawn = Result<(String, (u32, u32)), DrawingError>;

/// One mean.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Its place: the number of its row, from 0, or its number on the x axis.
    pub at: f64,
    /// The mean.
    pub mean: f64,
    /// Half the length of its whisker; none is drawn without.
    pub deviation: Option<f64>,
    /// A figure from elsewhere to compare with, drawn as a cross.
    pub reference: Option<f64>,
}

/// Means of one colour.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// In the legend.
    pub name: String,
    /// At their places.
    pub marks: Vec<Mark>,
}

/// Means of several groups: beside names, one under another, or over the numbers of an x axis, joined by lines.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimates {
    /// Above the plot.
    pub title: String,
    /// What is estimated, with its unit.
    pub value_label: String,
    /// The names of the rows; none for a plot over numbers.
    pub rows: Vec<String>,
    /// Under the x axis of a plot over numbers.
    pub x_label: String,
    /// At most eight colours: further groups begin again.
    pub groups: Vec<Group>,
}

type Plot<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;

impl Estimates {
    pub(crate) fn render(&self, out: &mut String) {
        let _ = write!(out, "<figure class=\"chart\"><h3>{}</h3>", escape(&self.title));
        self.legend(out);
        match self.draw() {
            None => out.push_str("<p class=\"nothing\">No values to draw.</p>"),
            Some(Ok((svg, size))) => out.push_str(&styled(&svg, size, &self.summary())),
            Some(Err(e)) => {
                let _ = write!(out, "<p class=\"nothing\">Could not be drawn: {}.</p>", escape(&e.to_string()));
            }
        }
        out.push_str("</figure>\n");
    }

    fn legend(&self, out: &mut String) {
        out.push_str("<ul class=\"legend\">");
        for (i, group) in self.groups.iter().enumerate() {
            let _ = write!(out, "<li class=\"s{}\"><i></i>{}</li>", i % SERIES, escape(&group.name));
        }
        if self.marks().any(|mark| mark.reference.is_some()) {
            out.push_str("<li>× the paper</li>");
        }
        out.push_str("</ul>");
    }

    fn marks(&self) -> impl Iterator<Item = &Mark> {
        self.groups.iter().flat_map(|group| &group.marks).filter(|mark| mark.at.is_finite() && mark.mean.is_finite())
    }

    /// What the plot shows, in words.
    fn summary(&self) -> String {
        let mut text = format!("{}: {}.", self.title, self.value_label);
        for group in &self.groups {
            let place = |mark: &Mark| self.rows.get(mark.at as usize).cloned().unwrap_or_else(|| number(mark.at));
            let spread = |mark: &Mark| mark.deviation.map_or(String::new(), |d| format!(" ± {}", number(d)));
            let each: Vec<String> =
                group.marks.iter().map(|mark| format!("{} {}{}", place(mark), number(mark.mean), spread(mark))).collect();
            let _ = write!(text, " {}: {}.", group.name, each.join(", "));
        }
        text
    }

    /// The picture and its size; `None` if there is nothing to draw.
    fn draw(&self) -> Option<Drawn> {
        let ends = |mark: &Mark| {
            let half = mark.deviation.unwrap_or(0.0);
            [Some(mark.mean - half), Some(mark.mean + half), mark.reference].into_iter().flatten()
        };
        let values = Axis::over(self.marks().flat_map(ends), false, 0.06)?;
        Some(match self.rows.is_empty() {
            true => self.over_numbers(values, Axis::over(self.marks().map(|mark| mark.at), false, 0.04)?),
            false => self.beside_names(values),
        })
    }

    fn beside_names(&self, values: Axis) -> Drawn {
        let size = (WIDTH, ROW * self.rows.len() as u32 + 60);
        let longest = self.rows.iter().map(|name| name.chars().count()).max().unwrap_or(0) as u32;
        let places = Axis::places(self.rows.len());
        // Rows go down, the axis goes up.
        let from_top = |row: f64| self.rows.len() as f64 - 1.0 - row;
        let name = |place: &f64| self.rows.get(from_top(*place) as usize).cloned().unwrap_or_default();
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, (size.0 * FINE, size.1 * FINE)).into_drawing_area();
            let mut plot = builder(&root, (longest * 8 + 12).min(260)).build_cartesian_2d(values, places)?;
            plain(&mut plot.configure_mesh()).disable_y_mesh().y_label_formatter(&name).x_desc(&self.value_label).draw()?;
            for (i, group) in self.groups.iter().enumerate() {
                // Groups of a row lie beside each other.
                let aside = (i as f64 - (self.groups.len() as f64 - 1.0) / 2.0) * 0.5 / self.groups.len().max(2) as f64;
                let at = |mark: &Mark, value: f64| (value, from_top(mark.at) - aside);
                marks(&mut plot, group, i, at)?;
            }
            root.present()?;
        }
        Ok((svg, size))
    }

    fn over_numbers(&self, values: Axis, x: Axis) -> Drawn {
        let size = (WIDTH, HEIGHT);
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, (size.0 * FINE, size.1 * FINE)).into_drawing_area();
            let mut plot = builder(&root, 66).build_cartesian_2d(x, values)?;
            plain(&mut plot.configure_mesh()).disable_x_mesh().x_desc(&self.x_label).y_desc(&self.value_label).draw()?;
            for (i, group) in self.groups.iter().enumerate() {
                let points = group.marks.iter().filter(|mark| mark.mean.is_finite()).map(|mark| (mark.at, mark.mean));
                plot.draw_series(LineSeries::new(points, series(i % SERIES).stroke_width(2 * FINE)))?;
                marks(&mut plot, group, i, |mark, value| (mark.at, value))?;
            }
            root.present()?;
        }
        Ok((svg, size))
    }
}

/// Whiskers, dots, and crosses for the references; `at` says where a value of a mark is.
fn marks(plot: &mut Plot, group: &Group, index: usize, at: impl Fn(&Mark, f64) -> (f64, f64)) -> Result<(), DrawingError> {
    let colour = series(index % SERIES);
    let line = colour.stroke_width(2 * FINE);
    for mark in group.marks.iter().filter(|mark| mark.mean.is_finite()) {
        if let Some(half) = mark.deviation {
            plot.draw_series([PathElement::new(vec![at(mark, mark.mean - half), at(mark, mark.mean + half)], line)])?;
        }
        plot.draw_series([Circle::new(at(mark, mark.mean), 4 * FINE, colour.filled())])?;
        if let Some(reference) = mark.reference {
            plot.draw_series([Cross::new(at(mark, reference), 4 * FINE, line)])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimates(rows: &[&str], reference: Option<f64>) -> Estimates {
        let mark = |at: usize| Mark { at: at as f64, mean: 10.0 + at as f64, deviation: (at > 0).then_some(0.5), reference };
        Estimates {
            title: "T <1>".to_owned(),
            value_label: "top-1 in percent".to_owned(),
            rows: rows.iter().map(|&row| row.to_owned()).collect(),
            x_label: "β".to_owned(),
            groups: ["RN50", "ViT"].map(|name| Group { name: name.to_owned(), marks: (0..3).map(mark).collect() }).to_vec(),
        }
    }

    fn html(estimates: &Estimates) -> String {
        let mut out = String::new();
        estimates.render(&mut out);
        out
    }

    #[test]
    fn each_mean_has_a_dot_and_each_deviation_a_whisker() {
        for (rows, lines) in [(&["CLIP", "+ soft", "a < b"][..], 4), (&[], 4 + 2)] {
            let html = html(&estimates(rows, None));
            assert_eq!(html.matches("<circle").count(), 6, "{html}");
            let curves = html.matches("<polyline class=\"s").count() + html.matches("<polyline fill=\"none\" class=\"s").count();
            assert_eq!(curves, lines, "{html}");
            assert!(html.contains("T &lt;1&gt;") && html.contains("1 11 ± 0.5") | html.contains("+ soft 11 ± 0.5"), "{html}");
            assert!(!html.contains("#0") && !html.contains("#1"), "{html}");
        }
        let named = html(&estimates(&["CLIP", "+ soft", "a < b"], Some(12.5)));
        assert!(named.contains("a &lt; b") && named.contains("× the paper"), "{named}");
    }

    #[test]
    fn nothing_to_draw_is_said() {
        let mut none = estimates(&["a"], None);
        none.groups.iter_mut().for_each(|group| group.marks.clear());
        assert!(html(&none).contains("No values to draw"));
        none.groups[0].marks.push(Mark { at: 0.0, mean: f64::NAN, deviation: None, reference: None });
        assert!(html(&none).contains("No values to draw"));
    }
}
