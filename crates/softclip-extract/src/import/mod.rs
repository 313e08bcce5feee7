//! Objects that were found before, from files. Opening one reads where things lie; what belongs to an image is read when it is
//! asked for, from any thread.
//!
//! | spec | is | gives |
//! | --- | --- | --- |
//! | `vinvl:features.tsv` | VinVL's extractor, or the downloads' features alone | objects and appearance; finished regions |
//! | `vinvl:features.tsv,labels=labels.tsv` | the downloads' two files | objects and appearance |
//! | `instances:instances.json` | COCO's annotations of instances | objects, the largest first |
//! | `lines:objects.jsonl` | an image a line, own tags or objects | objects, boxes where given |
//! | `arrays:DIR`, `arrays:regions.safetensors` | an array an image | finished regions |
//!
//! An image's key is looked for as it is; else without its extension (`.jpg`, `.png`, …); else the part behind the last `/`
//! without COCO's prefix and leading zeros decides, so that `COCO_train2014_000000391895` and `391895` are one. Where both sides
//! name folders they must not contradict each other, and where two entries fit there is an error, never a choice.

mod arrays;
mod both;
mod boxes;
mod coco;
mod instances;
mod keys;
mod lines;
mod rows;
mod vinvl;

use std::path::Path;

pub use arrays::Arrays;
pub use both::Both;
pub use instances::Instances;
pub use lines::Lines;
pub use vinvl::Vinvl;

use crate::{Error, Fault, Objects};

const KINDS: &str = "vinvl:FEATURES.tsv[,labels=LABELS.tsv], instances:FILE.json, lines:FILE.jsonl, arrays:DIR|FILE.safetensors";

/// Opens what a spec names (see the module's table).
///
/// # Errors
/// The kind is unknown, a file cannot be read or is not of its kind, or it names no image or one twice.
pub fn open(spec: &str) -> Result<Box<dyn Objects>, Error> {
    let wrong = |why: &str| Err(Error::Options(format!("objects '{spec}': {why}; the kinds are {KINDS}")));
    let Some((kind, rest)) = spec.split_once(':') else { return wrong("no kind in front of the file") };
    if rest.is_empty() {
        return wrong("no file is named");
    }
    let objects: Box<dyn Objects> = match kind {
        "vinvl" => {
            let (features, labels) =
                rest.split_once(",labels=").map_or((rest, None), |(features, labels)| (features, Some(labels)));
            if labels.is_some_and(str::is_empty) || features.is_empty() {
                return wrong("no file is named");
            }
            Box::new(Vinvl::open(features, labels.map(Path::new))?)
        }
        "instances" => Box::new(Instances::open(rest)?),
        "lines" => Box::new(Lines::open(rest)?),
        "arrays" => Box::new(Arrays::open(rest)?),
        _ => return wrong(&format!("unknown kind '{kind}'")),
    };
    for Fault { cause, count, first } in objects.faults() {
        tracing::warn!("{rest}: {cause}: {count} not used, the first is {first}");
    }
    Ok(objects)
}

/// What serde says of JSON that stands in one line, with its column where it knows one.
fn said(error: &serde_json::Error) -> String {
    let text = error.to_string();
    // serde_json ends its message with a line that would be read as one of the file.
    let text = text.split(" at line ").next().unwrap_or(&text);
    if error.column() == 0 { text.to_owned() } else { format!("{text} (column {})", error.column()) }
}

/// A number of images as one writes it.
fn images(count: usize) -> String {
    format!("{count} image{}", if count == 1 { "" } else { "s" })
}
