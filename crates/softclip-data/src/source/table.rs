//! CSV and TSV tables: a row a caption, or a row a labelled image.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::classes::{Classes, Lines, keyed};
use super::list::{Entry, List, Store};
use super::parts::Parts;
use super::{SourceError, SourceFault, SourceFaultKind};

const IMAGE_COLUMNS: [&str; 6] = ["filepath", "image", "path", "file_name", "filename", "file"];
const CAPTION_COLUMNS: [&str; 4] = ["caption", "title", "text", "sentence"];

/// A row put behind the last one. A quote that nothing closes takes it into its cell, which shows that rows were swallowed.
const END: &str = "\0end of the table";

pub(super) fn table(spec: &str, rest: &str, delimiter: u8) -> Result<List, SourceError> {
    let form = "csv:FILE[,image=COLUMN][,caption=COLUMN][,sidecars=PATTERN], or csv:FILE,label=COLUMN[,image=COLUMN][,classes=FILE] \
                (or tsv:), image paths relative to the file";
    let options = ["image", "caption", "sidecars", "label", "classes"];
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

fn captioned(spec: &str, parts: &Parts, delimiter: u8) -> Result<List, SourceError> {
    let (rows, faults) = rows(parts, delimiter, &[("image", &IMAGE_COLUMNS), ("caption", &CAPTION_COLUMNS)])?;
    let mut entries: Vec<Entry> = Vec::new();
    let mut number: HashMap<String, usize> = HashMap::new();
    for Row { cells: [image, caption], .. } in rows {
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
    let root = Path::new(parts.plain[0]).parent().unwrap_or(Path::new("")).to_owned();
    List::new("table", parts.plain[0], entries, Store::Folder { root, names: None }, faults)
}

/// Images with a class each. Classes are the labels there are, numbers in their order and others by name, or those of a file with a
/// label, or a label and a name, a line.
fn labelled(spec: &str, parts: &Parts, delimiter: u8) -> Result<List, SourceError> {
    let (mut rows, mut faults) = rows(parts, delimiter, &[("image", &IMAGE_COLUMNS), ("label", &[])])?;
    rows.retain(|Row { line, cells: [_, label] }| {
        let empty = label.trim().is_empty();
        if empty {
            faults.push(SourceFault::new(SourceFaultKind::BadRow, format!("line {line}"), "left out: it has no label"));
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
    for Row { line, cells: [image, label] } in rows {
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

/// The wanted cells of a line.
struct Row<const N: usize> {
    line: u64,
    cells: [String; N],
}

/// The cells of `columns`, each with the option that names it and the usual names; what is wrong with single rows.
fn rows<const N: usize>(
    parts: &Parts,
    delimiter: u8,
    columns: &[(&str, &[&str]); N],
) -> Result<(Vec<Row<N>>, Vec<SourceFault>), SourceError> {
    let path = Path::new(parts.plain[0]);
    let wrong = |reason: String| SourceError::Table { path: path.to_owned(), reason };
    let file = File::open(path).map_err(|e| SourceError::io(path, e, "check the path"))?;
    let end = format!("\n{END}");
    let text = BufReader::new(file).chain(end.as_bytes());
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(text);
    let header: Vec<String> = reader.headers().map_err(|e| wrong(e.to_string()))?.iter().map(str::to_owned).collect();
    if header.last().is_some_and(|cell| cell.ends_with(END)) {
        return Err(wrong("no line with the names of its columns, or a quote in it that is not closed".to_owned()));
    }
    let column = |(option, usual): &(&str, &[&str])| {
        let found = match parts.option(option) {
            Some(name) => header.iter().position(|column| column == name),
            None => usual.iter().find_map(|name| header.iter().position(|column| column.eq_ignore_ascii_case(name))),
        };
        found
            .ok_or_else(|| wrong(format!("no column for the {option}; name it with {option}=… (columns: {})", header.join(", "))))
    };
    let places: Vec<usize> = columns.iter().map(column).collect::<Result<_, _>>()?;
    let (mut rows, mut faults) = (Vec::new(), Vec::new());
    for (row, record) in reader.byte_records().enumerate() {
        let record = record.map_err(|e| wrong(e.to_string()))?;
        if record.len() == 1 && record[0] == *END.as_bytes() {
            break;
        }
        let line = record.position().map_or(row as u64 + 2, csv::Position::line);
        let swallows = |cell: &[u8]| cell.ends_with(END.as_bytes()) || (delimiter == b'\t' && cell.contains(&b'\t'));
        if record.iter().any(swallows) {
            let what = "a quote is not closed in this row and takes the next ones into its cell; double it, or take it out";
            return Err(wrong(format!("line {line}: {what}")));
        }
        if record.len() != header.len() {
            let detail = format!("left out: {} cells, the header has {}", record.len(), header.len());
            faults.push(SourceFault::new(SourceFaultKind::BadRow, format!("line {line}"), detail));
            continue;
        }
        let cell = |&column: &usize| std::str::from_utf8(record.get(column).unwrap_or_default()).map(str::to_owned);
        let cells: Result<Vec<String>, _> = places.iter().map(cell).collect();
        match cells.ok().and_then(|cells| cells.try_into().ok()) {
            Some(cells) => rows.push(Row { line, cells }),
            None => faults.push(SourceFault::new(SourceFaultKind::InvalidUtf8, format!("line {line}"), "left out: not UTF-8")),
        }
    }
    Ok((rows, faults))
}
