//! How probabilities and cosines are distributed.

use anyhow::{Context, Result};
use softclip_eval::{similarity_histogram, sorted_probabilities};
use softclip_report::{Best, COMMON, Cell, Chart, Curve, Section, Table};

use super::view::View;

/// Ranks of the two charts, from and to.
const RANKS: [(usize, usize); 2] = [(1, 10), (11, 50)];
/// Bins between −1 and 1.
const BINS: usize = 200;

/// Mean sorted probabilities, both ways.
pub fn probabilities(views: &[View]) -> Result<Section> {
    let mut section = Section::new("Sorted probabilities").text(
        "The softmax of each query over all candidates of the data, at the model's own temperature, sorted from the largest down; the \
         mean over all queries. Each image stands with its first caption alone, as in a training batch, so that one candidate is right. \
         Image → text is what SoftCLIP's Figure 6 shows: soft targets leave more to the ranks behind the first.",
    );
    for to_text in [true, false] {
        let of = |view: &View| {
            let (image, text) = (&view.encoded.images, view.encoded.first_texts()?);
            let (queries, candidates) = if to_text { (image, &text) } else { (&text, image) };
            Ok(sorted_probabilities(queries, candidates, view.scale, RANKS[1].1)?)
        };
        let found: Vec<Vec<f64>> = views.iter().map(of).collect::<Result<_>>()?;
        for (from, to) in RANKS {
            let way = if to_text { "Image → text" } else { "Text → image" };
            let mut chart = Chart::new(format!("{way}, ranks {from} to {to}"), "rank", "mean probability");
            for (view, means) in views.iter().zip(&found) {
                let points = (1..).zip(means).skip(from - 1).take(to + 1 - from).map(|(rank, mean)| (f64::from(rank), *mean));
                let first = means.first().copied().unwrap_or(f64::NAN);
                let mut curve = Curve::new(&*view.name, points.collect()).colour(view.colour);
                if from == 1 {
                    curve = curve.note(format!("first {first:.3}"));
                }
                chart = if curve.points.is_empty() { chart } else { chart.curve(curve) };
            }
            section = if chart.curves.is_empty() { section } else { section.chart(chart) };
        }
    }
    Ok(section)
}

/// Cosines of own pairs beside those of all others.
pub fn similarities(views: &[View]) -> Result<Section> {
    let heads = ["run", "1/τ", "mean of own pairs", "mean of others", "distance", "overlap, %"];
    let mut table = Table::new(heads).best(4, Best::Highest).best(5, Best::Lowest).caption(
        "Cosines of images and captions. Overlap is the area that both histograms share: 0 where a threshold tells own pairs from others, \
         100 where they are alike.",
    );
    let mut charts = Vec::new();
    for view in views {
        let texts = view.encoded.texts.as_ref().context("the data set has no captions")?;
        let found = similarity_histogram(&view.encoded.images, texts, &view.encoded.owner, BINS)?;
        let (own, others) = (found.positive_mean, found.negative_mean);
        let fixed = |value: f64| Cell::fixed(value, 3);
        table = table.row([
            Cell::keyed(&*view.name, view.colour),
            Cell::fixed(view.scale, 2),
            fixed(own),
            fixed(others),
            fixed(own - others),
            if others.is_finite() { Cell::fixed(100.0 * found.overlap, 1) } else { Cell::Empty },
        ]);
        let width = 2.0 / BINS as f64;
        let density = |shares: &[f64]| shares.iter().map(|share| share / width).collect::<Vec<_>>();
        let overlap = 100.0 * found.overlap;
        // One image alone has no pair but its own.
        let told = |mean: f64| if mean.is_finite() { format!("mean {mean:.3}") } else { "none".to_owned() };
        let what = match others.is_finite() {
            true => format!("Own pairs have a mean of {own:.3}, others of {others:.3}; they overlap by {overlap:.1} %."),
            false => format!("Own pairs have a mean of {own:.3}; there are no others."),
        };
        charts.push(
            Chart::new(&*view.name, "cosine", "density")
                .described(what)
                .curve(Curve::steps("other pairs", -1.0, width, &density(&found.negatives)).colour(COMMON).note(told(others)))
                .curve(Curve::steps("own pairs", -1.0, width, &density(&found.positives)).colour(view.colour).note(told(own))),
        );
    }
    let ends = || charts.iter().flat_map(|chart| &chart.curves).flat_map(|curve| &curve.points).map(|point| point.0);
    let (low, high) = (ends().fold(f64::INFINITY, f64::min), ends().fold(f64::NEG_INFINITY, f64::max));
    let section = Section::new("Similarities").text(
        "Each image with its own captions, and with all others. Each histogram has an area of 1; the cosine's axis is the same for all runs.",
    );
    Ok(charts.into_iter().fold(section, |section, chart| section.chart(chart.x_span(low, high))).table(table))
}
