//! CLIP_benchmark's folders: `SPLIT/0.tar` and so on with an image and `.cls` a sample, `classnames.txt`, and templates.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use softclip_io::strip_bom;

use super::{Classes, Found, Lines, Place, is_image};
use crate::source::list::Store;
use crate::source::tarball::{Span, Tarball};
use crate::source::{SourceError, SourceFault, SourceFaultKind};

/// Tars that are kept open.
const OPEN: usize = 256;

pub(super) fn open(place: &Place) -> Result<Found, SourceError> {
    let split = place.root.join(place.parts.option("split").unwrap_or("test"));
    let names: Vec<String> = {
        let lines = Lines::read(&place.root.join("classnames.txt"), "a class's name a line")?;
        lines.each().map(|(_, name)| name.to_owned()).collect()
    };
    let mut faults = Vec::new();
    let (mut images, mut tarballs, mut members) = (Vec::new(), Vec::new(), HashMap::new());
    for (number, path) in tars(&split)?.into_iter().enumerate() {
        let of_tar = samples(&path, number, names.len(), &mut faults)?;
        for (image, span, class) in of_tar.samples {
            let image = format!("{number}/{image}");
            members.insert(image.clone(), (number, span));
            images.push((image, class));
        }
        tarballs.push(of_tar.tarball);
    }
    let keys = (0..names.len()).map(|id| id.to_string()).collect();
    let absolute = std::path::absolute(place.root).unwrap_or_else(|_| place.root.to_owned());
    let name = absolute.file_name().map(|name| name.to_string_lossy().into_owned());
    let store = Store::Tars { tarballs, members };
    let templates = templates(&place.root.join("zeroshot_classification_templates.txt"))?;
    let found = Found::new(Classes { keys, names }, images, place.root.to_owned());
    Ok(Found { store, faults, name, templates, ..found })
}

/// As many as `nshards.txt` says, else those that are there one after another.
fn tars(split: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let tar = |i: usize| split.join(format!("{i}.tar"));
    let listed = split.join("nshards.txt");
    let count = if listed.is_file() {
        let lines = Lines::read(&listed, "the number of tars")?;
        let first = lines.each().next();
        let count = first.and_then(|(_, n)| n.parse::<usize>().ok()).filter(|n| (1..=1_000_000).contains(n));
        count.ok_or_else(|| lines.wrong(first.map_or(1, |(line, _)| line), "expected the number of tars"))?
    } else {
        (0..).take_while(|&i| tar(i).is_file()).count()
    };
    match (0..count).map(tar).find(|path| !path.is_file()) {
        None if count > 0 => Ok((0..count).map(tar).collect()),
        missing => Err(SourceError::NoMatch { pattern: missing.unwrap_or_else(|| tar(0)).display().to_string() }),
    }
}

struct OfTar {
    tarball: Tarball,
    /// Image, its place, class.
    samples: Vec<(String, Span, usize)>,
}

fn samples(path: &Path, number: usize, classes: usize, faults: &mut Vec<SourceFault>) -> Result<OfTar, SourceError> {
    let (mut images, mut labels) = (Vec::new(), HashMap::new());
    let (tarball, fault) = Tarball::index(path, number < OPEN, |name, span| {
        if is_image(name) {
            images.push((name.to_owned(), span));
        } else if let Some(stem) = name.strip_suffix(".cls") {
            labels.entry(stem.to_owned()).or_insert(span);
        }
    })?;
    faults.extend(fault);
    let wrong = |reason: String| SourceError::Table { path: path.to_owned(), reason };
    let mut samples = Vec::new();
    for (image, span) in images {
        let stem = image.rsplit_once('.').map_or(image.as_str(), |(stem, _)| stem);
        let Some(label) = labels.remove(stem) else {
            faults.push(SourceFault::new(SourceFaultKind::Orphan, format!("{number}/{image}"), "passed over: no .cls beside it"));
            continue;
        };
        let bytes = tarball.read(label).map_err(|e| SourceError::io(path, e, "the tar cannot be read"))?;
        let text = String::from_utf8_lossy(strip_bom(&bytes));
        let class = text.trim().parse::<usize>().ok().filter(|class| *class < classes);
        let class = class
            .ok_or_else(|| wrong(format!("{stem}.cls: class '{}' is not among 0 to {}", text.trim(), classes.max(1) - 1)))?;
        samples.push((image, span, class));
    }
    let mut bare: Vec<String> = labels.into_keys().collect();
    bare.sort_unstable();
    faults.extend(
        bare.into_iter().map(|stem| SourceFault::new(SourceFaultKind::MissingImage, format!("{number}/{stem}"), "left out")),
    );
    Ok(OfTar { tarball, samples })
}

/// Templates with `{c}` for the class.
fn templates(path: &Path) -> Result<Option<Vec<String>>, SourceError> {
    if !path.is_file() {
        return Ok(None);
    }
    let lines = Lines::read(path, "a template a line")?;
    match lines.each().find(|(_, text)| !text.contains("{c}")) {
        Some((line, text)) => Err(lines.wrong(line, format_args!("'{text}' has no {{c}} for the class"))),
        None => Ok(Some(lines.each().map(|(_, text)| text.replace("{c}", "{}")).collect())),
    }
}
