//! The metrics that a run writes while it trains.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::curve::Curve;
use crate::{Error, Result};

/// The lines of a `metrics.jsonl`: one JSON object a line with `step`, `kind` (`train`, `eval`, …) and numbers by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq)]
struct Row {
    step: f64,
    kind: String,
    fields: Vec<(String, f64)>,
}

impl Metrics {
    /// `field` of the lines of `kind` over their step, under the name `name`. Without any such line the curve is empty. Where a
    /// step was logged twice, because training went on from an earlier checkpoint, the later line counts.
    pub fn curve(&self, kind: &str, field: &str, name: impl Into<String>) -> Curve {
        let mut points: Vec<(f64, f64)> = Vec::new();
        for row in self.rows.iter().filter(|r| r.kind == kind) {
            if let Some((_, value)) = row.fields.iter().find(|(f, _)| f == field) {
                points.truncate(points.partition_point(|p| p.0 < row.step));
                points.push((row.step, *value));
            }
        }
        Curve::new(name, points)
    }

    /// The names of the numbers that lines of `kind` have, in the order in which they first appear.
    pub fn fields(&self, kind: &str) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.rows.iter().filter(|r| r.kind == kind).flat_map(|r| &r.fields) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no line.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// Reads a run's `metrics.jsonl`. Numbers inside of objects are found under `outer.inner`; texts are passed over. A last line
/// that was cut, as a killed run leaves it, is passed over too.
///
/// # Errors
/// The file cannot be read, or a line that is not the last is no JSON object with a numeric `step`.
pub fn read_metrics_jsonl(path: impl AsRef<Path>) -> Result<Metrics> {
    let path = path.as_ref();
    let bytes = fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let text = String::from_utf8_lossy(&bytes);
    let cut = !text.ends_with('\n');
    let lines: Vec<(usize, &str)> = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()).collect();
    let mut rows = Vec::with_capacity(lines.len());
    for (i, (number, line)) in lines.iter().enumerate() {
        match row(line) {
            Ok(row) => rows.push(row),
            Err(_) if cut && i + 1 == lines.len() => {}
            Err(why) => return Err(Error::Metrics { path: path.to_owned(), line: number + 1, why }),
        }
    }
    Ok(Metrics { rows })
}

fn row(line: &str) -> std::result::Result<Row, String> {
    let object: Map<String, Value> =
        serde_json::from_str(line).map_err(|e| format!("expected a JSON object with `step` and `kind` ({e})"))?;
    let step = object.get("step").and_then(Value::as_f64).ok_or("`step` is missing or no number")?;
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or("train").to_owned();
    let mut fields = Vec::new();
    for (name, value) in object.iter().filter(|(n, _)| *n != "step") {
        numbers(name, value, &mut fields);
    }
    Ok(Row { step, kind, fields })
}

fn numbers(name: &str, value: &Value, out: &mut Vec<(String, f64)>) {
    match value {
        Value::Number(n) => out.extend(n.as_f64().map(|v| (name.to_owned(), v))),
        Value::Object(inner) => inner.iter().for_each(|(n, v)| numbers(&format!("{name}.{n}"), v, out)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Metrics> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        fs::write(&path, text).unwrap();
        read_metrics_jsonl(&path)
    }

    #[test]
    fn curves_are_read_by_kind_and_name() {
        let metrics = read(
            "{\"step\":1,\"kind\":\"train\",\"loss\":4.5,\"parts\":{\"soft\":1.5}}\n\n\
             {\"step\":2,\"kind\":\"train\",\"loss\":4.0,\"note\":\"x\"}\n\
             {\"step\":2,\"kind\":\"eval\",\"image_retrieval_recall@1\":0.25}\n",
        )
        .unwrap();
        assert_eq!(metrics.len(), 3);
        assert_eq!(metrics.fields("train"), ["loss", "parts.soft"]);
        assert_eq!(metrics.curve("train", "loss", "l").points, [(1.0, 4.5), (2.0, 4.0)]);
        assert_eq!(metrics.curve("eval", "image_retrieval_recall@1", "r").points, [(2.0, 0.25)]);
        assert!(metrics.curve("eval", "loss", "l").points.is_empty());
    }

    #[test]
    fn a_resumed_run_overwrites_what_it_repeats() {
        let metrics = read("{\"step\":1,\"l\":1}\n{\"step\":2,\"l\":2}\n{\"step\":3,\"l\":3}\n{\"step\":2,\"l\":9}\n").unwrap();
        assert_eq!(metrics.curve("train", "l", "l").points, [(1.0, 1.0), (2.0, 9.0)]);
    }

    #[test]
    fn a_cut_last_line_is_no_error_and_another_one_is() {
        assert_eq!(read("{\"step\":1,\"l\":1}\n{\"step\":2,\"l").unwrap().len(), 1);
        let message = read("{\"step\":1}\nnonsense\n{\"step\":2}\n").unwrap_err().to_string();
        assert!(message.contains("metrics.jsonl:2:"), "{message}");
        assert!(read("{\"loss\":1}\n").unwrap_err().to_string().contains("step"));
    }
}
