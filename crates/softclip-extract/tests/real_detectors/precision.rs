//! Average precision at an overlap of a half, as COCO's evaluation defines it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::Value;
use softclip_detector::Detection;

/// Detections of an image and category that count.
const MAX_DETECTIONS: usize = 100;

pub struct Object {
    category: i64,
    xyxy: [f32; 4],
    crowd: bool,
}

pub struct Photograph {
    pub name: String,
    objects: Vec<Object>,
}

/// The photographs that have annotations, and the categories' ids by name.
pub fn read(path: &Path) -> (Vec<Photograph>, HashMap<String, i64>) {
    let document: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let all = |key: &str| document[key].as_array().unwrap().clone();
    let int = |value: &Value| value.as_i64().unwrap();
    let mut objects: BTreeMap<i64, Vec<Object>> = BTreeMap::new();
    for annotation in all("annotations") {
        let [x, y, w, h] = [0, 1, 2, 3].map(|i| annotation["bbox"][i].as_f64().unwrap() as f32);
        objects.entry(int(&annotation["image_id"])).or_default().push(Object {
            category: int(&annotation["category_id"]),
            xyxy: [x, y, x + w, y + h],
            crowd: int(&annotation["iscrowd"]) == 1,
        });
    }
    let photograph = |image: Value| {
        let objects = objects.remove(&int(&image["id"]))?;
        Some(Photograph { name: image["file_name"].as_str().unwrap().to_owned(), objects })
    };
    let photographs = all("images").into_iter().filter_map(photograph).collect();
    let categories = all("categories").into_iter().map(|c| (c["name"].as_str().unwrap().to_owned(), int(&c["id"]))).collect();
    (photographs, categories)
}

fn area([l, t, r, b]: [f32; 4]) -> f32 {
    (r - l) * (b - t)
}

/// Intersection over union; over the detection's area for a crowd.
fn overlap(detection: [f32; 4], object: &Object) -> f32 {
    let side = |i: usize| (detection[i + 2].min(object.xyxy[i + 2]) - detection[i].max(object.xyxy[i])).max(0.0);
    let both = side(0) * side(1);
    both / if object.crowd { area(detection) } else { area(detection) + area(object.xyxy) - both }
}

/// Scores of the detections of a category in a photograph, each with whether it is right; those of crowds do not count.
fn judge(category: i64, photograph: &Photograph, found: &[(i64, Detection)]) -> Vec<(f32, bool)> {
    let mut objects: Vec<&Object> = photograph.objects.iter().filter(|o| o.category == category).collect();
    objects.sort_by_key(|o| o.crowd);
    let mut taken = vec![false; objects.len()];
    let mut judged = Vec::new();
    for (_, detection) in found.iter().filter(|(of, _)| *of == category).take(MAX_DETECTIONS) {
        let mut best: Option<(usize, f32)> = None;
        for (i, object) in objects.iter().enumerate().filter(|(i, object)| object.crowd || !taken[*i]) {
            // An object goes before a crowd.
            if object.crowd && best.is_some_and(|(best, _)| !objects[best].crowd) {
                break;
            }
            let overlap = overlap(detection.xyxy, object);
            if overlap >= best.map_or(0.5, |(_, best)| best) {
                best = Some((i, overlap));
            }
        }
        match best {
            Some((i, _)) if objects[i].crowd => {}
            Some((i, _)) => {
                taken[i] = true;
                judged.push((detection.confidence, true));
            }
            None => judged.push((detection.confidence, false)),
        }
    }
    judged
}

/// The mean over the categories that have objects.
pub fn ap50(photographs: &[Photograph], found: &[Vec<(i64, Detection)>]) -> f64 {
    let mut totals: BTreeMap<i64, usize> = BTreeMap::new();
    for object in photographs.iter().flat_map(|p| &p.objects).filter(|o| !o.crowd) {
        *totals.entry(object.category).or_default() += 1;
    }
    let of_category = |(&category, &total): (&i64, &usize)| {
        let mut judged: Vec<(f32, bool)> =
            photographs.iter().zip(found).flat_map(|(photograph, found)| judge(category, photograph, found)).collect();
        judged.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut right = 0;
        let mut curve: Vec<(f64, f64)> = Vec::new(); // recall, precision
        for (n, (_, is_right)) in judged.iter().enumerate() {
            right += usize::from(*is_right);
            curve.push((right as f64 / total as f64, right as f64 / (n + 1) as f64));
        }
        for i in (1..curve.len()).rev() {
            curve[i - 1].1 = curve[i - 1].1.max(curve[i].1);
        }
        let at = |recall: f64| curve.iter().find(|(reached, _)| *reached >= recall).map_or(0.0, |(_, precision)| *precision);
        (0..=100).map(|i| at(f64::from(i) / 100.0)).sum::<f64>() / 101.0
    };
    totals.iter().map(of_category).sum::<f64>() / totals.len() as f64
}
