//! CSV and TSV tables: one caption or one labeled image per row.

use std::collections::HashMap;
use std::path::Path;

use super::classes::{Classes, Lines, keyed};
use super::list::{Entry, List, Store};
use super::parts::Parts;
use super::{SourceError, SourceFault, SourceFaultKind};
use crate::table::{Column, Row, TableOptions, TableReader};

const IMAGE_COLUMNS: [&str; 9] =
    ["filepath", "image", "path", "file_name", "filename", "file", "image_path", "image_name", "img"];
const CAPTION_COLUMNS: [&str; 5] = ["caption", "title", "text", "sentence", "comment"];

/// A table of captions or labels. `delimiter` is the one of its cells; without it, it is found from the header.
pub(super) fn table(spec: &str, rest: &str, delimiter: Option<u8>) -> Result<List, SourceError> {
    let form = "csv:FILE[,image=COLUMN][,caption=COLUMN][,sidecars=PATTERN], or csv:FILE,label=COLUMN[,image=COLUMN][,classes=FILE] \
                (or tsv:), with [,root=DIR] for images that are not next to the file and [,quotes=off]";
    let options = ["image", "caption", "sidecars", "label", "classes", "root", "quotes"];
    let parts = Parts::new(spec, rest, 1..=1, &options, form)?;
    match parts.option("label") {
        Some(_) if parts.option("caption").or(parts.option("sidecars")).is_some() => {
            Err(parts.wrong("label= makes it a table of classes, which has neither captions nor sidecars".to_owned()))
        }
        Some(_) => labelled(spec, &parts, delimiter),
        None if parts.option("classes").is_some() => Err(parts.wrong("classes= goes with label=COLUMN".to_owned())),
        None => captioned(spec, &parts, delimiter),
    }
}

fn captioned(spec: &str, parts: &Parts, delimiter: Option<u8>) -> Result<List, SourceError> {
    let (rows, faults) = rows(parts, delimiter, &[("image", &IMAGE_COLUMNS), ("caption", &CAPTION_COLUMNS)])?;
    let mut entries: Vec<Entry> = Vec::new();
    let mut number: HashMap<String, usize> = HashMap::new();
    for Cells { cells: [image, caption], .. } in rows {
        // A row a caption: rows of the same image are one sample.
        let i = *number.entry(image.clone()).or_insert_with(|| {
            entries.push(Entry { key: image.clone(), image, captions: Vec::new(), tags: None, class: None });
            entries.len() - 1
        });
        entries[i].captions.push(caption);
    }
    list(parts, entries, faults).checked(spec)?.with_sidecars(spec, parts.option("sidecars"))
}

fn list(parts: &Parts, entries: Vec<Entry>, faults: Vec<SourceFault>) -> List {
    let beside = Path::new(parts.plain[0]).parent().unwrap_or(Path::new(""));
    let root = parts.option("root").map_or(beside, Path::new).to_owned();
    List::new("table", parts.plain[0], entries, Store::Folder { root, names: None }, faults)
}

/// Images with a class each. Classes are the labels there are, numbers in their order and others by name, or those of a file with a
/// label, or a label and a name, a line.
fn labelled(spec: &str, parts: &Parts, delimiter: Option<u8>) -> Result<List, SourceError> {
    let (mut rows, mut faults) = rows(parts, delimiter, &[("image", &IMAGE_COLUMNS), ("label", &[])])?;
    rows.retain(|Cells { line, cells: [_, label] }| {
        let empty = label.is_empty();
        if empty {
            faults.push(SourceFault::new(SourceFaultKind::BadRow, format!("line {line}"), "skipped: it has no label"));
        }
        !empty
    });
    let classes = match parts.option("classes") {
        Some(file) => of_file(Path::new(file))?,
        None => {
            let mut keys: Vec<String> = rows.iter().map(|row| row.cells[1].clone()).collect();
            keys.sort_by_cached_key(|key| (key.parse::<u64>().unwrap_or(u64::MAX), key.clone()));
            keys.dedup();
            Classes { names: keys.clone(), keys }
        }
    };
    let ids = keyed(&classes.keys);
    let wrong =
        |line, reason: String| SourceError::Table { path: parts.plain[0].into(), reason: format!("line {line}: {reason}") };
    let mut seen: HashMap<String, u64> = HashMap::new();
    let mut entries = Vec::new();
    for Cells { line, cells: [image, label] } in rows {
        let Some(&class) = ids.get(label.as_str()) else {
            return Err(wrong(line, format!("label '{label}' is not among the {} classes", ids.len())));
        };
        if let Some(first) = seen.insert(image.clone(), line) {
            return Err(wrong(line, format!("image '{image}' stands in line {first}, too")));
        }
        entries.push(Entry { key: image.clone(), image, captions: Vec::new(), tags: None, class: Some(class) });
    }
    List { classes: Some(classes), ..list(parts, entries, faults) }.checked(spec)
}

fn of_file(path: &Path) -> Result<Classes, SourceError> {
    let lines = Lines::read(path, "a label a line, or a label, a tab and a name")?;
    let mut classes = Classes::default();
    for (line, text) in lines.each() {
        let (key, name) = text.split_once('\t').map_or((text, text), |(key, name)| (key.trim(), name.trim()));
        if classes.keys.iter().any(|other| other == key) {
            return Err(lines.wrong(line, format_args!("class '{key}' comes twice")));
        }
        classes.keys.push(key.to_owned());
        classes.names.push(name.to_owned());
    }
    Ok(classes)
}

/// The wanted cells of a row.
struct Cells<const N: usize> {
    line: u64,
    cells: [String; N],
}

/// The cells of `columns`, each with the option that names it and the usual names; and the faults of single rows.
fn rows<const N: usize>(
    parts: &Parts,
    delimiter: Option<u8>,
    columns: &[(&str, &[&str]); N],
) -> Result<(Vec<Cells<N>>, Vec<SourceFault>), SourceError> {
    let quotes = match parts.option("quotes") {
        None | Some("on") => true,
        Some("off") => false,
        Some(other) => return Err(parts.wrong(format!("quotes={other}: on or off is accepted"))),
    };
    let options = TableOptions { delimiter, quotes, quotes_option: Some("`,quotes=off`") };
    let mut table = TableReader::open(Path::new(parts.plain[0]), options)?;
    let find = |(role, usual): &(&str, &[&str])| {
        table.find(&Column { role, given: parts.option(role), usual, option: &format!("{role}=…") })
    };
    let places: Vec<usize> = columns.iter().map(find).collect::<Result<_, _>>()?;
    places.first().copied().into_iter().for_each(|image| table.set_image_column(image));
    let (mut rows, mut faults) = (Vec::new(), Vec::new());
    while let Some(row) = table.next_row()? {
        let place = || format!("line {}", row.line);
        let cells: Option<Vec<String>> = places.iter().map(|&column| Some(row.cell(column)?.to_owned())).collect();
        let fault = match (&row, cells.and_then(|cells| cells.try_into().ok())) {
            (Row { fault: Some(why), .. }, _) => SourceFault::new(SourceFaultKind::BadRow, place(), format!("skipped: {why}")),
            (_, None) => SourceFault::new(SourceFaultKind::InvalidUtf8, place(), "skipped: it is not UTF-8"),
            (&Row { line, .. }, Some(cells)) => {
                rows.push(Cells { line, cells });
                continue;
            }
        };
        faults.push(fault);
    }
    Ok((rows, faults))
}
