//! Scenes to pixels, and what is measured on the pixels.

use half::f16;

use super::scene::{Fill, Object, Scene};
use crate::rng::{RngKey, Stream};

/// Samples along each side of a pixel.
const FINE: usize = 3;

/// Cells along each side of an object's box, for its features.
const GRID: usize = 6;

/// Features of an object: the mean colour of each cell of its box, then the box's corners.
pub(super) const FEATURES: usize = GRID * GRID * 3 + 4;

/// Where an object's pixels are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Area {
    /// Left, top, width, height in pixels: the smallest box with all of them.
    pub(super) bbox: [usize; 4],
    /// Covered area in pixels; those at the rim count in parts.
    pub(super) area: f64,
}

/// A painted scene.
pub(super) struct Canvas {
    pub(super) side: usize,
    /// RGB rows.
    pub(super) pixels: Vec<u8>,
    /// One for each object, in their order.
    pub(super) areas: Vec<Area>,
}

/// Paints the scene on a square of `side` pixels.
pub(super) fn paint(scene: &Scene, side: usize) -> Canvas {
    let mut pixels = background(scene, side);
    let areas = scene.objects.iter().map(|object| stamp(object, side, &mut pixels)).collect();
    let (strength, seed) = scene.noise;
    let mut rng = RngKey::new(seed, 0, 0).rng(Stream::Synthetic);
    let pixels = pixels
        .iter()
        .flat_map(|rgb| {
            let bits = rng.next_u64().to_le_bytes();
            [0, 1, 2].map(|i| (rgb[i] + strength * (f64::from(bits[i]) / 127.5 - 1.0)).round().clamp(0.0, 255.0) as u8)
        })
        .collect();
    Canvas { side, pixels, areas }
}

fn background(scene: &Scene, side: usize) -> Vec<[f64; 3]> {
    let scale = 1.0 / side as f64;
    let shade = |x: usize, y: usize| {
        let (x, y) = ((x as f64 + 0.5) * scale, (y as f64 + 0.5) * scale);
        match scene.fill {
            Fill::Plain => 0.0,
            Fill::Gradient(c, s) => 26.0 * (c * (x - 0.5) + s * (y - 0.5)),
            // Stripes of soft edges: a triangle wave, cut off.
            Fill::Stripes(c, s) => {
                let at = (c * x + s * y).rem_euclid(1.0);
                (((at - 0.5).abs() - 0.25) * 160.0).clamp(-13.0, 13.0)
            }
        }
    };
    let points = (0..side).flat_map(|y| (0..side).map(move |x| (x, y)));
    points.map(|(x, y)| scene.background.rgb.map(|level| level + shade(x, y))).collect()
}

/// Paints one object, looking only at the pixels around it.
fn stamp(object: &Object, side: usize, pixels: &mut [[f64; 3]]) -> Area {
    let radius = object.radius * side as f64;
    let (cx, cy) = (object.x * side as f64, object.y * side as f64);
    let range = |centre: f64| ((centre - radius).floor().max(0.0) as usize)..((centre + radius).ceil() as usize).min(side);
    let (c, s) = object.turn;
    let fine = |pixel: usize, i: usize| pixel as f64 + (i as f64 + 0.5) / FINE as f64;
    let (mut left, mut top, mut right, mut bottom) = (side, side, 0, 0);
    let mut samples = 0;
    for y in range(cy) {
        for x in range(cx) {
            let holds = |&(i, j): &(usize, usize)| {
                let (dx, dy) = ((fine(x, i) - cx) / radius, (fine(y, j) - cy) / radius);
                object.shape.holds(c * dx + s * dy, c * dy - s * dx)
            };
            let hits = (0..FINE).flat_map(|j| (0..FINE).map(move |i| (i, j))).filter(holds).count();
            if hits == 0 {
                continue;
            }
            samples += hits;
            (left, top, right, bottom) = (left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1));
            let cover = hits as f64 / (FINE * FINE) as f64;
            for (level, paint) in pixels[y * side + x].iter_mut().zip(object.rgb) {
                *level += cover * (paint - *level);
            }
        }
    }
    let bbox = [left, top, right.saturating_sub(left), bottom.saturating_sub(top)];
    Area { bbox, area: samples as f64 / (FINE * FINE) as f64 }
}

impl Canvas {
    /// Features of each object's box: `[objects, FEATURES]`, all in 0..=1.
    pub(super) fn features(&self) -> Vec<f16> {
        self.areas.iter().flat_map(|area| self.describe(area.bbox)).collect()
    }

    fn describe(&self, [left, top, width, height]: [usize; 4]) -> impl Iterator<Item = f16> {
        // Boxes narrower than the grid: neighbouring cells share a pixel.
        let cell = |from: usize, length: usize, i: usize| {
            let (start, end) = (i * length / GRID, ((i + 1) * length).div_ceil(GRID));
            from + start..(from + end).min(self.side)
        };
        let cells = (0..GRID).flat_map(|j| (0..GRID).map(move |i| (i, j)));
        let colours = cells.flat_map(move |(i, j)| {
            let (mut sums, mut count) = ([0u32; 3], 0u32);
            for y in cell(top, height, j) {
                for x in cell(left, width, i) {
                    let at = 3 * (y * self.side + x);
                    sums.iter_mut().zip(&self.pixels[at..at + 3]).for_each(|(sum, &level)| *sum += u32::from(level));
                    count += 1;
                }
            }
            sums.map(|sum| f64::from(sum) / f64::from(255 * count.max(1)))
        });
        let corners = [left, top, left + width, top + height].map(|at| at as f64 / self.side as f64);
        colours.chain(corners).map(f16::from_f64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::{BACKGROUNDS, Shape};
    use super::*;

    fn scene(index: u64) -> Scene {
        Scene::random(&mut RngKey::new(11, 0, index).rng(Stream::Synthetic))
    }

    /// Without noise and pattern, so that a pixel that an object leaves alone has the background's colour.
    fn clean(index: u64) -> Scene {
        Scene { fill: Fill::Plain, noise: (0.0, 0), background: BACKGROUNDS[2], ..scene(index) }
    }

    #[test]
    fn a_box_is_the_smallest_that_holds_the_objects_pixels() {
        for index in 0..100 {
            let scene = clean(index);
            let whole = paint(&scene, 96);
            for (i, area) in whole.areas.iter().enumerate() {
                let mut without = scene.clone();
                without.objects.remove(i);
                let rest = paint(&without, 96);
                let changed: Vec<(usize, usize)> = (0..96 * 96)
                    .filter(|p| whole.pixels[3 * p..3 * p + 3] != rest.pixels[3 * p..3 * p + 3])
                    .map(|p| (p % 96, p / 96))
                    .collect();
                let xs = || changed.iter().map(|p| p.0);
                let ys = || changed.iter().map(|p| p.1);
                let (left, top) = (xs().min().unwrap(), ys().min().unwrap());
                let bbox = [left, top, xs().max().unwrap() + 1 - left, ys().max().unwrap() + 1 - top];
                assert_eq!(area.bbox, bbox, "{:?}", scene.objects[i]);
                assert!(area.area > 0.15 * (bbox[2] * bbox[3]) as f64 && area.area <= changed.len() as f64);
            }
        }
    }

    #[test]
    fn features_are_the_colours_within_the_box_and_its_corners() {
        for index in 0..50 {
            let canvas = paint(&scene(index), 64);
            let features = canvas.features();
            assert_eq!(features.len(), canvas.areas.len() * FEATURES);
            for (row, area) in features.chunks_exact(FEATURES).zip(&canvas.areas) {
                assert!(row.iter().all(|x| (0.0..=1.0).contains(&x.to_f32())));
                let [x, y, w, h] = area.bbox;
                let corners = [x, y, x + w, y + h].map(|at| at as f32 / 64.0);
                assert!(row[FEATURES - 4..].iter().zip(corners).all(|(a, b)| (a.to_f32() - b).abs() < 1e-3));
            }
        }
        // A square's middle cells show its colour and nothing else.
        let mut scene = clean(0);
        scene.objects.truncate(1);
        scene.objects[0].shape = Shape::Square;
        let features = paint(&scene, 96).features();
        let middle = 3 * (GRID * (GRID / 2) + GRID / 2);
        for (got, paint) in features[middle..middle + 3].iter().zip(scene.objects[0].rgb) {
            assert!((f64::from(got.to_f32()) - paint / 255.0).abs() < 0.005);
        }
    }

    #[test]
    fn noise_and_patterns_leave_the_background_recognisable() {
        for index in 0..50 {
            let mut scene = scene(index);
            scene.objects.clear();
            let canvas = paint(&scene, 64);
            for (i, level) in scene.background.rgb.into_iter().enumerate() {
                let mean = canvas.pixels.iter().skip(i).step_by(3).map(|&x| f64::from(x)).sum::<f64>() / (64.0 * 64.0);
                assert!((mean - level).abs() < 8.0, "{mean} {level} {:?}", scene.fill);
            }
        }
    }
}
