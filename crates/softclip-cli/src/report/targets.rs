//! What losses compare a batch with, as matrices of colours.

use std::collections::HashMap;

use anyhow::Result;
use softclip_data::source::Source;
use softclip_report::{Item, Matrix, Picture, Section};
use tch::Tensor;

use super::view::Seen;

/// Side of the pictures along the edges, in pixels: twice what is shown, for fine displays.
const SIDE: u32 = 48;

/// The targets of each run's loss, and beside them what its model says.
pub fn section(source: &dyn Source, spec: &str, seen: &[Seen]) -> Result<Section> {
    let index: HashMap<String, usize> = (0..source.len()).map(|i| (source.key(i), i)).collect();
    let mut section = Section::new("Soft targets").text(format!(
        "A batch of {} pairs of {spec}: what each run's loss compares its predictions with, made by the run's own newest model, and what \
         the model says of the same pairs. A row is a query, a distribution unless it is said below; the diagonal is the own pair. Colours go with the square root \
         of the value, so that small shares are told from none; the value shows where the pointer rests.",
        seen.first().map_or(0, |seen| seen.batch.keys.len())
    ));
    for one in seen {
        let items = items(source, &index, one)?;
        let matrix = |what: String, values: &Tensor, names: [&str; 2]| -> Result<Matrix> {
            let matrix = Matrix::new(format!("{}: {what}", one.name), items.clone(), Vec::<Vec<f64>>::try_from(values)?);
            Ok(matrix.named(names[0], names[1]).colour(one.colour).highest(1.0))
        };
        let ways = [("image → text", ["image", "caption"]), ("text → image", ["caption", "image"])];
        let both = ways.into_iter().zip(&one.batch.targets).zip(&one.batch.predictions);
        let same = Vec::<Vec<f64>>::try_from(&one.batch.targets[0])? == Vec::<Vec<f64>>::try_from(&one.batch.targets[1])?;
        if let Some(note) = &one.note {
            section = section.text(format!("{}: {note}.", one.name));
        }
        for (i, (((way, names), target), prediction)) in both.enumerate() {
            let shown = if same { "both ways" } else { way };
            if one.soft && !(same && i == 1) {
                section = section.matrix(matrix(format!("target, {shown}"), target, names)?);
            }
            section = section.matrix(matrix(format!("model, {way}"), prediction, names)?);
        }
    }
    Ok(section)
}

/// The batch's pictures, with the first captions to read.
fn items(source: &dyn Source, index: &HashMap<String, usize>, seen: &Seen) -> Result<Vec<Item>> {
    let size = seen.batch.images.size();
    let (height, width) = (size[2] as u32, size[3] as u32);
    let mut items = Vec::with_capacity(seen.batch.keys.len());
    for (row, key) in (0..).zip(&seen.batch.keys) {
        let pixels = seen.batch.images.select(0, row).permute([1, 2, 0]).contiguous().view([-1]);
        let caption = index.get(key).and_then(|i| source.read(*i).ok()).and_then(|sample| sample.captions.into_iter().next());
        let alt = format!("{}: {}", row + 1, caption.unwrap_or_else(|| key.clone()));
        items.push(Picture::from_rgb(&Vec::<u8>::try_from(&pixels)?, width, height, SIDE, alt)?.into());
    }
    Ok(items)
}
