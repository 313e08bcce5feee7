//! Writes a page with made-up numbers and drawn pictures, to look at what the crate can do.
//!
//! `cargo run -p softclip-report --example page -- page.html`
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use softclip_report::{Best, Cell, Chart, Curve, Gallery, GalleryRow, Hit, Page, Picture, Section, Table};

const NAMES: [&str; 4] = ["red", "green", "blue", "yellow"];
const COLOURS: [[u8; 3]; 4] = [[200, 60, 50], [70, 160, 90], [60, 100, 190], [220, 180, 60]];

/// A disc or a square of one of four colours on a shaded ground.
fn picture(index: usize) -> Result<Picture, Box<dyn Error>> {
    let (colour, disc) = (index % 4, (index / 4).is_multiple_of(2));
    let image = RgbImage::from_fn(120, 120, |x, y| {
        let (dx, dy) = (f64::from(x) - 60.0, f64::from(y) - 60.0);
        let inside = if disc { dx.hypot(dy) < 36.0 } else { dx.abs().max(dy.abs()) < 32.0 };
        let ground = (170 + (x + 2 * y) / 6) as u8;
        Rgb(if inside { COLOURS[colour] } else { [ground, ground, ground.saturating_add(8)] })
    });
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(image).write_to(&mut bytes, ImageFormat::Jpeg)?;
    Ok(Picture::new(bytes.into_inner(), caption(index))?)
}

fn caption(index: usize) -> String {
    format!("a {} {} on a grey ground", NAMES[index % 4], if (index / 4).is_multiple_of(2) { "disc" } else { "square" })
}

/// A falling curve with reproducible noise.
fn curve(name: &str, from: f64, to: f64, pace: f64, noise: f64) -> Curve {
    let points = (0..1200).map(|i| {
        let wobble = (f64::from(i) * 12.9898).sin() * 43758.5453;
        (f64::from(i) * 10.0, to + (from - to) * (-f64::from(i) / pace).exp() + noise * (wobble - wobble.floor() - 0.5))
    });
    Curve::new(name, points.collect())
}

fn hits(query: usize, order: [usize; 6]) -> Result<Vec<Hit>, Box<dyn Error>> {
    order
        .iter()
        .enumerate()
        .map(|(i, &found)| {
            Ok(Hit { item: picture(found)?.into(), rank: i + 1, score: 0.42 - 0.031 * i as f64, correct: found == query })
        })
        .collect()
}

fn texts(query: usize, order: [usize; 4]) -> Vec<Hit> {
    let hit = |(i, &found): (usize, &usize)| Hit {
        item: caption(found).into(),
        rank: i + 1,
        score: 0.40 - 0.044 * i as f64,
        correct: found == query,
    };
    order.iter().enumerate().map(hit).collect()
}

fn results() -> Table {
    let row = |name: &str, numbers: [f64; 6], rank: f64| {
        std::iter::once(name.into()).chain(numbers.map(|n| Cell::fixed(n, 1))).chain([Cell::fixed(rank, 0)])
    };
    let heads = ["T→I R@1", "R@5", "R@10", "I→T R@1", "R@5", "R@10", "median rank"];
    let mut table = Table::new(std::iter::once("model").chain(heads))
        .row(row("CLIP", [21.4, 48.9, 62.0, 27.1, 55.3, 68.4], 6.0))
        .row(row("label smoothing", [22.8, 50.2, 63.7, 28.0, 56.9, 69.2], 5.0))
        .row(row("SoftCLIP", [26.3, 55.1, 67.8, 33.5, 61.8, 73.0], 4.0))
        .row(row("chance", [0.3, 1.3, 2.5, 0.3, 1.3, 2.5], 200.0))
        .best(7, Best::Lowest)
        .caption("400 images, 2,000 captions, all captions kept; recalls in percent. Press a heading to sort.");
    for column in 1..7 {
        table = table.best(column, Best::Highest);
    }
    table
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "page.html".to_owned());
    let noisy = [curve("CLIP", 5.3, 2.1, 260.0, 0.35), curve("SoftCLIP", 5.9, 1.6, 300.0, 0.35)];
    let loss = noisy.iter().fold(Chart::new("Training loss", "step", "loss"), |c, n| c.curve(n.smoothed(25)));
    let scale = Chart::new("Learning rate", "step", "learning rate").curve(curve("both", 5e-4, 1e-6, 300.0, 0.0)).log_y();
    let every = |c: &Curve, k: usize| Curve::new(&*c.name, c.points.iter().step_by(k).map(|p| (p.0, 40.0 - 6.0 * p.1)).collect());
    let recall =
        noisy.iter().fold(Chart::new("Retrieval, text → image", "step", "R@1 in percent"), |c, n| c.curve(every(n, 100)));
    let softness =
        Chart::new("Target softness", "step", "mean of 1 − q").curve(curve("SoftCLIP", 0.28, 0.11, 400.0, 0.004)).log_y();
    let page = Page::new("CLIP and SoftCLIP on drawn scenes")
        .lead("Two models, the same data, seed and number of steps. Numbers and pictures on this page are made up.")
        .section(Section::new("Results").table(results()))
        .section(Section::new("Training").chart(loss).chart(scale).chart(recall).chart(softness))
        .section(
            Section::new("Retrieval")
                .text("The ground truth is framed.")
                .gallery(
                    Gallery::new("Caption → images")
                        .query(
                            GalleryRow::new(caption(2))
                                .strip("CLIP", hits(2, [6, 1, 2, 5, 0, 3])?)
                                .strip("SoftCLIP", hits(2, [2, 6, 0, 1, 3, 4])?),
                        )
                        .query(
                            GalleryRow::new(caption(7))
                                .strip("CLIP", hits(7, [3, 0, 6, 5, 1, 2])?)
                                .strip("SoftCLIP", hits(7, [3, 7, 6, 5, 4, 0])?),
                        ),
                )
                .gallery(Gallery::new("Image → captions").query(
                    GalleryRow::new(picture(1)?).strip("CLIP", texts(1, [5, 1, 0, 2])).strip("SoftCLIP", texts(1, [1, 5, 3, 0])),
                )),
        )
        .footer("softclip-report, example page");
    std::fs::write(&path, page.render())?;
    println!("{path}");
    Ok(())
}
