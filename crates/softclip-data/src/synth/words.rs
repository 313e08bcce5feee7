//! Captions: five views of a scene, from everything in it to one object of it.

use super::scene::{COLOURS, Fill, Object, Scene};
use crate::rng::Rng;

/// Five captions in a random order. All are true; some leave out objects, sizes or colours and so fit other images as well.
pub(super) fn captions(scene: &Scene, rng: &mut Rng) -> Vec<String> {
    let mut captions = vec![relation(scene, rng), list(scene, rng), counted(scene, rng), partial(scene, rng), vague(scene, rng)];
    for last in (1..captions.len()).rev() {
        captions.swap(last, rng.below(last as u64 + 1) as usize);
    }
    captions
}

fn pick<T: Copy>(of: &[T], rng: &mut Rng) -> Option<T> {
    of.get(rng.below(of.len() as u64) as usize).copied()
}

fn one<'a>(of: &[&'a str], rng: &mut Rng) -> &'a str {
    pick(of, rng).unwrap_or_default()
}

/// `a red circle`, or `a large red circle`.
fn phrase(object: &Object, sized: bool) -> String {
    let (colour, shape) = (COLOURS[object.colour].name, object.shape.name());
    match (sized, object.large) {
        (true, true) => format!("a large {colour} {shape}"),
        (true, false) => format!("a small {colour} {shape}"),
        (false, _) if colour.starts_with(['a', 'e', 'i', 'o', 'u']) => format!("an {colour} {shape}"),
        (false, _) => format!("a {colour} {shape}"),
    }
}

/// `on a white background`, with the pattern named where there is one.
fn ground(scene: &Scene) -> String {
    let name = scene.background.name;
    match scene.fill {
        Fill::Stripes(..) => format!("on a striped {name} background"),
        Fill::Plain | Fill::Gradient(..) if name.starts_with('o') => format!("on an {name} background"),
        Fill::Plain | Fill::Gradient(..) => format!("on a {name} background"),
    }
}

/// Objects from left to right.
fn ordered(scene: &Scene) -> Vec<&Object> {
    let mut objects: Vec<&Object> = scene.objects.iter().collect();
    objects.sort_by(|a, b| a.x.total_cmp(&b.x));
    objects
}

/// `a`, `a and b`, `a, b and c`.
fn join(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [only] => only.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

fn place(object: &Object) -> &'static str {
    let third = |at: f64| usize::from(at > 0.4) + usize::from(at > 0.6);
    let names = [["top left", "top", "top right"], ["left", "middle", "right"], ["bottom left", "bottom", "bottom right"]];
    names[third(object.y)][third(object.x)]
}

/// Two objects and how they lie; the place of the object where there is just one.
fn relation(scene: &Scene, rng: &mut Rng) -> String {
    let Some(first) = pick(&scene.objects.iter().collect::<Vec<_>>(), rng) else { return ground(scene) };
    let others: Vec<&Object> = scene.objects.iter().filter(|other| *other != first).collect();
    let Some(second) = pick(&others, rng) else {
        return format!("{} in the {} of the picture", phrase(first, true), place(first));
    };
    let (dx, dy) = (second.x - first.x, second.y - first.y);
    let how = match (dx.abs() > dy.abs(), dx > 0.0, dy > 0.0) {
        (true, true, _) => one(&["left of", "to the left of"], rng),
        (true, false, _) => one(&["right of", "to the right of"], rng),
        (false, _, true) => "above",
        (false, _, false) => one(&["below", "under"], rng),
    };
    let sized = rng.chance(0.7);
    format!("{} {how} {}", phrase(first, sized), phrase(second, sized))
}

/// Every object, and the background.
fn list(scene: &Scene, rng: &mut Rng) -> String {
    let sized = rng.chance(0.5);
    let parts: Vec<String> = ordered(scene).into_iter().map(|object| phrase(object, sized)).collect();
    format!("{} {}", join(&parts), ground(scene))
}

/// The number of objects, then each of them.
fn counted(scene: &Scene, rng: &mut Rng) -> String {
    let sized = rng.chance(0.3);
    let parts: Vec<String> = scene.objects.iter().map(|object| phrase(object, sized)).collect();
    format!("{} {}: {}", number(scene), ground(scene), join(&parts))
}

fn number(scene: &Scene) -> &'static str {
    ["no shapes", "one shape", "two shapes", "three shapes", "four shapes"].get(scene.objects.len()).unwrap_or(&"many shapes")
}

/// One object, as if there were no other.
fn partial(scene: &Scene, rng: &mut Rng) -> String {
    let Some(object) = pick(&scene.objects.iter().collect::<Vec<_>>(), rng) else { return ground(scene) };
    let start = one(&["there is", "a picture of", "an image with", "a drawing of", "we see"], rng);
    let sized = rng.chance(0.3);
    format!("{start} {}", phrase(object, sized))
}

/// Little that tells this image from others.
fn vague(scene: &Scene, rng: &mut Rng) -> String {
    let Some(object) = pick(&scene.objects.iter().collect::<Vec<_>>(), rng) else { return ground(scene) };
    let (colour, shape) = (COLOURS[object.colour].name, object.shape.name());
    match rng.below(4) {
        0 => format!("{} {}", number(scene), ground(scene)),
        1 => format!("something {colour} {}", ground(scene)),
        2 => format!("a {shape} and what is around it, {}", ground(scene)),
        _ => format!("a {shape} in the {} part", place(object)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{RngKey, Stream};

    const CAPTIONS: usize = 5;

    /// (colour, shape) pairs in the caption, whichever words are around.
    fn mentioned(caption: &str) -> Vec<String> {
        let words: Vec<&str> = caption.split([' ', ',', ':']).filter(|word| !word.is_empty()).collect();
        let colour = |word: &str| COLOURS.iter().any(|colour| colour.name == word);
        words.windows(2).filter(|pair| colour(pair[0]) && pair[1] != "on").map(|pair| pair.join(" ")).collect()
    }

    #[test]
    fn captions_name_objects_of_the_image_and_some_name_all() {
        let mut partly = 0;
        for index in 0..500 {
            let mut rng = RngKey::new(5, 0, index).rng(Stream::Synthetic);
            let scene = Scene::random(&mut rng);
            let captions = captions(&scene, &mut rng);
            assert_eq!(captions.len(), CAPTIONS);
            assert_eq!(captions.iter().collect::<std::collections::BTreeSet<_>>().len(), CAPTIONS, "{captions:?}");
            let tags: Vec<String> = scene.objects.iter().map(Object::tag).collect();
            for caption in &captions {
                assert!(mentioned(caption).iter().all(|pair| tags.contains(pair)), "{caption} / {tags:?}");
                assert!(!caption.contains("  ") && !caption.contains("a orange") && !caption.contains("a olive"), "{caption}");
            }
            assert!(captions.iter().filter(|c| mentioned(c).len() == tags.len()).count() >= 2, "{captions:?} / {tags:?}");
            partly += usize::from(tags.len() > 1 && captions.iter().any(|c| mentioned(c).len() == 1));
        }
        assert!(partly > 300, "{partly}");
    }

    #[test]
    fn relations_hold() {
        let mut found = 0;
        for index in 0..500 {
            let mut rng = RngKey::new(6, 0, index).rng(Stream::Synthetic);
            let scene = Scene::random(&mut rng);
            let caption = relation(&scene, &mut rng);
            let names = mentioned(&caption);
            let [first, second] = names.as_slice() else { continue };
            let find = |name: &String| scene.objects.iter().find(|object| object.tag() == *name).unwrap();
            let (a, b) = (find(first), find(second));
            let holds = match caption.as_str() {
                c if c.contains("left of") => a.x + a.radius < b.x - b.radius,
                c if c.contains("right of") => a.x - a.radius > b.x + b.radius,
                c if c.contains("above") => a.y + a.radius < b.y - b.radius,
                _ => a.y - a.radius > b.y + b.radius,
            };
            assert!(holds, "{caption}");
            found += 1;
        }
        assert!(found > 200);
    }
}
