//! What all plots are drawn with: roles for colours, a fine grid, lines and letters.

use plotters::chart::{ChartBuilder, MeshStyle};
use plotters::prelude::{DrawingAreaErrorKind, RGBColor, SVGBackend};
use plotters::style::{Color, IntoFont, TextStyle};

use crate::axis::Axis;
use crate::html::escape;

pub(crate) type DrawingError = DrawingAreaErrorKind<std::io::Error>;

/// How finely positions are kept: plotters knows whole units only.
pub(crate) const FINE: u32 = 8;

/// plotters writes fixed colours. These stand for roles and become class names afterwards.
const INK: RGBColor = RGBColor(1, 0, 0);
const AXIS: RGBColor = RGBColor(2, 0, 0);
const GRID: RGBColor = RGBColor(3, 0, 0);
/// As many as the style sheet has colours.
pub(crate) const SERIES: usize = 8;

type Area<'b> = plotters::drawing::DrawingArea<SVGBackend<'b>, plotters::coord::Shift>;

/// A plot with room for what is written beside it: `left` pixels for the labels of the y axis.
pub(crate) fn builder<'a, 'b>(root: &'a Area<'b>, left: u32) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(root);
    builder.margin(6 * FINE).margin_right(14 * FINE).x_label_area_size(42 * FINE).y_label_area_size(left * FINE);
    builder
}

fn font(size: u32) -> TextStyle<'static> {
    TextStyle::from(("sans-serif", f64::from(size * FINE)).into_font()).color(&INK)
}

/// Thin lines across, and labels in the page's ink.
pub(crate) fn plain<'a, 'm, 'b>(
    mesh: &'m mut MeshStyle<'a, 'b, Axis, Axis, SVGBackend<'a>>,
) -> &'m mut MeshStyle<'a, 'b, Axis, Axis, SVGBackend<'a>> {
    mesh.bold_line_style(GRID.stroke_width(FINE))
        .light_line_style(GRID.mix(0.0))
        .axis_style(AXIS.stroke_width(FINE))
        .set_all_tick_mark_size(4 * FINE)
        .label_style(font(14))
        .axis_desc_style(font(15))
}

/// plotters' SVG of `size` with classes in place of colours, and with a text for those who cannot see it.
pub(crate) fn styled(svg: &str, size: (u32, u32), summary: &str) -> String {
    let body = svg.split_once('>').map_or("", |(_, body)| body);
    let mut body = body.replace(" opacity=\"1\"", "").replace("font-family=\"sans-serif\" ", "");
    let series = (0..=SERIES).map(|i| (series(i), format!("s{i}")));
    for (RGBColor(r, g, b), class) in
        [(INK, "ink"), (AXIS, "axis"), (GRID, "grid")].map(|(c, n)| (c, n.to_owned())).into_iter().chain(series)
    {
        for attribute in ["stroke", "fill"] {
            body = body.replace(&format!("{attribute}=\"#{r:02X}{g:02X}{b:02X}\""), &format!("class=\"{class}\""));
        }
    }
    let (width, height) = (size.0 * FINE, size.1 * FINE);
    format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">{body}", escape(summary))
}

pub(crate) fn series(index: usize) -> RGBColor {
    RGBColor(16 + (index % (SERIES + 1)) as u8, 0, 0)
}
