//! What is in a picture: objects of nameable attributes at places that do not overlap, on a nameable background.

use crate::rng::Rng;

/// Outlines, each inside the unit circle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Circle,
    Square,
    Triangle,
    Star,
    Ring,
    Cross,
    Diamond,
    Heart,
}

impl Shape {
    pub(super) const ALL: [Shape; 8] =
        [Shape::Circle, Shape::Square, Shape::Triangle, Shape::Star, Shape::Ring, Shape::Cross, Shape::Diamond, Shape::Heart];

    pub(super) fn name(self) -> &'static str {
        match self {
            Shape::Circle => "circle",
            Shape::Square => "square",
            Shape::Triangle => "triangle",
            Shape::Star => "star",
            Shape::Ring => "ring",
            Shape::Cross => "cross",
            Shape::Diamond => "diamond",
            Shape::Heart => "heart",
        }
    }

    /// Whether the point belongs to the shape; `v` points down, as rows of an image do.
    pub(super) fn holds(self, u: f64, v: f64) -> bool {
        let squared = u * u + v * v;
        match self {
            Shape::Circle => squared <= 1.0,
            Shape::Square => u.abs().max(v.abs()) <= 0.7,
            Shape::Triangle => v <= 0.5 && 3f64.sqrt() * u.abs() - v <= 1.0,
            Shape::Star => {
                // A pentagram is where at most one of its five lines has the point on the outer side.
                let outside = |&(x, y): &(f64, f64)| u * x + v * y > PENTAGRAM_INRADIUS;
                squared <= 1.0 && PENTAGRAM_NORMALS.iter().filter(|n| outside(n)).count() <= 1
            }
            Shape::Ring => (0.33..=1.0).contains(&squared),
            Shape::Cross => u.abs().min(v.abs()) <= 0.3 && u.abs().max(v.abs()) <= 0.95,
            Shape::Diamond => u.abs() / 0.66 + v.abs() <= 1.0,
            Shape::Heart => {
                let (x, y) = (1.36 * u, 0.1 - 1.36 * v);
                let round = x * x + y * y - 1.0;
                round * round * round <= x * x * y * y * y
            }
        }
    }
}

/// Distance of a pentagram's lines from its centre: cos 72°.
const PENTAGRAM_INRADIUS: f64 = 0.309_016_994_374_947_4;

/// Directions away from the lines, for a pentagram with one point up.
const PENTAGRAM_NORMALS: [(f64, f64); 5] = [
    (0.0, -1.0),
    (0.951_056_516_295_153_5, -0.309_016_994_374_947_4),
    (-0.951_056_516_295_153_5, -0.309_016_994_374_947_4),
    (0.587_785_252_292_473_1, 0.809_016_994_374_947_5),
    (-0.587_785_252_292_473_1, 0.809_016_994_374_947_5),
];

/// A colour that a caption can name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Colour {
    pub(super) name: &'static str,
    pub(super) rgb: [f64; 3],
}

const fn colour(name: &'static str, r: u8, g: u8, b: u8) -> Colour {
    Colour { name, rgb: [r as f64, g as f64, b as f64] }
}

/// Colours of objects.
pub(super) const COLOURS: [Colour; 8] = [
    colour("red", 214, 32, 32),
    colour("green", 36, 168, 62),
    colour("blue", 44, 88, 228),
    colour("yellow", 242, 214, 36),
    colour("orange", 244, 132, 24),
    colour("purple", 132, 48, 180),
    colour("pink", 250, 132, 190),
    colour("cyan", 44, 204, 214),
];

/// Colours of backgrounds, none of them an object's.
pub(super) const BACKGROUNDS: [Colour; 6] = [
    colour("white", 242, 242, 240),
    colour("gray", 132, 134, 136),
    colour("black", 26, 26, 28),
    colour("beige", 224, 208, 176),
    colour("navy", 24, 32, 76),
    colour("olive", 98, 98, 46),
];

/// One thing in a scene. Lengths are fractions of the image's side.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Object {
    pub(super) shape: Shape,
    /// Index into [`COLOURS`].
    pub(super) colour: usize,
    pub(super) large: bool,
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) radius: f64,
    /// Cosine and sine of the turn.
    pub(super) turn: (f64, f64),
    /// The colour as painted: a little off the named one.
    pub(super) rgb: [f64; 3],
}

impl Object {
    /// Index of the (shape, colour) pair among [`CATEGORIES`].
    pub(super) fn category(&self) -> usize {
        self.shape as usize * COLOURS.len() + self.colour
    }

    /// Colour and shape: `red circle`.
    pub(super) fn tag(&self) -> String {
        category_name(self.category())
    }
}

/// Number of (shape, colour) pairs.
pub(super) const CATEGORIES: usize = Shape::ALL.len() * COLOURS.len();

/// Colour and shape of a category.
pub(super) fn category_name(category: usize) -> String {
    let (shape, colour) = (category / COLOURS.len() % Shape::ALL.len(), category % COLOURS.len());
    format!("{} {}", COLOURS[colour].name, Shape::ALL[shape].name())
}

/// The categories that zero-shot classification tells apart: half of them, four colours of each shape.
pub(super) fn classes() -> impl Iterator<Item = usize> {
    (0..CATEGORIES).filter(|category| (category / COLOURS.len() + category % COLOURS.len()).is_multiple_of(2))
}

/// How the background is filled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fill {
    Plain,
    /// Brightness changes along the direction.
    Gradient(f64, f64),
    /// Two shades alternate along the direction; its length is the number of stripes.
    Stripes(f64, f64),
}

/// Everything that is drawn and told of one image.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scene {
    pub(super) objects: Vec<Object>,
    pub(super) background: Colour,
    pub(super) fill: Fill,
    /// Noise in grey levels, and what it is drawn from.
    pub(super) noise: (f64, u64),
}

impl Scene {
    /// One to four objects, no two of the same shape and colour.
    pub(super) fn random(rng: &mut Rng) -> Self {
        let mut scene = Scene::empty(rng);
        // More often two or three than one or four.
        let wanted = 1 + rng.below(2) + rng.below(3);
        for _ in 0..wanted {
            let category = rng.below(CATEGORIES as u64) as usize;
            if scene.objects.iter().all(|other| other.category() != category) {
                scene.place(category, rng);
            }
        }
        scene
    }

    /// One object of the category.
    pub(super) fn single(category: usize, rng: &mut Rng) -> Self {
        let mut scene = Scene::empty(rng);
        scene.place(category, rng);
        scene
    }

    fn empty(rng: &mut Rng) -> Self {
        let background = BACKGROUNDS[rng.below(BACKGROUNDS.len() as u64) as usize];
        let (c, s) = turn(rng.uniform(-1.0, 1.0));
        let fill = match rng.below(3) {
            0 => Fill::Plain,
            1 => Fill::Gradient(c, s),
            _ => {
                let count = rng.uniform(3.0, 7.0);
                Fill::Stripes(c * count, s * count)
            }
        };
        let noise = (rng.uniform(1.0, 5.0), rng.next_u64());
        Scene { objects: Vec::new(), background, fill, noise }
    }

    /// Adds an object where there is room; the first one always has it.
    fn place(&mut self, category: usize, rng: &mut Rng) {
        let shape = Shape::ALL[category / COLOURS.len() % Shape::ALL.len()];
        let colour = category % COLOURS.len();
        let turn = turn(rng.uniform(-0.1, 0.1));
        let rgb = COLOURS[colour].rgb.map(|level| (level + rng.uniform(-10.0, 10.0)).clamp(0.0, 255.0));
        let wanted = rng.chance(0.5);
        for attempt in 0..60 {
            // Where nothing large fits, something small may.
            let large = wanted && attempt < 20;
            let radius = if large { rng.uniform(0.17, 0.22) } else { rng.uniform(0.09, 0.12) };
            let (x, y) = (rng.uniform(radius + 0.02, 0.98 - radius), rng.uniform(radius + 0.02, 0.98 - radius));
            let apart = |other: &Object| (x - other.x).abs().max((y - other.y).abs()) > radius + other.radius + 0.03;
            if self.objects.iter().all(apart) {
                self.objects.push(Object { shape, colour, large, x, y, radius, turn, rgb });
                return;
            }
        }
    }
}

/// Cosine and sine of 2 atan(t), which take no more than a division: the same bits on every machine.
fn turn(t: f64) -> (f64, f64) {
    let d = 1.0 + t * t;
    ((1.0 - t * t) / d, 2.0 * t / d)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{RngKey, Stream};

    #[test]
    fn shapes_stay_in_the_unit_circle_and_fill_some_of_it() {
        for shape in Shape::ALL {
            let mut inside = 0;
            for (i, j) in (-110..=110).flat_map(|i| (-110..=110).map(move |j| (i, j))) {
                let (u, v) = (f64::from(i) / 100.0, f64::from(j) / 100.0);
                if shape.holds(u, v) {
                    inside += 1;
                    assert!(u * u + v * v <= 1.01, "{shape:?} at {u}, {v}");
                }
            }
            assert!((8_000..32_000).contains(&inside), "{shape:?}: {inside}");
        }
        for (shape, up) in [(Shape::Triangle, true), (Shape::Star, true), (Shape::Heart, false)] {
            assert_eq!((shape.holds(0.0, -0.75), shape.holds(0.0, 0.75)), (up, !up), "{shape:?} has one point up or down");
        }
    }

    #[test]
    fn scenes_have_one_to_four_separate_distinct_objects_within_the_image() {
        let mut counts = [0; 5];
        for index in 0..2_000 {
            let scene = Scene::random(&mut RngKey::new(3, 0, index).rng(Stream::Synthetic));
            counts[scene.objects.len()] += 1;
            for (i, a) in scene.objects.iter().enumerate() {
                assert!(a.radius <= a.x.min(a.y) && a.x.max(a.y) + a.radius <= 1.0);
                for b in &scene.objects[..i] {
                    assert_ne!(a.category(), b.category());
                    assert!((a.x - b.x).abs().max((a.y - b.y).abs()) > a.radius + b.radius);
                }
            }
        }
        assert_eq!(counts[0], 0);
        assert!(counts[1..].iter().all(|&n| n > 200), "{counts:?}");
    }

    #[test]
    fn every_zero_shot_class_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<String> = classes().map(category_name).collect();
        assert_eq!(names.len(), 32);
        assert!(names.contains("red circle"), "{names:?}");
    }
}
